"""The one thread that writes a database: everything asked for during a commit shares the next one."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from kato.errors import StorageError
from kato.stores.sqlite.connection import explain

T = TypeVar("T")


class _Request:
    """Work to be done inside a transaction, and who waits for its result."""

    __slots__ = ("committed", "future", "loop", "outcome", "work")

    def __init__(
        self,
        work: Callable[[sqlite3.Connection], Any],
        committed: Callable[[Any], None] | None,
        future: asyncio.Future[Any],
    ) -> None:
        self.work = work
        self.committed = committed
        self.future = future
        self.loop = future.get_loop()
        self.outcome: Any = None

    def finish(self) -> None:
        """On the loop: pass the outcome on. The write happened even if nobody waits for it any more."""
        if self.committed is not None and not isinstance(self.outcome, BaseException):
            try:
                self.committed(self.outcome)
            except Exception as error:  # noqa: BLE001 - out of memory, say; the others of the group must still wake
                self.outcome = error
        if self.future.done():
            return
        if isinstance(self.outcome, BaseException):
            self.future.set_exception(self.outcome)
        else:
            self.future.set_result(self.outcome)


class Writer:
    """Runs requests on `connection` in a thread of its own, as many in one transaction as are waiting.

    When a transaction fails, its requests are tried again one by one, so that each fails or succeeds for
    itself. Work must therefore be repeatable; `rolled_back` is called (in the thread) after each rollback.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: str, rolled_back: Callable[[], None] | None = None
    ) -> None:
        self._connection = connection
        self._path = path
        self._rolled_back = rolled_back
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closing = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"writer of {path}", daemon=True)
        self._thread.start()

    def submit(
        self, work: Callable[[sqlite3.Connection], T], committed: Callable[[T], None] | None = None
    ) -> asyncio.Future[T]:
        """Queue `work`; the future is done when its transaction is durable.

        `committed` is called on the loop with the result even when the future was cancelled meanwhile.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._closing:
                raise StorageError(f"{self._path} is closed")
            self._requests.put(_Request(work, committed, future))
        return future

    def close(self) -> None:
        """Finish what was accepted, end the thread and close the connection."""
        with self._lock:
            if not self._closing:
                self._closing = True
                self._requests.put(None)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while True:
            request = self._requests.get()
            if request is None:
                return
            group = [request]
            ending = False
            while not self._requests.empty():
                request = self._requests.get()
                if request is None:
                    ending = True
                    break
                group.append(request)
            self._execute(group)
            if ending:
                return

    def _execute(self, group: list[_Request]) -> None:
        try:
            self._transact(group)
        except Exception as error:  # noqa: BLE001 - whatever went wrong belongs to the one who asked, not to the thread
            if len(group) == 1:
                group[0].outcome = explain(error, self._path)
                _deliver(group)
            else:
                for request in group:
                    self._execute([request])
        else:
            _deliver(group)

    def _transact(self, group: list[_Request]) -> None:
        connection = self._connection
        if connection.in_transaction:
            # A rollback that failed itself (an unreadable disk) must not block whatever comes after it.
            connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        try:
            for request in group:
                request.outcome = request.work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if self._rolled_back is not None:
                self._rolled_back()
            # After some errors (a full disk) SQLite has rolled back by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _deliver(group: list[_Request]) -> None:
    """Wake each loop once for all of its requests in the group."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Request]] = {}
    for request in group:
        by_loop.setdefault(request.loop, []).append(request)
    for loop, requests in by_loop.items():
        try:
            loop.call_soon_threadsafe(_finish, requests)
        except RuntimeError:
            # The loop is closed, so nobody can wait there; what was written stays written.
            continue


def _finish(requests: list[_Request]) -> None:
    for request in requests:
        request.finish()
