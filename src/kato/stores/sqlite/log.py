"""Keeps the write-ahead log of the sessions short without making the event loop wait for the disk."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from kato.stores.directory import MEMORY
from kato.stores.sqlite.connection import connect


class LogKeeper:
    """Moves the log of the database at `path` into the file, in a thread, after about `limit` bytes.

    SQLite starts the log anew only when all of it has been moved at a moment when nobody writes, which under
    continuous writing never comes by itself. So the long move runs beside the writers; then `pausing` asks
    them to hold back for the moment in which the thread moves the little that came meanwhile, and `resumed`
    tells them to go on.
    """

    def __init__(self, path: str, limit: int, resumed: Callable[[], None]) -> None:
        self.pausing = False
        self._path = path
        self._limit = limit
        self._resumed = resumed
        self._written = 0
        self._busy = False
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    def grown(self, size: int) -> None:
        """Note that about `size` bytes will go into the log."""
        self._written += size

    def tend(self) -> None:
        """Start moving the log if it is long; to be called on the loop after a commit."""
        if self._written < self._limit or self._busy or self._closed or self._path == MEMORY:
            return
        self._busy = True
        self._written = 0
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"log of {self._path}")
        self._loop = asyncio.get_running_loop()
        self._executor.submit(self._move_beside)

    def _move_beside(self) -> None:
        self._move()
        self._tell(self._pause)

    def _pause(self) -> None:
        if self._executor is None or self._closed:
            return
        self.pausing = True
        self._executor.submit(self._move_rest)

    def _move_rest(self) -> None:
        self._move()
        self._tell(self._resume)

    def _resume(self) -> None:
        self.pausing = False
        self._busy = False
        self._resumed()

    def _move(self) -> None:
        # A failure (a full disk) loses nothing: the log stays as it is and is moved at the next occasion,
        # and a log that cannot grow any more fails the write that needs it.
        with contextlib.suppress(sqlite3.Error):
            if self._connection is None:
                self._connection = connect(self._path, "NORMAL")
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _tell(self, callback: Callable[[], None]) -> None:
        assert self._loop is not None
        # The loop may have been closed without closing the store.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def close(self) -> None:
        """End the thread; writers need not hold back any more."""
        self._closed = True
        if self._executor is not None:
            self._executor.shutdown(wait=True)
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self.pausing = False
