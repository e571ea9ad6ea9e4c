"""The stores of a side, opened for a move."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from kato.errors import ConfigurationError, KatoError, NotFound
from kato.moving.sides import MONGO, POSTGRES, Side
from kato.stores.directory import FORMAT_FILE, DataDirectory
from kato.stores.ports import PatternStore, SessionStore, VectorStore
from kato.stores.sqlite import Database, SqlitePatternStore, SqliteSessionStore, SqliteVectorStore

if TYPE_CHECKING:
    from kato.stores.mongo import MongoPatternStore
    from kato.stores.postgres import PostgresPatternStore

QDRANT: Final = "Qdrant"
REDIS: Final = "Redis"
_EXTRAS: Final = {POSTGRES: "postgres", MONGO: "mongo", QDRANT: "qdrant", REDIS: "redis"}
_CONNECTIONS: Final = 8
_SECONDS: Final = 60.0
"""A batch of thousands takes longer than one learn."""
_ANY_SIZE: Final = sys.maxsize
"""What one store has accepted the other one must take."""


class Access(NamedTuple):
    """What KATO's settings say about Qdrant, and no URL does."""

    api_key: str | None = None
    prefix: str = "kato"


class Place(NamedTuple):
    """The open stores of a side; None for what has no place there."""

    side: Side
    patterns: PatternStore
    vectors: VectorStore | None
    sessions: SessionStore | None


@asynccontextmanager
async def opened(side: Side, *, existing: bool, qdrant: Access) -> AsyncIterator[Place]:
    """The stores of `side`; a data directory is locked as long.

    Raises `NotFound` when `existing` and there is no such data directory, `DataDirectoryError` when it is in use,
    `StorageError` when a server cannot be reached, `ConfigurationError` when its driver is not installed.
    """
    async with AsyncExitStack() as stack:
        if side.directory is not None:
            with _told(side.option):
                place = _embedded(side, side.directory, existing, stack)
        else:
            place = await _served(side, qdrant, stack)
        yield place


def _embedded(side: Side, path: Path, existing: bool, stack: AsyncExitStack) -> Place:
    if existing and not (path / FORMAT_FILE).is_file():
        raise NotFound(f"{path} is not a data directory")
    directory = stack.enter_context(DataDirectory(path, side.option))
    database = Database(directory.patterns)
    patterns, vectors = SqlitePatternStore(database), SqliteVectorStore(database)
    stack.push_async_callback(patterns.close)
    stack.push_async_callback(vectors.close)
    sessions = SqliteSessionStore(directory.sessions, max_bytes=_ANY_SIZE)
    stack.push_async_callback(sessions.close)
    return Place(side, patterns, vectors, sessions)


async def _served(side: Side, qdrant: Access, stack: AsyncExitStack) -> Place:
    with _told(side.option, side.name):
        patterns = await _patterns(side, stack)
    vectors: VectorStore | None = None
    sessions: SessionStore | None = None
    if side.vectors is not None:
        with _told(f"{side.option}-vectors", QDRANT):
            vectors = await _vectors(side.vectors, qdrant.api_key, side.prefix or qdrant.prefix, stack)
    if side.sessions is not None:
        with _told(f"{side.option}-sessions", REDIS):
            sessions = await _sessions(side.sessions, stack)
    return Place(side, patterns, vectors, sessions)


async def _patterns(side: Side, stack: AsyncExitStack) -> PatternStore:
    store: PostgresPatternStore | MongoPatternStore
    if side.name == POSTGRES:
        from kato.stores.postgres import PostgresPatternStore

        store = PostgresPatternStore(
            side.patterns, min_connections=1, max_connections=_CONNECTIONS, command_timeout=_SECONDS
        )
    else:
        from kato.stores.mongo import MongoPatternStore

        store = MongoPatternStore(
            side.patterns,
            min_connections=0,
            max_connections=_CONNECTIONS,
            socket_timeout=int(_SECONDS * 1000),
        )
    stack.push_async_callback(store.close)
    await store.open()
    return store


async def _vectors(url: str, api_key: str | None, prefix: str, stack: AsyncExitStack) -> VectorStore:
    from kato.stores.qdrant import QdrantVectorStore

    store = QdrantVectorStore(url, prefix=prefix, prefer_grpc=False, api_key=api_key, timeout=_SECONDS)
    stack.push_async_callback(store.close)
    await store.ping()
    return store


async def _sessions(url: str, stack: AsyncExitStack) -> SessionStore:
    from kato.stores.redis import RedisClient, RedisSessionStore

    client = RedisClient(url, min_connections=1, max_connections=_CONNECTIONS, timeout=_SECONDS)
    store = RedisSessionStore(client, max_bytes=_ANY_SIZE)
    stack.push_async_callback(store.close)
    await client.open()
    return store


@contextmanager
def _told(option: str, server: str = "") -> Iterator[None]:
    """Errors inside say which option they are about."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{option}: the driver {error.name!r} is not installed;"
            f" pip install 'kato[{_EXTRAS[server]}]' installs all that is needed"
        ) from error
    except KatoError as error:
        error.message = f"{option}: {error.message}"
        raise
