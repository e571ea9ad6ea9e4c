"""Wires everything from the settings; the only module that knows which adapter stands behind which port."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from kato import production, resilience
from kato.memory.registry import Memory
from kato.ops.counters import Counters
from kato.ops.events import EventBus
from kato.ops.health import Dependency, Health
from kato.service import Kato
from kato.sessions.keeper import Sessions
from kato.sessions.shared import SharedSessions
from kato.settings import Settings
from kato.stores.directory import DataDirectory
from kato.stores.novectors import NoVectors
from kato.stores.ports import VectorStore
from kato.stores.sqlite.database import Database
from kato.stores.sqlite.patterns import SqlitePatternStore
from kato.stores.sqlite.sessions import SqliteSessionStore
from kato.stores.sqlite.vectors import SqliteVectorStore


@asynccontextmanager
async def running(settings: Settings, clock: Callable[[], float] = time.time) -> AsyncIterator[Kato]:
    """A running KATO on the stores that `settings` name.

    The embedded ones live in `settings.kato_data` (`:memory:` keeps nothing). Raises `ConfigurationError` when that
    directory is in use or cannot be used, or when a server's data are not for this version. Servers that cannot be
    reached are waited for: `kato.health` says so.
    """
    async with AsyncExitStack() as stack:
        if settings.kato_store == "embedded":
            directory = stack.enter_context(DataDirectory(settings.kato_data))
            kato = _embedded(settings, directory, clock)
        else:
            kato = _production(settings, clock)
        try:
            await kato.health.start()
            kato.sessions.start()
            yield kato
        finally:
            await kato.close()


def _embedded(settings: Settings, directory: DataDirectory, clock: Callable[[], float]) -> Kato:
    database = Database(directory.patterns)
    patterns = SqlitePatternStore(database)
    vectors: VectorStore = SqliteVectorStore(database) if settings.kato_vectors else NoVectors()
    sessions = SqliteSessionStore(directory.sessions, max_bytes=settings.max_session_memory_bytes)
    events, counters = EventBus(clock), Counters()
    keeper = Sessions(sessions, settings, events, counters, clock)
    memory = Memory(
        patterns,
        vectors,
        settings.max_processors,
        max_bytes=settings.kato_index_memory,
        repeatable=keeper.repeatable,
    )
    health = Health(
        {
            "sessions": Dependency("sessions", keeper.count),
            "patterns": Dependency("patterns", lambda: patterns.count(settings.base)),
        },
        events,
        clock,
    )
    return Kato(settings, keeper, memory, events, counters, clock, health)


def _production(settings: Settings, clock: Callable[[], float]) -> Kato:
    stores = production.chosen(settings)
    events, counters = EventBus(clock), Counters()
    ports = resilience.protected(stores, settings, events, clock)
    keeper = SharedSessions(ports.sessions, settings, events, counters, clock)
    memory = Memory(
        ports.patterns,
        ports.vectors,
        settings.max_processors,
        feed=ports.feed,
        max_bytes=settings.kato_index_memory,
        opening_seconds=settings.request_timeout / 3,
        pending_seconds=stores.pending_seconds,
        available=lambda: ports.health.available("patterns"),
        vectors_server="Qdrant" if settings.kato_vectors else None,
        repeatable=keeper.repeatable,
    )
    events.join(stores.events())
    return Kato(settings, keeper, memory, events, counters, clock, ports.health)
