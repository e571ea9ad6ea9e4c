"""A node's place in its feed: sharing, losing and finding the line, names under observation."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from kato import errors
from kato.memory import feed as feed_module
from kato.memory.node import Node
from kato.memory.registry import Memory
from kato.stores.sqlite import Database, SqliteVectorStore
from tests.support.clock import Clock
from tests.support.feed import Line, MoodyStore, following, pending, seen
from tests.support.memory import lesson, name_of, reopened, shown
from tests.support.waiting import idle, until


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def stores() -> AsyncIterator[tuple[MoodyStore, MoodyStore]]:
    database = Database(":memory:")
    opened = MoodyStore(database), MoodyStore(database)
    yield opened
    for each in opened:
        await each.close()


@pytest.fixture
async def nodes(
    stores: tuple[MoodyStore, MoodyStore], line: Line, clock: Clock
) -> AsyncIterator[tuple[Node, Node]]:
    """A node as two instances hold it."""
    async with AsyncExitStack() as stack:
        a, b = [await stack.enter_async_context(following(store, line, clock)) for store in stores]
        yield a, b


Nodes = tuple[Node, Node]
Stores = tuple[MoodyStore, MoodyStore]


# Questions


async def test_all_who_ask_in_one_turn_share_one_question_and_one_look(
    nodes: Nodes, stores: Stores, line: Line
) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    line.questions = 0
    assert await asyncio.gather(*(seen(b, "a b") for _ in range(20))) == [1] * 20
    assert line.questions == 1
    assert stores[1].fetched == [[name_of("a b")]]


async def test_who_asks_later_does_not_share_an_older_question(nodes: Nodes, line: Line) -> None:
    a, b = nodes
    gate = line.gates[line.questions + 1] = asyncio.Event()
    first = asyncio.create_task(seen(b, "a b"))
    await idle()
    await a.learn([lesson("a b", "1")])
    assert await seen(b, "a b") == 1
    gate.set()
    assert await first == 1


async def test_when_the_one_who_asks_gives_up_the_others_ask_again(nodes: Nodes, line: Line) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    gate = line.gates[line.questions + 1] = asyncio.Event()
    first, second = (asyncio.create_task(seen(b, "a b")) for _ in range(2))
    await idle()
    first.cancel()
    assert await second == 1
    assert first.cancelled()
    gate.set()


async def test_when_one_who_shares_gives_up_the_others_get_their_answer(nodes: Nodes, line: Line) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    gate = line.gates[line.questions + 1] = asyncio.Event()
    first, second = (asyncio.create_task(seen(b, "a b")) for _ in range(2))
    await idle()
    second.cancel()
    gate.set()
    assert await first == 1


@pytest.mark.parametrize("error", [errors.StorageError, errors.DataCorrupted, errors.ServiceUnavailable])
async def test_a_failed_question_is_told_to_all_who_share_it(
    nodes: Nodes, line: Line, error: type[errors.KatoError]
) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    await b.refresh()
    line.error = error("down")
    assert await asyncio.gather(*(b.refresh() for _ in range(3))) == [False] * 3
    assert b.stale
    assert await seen(b, "a b") == 1
    with pytest.raises(error):
        await b.learn([lesson("a b", "2")])
    line.error = None
    assert await b.refresh()
    assert not b.stale
    assert (await b.pattern(name_of("a b"))).frequency == 1


# The line is lost


async def test_questions_that_find_the_line_lost_together_cause_one_rescan(
    nodes: Nodes, stores: Stores, line: Line
) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    line.cut = len(line.entries)
    gates = [line.gates.setdefault(line.questions + number, asyncio.Event()) for number in (1, 2)]
    stores[1].scans = 0
    first = asyncio.create_task(seen(b, "a b"))
    await idle()
    second = asyncio.create_task(seen(b, "a b"))
    await idle()
    gates[0].set()
    assert await first == 1
    gates[1].set()
    assert await second == 1
    assert stores[1].scans == 1


async def test_an_answer_from_before_the_loss_does_not_lead_back(nodes: Nodes, line: Line) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    gate = line.gates[line.questions + 1] = asyncio.Event()
    first = asyncio.create_task(seen(b, "a b"))
    await idle()
    await a.learn([lesson("b c", "1")])
    line.cut = len(line.entries)
    assert await seen(b, "b c") == 1
    gate.set()
    assert await first == 1
    line.cut = 0
    assert pending(b) == 0
    await a.learn([lesson("b c", "2")])
    assert await seen(b, "b c") == 2


async def test_a_reader_during_a_rescan_waits_for_it(nodes: Nodes, stores: Stores, line: Line) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    line.cut = len(line.entries)
    gate = stores[1].scan_gate = asyncio.Event()
    stores[1].scans = 0
    first = asyncio.create_task(seen(b, "a b"))
    await until(lambda: stores[1].scans == 1)
    second = asyncio.create_task(seen(b, "a b"))
    await idle()
    assert not second.done()
    gate.set()
    assert await asyncio.gather(first, second) == [1, 1]
    assert stores[1].scans == 1


async def test_a_rescan_that_fails_is_tried_again(nodes: Nodes, stores: Stores, line: Line) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    line.cut = len(line.entries)
    stores[1].down = True
    for _ in range(2):
        assert [await seen(b, "a b"), b.stale] == [0, True]
    stores[1].down = False
    assert await seen(b, "a b") == 1
    assert (b.stale, b.users) == (False, 0)


async def test_a_node_opened_without_a_feed_rescans_once_it_is_there(
    stores: Stores, line: Line, clock: Clock
) -> None:
    line.error = errors.StorageError("the feed is down")
    async with following(stores[0], line, clock) as node:
        assert not await node.refresh()
        line.error = None
        async with following(stores[1], line, clock) as other:
            await other.learn([lesson("a b", "1")])
        assert await seen(node, "a b") == 1
        assert stores[0].scans == 2


# Names under observation


async def test_who_comes_while_names_are_looked_up_has_them_looked_up_again(
    nodes: Nodes, stores: Stores
) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    gate = stores[1].fetch_gate = asyncio.Event()
    first = asyncio.create_task(seen(b, "a b"))
    await until(lambda: len(stores[1].fetched) == 1)
    # What the first reader got from the store is older than this.
    await a.learn([lesson("a b", "2")])
    second = asyncio.create_task(seen(b, "a b"))
    await idle()
    gate.set()
    assert await second == 2
    assert await first in (1, 2)


async def test_an_entry_repeated_while_its_name_is_looked_up_stays_under_observation(
    nodes: Nodes, stores: Stores, line: Line, clock: Clock
) -> None:
    _, b = nodes
    await line.append("node", [(name_of("a b"), "-other:1")])
    gate = stores[1].fetch_gate = asyncio.Event()
    first = asyncio.create_task(b.refresh())
    await until(lambda: len(stores[1].fetched) == 1)
    await line.append("node", [(name_of("a b"), ".other:1")])
    second = asyncio.create_task(b.refresh())
    await idle()
    gate.set()
    await asyncio.gather(first, second)
    assert len(stores[1].fetched) == 2
    assert pending(b) == 0


async def test_if_all_give_up_the_look_goes_on_and_its_failure_is_nobodys(
    nodes: Nodes, stores: Stores
) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    gate = stores[1].fetch_gate = asyncio.Event()
    reader = asyncio.create_task(b.refresh())
    await until(lambda: len(stores[1].fetched) == 1)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    stores[1].down = True
    assert b.users == 1
    gate.set()
    await b.settled()
    gc.collect()
    stores[1].down = False
    assert b.users == 0
    assert await seen(b, "a b") == 1


@pytest.mark.parametrize(
    "mark", ["?other:1", "", "=other:soon", "=other:2", "+other:unknown", "-other:1", "+other:"]
)
async def test_what_never_happens_is_looked_at_for_as_long_as_any_request_may_last(
    nodes: Nodes, stores: Stores, line: Line, clock: Clock, mark: str
) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    await b.refresh()
    await line.append("node", [(name_of("a b"), mark)])
    for _ in range(2):
        stores[1].fetched.clear()
        await b.refresh()
        assert stores[1].fetched == [[name_of("a b")]]
    clock.advance(60)
    await b.refresh()
    stores[1].fetched.clear()
    await b.refresh()
    assert stores[1].fetched == []
    assert await seen(b, "a b") == 1


async def test_a_learn_without_operation_is_seen_all_the_same(nodes: Nodes) -> None:
    a, b = nodes
    for count in (1, 2):
        await a.learn([lesson("a b")])
        assert await seen(b, "a b") == count


async def test_many_names_are_looked_up_in_parts(
    nodes: Nodes, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "FETCHED_AT_ONCE", 3)
    a, b = nodes
    await a.learn([lesson(f"a {chr(98 + n)}", "1", [{"joy": 1.0}]) for n in range(10)])
    assert await shown(b) == await shown(a)
    assert list(map(len, stores[1].fetched[:4])) == [3, 3, 3, 1]


async def test_own_changes_are_not_looked_up(nodes: Nodes, stores: Stores) -> None:
    a, _ = nodes
    await a.learn([lesson("a b", "1"), lesson("b c", "1")])
    await a.update(name_of("a b"), 7, None, 5)
    await a.delete(name_of("b c"))
    stores[0].fetched.clear()
    assert await seen(a, "a b") == 7
    assert stores[0].fetched == []


# Removals


async def test_a_deletion_whose_end_cannot_be_told_is_not_acknowledged_but_seen(
    nodes: Nodes, line: Line, clock: Clock
) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1"), lesson("b c", "1")])
    line.refuses = lambda entry: entry[1].startswith(".")
    with pytest.raises(errors.StorageError):
        await a.delete(name_of("a b"))
    assert await seen(b, "a b") == await seen(a, "a b") == 0
    assert pending(b) == 1
    clock.advance(61)
    assert await seen(b, "a b") == 0
    assert pending(b) == 0


async def test_a_deletion_that_another_one_forestalled_finds_nothing(nodes: Nodes, stores: Stores) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    gate = stores[0].write_gate = asyncio.Event()
    late = asyncio.create_task(a.delete(name_of("a b")))
    await idle()
    await b.delete(name_of("a b"))
    gate.set()
    with pytest.raises(errors.PatternNotFound):
        await late
    assert await seen(a, "a b") == await seen(b, "a b") == 0
    assert pending(a) == pending(b) == 0


async def test_the_end_of_a_deletion_is_enough(nodes: Nodes, stores: Stores, line: Line) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    await b.refresh()
    await stores[0].delete("node", name_of("a b"))
    await line.append("node", [(name_of("a b"), ".other:1")])
    assert await seen(b, "a b") == 0
    assert pending(b) == 0


async def test_a_drop_whose_end_cannot_be_told_is_not_acknowledged_and_seen_in_time(
    nodes: Nodes, stores: Stores, line: Line, clock: Clock
) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1")])
    line.refuses = lambda entry: entry[1].startswith(".")
    with pytest.raises(errors.StorageError):
        await a.drop()
    assert await seen(a, "a b") == 0
    assert await b.refresh()
    clock.advance(61)
    assert await seen(b, "a b") == 0
    stores[1].scans = 0
    line.refuses = lambda entry: False
    assert await a.drop() == 0
    await b.refresh()
    assert stores[1].scans == 1
    assert await shown(a) == await shown(b) == await reopened(stores[0])


async def test_nothing_is_told_of_what_is_not_there(nodes: Nodes, line: Line) -> None:
    a, _ = nodes
    for deed in (a.delete("PTRN|x"), a.delete(""), a.update("\ud800", 1, None, 5)):
        with pytest.raises(errors.PatternNotFound):
            await deed
    assert line.entries == []


# The registry


async def test_closing_waits_for_looks_and_closes_the_feed(line: Line) -> None:
    database = Database(":memory:")
    store, other = MoodyStore(database), MoodyStore(database)
    memory = Memory(store, SqliteVectorStore(database), feed=line)
    node = await memory.fresh("node")
    async with following(other, line) as teacher:
        await teacher.learn([lesson("a b", "1")])
    gate = store.fetch_gate = asyncio.Event()
    reader = asyncio.create_task(node.refresh())
    await until(lambda: bool(store.fetched))
    reader.cancel()
    closing = asyncio.create_task(memory.close())
    await idle()
    assert not closing.done()
    gate.set()
    await closing
    assert node.totals().unique_patterns == 1
    assert line.closed
    await other.close()


async def test_what_was_learned_and_removed_before_anybody_looked_is_looked_at_once(nodes: Nodes) -> None:
    a, b = nodes
    await a.learn([lesson("a b", "1"), lesson("b c", "1")])
    await a.delete(name_of("a b"))
    assert await seen(b, "a b") == 0
    assert pending(b) == 0
    await a.learn([lesson("a b", "2"), lesson("b c", "2")])
    await a.drop()
    assert await shown(b) == await shown(a)
    assert pending(b) == 0


async def test_many_names_are_not_looked_at_before_their_learn_is_over(
    nodes: Nodes, stores: Stores, line: Line, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MANY", 5)
    a, b = nodes
    await a.learn([lesson("a b", "0")])
    await b.refresh()
    stores[1].fetched.clear()
    gate = stores[0].write_gate = asyncio.Event()
    learning = asyncio.create_task(a.learn([lesson(f"a {chr(98 + n)}", "1") for n in range(6)]))
    await until(lambda: len(line.entries) == 7)
    await b.refresh()
    assert (stores[1].fetched, pending(b)) == ([], 6)
    gate.set()
    await learning
    # One of them is gone again before anybody looks.
    await a.delete(name_of("a c"))
    assert await shown(b) == await shown(a)
    assert pending(b) == 0


async def test_a_learn_of_many_that_died_is_looked_at_in_time_and_forgotten(
    nodes: Nodes, stores: Stores, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MANY", 5)
    a, b = nodes
    stores[0].silent = True
    with pytest.raises(errors.StorageError):
        await a.learn([lesson(f"a {chr(98 + n)}", "1") for n in range(6)])
    stores[0].silent = False
    await asyncio.gather(a.refresh(), b.refresh())
    assert pending(a) == pending(b) == 6
    clock.advance(61)
    assert await shown(b) == await shown(a) == await reopened(stores[0])
    assert len(b) == 6
    assert pending(a) == pending(b) == 0


async def test_a_learn_of_many_whose_end_cannot_be_told_is_not_acknowledged_and_counts_once(
    nodes: Nodes, stores: Stores, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MANY", 5)
    a, b = nodes
    lessons = [lesson(f"a {chr(98 + n)}", "1") for n in range(6)]
    line.refuses = lambda entry: entry[1].startswith(".")
    with pytest.raises(errors.StorageError):
        await a.learn(lessons)
    line.refuses = lambda entry: False
    await b.learn(lessons)
    assert await shown(a) == await shown(b) == await reopened(stores[0])
    assert a.totals().pattern_frequencies == 6
    await a.learn([lesson("b c", "2")])
    await a.drop()
    await b.refresh()
    assert pending(b) == 0


async def test_two_learns_of_one_operation_are_told_apart(nodes: Nodes, stores: Stores) -> None:
    a, b = nodes
    gate = asyncio.Event()
    await a.refresh()
    stores[0].write_gate = gate
    slow = asyncio.create_task(a.learn([lesson("a b", "1")]))
    await idle()
    stores[0].write_gate = None
    await a.learn([lesson("b c", "1")])
    assert [await seen(b, text) for text in ("a b", "b c")] == [0, 1]
    gate.set()
    await slow
    assert await seen(b, "a b") == 1


async def test_a_learn_whose_announcement_cannot_be_verified_is_not_acknowledged(
    nodes: Nodes, stores: Stores, line: Line
) -> None:
    a, b = nodes
    gate = stores[0].write_gate = asyncio.Event()
    learner = asyncio.create_task(a.learn([lesson("a b", "1")]))
    await until(lambda: bool(line.entries))
    line.error = errors.StorageError("the feed is down")
    gate.set()
    with pytest.raises(errors.StorageError):
        await learner
    line.error = None
    assert await seen(a, "a b") == await seen(b, "a b") == 1
