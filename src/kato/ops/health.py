"""How the servers behind KATO are: looked at again and again, told to whoever asks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from kato.errors import KatoError, StorageError
from kato.ops.events import EventBus
from kato.ops.guard import Guard
from kato.ops.logging import logger

Status: TypeAlias = Literal["healthy", "degraded", "unhealthy"]
PING_SECONDS: Final = 2.0
"""A server that has not answered so small a question by then is not well."""
log = logger("kato.ops.health")


class Check(NamedTuple):
    """What one look found; `at` in seconds since the epoch, `error_count` since the start."""

    at: float
    latency_ms: float
    error: str | None
    error_count: int


class Connections(NamedTuple):
    """The connections to a server: at most, open now, used now."""

    most: int
    open: int
    used: int


@dataclass
class Dependency:
    """A server or file that KATO needs: `ping` asks it for a sign of life, `open` connects for the first time.

    A `vital` one must have been there once before KATO counts as started. Servers have a `guard` and are to be opened;
    files are there.
    """

    name: str
    ping: Callable[[], Awaitable[object]]
    open: Callable[[], Awaitable[None]] | None = None
    guard: Guard | None = None
    connections: Callable[[], Connections] | None = None
    vital: bool = True
    opened: bool = False
    check: Check | None = None
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def status(self) -> Status:
        """Unhealthy when the latest look failed, degraded while the breaker is not closed."""
        if self.check is None or self.check.error is not None:
            return "unhealthy"
        return "healthy" if self.guard is None or self.guard.breaker.state == "closed" else "degraded"

    @property
    def reachable(self) -> bool:
        """Whether what is asked for now gets there: the latest look did, and the breaker is not open."""
        return self.status != "unhealthy" and (self.guard is None or self.guard.breaker.state != "open")


class Health:
    """The state of all dependencies by what they keep: `sessions`, `patterns`, `vectors`.

    With an `interval` (seconds) each is looked at so often in the background, and answers are at most that old;
    without one every question looks. Looking touches no bulkhead, so it works however busy KATO is.
    """

    def __init__(
        self,
        dependencies: Mapping[str, Dependency],
        events: EventBus,
        clock: Callable[[], float] = time.time,
        interval: float | None = None,
    ) -> None:
        self.dependencies = dependencies
        self._events = events
        self._clock = clock
        self._interval = interval
        self._watching: list[asyncio.Task[None]] = []

    @property
    def started(self) -> bool:
        """Whether every vital dependency has been there once."""
        return all(each.opened or each.open is None for each in self.dependencies.values() if each.vital)

    async def start(self) -> None:
        """With an interval, look at everything once, then regularly.

        Servers that do not answer are waited for in the background; whatever else is wrong is raised: it would still
        be wrong later.
        """
        if self._interval is None:
            return
        await asyncio.gather(*map(self.look, self.dependencies.values()))
        self._watching = [
            asyncio.create_task(self._watch(each, self._interval)) for each in self.dependencies.values()
        ]

    async def _watch(self, dependency: Dependency, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            with contextlib.suppress(KatoError):
                await self.look(dependency)

    async def look(self, dependency: Dependency) -> None:
        """Look at one dependency now; raises what is wrong unless it merely does not answer."""
        async with dependency.looking:
            began = time.perf_counter()
            try:
                await self._ask(dependency)
            except KatoError as problem:
                self._note(dependency, began, problem.message)
                if not isinstance(problem, StorageError):
                    raise
            else:
                self._note(dependency, began, None)

    async def _ask(self, dependency: Dependency) -> None:
        if not dependency.opened and dependency.open is not None:
            await dependency.open()
        if dependency.guard is None:
            await dependency.ping()
        else:
            await dependency.guard.check(dependency.ping, PING_SECONDS)
        dependency.opened = True

    def _note(self, dependency: Dependency, began: float, error: str | None) -> None:
        before = dependency.check
        errors = (before.error_count if before else 0) + (error is not None)
        latency = (time.perf_counter() - began) * 1000
        dependency.check = Check(self._clock(), latency, error, errors)
        if error != (before.error if before else None):
            self._tell(dependency, error)

    def _tell(self, dependency: Dependency, error: str | None) -> None:
        if error is None:
            log.info("dependency is back", dependency=dependency.name)
            return
        log.warning("dependency is not well", dependency=dependency.name, reason=error)
        self._events.publish(
            "system.error",
            {
                "error_type": "DEPENDENCY_LOST",
                "severity": "critical" if dependency.vital else "warning",
                "message": error,
                "affected_component": dependency.name,
            },
        )

    async def latest(self) -> Mapping[str, Dependency]:
        """All dependencies, each with its latest look."""
        if self._interval is None:
            with contextlib.suppress(KatoError):
                await asyncio.gather(*map(self.look, self.dependencies.values()))
        return self.dependencies

    def available(self, kept: str) -> bool:
        """Whether what is `kept` there can be relied on: the latest look was good and the breaker is closed."""
        dependency = self.dependencies[kept]
        return dependency.status == "healthy" or dependency.guard is None

    async def close(self) -> None:
        """Stop looking."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
