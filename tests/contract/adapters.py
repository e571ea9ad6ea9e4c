"""The adapters that the contract suites run over; a new one is a class here and an entry in `ADAPTERS`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from qdrant_client import AsyncQdrantClient

from kato.guarded import GuardedPatterns, GuardedSessions, GuardedVectors
from kato.ops.breaker import Breaker
from kato.ops.bulkhead import Bulkhead
from kato.ops.guard import FAST, KINDS, Guard
from kato.stores.mongo import MongoPatternStore
from kato.stores.ports import PatternStore, SessionStore, VectorStore
from kato.stores.postgres import PostgresPatternStore
from kato.stores.qdrant import QdrantVectorStore
from kato.stores.redis import RedisSessionStore
from kato.stores.sqlite import SqlitePatternStore, SqliteSessionStore, SqliteVectorStore
from tests.support import mongo, postgres, qdrant, qdrant_server, redis


class Adapters(Protocol):
    """Opens stores of one kind; all that one instance opens share their data where the kind lets them."""

    persistent: bool
    """Whether a store that is opened after another one was closed finds what that one stored."""
    vector_precision: float
    """Relative precision of distances; 0.0 when they are those of double arithmetic to the bit."""

    async def patterns(self) -> PatternStore: ...

    async def vectors(self) -> VectorStore: ...

    async def sessions(self, max_bytes: int = 10 * 1024 * 1024) -> SessionStore: ...


class SqliteFiles:
    persistent = True
    vector_precision = 0.0

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def patterns(self) -> PatternStore:
        return SqlitePatternStore(self._directory / "patterns.db")

    async def vectors(self) -> VectorStore:
        return SqliteVectorStore(self._directory / "patterns.db")

    async def sessions(self, max_bytes: int = 10 * 1024 * 1024) -> SessionStore:
        return SqliteSessionStore(self._directory / "sessions.db", max_bytes)


class SqliteMemory:
    persistent = False
    vector_precision = 0.0

    def __init__(self, _: Path) -> None:
        pass

    async def patterns(self) -> PatternStore:
        return SqlitePatternStore(":memory:")

    async def vectors(self) -> VectorStore:
        return SqliteVectorStore(":memory:")

    async def sessions(self, max_bytes: int = 10 * 1024 * 1024) -> SessionStore:
        return SqliteSessionStore(":memory:", max_bytes)


class PatternsOnly:
    """A server that keeps patterns and nothing else; the suites of the other ports are not run over it."""

    persistent = True
    vector_precision = 0.0

    async def vectors(self) -> VectorStore:
        raise NotImplementedError

    async def sessions(self, max_bytes: int = 10 * 1024 * 1024) -> SessionStore:
        raise NotImplementedError


class Postgres(PatternsOnly):
    def __init__(self, _: Path) -> None:
        self._url = postgres.shared().url
        self._schema = postgres.fresh_schema()

    async def patterns(self) -> PatternStore:
        return PostgresPatternStore(self._url, schema=self._schema, min_connections=1, max_connections=10)


class Mongo(PatternsOnly):
    """The protocol as mongo-java-server speaks it."""

    def __init__(self, _: Path) -> None:
        self._url = mongo.shared().url
        self._database = mongo.fresh_database()

    async def patterns(self) -> PatternStore:
        return MongoPatternStore(self._url, database=self._database, min_connections=0, max_connections=10)


class MongoReplicaSet(Mongo):
    """A real one, where the environment names it."""

    def __init__(self, _: Path) -> None:
        self._url = mongo.real_url()
        self._database = mongo.fresh_database(self._url)


class Redis:
    """A server that keeps sessions and nothing else."""

    persistent = True
    vector_precision = 0.0

    def __init__(self, _: Path) -> None:
        self._url = redis.shared().url
        self._prefix = redis.fresh_prefix()

    async def patterns(self) -> PatternStore:
        raise NotImplementedError

    async def vectors(self) -> VectorStore:
        raise NotImplementedError

    async def sessions(self, max_bytes: int = 10 * 1024 * 1024) -> SessionStore:
        return RedisSessionStore(self._url, prefix=self._prefix, max_bytes=max_bytes)


class QdrantLocal:
    """Qdrant's client without a server; two stores share one such client."""

    persistent = True
    vector_precision = 0.0

    def __init__(self, _: Path) -> None:
        self._client = AsyncQdrantClient(location=":memory:")

    async def patterns(self) -> PatternStore:
        raise NotImplementedError

    async def vectors(self) -> VectorStore:
        return QdrantVectorStore(self._client)

    async def sessions(self, max_bytes: int = 10 * 1024 * 1024) -> SessionStore:
        raise NotImplementedError


class QdrantRest(QdrantLocal):
    """Local mode behind the REST protocol, reached over the network."""

    def __init__(self, _: Path) -> None:
        self._url = qdrant_server.shared().url
        self._prefix = qdrant_server.fresh_prefix()

    async def vectors(self) -> VectorStore:
        # A hundred requests queue for twenty permits, and the stand-in answers as fast as Python does.
        return QdrantVectorStore(
            self._url, prefix=self._prefix, prefer_grpc=False, timeout=60, acquire_timeout=120
        )


class QdrantServer(QdrantLocal):
    """A real one, where the environment names it."""

    def __init__(self, _: Path) -> None:
        self._url = qdrant.real_url()
        self._prefix = qdrant.fresh_prefix(self._url)

    async def vectors(self) -> VectorStore:
        return QdrantVectorStore(self._url, prefix=self._prefix)


class Guarded:
    """Real stores behind a guard each, as a production KATO has them."""

    persistent = True
    vector_precision = 0.0

    def __init__(self, directory: Path) -> None:
        self._files = SqliteFiles(directory)
        self._url = redis.shared().url
        self._prefix = redis.fresh_prefix()

    @staticmethod
    def _guard() -> Guard:
        bulkheads = {kind: Bulkhead(kind, 200) for kind in KINDS}
        return Guard("store", Breaker("store", 1000, 30), bulkheads, dict.fromkeys(KINDS, FAST))

    async def patterns(self) -> PatternStore:
        return GuardedPatterns(await self._files.patterns(), self._guard())

    async def vectors(self) -> VectorStore:
        return GuardedVectors(await self._files.vectors(), self._guard())

    async def sessions(self, max_bytes: int = 10 * 1024 * 1024) -> SessionStore:
        store = RedisSessionStore(self._url, prefix=self._prefix, max_bytes=max_bytes)
        return GuardedSessions(store, self._guard())


ADAPTERS: dict[str, Callable[[Path], Adapters]] = {
    "sqlite": SqliteFiles,
    "sqlite-memory": SqliteMemory,
    "postgres": Postgres,
    "redis": Redis,
    "qdrant-local": QdrantLocal,
    "qdrant-rest": QdrantRest,
    "qdrant-server": QdrantServer,
    "mongo": Mongo,
    "guarded": Guarded,
}
if mongo.REAL in os.environ:
    ADAPTERS["mongo-replica-set"] = MongoReplicaSet
ONLY: dict[str, str] = {
    "postgres": "patterns",
    "mongo": "patterns",
    "mongo-replica-set": "patterns",
    "redis": "sessions",
    "qdrant-local": "vectors",
    "qdrant-rest": "vectors",
    "qdrant-server": "vectors",
}
"""The one suite (`test_<name>`) that an adapter takes part in; those that are not here take part in all."""
