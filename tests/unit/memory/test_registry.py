"""Open nodes: opened once, closed when there are too many, never while in use, never with a loss."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kato import errors
from kato.engine.naming import pattern_name
from kato.memory.registry import Memory
from kato.model import Lesson, PatternRecord, SessionConfig
from kato.stores.sqlite import Database, SqlitePatternStore, SqliteVectorStore
from tests.support.memory import events, lesson, name_of
from tests.support.waiting import idle, until


class CountingStore(SqlitePatternStore):
    """The real store; counts openings and can hold them up."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.opened: list[str] = []
        self.gate: asyncio.Event | None = None
        self.broken = False

    async def scan(self, node: str) -> AsyncIterator[list[PatternRecord]]:
        self.opened.append(node)
        if self.gate is not None:
            await self.gate.wait()
        if self.broken:
            raise errors.StorageError("the disk is gone")
        async for batch in super().scan(node):
            yield batch


@asynccontextmanager
async def remembering(path: Path | str = ":memory:", max_nodes: int = 1000) -> AsyncIterator[Memory]:
    database = Database(path)
    memory = Memory(CountingStore(database), SqliteVectorStore(database), max_nodes)
    try:
        yield memory
    finally:
        await memory.close()


def counting(memory: Memory) -> CountingStore:
    assert isinstance(memory.patterns, CountingStore)
    return memory.patterns


async def test_all_who_ask_at_once_share_one_opening() -> None:
    async with remembering() as memory:
        nodes = await asyncio.gather(*(memory.node("n") for _ in range(20)))
        assert all(node is nodes[0] for node in nodes)
        assert await memory.node("n") is nodes[0]
        assert counting(memory).opened == ["n"]


async def test_one_who_gives_up_waiting_does_not_stop_the_opening() -> None:
    async with remembering() as memory:
        gate = counting(memory).gate = asyncio.Event()
        first, second = (asyncio.create_task(memory.node("n")) for _ in range(2))
        await idle()
        first.cancel()
        await idle()
        gate.set()
        assert (await second).node_id == "n"
        assert first.cancelled()
        assert counting(memory).opened == ["n"]


async def test_a_failed_opening_is_told_to_all_and_tried_again_later() -> None:
    async with remembering() as memory:
        counting(memory).broken = True
        outcomes = await asyncio.gather(*(memory.node("n") for _ in range(3)), return_exceptions=True)
        assert all(isinstance(outcome, errors.StorageError) for outcome in outcomes)
        counting(memory).broken = False
        assert (await memory.node("n")).node_id == "n"


async def test_the_node_used_longest_ago_is_closed_and_nothing_is_lost(tmp_path: Path) -> None:
    async with remembering(tmp_path / "p.db", max_nodes=2) as memory:
        for node_id in ("1", "2", "3", "1", "2", "3"):
            await (await memory.node(node_id)).learn([lesson("a b", f"{node_id}")])
            await (await memory.node(node_id)).learn([lesson(f"b {node_id}")])
        assert list(memory.open_nodes) == ["2", "3"]
        for node_id in ("1", "2", "3"):
            node = await memory.node(node_id)
            assert (await node.pattern(name_of("a b"))).frequency == 1
            assert (await node.pattern(name_of(f"b {node_id}"))).frequency == 2
            found = (await node.predict(events(f"b {node_id}"), SessionConfig())).predictions
            assert found[0].name == name_of(f"b {node_id}")


async def test_using_a_node_keeps_it_open_longer() -> None:
    async with remembering(max_nodes=2) as memory:
        for node_id in ("1", "2", "1", "3"):
            await memory.node(node_id)
        assert list(memory.open_nodes) == ["1", "3"]


async def test_a_node_in_use_is_never_closed() -> None:
    async with remembering(max_nodes=1) as memory:
        busy = await memory.node("busy")
        busy.users += 1
        for node_id in ("1", "2", "3"):
            await memory.node(node_id)
        assert list(memory.open_nodes) == ["busy", "3"]
        assert await memory.node("busy") is busy
        busy.users -= 1
        await memory.node("4")
        assert list(memory.open_nodes) == ["4"]


async def test_a_node_is_not_closed_before_those_who_wait_for_it_have_it() -> None:
    async with remembering(max_nodes=1) as memory:
        gate = counting(memory).gate = asyncio.Event()

        async def teach(node_id: str, n: int) -> None:
            node = await memory.node(node_id)
            assert memory.open_nodes.get(node_id) is node
            await node.learn([lesson("a b", str(n))])

        tasks = [asyncio.create_task(teach(str(n % 5), n)) for n in range(50)]
        await idle()
        gate.set()
        await asyncio.gather(*tasks)
        assert sorted(counting(memory).opened) == ["0", "1", "2", "3", "4"]
        for n in range(5):
            node = await memory.node(str(n))
            assert node.totals().pattern_frequencies == 10


async def test_a_thousand_mixed_calls_over_few_places_lose_nothing() -> None:
    async with remembering(max_nodes=2) as memory:

        async def teach(n: int) -> None:
            node_id, text = str(n % 7), f"a b {chr(99 + n % 3)}"
            await (await memory.node(node_id)).learn([lesson(text, str(n))])
            found = (await (await memory.node(node_id)).predict(events(text), SessionConfig())).predictions
            assert name_of(text) in [prediction.name for prediction in found]

        await asyncio.gather(*(teach(n) for n in range(1000)))
        totals = [(await memory.node(str(n))).totals().pattern_frequencies for n in range(7)]
        assert sum(totals) == 1000
        await memory.node("another")
        assert len(memory.open_nodes) == 2


async def test_finalizing_keeps_its_node_open() -> None:
    async with remembering(max_nodes=1) as memory:
        node = await memory.node("n")
        await node.learn([lesson(f"a b {chr(99 + n)}", "0") for n in range(20)])
        finalizing = asyncio.create_task(node.finalize())
        await idle(1)
        await memory.node("other")
        assert await memory.node("n") is node
        assert await finalizing == 20


async def test_dropping_a_node_takes_its_vectors_too() -> None:
    async with remembering() as memory:
        await (await memory.node("n")).learn([lesson("a b", "0")])
        await memory.vectors.put("n", {"VCTR|1": (1.0, 2.0)})
        assert await memory.drop("n") == 1
        assert await memory.vectors.nearest("n", (1.0, 2.0), 3) == []
        assert len(await memory.node("n")) == 0


@pytest.mark.parametrize("broken", [False, True])
async def test_closing_waits_for_openings(broken: bool) -> None:
    async with remembering() as memory:
        store = counting(memory)
        store.gate, store.broken = asyncio.Event(), broken
        opening = asyncio.create_task(memory.node("n"))
        await idle()
        asyncio.get_running_loop().call_soon(store.gate.set)
    (outcome,) = await asyncio.gather(opening, return_exceptions=True)
    assert isinstance(outcome, errors.StorageError) is broken


# Room


async def test_beyond_the_budget_the_nodes_idle_longest_are_closed_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    async with remembering(tmp_path / "p.db") as memory:
        for node_id in ("1", "2", "3", "4"):
            await (await memory.node(node_id)).learn([lesson(f"a {chr(98 + n)}", "0") for n in range(20)])
        assert memory.held_bytes > 0
        size = (await memory.node("1")).memory_bytes()
        memory.max_bytes = 2 * size + size // 2
        for node_id in ("2", "3", "4"):
            await memory.node(node_id)
        assert list(memory.open_nodes) == ["3", "4"]
        assert memory.held_bytes == sum(node.memory_bytes() for node in memory.open_nodes.values())
        for node_id in ("1", "2", "3", "4"):
            assert (await memory.node(node_id)).totals().pattern_frequencies == 20
            assert memory.held_bytes <= memory.max_bytes


async def test_a_node_that_grows_takes_the_room_of_others(tmp_path: Path) -> None:
    async with remembering(tmp_path / "p.db") as memory:
        memory.max_bytes = 200_000
        for node_id in ("1", "2", "large"):
            await memory.node(node_id)
        assert len(memory.open_nodes) == 3
        lessons = [lesson(f"{chr(97 + n % 26)}{chr(300 + n)} {chr(2000 + n)}", "0") for n in range(1500)]
        await (await memory.node("large")).learn(lessons)
        node = await memory.node("large")
        assert node.memory_bytes() > memory.max_bytes
        # Alone it may be larger than the budget: somebody wants it.
        assert list(memory.open_nodes) == ["large"]
        assert memory.held_bytes == node.memory_bytes()


async def test_the_budget_takes_no_node_that_is_in_use(tmp_path: Path) -> None:
    async with remembering(tmp_path / "p.db") as memory:
        memory.max_bytes = 1
        store, gate = counting(memory), asyncio.Event()
        busy = await memory.node("busy")
        busy.users += 1
        await memory.node("1")
        store.gate = gate
        # Opened for one who waits: it must be there when that one goes on.
        waiting = [asyncio.create_task(memory.node(node_id)) for node_id in ("2", "3")]
        await idle()
        gate.set()
        for node in await asyncio.gather(*waiting):
            await node.learn([lesson("a b", "0")])
        busy.users -= 1
        await memory.node("4")
        assert list(memory.open_nodes) == ["4"]
        assert store.opened.count("busy") == 1


async def test_who_waits_too_long_for_an_opening_is_told_when_to_come_again() -> None:
    database = Database(":memory:")
    memory = Memory(CountingStore(database), SqliteVectorStore(database), opening_seconds=0.01)
    try:
        gate = counting(memory).gate = asyncio.Event()
        outcomes = await asyncio.gather(*(memory.node("n") for _ in range(3)), return_exceptions=True)
        for outcome in outcomes:
            assert isinstance(outcome, errors.ServiceUnavailable)
            assert outcome.retry_after is not None
            assert outcome.details == {"node_id": "n"}
        gate.set()
        await until(lambda: "n" in memory.open_nodes)
        assert (await memory.node("n")).node_id == "n"
        assert counting(memory).opened == ["n"]
    finally:
        await memory.close()


async def test_an_opening_that_fails_after_all_went_away_is_tried_again() -> None:
    database = Database(":memory:")
    memory = Memory(CountingStore(database), SqliteVectorStore(database), opening_seconds=0.01)
    try:
        store = counting(memory)
        gate = store.gate = asyncio.Event()
        with pytest.raises(errors.ServiceUnavailable):
            await memory.node("n")
        store.broken = True
        gate.set()
        await until(lambda: not memory._opening)
        gc.collect()
        store.broken = False
        assert (await memory.node("n")).node_id == "n"
    finally:
        await memory.close()


async def test_others_are_served_while_a_large_node_is_opened(tmp_path: Path) -> None:
    async with remembering(tmp_path / "p.db") as memory:
        texts = [(f"s{n % 211}", f"t{n % 307}", f"u{n}") for n in range(20_000)]
        lessons = [
            Lesson(name=pattern_name((text,)), events=(text,), emotives=({"joy": 1.0},), operation="0")
            for text in texts
        ]
        await (await memory.node("large")).learn(lessons)
        await (await memory.node("small")).learn([lesson("a b", "0")])
        memory.max_nodes = 1
        await memory.node("small")
        await memory.node("other")
        memory.max_nodes = 10
        assert "large" not in memory.open_nodes
        opening = asyncio.create_task(memory.node("large"))
        served = 0
        while not opening.done():
            found = await (await memory.node("small")).predict(events("a b"), SessionConfig())
            assert len(found.predictions) == 1
            served += 1
            await asyncio.sleep(0)
        assert served >= 10
        assert (await opening).totals().unique_patterns == 20_000
