"""How the process's figures developed: a sample every few seconds, kept for a day."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

INTERVAL = 10.0
KEPT = 8640
"""A day of samples."""


class Point(NamedTuple):
    """One value of a metric; `timestamp` in seconds since the epoch."""

    timestamp: float
    value: float


class Series:
    """Samples of named figures, the latest 8,640 of them.

    >>> series = Series()
    >>> series.record(100.0, {"requests": 3})
    >>> series.points("requests", since=0.0)
    [Point(timestamp=100.0, value=3)]
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Mapping[str, float]]] = deque(maxlen=KEPT)

    def record(self, now: float, figures: Mapping[str, float]) -> None:
        """Add a sample."""
        self._samples.append((now, figures))

    def points(self, name: str, since: float) -> list[Point]:
        """The values of one metric from `since` on, oldest first; empty when there are none."""
        return [Point(at, sample[name]) for at, sample in self._samples if at >= since and name in sample]

    def names(self) -> list[str]:
        """The metrics that the samples hold, ascending."""
        return sorted({name for _, sample in self._samples for name in sample})

    async def sample(
        self, figures: Callable[[], Awaitable[Mapping[str, float]]], clock: Callable[[], float]
    ) -> None:
        """Record `figures` now and every ten seconds, until cancelled."""
        while True:
            self.record(clock(), await figures())
            await asyncio.sleep(INTERVAL)
