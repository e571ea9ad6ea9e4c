"""A database file with one writing thread and any number of readers, shared by the stores that live in it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from kato.errors import StorageError
from kato.stores.directory import MEMORY
from kato.stores.sqlite.connection import connect, connect_first, translated
from kato.stores.sqlite.schema import PATTERNS, Schema
from kato.stores.sqlite.writer import Writer

T = TypeVar("T")

_READERS: Final = 4
_CHECKPOINT_PAGES: Final = 16_384
"""64 MB of log between two checkpoints: names are random, and a page written twice is moved only once."""
_WRITE_CACHE: Final = 2**26


class Database:
    """The file at `path` (or `:memory:`), opened for `users` stores; closed when the last of them closes it.

    Writes go through one thread and are durable (`synchronous=FULL`) when they return. Reads run in a few
    threads of their own beside it; in memory they share the writer's connection, the only one that sees the
    data. Raises `DataCorrupted` when the file is damaged, `StorageError` when it cannot be opened.
    """

    def __init__(self, path: str | Path, schema: Schema = PATTERNS) -> None:
        self.path = str(path)
        self.in_memory = self.path == MEMORY
        self.node_ids: dict[bytes, int] = {}
        """Row ids of nodes as the writer's current transaction sees them; only for the writer's thread."""
        connection = connect_first(self.path, schema, "FULL", _CHECKPOINT_PAGES, _WRITE_CACHE)
        self._writer = Writer(connection, self.path, self.node_ids.clear)
        self._executor = ThreadPoolExecutor(_READERS, thread_name_prefix=f"reader of {self.path}")
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._open: set[sqlite3.Connection] = set()
        self._users = 0
        self._closed = False

    def use(self) -> Database:
        """Count one more store that will `close` this database."""
        self._users += 1
        return self

    async def write(
        self, work: Callable[[sqlite3.Connection], T], committed: Callable[[T], None] | None = None
    ) -> T:
        """The result of `work`, run in a transaction that is durable when this returns.

        A cancelled caller does not stop a write that is queued. `committed` runs on the loop in the order of
        commits.
        """
        return await self._writer.submit(work, committed)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work`, run on a consistent state of the database."""
        if self.in_memory:
            return await self._writer.submit(work)
        return await self.run(lambda: self._read(work))

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run `work` in one of the reading threads."""
        if self._closed:
            raise StorageError(f"{self.path} is closed")
        return asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self.borrow()
        try:
            with translated(self.path):
                return work(connection)
        finally:
            self.give_back(connection)

    def borrow(self) -> sqlite3.Connection:
        """A reading connection inside a transaction, whose snapshot begins with the first read."""
        with translated(self.path):
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = connect(self.path, "FULL")
                with self._lock:
                    self._open.add(connection)
            connection.execute("BEGIN")
        return connection

    def give_back(self, connection: sqlite3.Connection) -> None:
        """End the transaction of a borrowed connection."""
        with self._lock:
            if connection not in self._open:
                return
            if len(self._idle) < _READERS:
                connection.execute("ROLLBACK")
                self._idle.append(connection)
            else:
                self._open.remove(connection)
                connection.close()

    async def close(self) -> None:
        """Finish what was accepted and release the file, once every store that uses it has closed it."""
        self._users -= 1
        if self._users > 0 or self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._shutdown)

    def _shutdown(self) -> None:
        self._executor.shutdown(wait=True)
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()
            self._idle.clear()
        # Last, so that closing it moves the whole log into the file and removes the log.
        self._writer.close()
