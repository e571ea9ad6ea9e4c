"""Open nodes: opened once, closed when there are too many, never while in use, never with a loss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kato import errors
from kato.memory.registry import Memory
from kato.model import PatternRecord, SessionConfig
from kato.stores.sqlite import Database, SqlitePatternStore, SqliteVectorStore
from tests.support.memory import events, lesson, name_of
from tests.support.waiting import idle


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
