"""Several instances on one pattern store and one Redis, and a store that a test can hold up or break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from kato import errors
from kato.memory.feed import Entry, Feed, Follower, Tail
from kato.memory.node import Node
from kato.memory.registry import Memory
from kato.model import Pattern, PatternRecord, SessionConfig
from kato.stores.ports import PatternStore
from kato.stores.redis import RedisClient, RedisStream
from kato.stores.redis.stream import Tail as PlainTail
from kato.stores.sqlite import Database, SqlitePatternStore, SqliteVectorStore
from tests.support.clock import Clock
from tests.support.memory import events, name_of

ALIKE = SessionConfig(recall_threshold=0.9)
"""Predicts little more than the very pattern that is asked for."""


class MoodyStore(SqlitePatternStore):
    """The real store. Operations wait for a gate, fail, or happen without being acknowledged, when told."""

    def __init__(self, path: str | Database = ":memory:") -> None:
        super().__init__(path)
        self.write_gate: asyncio.Event | None = None
        self.scan_gate: asyncio.Event | None = None
        self.fetch_gate: asyncio.Event | None = None
        self.down = False
        self.full = False
        self.silent = False
        self.scans = 0
        self.waiting = 0
        self.fetched: list[list[str]] = []

    async def _wait(self, gate: asyncio.Event | None) -> None:
        if gate is not None:
            self.waiting += 1
            await gate.wait()
            self.waiting -= 1
        if self.down:
            raise errors.StorageError("the store is down")

    async def _may_write(self) -> None:
        await self._wait(self.write_gate)
        if self.full:
            raise errors.StorageError("the disk is full")

    def _acknowledge(self) -> None:
        if self.silent:
            raise errors.StorageError("the connection was cut before the answer came")

    async def insert(self, node: str, patterns: Sequence[Pattern]) -> set[str]:
        await self._may_write()
        known = await super().insert(node, patterns)
        self._acknowledge()
        return known

    async def replace(self, node: str, pattern: Pattern, revision: int) -> bool:
        await self._may_write()
        replaced = await super().replace(node, pattern, revision)
        self._acknowledge()
        return replaced

    async def delete(self, node: str, name: str, revision: int | None = None) -> bool:
        await self._may_write()
        deleted = await super().delete(node, name, revision)
        self._acknowledge()
        return deleted

    async def drop(self, node: str) -> int:
        await self._may_write()
        dropped = await super().drop(node)
        self._acknowledge()
        return dropped

    async def fetch(self, node: str, names: Sequence[str]) -> dict[str, Pattern]:
        self.fetched.append(list(names))
        found = await super().fetch(node, names)
        await self._wait(self.fetch_gate)
        return found

    async def count(self, node: str) -> int:
        await self._wait(None)
        return await super().count(node)

    async def scan(self, node: str) -> AsyncIterator[list[PatternRecord]]:
        self.scans += 1
        batches = [batch async for batch in super().scan(node)]
        await self._wait(self.scan_gate)
        for batch in batches:
            yield batch


class Line:
    """A feed in this process, for what Redis cannot be made to do at the right moment.

    Positions before `cut` are lost. The answer to a question (counted from 1) waits for its gate if it has one.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.cut = 0
        self.questions = 0
        self.gates: dict[int, asyncio.Event] = {}
        self.refuses: Callable[[Entry], bool] = lambda entry: False
        self.error: errors.KatoError | None = None
        self.closed = False

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    async def append(self, node: str, entries: Sequence[Entry]) -> str:
        await asyncio.sleep(0)
        self._check()
        if any(self.refuses(entry) for entry in entries):
            raise errors.StorageError("the feed refuses that")
        self.entries += entries
        return str(len(self.entries))

    async def position(self, node: str) -> str:
        self._check()
        return str(len(self.entries))

    async def tail(self, node: str, after: str) -> Tail:
        self.questions += 1
        gate = self.gates.get(self.questions)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        found, end, complete = self.entries[int(after) :], str(len(self.entries)), int(after) >= self.cut
        if gate is not None:
            await gate.wait()
        self._check()
        return PlainTail(found if complete else [], complete, end)

    async def close(self) -> None:
        self.closed = True


@asynccontextmanager
async def following(
    store: PatternStore, feed: Feed, clock: Clock | None = None, node_id: str = "node"
) -> AsyncIterator[Node]:
    """An open node that follows `feed`; time goes on when the test says so."""
    with ThreadPoolExecutor(2) as threads:
        node = Node(node_id, store, threads, Follower(node_id, feed, clock=clock or Clock()))
        await node.open()
        yield node
        await node.settled()


def pending(node: Node) -> int:
    """How many names a node keeps under observation."""
    assert node._follower is not None
    return node._follower.pending


def stream(url: str, prefix: str, max_length: int = 100_000) -> RedisStream:
    """A feed with a client of its own."""
    client = RedisClient(url, min_connections=1, connect_timeout=2.0, timeout=2.0)
    return RedisStream(client, prefix=prefix, max_length=max_length)


@asynccontextmanager
async def instance(patterns: PatternStore, url: str, prefix: str) -> AsyncIterator[Memory]:
    """The long-term memory of one instance among several."""
    memory = Memory(patterns, SqliteVectorStore(":memory:"), feed=stream(url, prefix))
    try:
        yield memory
    finally:
        await memory.close()


async def seen(node: Node, text: str) -> int:
    """The frequency with which a pattern is predicted from itself; 0 when it is not."""
    found = (await node.predict(events(text), ALIKE)).predictions
    return next((prediction.frequency for prediction in found if prediction.name == name_of(text)), 0)
