"""A KATO whose vectors have a server of their own, with stores that do not answer when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from qdrant_client import AsyncQdrantClient

from kato.memory.registry import Memory
from kato.ops.counters import Counters
from kato.ops.events import EventBus
from kato.service import Kato
from kato.sessions.keeper import Sessions
from kato.sessions.shared import SharedSessions
from kato.settings import Settings
from kato.stores.qdrant import QdrantVectorStore
from kato.stores.qdrant.failures import failure
from kato.stores.redis import RedisSessionStore
from kato.stores.sqlite import SqliteSessionStore
from tests.support import redis
from tests.support.clock import Clock
from tests.support.feed import Line, MoodyStore

SERVER = "Qdrant"
LEFT_OUT = f"vectors were left out: {SERVER} does not answer, the observation was taken without them"


class MoodyVectors(QdrantVectorStore):
    """The client's local mode. Does not answer, or not before a gate opens, when told."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.down = False
        self.gate: asyncio.Event | None = None
        self.asked = 0

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncQdrantClient]:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise failure("the server cannot be reached")
        async with super()._client() as client:
            yield client


class Degrading:
    """A service and the parts of it that can be taken away."""

    def __init__(self, kato: Kato, patterns: MoodyStore, vectors: MoodyVectors, line: Line) -> None:
        self.kato = kato
        self.patterns = patterns
        self.vectors = vectors
        self.line = line
        self.known_to_be_available = True


@asynccontextmanager
async def degrading(
    shared: bool = False, opening_seconds: float | None = None, **settings: Any
) -> AsyncIterator[Degrading]:
    """Sessions in SQLite, or `shared` ones in Redis with an outbox; vectors in Qdrant unless told otherwise."""
    clock, chosen = Clock(), Settings(KATO_DATA=":memory:", **settings)
    events, counters = EventBus(clock), Counters()
    patterns, vectors, line = MoodyStore(), MoodyVectors(), Line()
    memory = Memory(
        patterns,
        vectors,
        feed=line,
        opening_seconds=opening_seconds,
        vectors_server=SERVER,
        available=lambda: made.known_to_be_available,
    )
    sessions: Sessions
    if shared:
        store = RedisSessionStore(redis.shared().url, prefix=redis.fresh_prefix())
        sessions = SharedSessions(store, chosen, events, counters, clock)
    else:
        sessions = Sessions(SqliteSessionStore(":memory:"), chosen, events, counters, clock)
    made = Degrading(Kato(chosen, sessions, memory, events, counters, clock), patterns, vectors, line)
    try:
        yield made
    finally:
        vectors.down = patterns.down = False
        await made.kato.close()
