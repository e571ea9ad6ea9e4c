"""What stands between KATO and one server: bulkheads, retries, a circuit breaker, the deadline of the request."""

from __future__ import annotations

import asyncio
import random
from asyncio import sleep
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias, TypeVar

from kato.errors import CircuitBreakerOpen, KatoError, StorageError
from kato.ops.breaker import Breaker
from kato.ops.bulkhead import Bulkhead
from kato.ops.deadline import deadline

T = TypeVar("T")
Kind: TypeAlias = Literal["observe", "learn", "predict", "admin"]
"""What an operation serves; each kind has a bulkhead of its own."""
KINDS: Final[tuple[Kind, ...]] = ("observe", "learn", "predict", "admin")


class Retry(NamedTuple):
    """How often an operation is tried, and the seconds between (service.md 4.5).

    >>> [Retry(5, 1.0, 4.0).delay(failures, jitter=1.0) for failures in (1, 2, 3, 4)]
    [1.0, 2.0, 4.0, 4.0]
    """

    attempts: int
    base: float
    longest: float

    def delay(self, failures: int, jitter: float) -> float:
        """The pause after so many failures; `jitter` between 0.5 and 1.5 keeps callers from coming in step."""
        return min(self.base * 2.0 ** (failures - 1), self.longest) * jitter


FAST: Final = Retry(3, 0.1, 1.0)
STANDARD: Final = Retry(3, 1.0, 10.0)


class Guard:
    """The only way to one server.

    An operation waits for its place in the bulkhead of its kind, goes through the breaker, and is given up at the
    deadline of the request it serves. One that the server did not acknowledge is tried again as `profiles` say, if it
    may be repeated and the deadline (without one: `total_seconds`) allows it. The place is free while it pauses.
    Everything that fails is a `KatoError`.
    """

    def __init__(
        self,
        name: str,
        breaker: Breaker,
        bulkheads: Mapping[Kind, Bulkhead],
        profiles: Mapping[Kind, Retry],
        *,
        total_seconds: float = 30.0,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.5),
    ) -> None:
        self.name = name
        self.breaker = breaker
        self.bulkheads = bulkheads
        self.operations = 0
        self.errors = 0
        self.retries = 0
        self.seconds = 0.0
        self._profiles = profiles
        self._total_seconds = total_seconds
        self._jitter = jitter

    async def run(self, kind: Kind, work: Callable[[], Awaitable[T]], *, repeatable: bool = True) -> T:
        """The result of `work`, which is called once for every attempt."""
        loop = asyncio.get_running_loop()
        began, failures = loop.time(), 0
        until = deadline()
        try:
            while True:
                try:
                    return await self._attempt(kind, work, until)
                except CircuitBreakerOpen:
                    raise
                except StorageError as error:
                    failures += 1
                    profile = self._profiles[kind]
                    pause = profile.delay(failures, self._jitter())
                    over = began + self._total_seconds if until is None else until
                    given_up = failures >= profile.attempts or loop.time() + pause >= over
                    if given_up or not (repeatable and error.retry_helps):
                        raise
                self.retries += 1
                await sleep(pause)
        finally:
            self.operations += 1
            self.seconds += loop.time() - began

    async def _attempt(self, kind: Kind, work: Callable[[], Awaitable[T]], until: float | None) -> T:
        async with self.bulkheads[kind]:
            return await self._through_breaker(work, until)

    async def _through_breaker(self, work: Callable[[], Awaitable[T]], until: float | None) -> T:
        probe = self.breaker.enter()
        failed: bool | None = None
        try:
            async with asyncio.timeout_at(until):
                result = await work()
            failed = False
            return result
        except TimeoutError:
            # The request's time is over, which says little about the server.
            raise StorageError(f"{self.name}: no time is left for this request", retry_after=1) from None
        except KatoError as error:
            failed = unanswered(error)
            self.errors += failed
            raise
        finally:
            self.breaker.leave(probe, failed)

    async def check(self, ping: Callable[[], Awaitable[object]], seconds: float) -> None:
        """Whether the server answers, asked past the bulkheads; a breaker that is due for a probe gets it."""

        async def answer() -> None:
            try:
                async with asyncio.timeout(seconds):
                    await ping()
            except TimeoutError:
                raise StorageError(f"{self.name}: no answer in {seconds:g} s", retry_after=1) from None

        if self.breaker.state == "open":
            await answer()
        else:
            await self._through_breaker(answer, None)


def unanswered(error: KatoError) -> bool:
    """Whether an error means that the server did not answer as it should; all others are answers."""
    return isinstance(error, StorageError) and error.retry_helps
