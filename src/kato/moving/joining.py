"""Two shelves side by side: what the one holds and the other lacks, or holds with other values."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Generic, NamedTuple, TypeVar

from kato.moving.shelves import Change, Record, Shelf

T = TypeVar("T")
B = TypeVar("B")


class Step(NamedTuple, Generic[T]):
    """A batch of the source, and what the target lacks of it or holds with other values.

    `surplus` is the next record that only the target holds; with it the comparison has come to its end.
    """

    batch: list[Record[T]]
    missing: list[Record[T]]
    different: list[Change[T]]
    surplus: Record[T] | None


class Joined(Generic[T]):
    """The streams of two shelves while they are read."""

    def __init__(
        self,
        source: AsyncIterator[list[Record[T]]],
        target: AsyncIterator[list[Record[T]]] | None = None,
    ) -> None:
        self._source = source
        self._target = target
        self._held: deque[Record[T]] = deque()

    async def nothing_there(self) -> bool:
        """Whether the target holds nothing."""
        return await self._next() is None

    async def steps(self) -> AsyncIterator[Step[T]]:
        """The source's batches, each compared with what the target holds."""
        async for batch in self._source:
            yield await self._compared(batch)
        rest = await self._next()
        if rest is not None:
            yield Step([], [], [], rest)

    async def _compared(self, batch: list[Record[T]]) -> Step[T]:
        known: dict[str, Record[T]] = {}
        wanted = {record.key for record in batch}
        while batch and (record := await self._next()) is not None and record.key <= batch[-1].key:
            if record.key not in wanted:
                return Step([], [], [], record)
            known[record.key] = self._held.popleft()
        changes = [(known[record.key], record) for record in batch if record.key in known]
        return Step(
            batch,
            [record for record in batch if record.key not in known],
            [(old, new) for old, new in changes if old.content != new.content],
            None,
        )

    async def _next(self) -> Record[T] | None:
        while not self._held:
            batch = None if self._target is None else await anext(self._target, None)
            if batch is None:
                return None
            self._held.extend(batch)
        return self._held[0]


@asynccontextmanager
async def joined(source: Shelf[T], target: Shelf[T] | None) -> AsyncIterator[Joined[T]]:
    """Both shelves being read, each a batch ahead; the source not before it is needed. None: an empty target."""
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(aclosing(ahead(shelf.read())))
            for shelf in (source, target)
            if shelf is not None
        ]
        yield Joined(*streams)


async def ahead(batches: AsyncGenerator[B, None]) -> AsyncGenerator[B, None]:
    """The same batches; while the caller works on one the next is being read."""
    async with aclosing(batches):
        upcoming = asyncio.ensure_future(anext(batches, None))
        try:
            while (batch := await upcoming) is not None:
                upcoming = asyncio.ensure_future(anext(batches, None))
                yield batch
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
