"""A node: store and index in step through learning, editing, races, failures and restarts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from kato import errors
from kato.memory import node as node_module
from kato.memory.lessons import OPERATIONS_SPARE
from kato.memory.node import Node
from kato.model import OPERATIONS_KEPT, Pattern, SessionConfig, SymbolStatistics, Totals
from kato.stores.sqlite import SqlitePatternStore
from tests.support.memory import events, learning, lesson, name_of, reopened, shown
from tests.support.waiting import idle

Hook = Callable[[], Awaitable[None]]


class RacingStore(SqlitePatternStore):
    """The real store; a test may let something happen right before a write, or let writes fail."""

    def __init__(self, path: Path | str = ":memory:") -> None:
        super().__init__(path)
        self.before_insert: list[Hook] = []
        self.before_replace: list[Hook] = []
        self.full = False

    async def insert(self, node: str, patterns: Sequence[Pattern]) -> set[str]:
        if self.before_insert:
            await self.before_insert.pop()()
        return await super().insert(node, patterns)

    async def replace(self, node: str, pattern: Pattern, revision: int) -> bool:
        if self.before_replace:
            await self.before_replace.pop()()
        if self.full:
            raise errors.StorageError("the disk is full")
        return await super().replace(node, pattern, revision)


@pytest.fixture
async def store() -> AsyncIterator[RacingStore]:
    opened = RacingStore()
    yield opened
    await opened.close()


@pytest.fixture
async def node(store: RacingStore) -> AsyncIterator[Node]:
    async with learning(store=store) as opened:
        yield opened


@pytest.fixture
async def other(store: RacingStore) -> AsyncIterator[Node]:
    """The node as another process has it open."""
    async with learning(store=store) as opened:
        yield opened


async def frequency(node: Node, text: str) -> int:
    return (await node.pattern(name_of(text))).frequency


# Learning


async def test_a_new_lesson_is_stored_and_known_at_once(node: Node) -> None:
    taught = lesson("ab c", "op-1", [{"joy": 1.0}, {"joy": 3.0}], place="home")
    learned = await node.learn([taught])
    pattern = Pattern(
        name=taught.name,
        events=taught.events,
        emotives=({"joy": 1.0}, {"joy": 3.0}),
        metadata={"place": ("home",)},
        affinity={"joy": 2.0},
        operations=("op-1",),
    )
    assert learned == {taught.name: pattern}
    assert await node.pattern("PTRN|" + taught.name) == await node.pattern(taught.name) == pattern
    assert node.totals() == Totals(1, 1, 3, 3)
    assert node.symbol_statistics() == [SymbolStatistics(symbol, 1, 1) for symbol in "abc"]
    assert node.affinity("a") == {"joy": 2.0}
    (prediction,) = (await node.predict(events("a b"), SessionConfig())).predictions
    assert (prediction.name, prediction.future, prediction.emotives) == (taught.name, (("c",),), {"joy": 2.0})
    assert len(node) == 1
    assert node.memory_bytes() > 0


async def test_learning_again_merges(node: Node, store: RacingStore) -> None:
    await node.learn([lesson("a b", "1", [{"joy": 1.0}], place="home")])
    await node.learn([lesson("a b", "2", [{"joy": 2.0, "fear": 1.0}], place="away")])
    pattern = await node.pattern(name_of("a b"))
    assert (pattern.frequency, pattern.revision, pattern.operations) == (2, 2, ("1", "2"))
    assert pattern.emotives == ({"joy": 1.0}, {"joy": 2.0, "fear": 1.0})
    assert pattern.metadata == {"place": ("away", "home")}
    assert node.affinities() == {symbol: {"fear": 1.0, "joy": 3.0} for symbol in "ab"}
    assert await shown(node) == await reopened(store)


async def test_an_operation_counts_once(node: Node, store: RacingStore) -> None:
    for _ in range(3):
        learned = await node.learn([lesson("a b", "op", [{"joy": 1.0}])])
        assert learned[name_of("a b")].frequency == 1
    assert node.affinity("a") == {"joy": 1.0}
    assert await shown(node) == await reopened(store)


async def test_without_an_operation_every_lesson_counts(node: Node) -> None:
    for _ in range(3):
        await node.learn([lesson("a b")])
    assert await frequency(node, "a b") == 3


async def test_a_request_that_teaches_one_pattern_a_thousand_times_counts_once_when_repeated(
    tmp_path: Path,
) -> None:
    lessons = [lesson("a b", "op", [{"joy": 0.1}]) for _ in range(1000)] + [lesson("b c", "op")]
    async with learning(tmp_path / "p.db") as node:
        await node.learn([lesson("a b", "before")])
        await node.learn(lessons)
        assert await frequency(node, "a b") == 1001
        before = await shown(node)
    async with learning(tmp_path / "p.db") as node:
        learned = await node.learn(lessons)
        assert learned[name_of("a b")].frequency == 1001
        assert await shown(node) == before


async def test_lessons_of_different_operations_in_one_call_all_count(node: Node) -> None:
    await node.learn([lesson("a b", str(n % 3)) for n in range(7)])
    pattern = await node.pattern(name_of("a b"))
    assert (pattern.frequency, pattern.operations, pattern.revision) == (7, ("0", "1", "2"), 1)


async def test_as_many_operations_are_remembered_as_promised(node: Node) -> None:
    enough = OPERATIONS_KEPT + OPERATIONS_SPARE
    for n in range(enough + 1):
        await node.learn([lesson("a b", str(n))])
    for n in range(enough + 1 - OPERATIONS_KEPT, enough + 1):
        await node.learn([lesson("a b", str(n))])
    assert await frequency(node, "a b") == enough + 1
    await node.learn([lesson("a b", "0")])
    assert await frequency(node, "a b") == enough + 2


async def test_a_learn_that_may_be_repeated_is_remembered_as_long_as_it_may(store: RacingStore) -> None:
    open_, asked = {"0", "7"}, list[tuple[str, ...]]()

    async def repeatable(operations: Sequence[str]) -> dict[str, bool]:
        asked.append(tuple(operations))
        return dict.fromkeys(open_.intersection(operations), True)

    with ThreadPoolExecutor(1) as threads:
        node = Node("node", store, threads, repeatable=repeatable)
        await node.open()
        for n in range(5 * OPERATIONS_KEPT):
            await node.learn([lesson("a b", str(n))])
        for n in range(8):
            await node.learn([lesson("a b", str(n))])
        assert await frequency(node, "a b") == 5 * OPERATIONS_KEPT + 6
        kept = (await node.pattern(name_of("a b"))).operations
        assert kept[:2] == ("0", "7")
        assert len(kept) <= OPERATIONS_KEPT + OPERATIONS_SPARE
        # Of many once for many learns, and not of those that are kept anyway.
        assert len([each for each in asked if len(each) > 1]) <= 5 * OPERATIONS_KEPT / (
            OPERATIONS_SPARE - len(open_)
        )
        open_.clear()
        for n in range(1000, 1000 + OPERATIONS_KEPT):
            await node.learn([lesson("a b", str(n))])
        assert "0" not in (await node.pattern(name_of("a b"))).operations


async def test_a_learn_that_is_over_and_no_longer_remembered_does_not_count_again(store: RacingStore) -> None:
    over = dict.fromkeys(("0", "1"), False)

    async def repeatable(operations: Sequence[str]) -> dict[str, bool]:
        return {each: over[each] for each in operations if each in over}

    many = OPERATIONS_KEPT + OPERATIONS_SPARE + 1
    with ThreadPoolExecutor(1) as threads:
        node = Node("node", store, threads, repeatable=repeatable)
        await node.open()
        for n in range(2, many):
            await node.learn([lesson("a b", str(n))])
        await node.learn([lesson("a b", "0"), lesson("a b", "x"), lesson("b c", "0"), lesson("a b")])
        assert [await frequency(node, text) for text in ("a b", "b c")] == [many, 1]
        over["0"] = True
        await node.learn([lesson("a b", "0"), lesson("a b", "1")])
        assert await frequency(node, "a b") == many + 1
        assert await shown(node) == await reopened(store)


async def test_when_that_cannot_be_known_the_learn_fails_and_changes_nothing(store: RacingStore) -> None:
    async def repeatable(operations: Sequence[str]) -> dict[str, bool]:
        raise errors.StorageError("the sessions do not answer")

    with ThreadPoolExecutor(1) as threads:
        node = Node("node", store, threads, repeatable=repeatable)
        await node.open()
        for n in range(OPERATIONS_KEPT):
            await node.learn([lesson("a b", str(n))])
        before = await shown(node)
        with pytest.raises(errors.StorageError):
            await node.learn([lesson("a b", "one more")])
        assert await shown(node) == before == await reopened(store)


async def test_nothing_to_learn_changes_nothing(node: Node) -> None:
    assert await node.learn([]) == {}
    assert node.totals() == Totals(0, 0, 0, 0)


async def test_parallel_learners_all_count(node: Node, store: RacingStore) -> None:
    texts = ("a b", "b c", "ab c")
    await asyncio.gather(*(node.learn([lesson(t, f"{t}{n}") for t in texts]) for n in range(40)))
    assert [await frequency(node, text) for text in texts] == [40, 40, 40]
    assert await shown(node) == await reopened(store)


# Races with other instances


async def test_a_pattern_that_another_instance_inserted_first_is_merged(
    node: Node, other: Node, store: RacingStore
) -> None:
    async def first() -> None:
        await other.learn([lesson("a b", "theirs")])

    store.before_insert.append(first)
    learned = await node.learn([lesson("a b", "mine"), lesson("b c", "mine")])
    assert {name: pattern.frequency for name, pattern in learned.items()} == {
        name_of("a b"): 2,
        name_of("b c"): 1,
    }
    assert await shown(node) == await reopened(store)


async def test_a_record_that_changed_meanwhile_is_merged_again(
    node: Node, other: Node, store: RacingStore
) -> None:
    await node.learn([lesson("a b", "0")])

    async def meanwhile() -> None:
        await other.learn([lesson("a b", "theirs", [{"joy": 1.0}])])

    store.before_replace += [meanwhile]
    learned = await node.learn([lesson("a b", "mine", [{"joy": 2.0}])])
    pattern = learned[name_of("a b")]
    assert (pattern.frequency, pattern.operations) == (3, ("0", "theirs", "mine"))
    assert node.affinity("b") == {"joy": 3.0}
    assert await shown(node) == await reopened(store)


async def test_a_record_that_another_instance_deleted_meanwhile_is_learned_anew(
    node: Node, other: Node, store: RacingStore
) -> None:
    await node.learn([lesson("a b", "0")])

    async def meanwhile() -> None:
        await store.delete("node", name_of("a b"))

    store.before_replace.append(meanwhile)
    learned = await node.learn([lesson("a b", "mine")])
    assert learned[name_of("a b")].frequency == 1
    assert await shown(node) == await reopened(store)


async def test_a_record_that_never_stands_still_is_given_up(
    node: Node, store: RacingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "MERGE_ATTEMPTS", 3)
    await node.learn([lesson("a b", "0")])

    async def meanwhile() -> None:
        current = (await store.fetch("node", [name_of("a b")]))[name_of("a b")]
        changed = msgspec.structs.replace(current, revision=current.revision + 1)
        await SqlitePatternStore.replace(store, "node", changed, current.revision)

    store.before_replace = [meanwhile] * 3
    with pytest.raises(errors.ConcurrencyError) as caught:
        await node.learn([lesson("a b", "mine")])
    assert caught.value.retry_after == 1
    store.before_replace = [meanwhile] * 3
    with pytest.raises(errors.ConcurrencyError):
        await node.update(name_of("a b"), 7, None, 5)
    await node.learn([lesson("a b", "mine")])
    assert await frequency(node, "a b") == 2


# Failures


async def test_what_was_stored_before_a_failure_is_known(node: Node, store: RacingStore) -> None:
    await node.learn([lesson("a b", "0")])
    store.full = True
    with pytest.raises(errors.StorageError):
        await node.learn([lesson("a b", "1"), lesson("b c", "1")])
    store.full = False
    assert await frequency(node, "a b") == 1
    assert await shown(node) == await reopened(store)
    await node.learn([lesson("a b", "1"), lesson("b c", "1")])
    assert [await frequency(node, text) for text in ("a b", "b c")] == [2, 1]
    assert await shown(node) == await reopened(store)


async def test_every_merge_is_finished_before_a_failure_is_told(node: Node, store: RacingStore) -> None:
    await node.learn([lesson("a b", "0"), lesson("b c", "0")])
    go_on = asyncio.Event()

    async def late() -> None:
        await go_on.wait()

    async def fail() -> None:
        raise errors.StorageError("the disk is full")

    store.before_replace = [late, fail]
    learner = asyncio.create_task(node.learn([lesson("a b", "1"), lesson("b c", "1")]))
    await idle()
    assert not learner.done()
    go_on.set()
    with pytest.raises(errors.StorageError):
        await learner
    assert sorted([await frequency(node, "a b"), await frequency(node, "b c")]) == [1, 2]
    assert await shown(node) == await reopened(store)


async def test_a_caller_who_gives_up_does_not_part_store_and_index(node: Node, store: RacingStore) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        entered.set()
        await go_on.wait()

    store.before_insert.append(slow)
    learner = asyncio.create_task(node.learn([lesson("a b", "1")]))
    await entered.wait()
    learner.cancel()
    await asyncio.gather(learner, return_exceptions=True)
    assert node.users == 1
    go_on.set()
    await node.learn([lesson("a b", "2")])
    assert (node.users, await frequency(node, "a b")) == (0, 2)
    assert await shown(node) == await reopened(store)


# Editing


async def test_an_update_changes_what_it_names(node: Node, store: RacingStore) -> None:
    await node.learn([lesson("a b", "0", [{"joy": 1.0}])])
    updated = await node.update("PTRN|" + name_of("a b"), 7, None, 5)
    assert (updated.frequency, updated.emotives, updated.revision) == (7, ({"joy": 1.0},), 2)
    assert node.totals().pattern_frequencies == 7
    updated = await node.update(name_of("a b"), None, {"fear": [1, 2]}, 5)
    assert (updated.frequency, updated.emotives) == (7, {"fear": (1.0, 2.0)})
    (prediction,) = (await node.predict(events("a b"), SessionConfig())).predictions
    assert (prediction.frequency, prediction.emotives) == (7, {"fear": [1.0, 2.0]})
    assert await node.update(name_of("a b"), None, None, 5) == updated
    assert await shown(node) == await reopened(store)


async def test_a_frequency_of_zero_counts_as_one_in_predictions(node: Node) -> None:
    await node.learn([lesson("a b", "0")])
    await node.update(name_of("a b"), 0, None, 5)
    (prediction,) = (await node.predict(events("a b"), SessionConfig())).predictions
    assert (prediction.frequency, await frequency(node, "a b")) == (1, 0)


@pytest.mark.parametrize(
    ("count", "emotives", "field"),
    [(-1, None, "frequency"), (None, {"joy": [1.0] * 6}, "joy"), (None, [{}] * 6, "emotives")],
)
async def test_an_update_with_wrong_values_names_the_field_and_changes_nothing(
    node: Node, count: int | None, emotives: dict[str, list[float]] | None, field: str
) -> None:
    await node.learn([lesson("a b", "0")])
    with pytest.raises(errors.ValidationError) as caught:
        await node.update(name_of("a b"), count, emotives, 5)
    assert caught.value.details["validation_errors"][0]["field"] == field
    assert (await node.pattern(name_of("a b"))).revision == 1


async def test_unknown_patterns_are_not_found_by_any_verb(node: Node) -> None:
    for call in (node.pattern("PTRN|x"), node.update("PTRN|x", 1, None, 5), node.delete("PTRN|x")):
        with pytest.raises(errors.PatternNotFound, match=r"Pattern PTRN\|x not found"):
            await call


async def test_deleting_takes_all_influence_back(node: Node, store: RacingStore) -> None:
    await node.learn([lesson("a b", "0", [{"joy": 0.1}]), lesson("b c", "0", [{"joy": 0.2, "fear": 1.0}])])
    without = await shown(node)
    for n in range(5):
        await node.learn([lesson("ab c d", str(n), [{"joy": 0.3, "rage": -1.0}])])
    assert await node.delete("PTRN|" + name_of("ab c d")) == name_of("ab c d")
    assert await shown(node) == without == await reopened(store)
    with pytest.raises(errors.PatternNotFound):
        await node.delete(name_of("ab c d"))


async def test_deleting_a_pattern_that_this_process_has_not_seen(
    node: Node, other: Node, store: RacingStore
) -> None:
    await other.learn([lesson("a b", "0")])
    assert await node.delete(name_of("a b")) == name_of("a b")
    assert await shown(node) == await reopened(store)


async def test_finalizing_covers_all_present_patterns_and_no_later_one(
    node: Node, store: RacingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "FINALIZE_BATCH", 2)
    await node.learn([lesson(text, "0") for text in ("a b", "b c", "ab c", "d e f", "a d")])
    plain = await shown(node)
    assert await node.finalize() == 5
    assert (await shown(node))["predictions"] != plain["predictions"]
    await node.learn([lesson("e f", "1"), lesson("a b", "1")])
    flags = {pattern.name: pattern.finalized for pattern in (await node.page(10, None, None, 0)).patterns}
    assert flags == {name_of(t): t != "e f" for t in ("a b", "b c", "ab c", "d e f", "a d", "e f")}
    assert await shown(node) == await reopened(store)
    assert await node.finalize() == 6


async def test_a_pattern_deleted_during_finalizing_is_passed_over(node: Node, store: RacingStore) -> None:
    await node.learn([lesson("a b", "0"), lesson("b c", "0")])

    async def meanwhile() -> None:
        await asyncio.gather(*(store.delete("node", name_of(text)) for text in ("a b", "b c")))

    store.before_replace.append(meanwhile)
    assert await node.finalize() == 2
    assert await store.count("node") == 0


async def test_dropping_forgets_everything(node: Node, store: RacingStore) -> None:
    await node.learn([lesson("a b", "0", [{"joy": 1.0}]), lesson("b c", "0")])
    assert await node.drop() == 2
    assert node.totals() == Totals(0, 0, 0, 0)
    assert node.affinities() == {}
    assert await shown(node) == await reopened(store)
    await node.learn([lesson("a b", "1")])
    assert await frequency(node, "a b") == 1


async def test_dropping_beside_learners_leaves_store_and_index_in_step(
    node: Node, store: RacingStore
) -> None:
    texts = ("a b", "b c", "ab c", "d e")
    for round_ in range(10):
        learners = [node.learn([lesson(t, f"{round_}-{t}")]) for t in texts * 3]
        between = [node.drop(), *learners[4:8], node.finalize(), node.drop()]
        await asyncio.gather(*learners[:4], *between, *learners[8:])
        assert await shown(node) == await reopened(store)


# Looking


async def test_pages_are_complete_and_in_order(node: Node) -> None:
    texts = [f"{a} {b}" for a in "abc" for b in "defg"]
    await node.learn([lesson(text, "0") for text in texts])
    await node.learn([lesson("a d", "1")])
    seen, cursor = list[str](), None
    while True:
        page = await node.page(5, cursor, None, 0)
        assert page.total == 12
        seen += [pattern.name for pattern in page.patterns]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == sorted(map(name_of, texts))
    with_a = await node.page(100, None, "a", 0)
    assert {pattern.name for pattern in with_a.patterns} == {name_of(f"a {b}") for b in "defg"}
    assert [p.name for p in (await node.page(100, None, None, 2)).patterns] == [name_of("a d")]
    assert (await node.page(12, None, None, 0)).cursor is None


async def test_nothing_observed_or_nothing_learned_predicts_nothing(node: Node) -> None:
    assert (await node.predict(events("a b"), SessionConfig())).predictions == ()
    await node.learn([lesson("a b", "0")])
    assert (await node.predict((), SessionConfig())).predictions == ()


async def test_a_large_node_is_searched_in_a_thread_with_the_same_answer(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.learn([lesson(text, "0", [{"joy": 1.0}]) for text in ("a b", "b c", "ab c", "d e f")])
    here = await shown(node)
    monkeypatch.setattr(node_module, "QUICK_PATTERNS", 0)
    searched_in = set[str]()
    predict = Node._predict

    def watched(self: Node, *args: object) -> object:
        searched_in.add(threading.current_thread().name)
        assert self.users == 1
        return predict(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Node, "_predict", watched)
    assert await shown(node) == here
    assert threading.main_thread().name not in searched_in
    assert node.users == 0


async def test_predictions_beside_learning_are_those_of_one_moment(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "QUICK_PATTERNS", 0)
    weighted = SessionConfig(affinity_emotive="joy", recall_threshold=0.0)

    async def learn() -> None:
        for n in range(200):
            await node.learn([lesson(f"a b {chr(99 + n % 20)}", str(n), [{"joy": n % 7}])])

    async def predict() -> None:
        for _ in range(100):
            found = await node.predict(events("a b"), weighted)
            frequencies = sum(prediction.frequency for prediction in found.predictions)
            for prediction in found.predictions:
                assert prediction.bayesian_prior == prediction.frequency / frequencies

    await asyncio.gather(learn(), predict(), predict())


# Restart


async def test_a_reopened_node_is_what_it_was(tmp_path: Path) -> None:
    async with learning(tmp_path / "p.db") as node:
        for n in range(60):
            text = f"{chr(97 + n % 5)}{chr(98 + n % 7)} {chr(97 + n % 11)}"
            await node.learn([lesson(text, str(n), [{"joy": n / 7, "fear": -n / 3}] * (n % 3), n=str(n))])
        await node.update((await node.page(1, None, None, 0)).patterns[0].name, 9, {"rage": [0.5]}, 5)
        await node.delete((await node.page(1, None, None, 0)).patterns[-1].name)
        await node.finalize()
        await node.learn([lesson("x y", "new", [{"joy": 0.1}])])
        before = await shown(node)
    async with learning(tmp_path / "p.db") as node:
        assert await shown(node) == before


async def test_nodes_of_one_store_know_nothing_of_each_other(store: RacingStore, node: Node) -> None:
    async with learning(store=store, node_id="node2") as second:
        await node.learn([lesson("a b", "0")])
        assert second.totals() == Totals(0, 0, 0, 0)
        with pytest.raises(errors.PatternNotFound):
            await second.pattern(name_of("a b"))
