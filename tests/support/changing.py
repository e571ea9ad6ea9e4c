"""Changes and stores of sessions that wait or fail as told."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from kato import errors
from kato.model import SessionState
from kato.stores.sqlite import SqliteSessionStore

Change = tuple[SessionState, None]


BOTH = pytest.mark.parametrize("shared", [False, True], ids=["exclusive", "redis"])
"""On a store of one process, and on one that several instances share."""


class Gate:
    """A change that waits until it is let go on."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.runs = 0

    async def __call__(self, state: SessionState) -> Change:
        self.runs += 1
        self.entered.set()
        await self.open.wait()
        return msgspec.structs.replace(state, time=state.time + 1), None


class FailingStore(SqliteSessionStore):
    """The real store, with a disk that can be full and other writers that can be first."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.full = False
        self.ahead = 0
        self.blocked: asyncio.Event | None = None

    async def save(self, state: SessionState) -> SessionState | None:
        if self.full:
            raise errors.StorageError("the disk is full")
        if self.blocked is not None:
            await self.blocked.wait()
        if self.ahead:
            self.ahead -= 1
            current = await self.load(state.session_id)
            assert current is not None
            first = msgspec.structs.replace(
                current, stm=(*current.stm, ("other",)), revision=current.revision + 1
            )
            assert await super().save(first) is None
        return await super().save(state)

    async def expire(self, now: float) -> list[str]:
        if self.full:
            raise errors.StorageError("the disk is full")
        return await super().expire(now)
