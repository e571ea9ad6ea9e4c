"""Several instances on a real Redis: what was acknowledged by one is in every later answer of the others.

`KATO_FEED_TRIALS` sets the number of random trials per store.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from kato import errors
from kato.memory.node import Node
from kato.memory.registry import Memory
from kato.stores.ports import PatternStore
from kato.stores.postgres import PostgresPatternStore
from kato.stores.redis import RedisSessionStore
from kato.stores.sqlite import Database, SqlitePatternStore
from tests.contract.values import session
from tests.support import postgres
from tests.support import redis as support
from tests.support.clock import Clock
from tests.support.feed import ALIKE, MoodyStore, following, instance, pending, seen, stream
from tests.support.memory import events, lesson, name_of, reopened, shown
from tests.support.redis import RedisServer
from tests.support.waiting import idle, until
from tests.unit.stores.test_redis_client import pipelines

__all__ = ["pipelines"]

TRIALS = int(os.environ.get("KATO_FEED_TRIALS", "300"))
WORKERS = 12
TEXTS = [f"{a}{b} {c}" for a in "abc" for b in "de" for c in "fgh"]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with support.redis() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], PatternStore]:
    """Opens the same patterns again and again."""
    if request.param == "sqlite":
        database = Database(tmp_path / "patterns.db")
        return lambda: SqlitePatternStore(database)
    url, schema = postgres.shared().url, postgres.fresh_schema()
    return lambda: PostgresPatternStore(url, schema=schema, min_connections=1, max_connections=5)


@asynccontextmanager
async def instances(store: Callable[[], PatternStore], count: int = 2) -> AsyncIterator[list[Memory]]:
    prefix = support.fresh_prefix()
    async with AsyncExitStack() as stack:
        opened = [instance(store(), support.shared().url, prefix) for _ in range(count)]
        yield [await stack.enter_async_context(each) for each in opened]


@asynccontextmanager
async def two_nodes(
    server: RedisServer, max_length: int = 100_000, clock: Clock | None = None
) -> AsyncIterator[tuple[Node, Node, MoodyStore, MoodyStore]]:
    """A node as two instances hold it, and the store of each."""
    database = Database(":memory:")
    stores = MoodyStore(database), MoodyStore(database)
    feeds = [stream(server.url, "kato", max_length) for _ in stores]
    try:
        async with following(stores[0], feeds[0], clock) as a, following(stores[1], feeds[1], clock) as b:
            yield a, b, *stores
    finally:
        for feed, store in zip(feeds, stores, strict=True):
            await feed.close()
            await store.close()


# What is acknowledged is seen


@pytest.mark.timeout(3600)
async def test_a_learn_acknowledged_by_one_is_in_every_later_prediction_of_the_others(
    store: Callable[[], PatternStore],
) -> None:
    acknowledged = Counter[tuple[str, str]]()
    numbers = iter(range(TRIALS))

    async def work(memories: list[Memory]) -> None:
        for number in numbers:
            random_ = random.Random(number)
            teacher, reader = random_.sample(memories, 2)
            key = node_id, text = random_.choice(("one", "two")), random_.choice(TEXTS)
            await (await teacher.node(node_id)).learn([lesson(text, f"trial {number}")])
            acknowledged[key] += 1
            least = acknowledged[key]
            assert await seen(await reader.node(node_id), text) >= least

    async with instances(store, 3) as memories:
        await asyncio.gather(*(work(memories) for _ in range(WORKERS)))
        for (node_id, text), count in acknowledged.items():
            for memory in memories:
                assert await seen(await memory.node(node_id), text) == count
    print(f"\n{TRIALS} trials: every acknowledged learn was in the next prediction of another instance")


async def test_instances_hammering_the_same_patterns_count_every_learn_once(
    store: Callable[[], PatternStore],
) -> None:
    texts = ("a b", "b c", "ab c")
    async with instances(store) as memories:

        async def hammer(memory: Memory, worker: str) -> None:
            for number in range(10):
                node = await memory.node("node")
                await node.learn([lesson(text, f"{worker} {number}", [{"joy": 0.1}]) for text in texts])

        await asyncio.gather(
            *(hammer(memory, f"{n} {w}") for n, memory in enumerate(memories) for w in "xyz")
        )
        for memory in memories:
            node = await memory.node("node")
            assert [await seen(node, text) for text in texts] == [60, 60, 60]
            assert node.totals().pattern_frequencies == 180
        first, second = [await shown(await memory.node("node")) for memory in memories]
        assert first == second == await reopened(memories[0].patterns)


async def test_every_kind_of_change_is_seen(store: Callable[[], PatternStore]) -> None:
    async with instances(store) as (a, b):
        one, other = await a.node("node"), await b.node("node")

        async def agree() -> None:
            assert await shown(other) == await shown(one) == await reopened(a.patterns)
            assert pending(one) == pending(other) == 0

        texts = ("a b", "b c", "ab c", "d e f")
        await one.learn([lesson(text, "1", [{"joy": 1.0}]) for text in texts])
        await agree()
        await one.update(name_of("a b"), 7, {"fear": [0.5]}, 5)
        assert await seen(other, "a b") == 7
        await agree()
        assert await other.finalize() == 4
        await agree()
        await one.delete(name_of("b c"))
        assert await seen(other, "b c") == 0
        await agree()
        with pytest.raises(errors.PatternNotFound):
            await other.delete(name_of("b c"))
        await other.learn([lesson("b c", "2")])
        await agree()
        assert await a.drop("node") == 4
        assert (await b.fresh("node")).totals().unique_patterns == 0
        await agree()
        await other.learn([lesson("b c", "3")])
        await agree()


async def test_learns_deletes_and_drops_side_by_side_leave_all_in_step(
    store: Callable[[], PatternStore],
) -> None:
    async with instances(store) as memories:
        nodes = [await memory.node("node") for memory in memories]

        async def change(number: int) -> None:
            random_ = random.Random(number)
            node, text = random_.choice(nodes), random_.choice(TEXTS[:6])
            deed: Callable[[], Awaitable[object]] = random_.choice(
                (
                    lambda: node.learn([lesson(text, str(number), [{"joy": 1.0}])]),
                    lambda: node.learn([lesson(text, str(number))]),
                    lambda: node.update(name_of(text), number, None, 5),
                    lambda: node.delete(name_of(text)),
                    node.finalize,
                    node.drop if number % 5 == 0 else node.refresh,
                )
            )
            await asyncio.gather(deed(), return_exceptions=True)

        for round_ in range(10):
            await asyncio.gather(*(change(20 * round_ + n) for n in range(20)))
            assert await shown(nodes[0]) == await shown(nodes[1]) == await reopened(memories[0].patterns)


# Learners that are slow, die, or do not know what became of their write


async def test_a_slow_learner_is_waited_for_and_holds_nobody_up(server: RedisServer) -> None:
    async with two_nodes(server) as (a, b, at_a, _):
        gate = at_a.write_gate = asyncio.Event()
        learner = asyncio.create_task(a.learn([lesson("a b", "1")]))
        while not pending(b):
            assert await seen(b, "a b") == 0
        assert await seen(b, "a b") == await seen(a, "a b") == 0
        gate.set()
        await learner
        assert await seen(b, "a b") == await seen(a, "a b") == 1
        assert pending(b) == 0


async def test_a_learner_that_died_after_announcing_is_forgotten_in_time(server: RedisServer) -> None:
    clock = Clock()
    async with two_nodes(server, clock=clock) as (a, b, at_a, at_b):
        await a.learn([lesson("b c", "0")])
        await b.refresh()
        at_a.full = True
        with pytest.raises(errors.StorageError):
            await a.learn([lesson("a b", "1")])
        at_a.full = False
        for _ in range(3):
            assert await seen(b, "a b") == await seen(a, "a b") == 0
            assert pending(a) == pending(b) == 1
        clock.advance(59.9)
        await asyncio.gather(a.refresh(), b.refresh())
        assert pending(a) == pending(b) == 1
        clock.advance(0.2)
        await asyncio.gather(a.refresh(), b.refresh())
        assert pending(a) == pending(b) == 0
        at_b.fetched.clear()
        await b.refresh()
        assert at_b.fetched == []
        # A later write announces again.
        await a.learn([lesson("a b", "1")])
        assert await seen(b, "a b") == 1


async def test_a_write_that_happened_without_being_acknowledged_is_found_out(server: RedisServer) -> None:
    async with two_nodes(server) as (a, b, at_a, _):
        await a.learn([lesson(text, "0") for text in ("b c", "ab c")])
        at_a.silent = True
        deeds = (
            a.learn([lesson("a b", "1")]),
            a.update(name_of("b c"), 7, None, 5),
            a.delete(name_of("ab c")),
        )
        for deed in deeds:
            with pytest.raises(errors.StorageError):
                await deed
        at_a.silent = False
        assert await shown(a) == await shown(b) == await reopened(at_a)
        assert [await seen(a, text) for text in ("a b", "b c", "ab c")] == [1, 7, 0]
        at_a.silent = True
        with pytest.raises(errors.StorageError):
            await a.drop()
        at_a.silent = False
        await a.refresh()
        assert len(a) == 0


async def test_a_drop_that_nobody_acknowledged_is_found_out_in_time(server: RedisServer) -> None:
    clock = Clock()
    async with two_nodes(server, clock=clock) as (a, b, at_a, _):
        await a.learn([lesson("a b", "0")])
        assert await seen(b, "a b") == 1
        at_a.silent = True
        with pytest.raises(errors.StorageError):
            await a.drop()
        at_a.silent = False
        await b.refresh()
        clock.advance(61)
        assert await seen(b, "a b") == 0
        assert await shown(a) == await shown(b) == await reopened(at_a)


# The feed is lost, trimmed, down


async def test_a_lost_stream_causes_one_rescan(server: RedisServer) -> None:
    async with two_nodes(server) as (a, b, _, at_b):
        await a.learn([lesson("a b", "1")])
        assert await seen(b, "a b") == 1
        await a.learn([lesson("b c", "1")])
        server.command("FLUSHALL")
        await a.learn([lesson("a b", "2")])
        at_b.scans = 0
        answers = await asyncio.gather(*(seen(b, text) for text in ("a b", "b c") * 5))
        assert answers == [2, 1] * 5
        assert at_b.scans == 1
        await b.learn([lesson("a b", "3")])
        assert await seen(a, "a b") == 3
        assert await shown(a) == await shown(b) == await reopened(at_b)


async def test_an_announcement_that_is_lost_before_its_write_is_repeated(server: RedisServer) -> None:
    async with two_nodes(server) as (a, b, at_a, at_b):
        await a.learn([lesson("a b", "0")])
        assert await seen(b, "a b") == 1
        deeds: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: a.learn([lesson("a b", "1"), lesson("b c", "1")]),
            lambda: a.learn([lesson(f"d {chr(98 + n)}", "2") for n in range(25)]),
            lambda: a.update(name_of("a b"), 7, None, 5),
            lambda: a.delete(name_of("b c")),
            a.finalize,
            a.drop,
        )
        for deed in deeds:
            await asyncio.gather(a.refresh(), b.refresh())
            gate = at_a.write_gate = asyncio.Event()
            writing = asyncio.create_task(as_task(deed))
            await until(lambda: at_a.waiting > 0)
            server.command("FLUSHALL")
            at_b.scans = 0
            await b.refresh()
            assert at_b.scans >= 1
            assert not writing.done()
            gate.set()
            await writing
            assert await shown(b) == await reopened(at_a)
            assert await shown(a) == await shown(b)


async def as_task(deed: Callable[[], Awaitable[object]]) -> None:
    await deed()


async def test_whoever_was_left_behind_by_a_trimmed_stream_rescans(server: RedisServer) -> None:
    async with two_nodes(server, max_length=50) as (a, b, _, at_b):
        for number in range(400):
            await a.learn([lesson(f"a {chr(98 + number % 20)}", str(number))])
        at_b.scans = 0
        assert [await seen(b, f"a {chr(98 + n)}") for n in range(20)] == [20] * 20
        assert at_b.scans == 1


async def test_what_changes_during_a_rescan_is_not_lost(server: RedisServer) -> None:
    async with two_nodes(server) as (a, b, at_a, at_b):
        await a.learn([lesson(text, "0", [{"joy": 1.0}]) for text in ("a b", "b c", "ab c")])
        await b.refresh()
        gate = at_b.scan_gate = asyncio.Event()
        server.command("FLUSHALL")
        at_b.scans = 0
        reader = asyncio.create_task(seen(b, "a b"))
        await until(lambda: at_b.scans == 1)
        # A reader that is not told to look answers from the old index; writers here and there go on.
        assert (await b.predict((("a",), ("b",)), ALIKE, refreshed=True)).predictions
        teaching = asyncio.create_task(b.learn([lesson("a b", "1"), lesson("d e f", "1")]))
        await a.learn([lesson("a b", "2")])
        await asyncio.gather(teaching, b.delete(name_of("b c")))
        await idle()
        assert not reader.done()
        gate.set()
        assert await reader == 3
        assert await shown(a) == await shown(b) == await reopened(at_a)
        assert await seen(b, "a b") == 3


async def test_a_drop_during_a_rescan_leaves_nothing(server: RedisServer) -> None:
    async with two_nodes(server) as (a, b, _, at_b):
        await a.learn([lesson("a b", "0")])
        await b.refresh()
        gate = at_b.scan_gate = asyncio.Event()
        server.command("FLUSHALL")
        at_b.scans = 0
        reader = asyncio.create_task(seen(b, "a b"))
        await until(lambda: at_b.scans == 1)
        assert await b.drop() == 1
        gate.set()
        assert await reader == 0
        assert at_b.scans >= 2
        assert await seen(a, "a b") == 0


async def test_without_redis_predictions_are_stale_and_learns_refused_until_it_is_back(
    server: RedisServer,
) -> None:
    async with two_nodes(server) as (a, b, at_a, _):
        await a.learn([lesson("a b", "1")])
        assert await seen(b, "a b") == 1
        assert not b.stale
        server.kill9()
        assert await seen(b, "a b") == 1
        assert b.stale
        assert not await b.refresh()
        before = await reopened(at_a)
        for deed in (
            a.learn([lesson("b c", "1")]),
            a.update(name_of("a b"), 7, None, 5),
            a.delete(name_of("a b")),
            a.finalize(),
            a.drop(),
        ):
            with pytest.raises(errors.StorageError):
                await deed
        assert await reopened(at_a) == before
        async with following(at_a, stream(server.url, "kato")) as late:
            assert await seen(late, "a b") == 1
            assert late.stale
            server.start()
            await a.learn([lesson("b c", "1")])
            for node in (a, b, late):
                assert await seen(node, "b c") == 1
                assert not node.stale
            assert await shown(a) == await shown(b) == await shown(late) == await reopened(at_a)
            assert late._follower is not None
            await late._follower._feed.close()


async def test_without_the_store_predictions_are_stale_until_it_is_back(server: RedisServer) -> None:
    async with two_nodes(server) as (a, b, _, at_b):
        await a.learn([lesson("a b", "1")])
        assert await seen(b, "a b") == 1
        await a.learn([lesson("a b", "2")])
        at_b.down = True
        assert await seen(b, "a b") == 1
        assert b.stale
        server.command("FLUSHALL")
        assert await seen(b, "a b") == 1
        assert b.stale
        at_b.down = False
        assert await seen(b, "a b") == 2
        assert not b.stale


# What it costs


async def test_looking_at_the_feed_shares_the_round_trip_of_the_session(
    server: RedisServer, pipelines: list[bytes]
) -> None:
    async with two_nodes(server) as (_, b, _, at_b):
        assert b._follower is not None
        feed = b._follower._feed
        sessions = RedisSessionStore(feed._client)  # type: ignore[attr-defined]
        state = session("s")
        await sessions.create(state, 0, 0)
        await asyncio.gather(b.refresh(), sessions.load("s", state))
        for looks in (
            [b.refresh(), sessions.load("s", state)],
            [sessions.load("s", state), *(seen(b, "a b") for _ in range(20))],
        ):
            pipelines.clear()
            at_b.fetched.clear()
            await asyncio.gather(*looks)
            assert len(pipelines) == 1
            assert pipelines[0].count(b"XRANGE") == 1
            assert at_b.fetched == []
        await sessions.close()


# Under way while Redis dies


async def test_what_was_acknowledged_is_seen_while_redis_dies_and_forgets_again_and_again(
    server: RedisServer,
) -> None:
    """No answer that is not called stale lacks an acknowledged learn, whenever the stream gets lost."""
    acknowledged, refused, stale = Counter[str](), 0, 0
    over = False

    async def work(worker: int, teacher: Node, reader: Node) -> None:
        nonlocal refused, stale
        number = 0
        while not over:
            number += 1
            text = random.Random(f"{worker} {number}").choice(TEXTS)
            while True:
                try:
                    await teacher.learn([lesson(text, f"{worker} {number}")])
                    acknowledged[text] += 1
                    break
                except errors.StorageError:
                    # Repeated under the same operation, as a client does; it counts once.
                    refused += 1
            least = acknowledged[text]
            if await reader.refresh():
                found = await reader.predict(events(text), ALIKE, refreshed=True)
                frequencies = {prediction.name: prediction.frequency for prediction in found.predictions}
                assert frequencies.get(name_of(text), 0) >= least
            else:
                stale += 1

    async with two_nodes(server) as (a, b, at_a, _):
        workers = [asyncio.create_task(work(n, *((a, b) if n % 2 else (b, a)))) for n in range(8)]
        for round_ in range(6):
            before = acknowledged.total()
            await until(lambda: acknowledged.total() > before + 50, 60)  # noqa: B023
            if round_ % 2:
                await asyncio.to_thread(server.command, "FLUSHALL")
            else:
                await asyncio.to_thread(server.kill9)
                await asyncio.to_thread(server.start)
        over = True
        await asyncio.gather(*workers)
        assert await shown(a) == await shown(b) == await reopened(at_a)
        assert {text: await seen(a, text) for text in TEXTS} == {text: acknowledged[text] for text in TEXTS}
        print(f"\n{acknowledged.total()} learns acknowledged, {refused} refused, {stale} stale answers")
