"""The link to a server: made when it is first needed, shared by all, drained before it is cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from kato.errors import StorageError

T = TypeVar("T")
R = TypeVar("R")


class Link(Generic[T]):
    """Holds what `connect` makes (a pool, a client) between its first use and `close`.

    Constructing it touches nothing. Whoever needs the link first makes it, those who come meanwhile wait for
    the same attempt, and after a failed one the next user tries again. `server` names the other side in
    messages.
    """

    def __init__(
        self, server: str, connect: Callable[[], Awaitable[T]], disconnect: Callable[[T], Awaitable[None]]
    ) -> None:
        self._server = server
        self._connect = connect
        self._disconnect = disconnect
        self._made: T | None = None
        self._making: asyncio.Task[T] | None = None
        self._users = 0
        self._working: set[asyncio.Task[Any]] = set()
        self._unused = asyncio.Event()
        self._closed = False
        self._closing: asyncio.Task[None] | None = None

    @property
    def made(self) -> T | None:
        """What was connected, None before the first use."""
        return self._made

    async def get(self) -> T:
        """The link, for a use that `close` does not wait for; `StorageError` when it is closed."""
        self._refuse_when_closed()
        return await self._get()

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[T]:
        """The link, for a use that `close` waits for; `StorageError` when it is closed."""
        self._enter()
        try:
            yield self._made if self._made is not None else await self._get()
        finally:
            self._leave()

    async def finish(self, work: Callable[[T], Coroutine[Any, Any, R]]) -> R:
        """The result of `work` on the link, a use that goes on even when the caller is cancelled."""
        self._enter()
        task = asyncio.create_task(self._work(work))
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        # If the caller is cancelled, nobody is left to take the error.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _work(self, work: Callable[[T], Coroutine[Any, Any, R]]) -> R:
        try:
            return await work(await self._get())
        finally:
            self._leave()

    def _enter(self) -> None:
        self._refuse_when_closed()
        self._users += 1

    def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            self._unused.set()

    async def close(self) -> None:
        """Refuse new uses, wait for the accepted ones, disconnect. A second call waits for the first."""
        self._closed = True
        if self._closing is None:
            self._closing = asyncio.create_task(self._finish())
        # Shielded: a caller that is cancelled must not leave the link half closed.
        await asyncio.shield(self._closing)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StorageError(f"the {self._server} store is closed")

    async def _get(self) -> T:
        if self._made is not None:
            return self._made
        if self._making is None:
            self._making = asyncio.create_task(self._make())
            # If all who wait are cancelled, nobody is left to take the error.
            self._making.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(self._making)

    async def _make(self) -> T:
        try:
            self._made = await self._connect()
            return self._made
        finally:
            self._making = None

    async def _finish(self) -> None:
        while self._users:
            self._unused.clear()
            await self._unused.wait()
        if self._making is not None:
            await asyncio.wait([self._making])
        if self._made is not None:
            await self._disconnect(self._made)
