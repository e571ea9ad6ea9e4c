"""Time under the control of a test."""

from __future__ import annotations


class Clock:
    """Stands still until it is told to go on; call it for the seconds since the epoch."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
