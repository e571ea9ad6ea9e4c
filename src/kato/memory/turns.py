"""Turns: changes of one name happen one after another, in the order in which they asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager


class Turns:
    """First come, first served, per name; an exclusive turn waits for everyone and makes everyone wait.

    A change takes its place in the order the moment it asks, for all its names at once, so two changes can never
    wait for each other.

    >>> async def example() -> str:
    ...     turns = Turns()
    ...     async with turns.of(["a", "b"]):
    ...         return "alone with a and b"
    >>> asyncio.run(example())
    'alone with a and b'
    """

    def __init__(self) -> None:
        self._last: dict[str, asyncio.Future[None]] = {}
        self._barrier: asyncio.Future[None] | None = None

    @asynccontextmanager
    async def of(self, names: Collection[str]) -> AsyncIterator[None]:
        """A turn for some names."""
        mine = asyncio.get_running_loop().create_future()
        earlier = {self._last.get(name, self._barrier) for name in names}
        self._last.update(dict.fromkeys(names, mine))

        def leave() -> None:
            for name in names:
                if self._last.get(name) is mine:
                    del self._last[name]
            mine.set_result(None)

        await _wait(earlier, leave)
        try:
            yield
        finally:
            leave()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """A turn for every name there is and will be."""
        mine = asyncio.get_running_loop().create_future()
        earlier = {self._barrier, *self._last.values()}
        self._last.clear()
        self._barrier = mine

        def leave() -> None:
            if self._barrier is mine:
                self._barrier = None
            mine.set_result(None)

        await _wait(earlier, leave)
        try:
            yield
        finally:
            leave()


async def _wait(earlier: set[asyncio.Future[None] | None], leave: Callable[[], None]) -> None:
    pending = [turn for turn in earlier if turn is not None and not turn.done()]
    if not pending:
        return
    everyone = asyncio.gather(*pending)
    try:
        await asyncio.shield(everyone)
    except asyncio.CancelledError:
        # Whoever gives up still stands between those behind and those before.
        everyone.add_done_callback(lambda _: leave())
        raise
