"""Wires everything from the settings; the only module that knows which adapter stands behind which port."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from kato.memory.registry import Memory
from kato.ops.counters import Counters
from kato.ops.events import EventBus
from kato.service import Kato
from kato.sessions.keeper import Sessions
from kato.settings import Settings
from kato.stores.directory import DataDirectory
from kato.stores.sqlite.database import Database
from kato.stores.sqlite.patterns import SqlitePatternStore
from kato.stores.sqlite.sessions import SqliteSessionStore
from kato.stores.sqlite.vectors import SqliteVectorStore


@asynccontextmanager
async def running(settings: Settings, clock: Callable[[], float] = time.time) -> AsyncIterator[Kato]:
    """A running KATO on the embedded stores in `settings.kato_data` (`:memory:` keeps nothing).

    Raises `DataDirectoryError` when the directory is in use or cannot be used.
    """
    with DataDirectory(settings.kato_data) as directory:
        database = Database(directory.patterns)
        patterns, vectors = SqlitePatternStore(database), SqliteVectorStore(database)
        sessions = SqliteSessionStore(directory.sessions, max_bytes=settings.max_session_memory_bytes)
        events, counters = EventBus(clock), Counters()
        keeper = Sessions(sessions, settings, events, counters, clock)
        memory = Memory(patterns, vectors, settings.max_processors)
        kato = Kato(settings, keeper, memory, events, counters, clock)
        keeper.start()
        try:
            yield kato
        finally:
            await kato.close()
