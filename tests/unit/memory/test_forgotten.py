"""Deleting where several instances teach: nothing that was counted before comes back, and the records go in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest

from kato import errors
from kato.memory.forgotten import AT_ONCE, KEPT_SECONDS, Forgotten
from kato.memory.node import Node
from kato.model import Pattern
from kato.stores.sqlite import Database
from tests.support.clock import Clock
from tests.support.feed import Line, MoodyStore, following, seen
from tests.support.memory import learning, lesson, name_of, reopened, shown
from tests.support.waiting import idle

NAME = name_of("a b")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(Forgotten.__init__, "__defaults__", (KEPT_SECONDS, made))
    return made


@pytest.fixture
async def stores(clock: Clock) -> AsyncIterator[list[MoodyStore]]:
    database = Database(":memory:")
    opened = [MoodyStore(database) for _ in range(2)]
    yield opened
    for each in opened:
        await each.close()


@pytest.fixture
async def nodes(stores: list[MoodyStore], clock: Clock) -> AsyncIterator[list[Node]]:
    """A node as two instances hold it."""
    line = Line()
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(following(store, line, clock)) for store in stores]


async def record(store: MoodyStore) -> Pattern | None:
    return (await store.fetch("node", [NAME])).get(NAME)


# Delivered once more


async def test_what_was_deleted_does_not_come_back_when_its_learn_is_delivered_once_more(
    nodes: list[Node], stores: list[MoodyStore]
) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1"), lesson("b c", "1")])
    await b.learn([lesson("a b", "2")])
    await b.delete(NAME)
    for node in nodes:
        for operation in "12":
            again = await node.learn([lesson("a b", operation)])
            assert again[NAME].forgotten
        assert await seen(node, "a b") == 0
        assert await seen(node, "b c") == 1
    assert await shown(a) == await shown(b) == await reopened(stores[0])
    assert await stores[0].count("node") == 1


async def test_what_is_learned_after_the_deletion_begins_anew(
    nodes: list[Node], stores: list[MoodyStore]
) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1", [{"joy": 1.0}], colour="red"), lesson("a b", "2")])
    await a.delete(NAME)
    joy = {"fear": 2.0}
    await b.learn([lesson("a b", "1"), lesson("a b", "3", [joy]), lesson("a b", "4")])
    assert [await seen(node, "a b") for node in nodes] == [2, 2]
    found = await a.pattern(NAME)
    assert (found.emotives, found.affinity, found.metadata) == ((joy,), joy, {})
    for operation in "1234":
        await a.learn([lesson("a b", operation)])
    assert (await b.pattern(NAME)).frequency == 2
    assert await shown(a) == await shown(b) == await reopened(stores[0])


async def test_a_delivery_that_a_deletion_overtakes_changes_nothing(
    nodes: list[Node], stores: list[MoodyStore]
) -> None:
    a, b = nodes
    gate = stores[1].write_gate = asyncio.Event()
    late = asyncio.create_task(b.learn([lesson("a b", "1"), lesson("c d", "1")]))
    await idle()
    assert stores[1].waiting
    await a.learn([lesson("a b", "1")])
    await a.delete(NAME)
    gate.set()
    assert (await late)[NAME].forgotten
    assert [await seen(node, "a b") for node in nodes] == [0, 0]
    assert [await seen(node, "c d") for node in nodes] == [1, 1]


async def test_a_learn_that_a_deletion_overtakes_counts_after_it(
    nodes: list[Node], stores: list[MoodyStore]
) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    await b.refresh()
    gate = stores[1].write_gate = asyncio.Event()
    late = asyncio.create_task(b.learn([lesson("a b", "2")]))
    await idle()
    await a.delete(NAME)
    gate.set()
    assert (await late)[NAME].frequency == 1
    assert [await seen(node, "a b") for node in nodes] == [1, 1]


# No verb shows it


async def test_no_verb_finds_what_is_forgotten(nodes: list[Node], stores: list[MoodyStore]) -> None:
    a, _ = nodes
    await a.learn([lesson("a b", "1"), lesson("b c", "1")])
    await a.delete(NAME)
    for node in nodes:
        for deed in (node.pattern(NAME), node.update(NAME, 3, None, 5), node.delete(NAME)):
            with pytest.raises(errors.PatternNotFound):
                await deed
        assert await node.finalize() == 1
        assert [pattern.name for pattern in (await node.page(10, None, None, 0)).patterns] == [name_of("b c")]
        assert len(node) == 1
    found = await record(stores[0])
    assert found is not None
    assert (found.forgotten, found.finalized) == (True, False)


async def test_a_page_leaves_out_what_is_deleted_while_it_is_read(
    nodes: list[Node], stores: list[MoodyStore]
) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1"), lesson("b c", "1")])
    await b.refresh()
    held = dict(zip("ab", nodes, strict=True))

    async def deleting(node: str, names: list[str]) -> dict[str, Pattern]:
        del stores[1].fetch  # type: ignore[method-assign]
        await held["a"].delete(NAME)
        return await stores[1].fetch(node, names)

    stores[1].fetch = deleting  # type: ignore[method-assign, assignment]
    assert [pattern.name for pattern in (await b.page(10, None, None, 0)).patterns] == [name_of("b c")]


# Deletions


async def test_of_two_deletions_one_finds_the_pattern(nodes: list[Node]) -> None:
    a, _ = nodes
    await a.learn([lesson("a b", "1")])
    outcomes = await asyncio.gather(*(node.delete(NAME) for node in nodes), return_exceptions=True)
    assert sorted(map(type, outcomes), key=str) == sorted([str, errors.PatternNotFound], key=str)


@pytest.mark.parametrize("relearned", [False, True])
async def test_a_deletion_that_the_store_has_repeated_is_acknowledged(
    nodes: list[Node], stores: list[MoodyStore], relearned: bool
) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    replace = stores[0].replace

    async def repeating(node: str, pattern: Pattern, revision: int) -> bool:
        del stores[0].replace  # type: ignore[method-assign]
        assert await replace(node, pattern, revision)
        if relearned:
            await b.learn([lesson("a b", "2")])
        # As a guard does whose first attempt was not acknowledged.
        return await replace(node, pattern, revision)

    stores[0].replace = repeating  # type: ignore[method-assign]
    assert await a.delete(NAME) == NAME
    assert [await seen(node, "a b") for node in nodes] == [relearned] * 2


async def test_a_deletion_that_others_keep_overtaking_is_given_up(
    nodes: list[Node], stores: list[MoodyStore]
) -> None:
    a, _ = nodes
    await a.learn([lesson("a b", "1")])

    async def losing(node: str, pattern: Pattern, revision: int) -> bool:
        return False

    stores[0].replace = losing  # type: ignore[method-assign]
    with pytest.raises(errors.ConcurrencyError):
        await a.delete(NAME)
    assert await seen(a, "a b") == 1


async def test_where_one_process_teaches_nothing_remains(clock: Clock) -> None:
    store = MoodyStore()
    async with learning(store=store) as node:
        await node.learn([lesson("a b", "1")])
        await node.delete(NAME)
        assert await record(store) is None
        with pytest.raises(errors.PatternNotFound):
            await node.delete(NAME)
        await node.learn([lesson("a b", "1")])
        assert (await node.pattern(NAME)).frequency == 1
    await store.close()


# Letting go


async def test_a_later_deletion_removes_records_whose_time_is_over(
    nodes: list[Node], stores: list[MoodyStore], clock: Clock
) -> None:
    a, _ = nodes
    await a.learn([lesson("a b", "1"), lesson("b c", "1"), lesson("c d", "1")])
    await a.delete(NAME)
    clock.advance(KEPT_SECONDS - 1)
    await a.delete(name_of("b c"))
    assert await record(stores[0]) is not None
    clock.advance(1)
    await a.delete(name_of("c d"))
    assert await record(stores[0]) is None
    left = await stores[0].fetch("node", [name_of("b c"), name_of("c d")])
    assert [pattern.forgotten for pattern in left.values()] == [True, True]


async def test_a_pattern_that_was_learned_again_is_not_removed(
    nodes: list[Node], stores: list[MoodyStore], clock: Clock
) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1"), lesson("b c", "1")])
    await a.delete(NAME)
    await b.learn([lesson("a b", "2")])
    clock.advance(KEPT_SECONDS)
    await a.delete(name_of("b c"))
    assert [await seen(node, "a b") for node in nodes] == [1, 1]


async def test_a_record_is_kept_from_its_latest_deletion_on(
    nodes: list[Node], stores: list[MoodyStore], clock: Clock
) -> None:
    a, _ = nodes
    await a.learn([lesson("a b", "1"), lesson("b c", "1"), lesson("c d", "1")])
    await a.delete(NAME)
    clock.advance(KEPT_SECONDS / 2)
    await a.learn([lesson("a b", "2")])
    await a.delete(NAME)
    clock.advance(KEPT_SECONDS / 2)
    await a.delete(name_of("b c"))
    assert await record(stores[0]) is not None
    clock.advance(KEPT_SECONDS / 2)
    await a.delete(name_of("c d"))
    assert await record(stores[0]) is None


async def test_a_record_is_kept_as_long_as_one_of_its_learns_may_be_repeated(
    nodes: list[Node], stores: list[MoodyStore], clock: Clock
) -> None:
    a, _ = nodes
    texts = ["b c", "c d", "d e"]
    await a.learn([lesson(text, "1") for text in ("a b", *texts)])
    await a.delete(NAME)
    undecided = {"1"}

    async def repeatable(operations: Sequence[str]) -> dict[str, bool]:
        return {each: each in undecided for each in operations}

    a._repeatable = repeatable
    clock.advance(KEPT_SECONDS)
    await a.delete(name_of(texts[0]))
    assert await record(stores[0]) is not None
    undecided.clear()
    await a.delete(name_of(texts[1]))
    assert await record(stores[0]) is not None
    clock.advance(KEPT_SECONDS)
    await a.delete(name_of(texts[2]))
    assert await record(stores[0]) is None


async def test_a_record_that_another_process_has_left_is_removed_too(
    nodes: list[Node], stores: list[MoodyStore], clock: Clock
) -> None:
    a, _ = nodes
    await a.learn([lesson("a b", "1"), lesson("b c", "1")])
    await a.delete(NAME)
    async with following(stores[1], Line(), clock) as late:
        clock.advance(KEPT_SECONDS / 2)
        # Reading it once more prolongs nothing.
        await late.reread()
        clock.advance(KEPT_SECONDS / 2)
        await late.delete(name_of("b c"))
        assert await record(stores[0]) is None


async def test_a_node_of_which_nothing_else_remains_opens_empty(
    nodes: list[Node], stores: list[MoodyStore], clock: Clock
) -> None:
    a, _ = nodes
    await a.learn([lesson("a b", "1")])
    await a.delete(NAME)
    async with learning(store=stores[1]) as node:
        assert len(node) == 0
        await node.learn([lesson("a b", "2")])
        assert await seen(node, "a b") == 1


async def test_a_failure_to_remove_a_record_leaves_the_deletion_undone(
    nodes: list[Node], stores: list[MoodyStore], clock: Clock
) -> None:
    a, _ = nodes
    await a.learn([lesson("a b", "1"), lesson("b c", "1")])
    await a.delete(NAME)
    clock.advance(KEPT_SECONDS)
    stores[0].full = True
    with pytest.raises(errors.StorageError):
        await a.delete(name_of("b c"))
    stores[0].full = False
    assert [await seen(node, "b c") for node in nodes] == [1, 1]
    await a.delete(name_of("b c"))
    assert await record(stores[0]) is None


def test_many_go_in_parts_and_faster_than_they_come(clock: Clock) -> None:
    kept = Forgotten(clock=clock)
    for number in range(AT_ONCE + 5):
        kept.add(Pattern(name=f"{number:040}", events=(), frequency=-1))
    clock.advance(KEPT_SECONDS)
    first = kept.due()
    assert [name for name, _ in first] == [f"{number:040}" for number in range(AT_ONCE)]
    for name, revision in first:
        assert kept.discard(name, revision)
    assert len(kept.due()) == 5
    kept.clear()
    assert kept.due() == []
    assert AT_ONCE > 1


def test_what_was_forgotten_anew_meanwhile_is_left_alone(clock: Clock) -> None:
    kept = Forgotten(clock=clock)
    kept.add(Pattern(name=NAME, events=(), frequency=-1, revision=2))
    clock.advance(KEPT_SECONDS)
    assert kept.due() == [(NAME, 2)]
    kept.add(Pattern(name=NAME, events=(), frequency=-1, revision=4))
    assert not kept.discard(NAME, 2)
    kept.postpone(NAME, 2)
    clock.advance(KEPT_SECONDS)
    assert kept.due() == [(NAME, 4)]
    assert kept.discard(NAME, 4)
    kept.postpone(NAME, 4)
    assert kept.due() == []


async def test_deletions_at_once_remove_what_is_due(
    nodes: list[Node], stores: list[MoodyStore], clock: Clock
) -> None:
    a, _ = nodes
    texts = [f"a {chr(98 + number)}" for number in range(20)]
    await a.learn([lesson(text, "1") for text in texts])
    for text in texts[:10]:
        await a.delete(name_of(text))
    clock.advance(KEPT_SECONDS)
    await asyncio.gather(*(a.delete(name_of(text)) for text in texts[10:]))
    left = await stores[0].fetch("node", list(map(name_of, texts)))
    assert sorted(left) == sorted(map(name_of, texts[10:]))
