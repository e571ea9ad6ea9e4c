"""A bulkhead: what floods one compartment leaves the others dry."""

from __future__ import annotations

import asyncio
from collections import deque

from kato.errors import ServiceUnavailable

RETRY_AFTER = 1.0


class Bulkhead:
    """At most `limit` calls at once; up to `queue` more wait, each at most `seconds`, the others are refused.

    First come, first served. Refusals are `ServiceUnavailable`.

    >>> async def example() -> int:
    ...     compartment = Bulkhead("searches", limit=1, queue=0, seconds=1)
    ...     async with compartment:
    ...         return compartment.used
    >>> asyncio.run(example())
    1
    """

    def __init__(self, name: str, limit: int, queue: int = 100, seconds: float = 5.0) -> None:
        self.name = name
        self.limit = limit
        self.used = 0
        self.refused = 0
        self._queue = queue
        self._seconds = seconds
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if self.used < self.limit and not self._waiting:
            self.used += 1
            return
        if len(self._waiting) >= self._queue:
            raise self._refusal()
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(self._seconds):
                await place
        except TimeoutError:
            self._withdraw(place)
            raise self._refusal() from None
        except asyncio.CancelledError:
            self._withdraw(place)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._free()

    def _free(self) -> None:
        self.used -= 1
        while self._waiting and self.used < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self.used += 1
                place.set_result(None)

    def _withdraw(self, place: asyncio.Future[None]) -> None:
        if place.done() and not place.cancelled():
            # The turn came at the very moment of giving up: the next one gets it.
            self._free()
        elif place in self._waiting:
            self._waiting.remove(place)

    def _refusal(self) -> ServiceUnavailable:
        self.refused += 1
        return ServiceUnavailable(
            f"{self.name}: too much is under way", retry_after=RETRY_AFTER, limit=self.limit
        )
