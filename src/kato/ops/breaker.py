"""A circuit breaker: whoever has failed again and again is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from kato.errors import CircuitBreakerOpen

State: TypeAlias = Literal["closed", "half_open", "open"]
GAUGE: Final[dict[State, int]] = {"closed": 0, "half_open": 1, "open": 2}
"""The states as numbers, for metrics (service.md 4.6)."""


class Breaker:
    """Opens after `threshold` failures in a row; after `open_seconds` exactly one call probes whether that is over.

    Every call `enter`s and, if it was let through, `leave`s once, telling whether it failed: True, False, or None when
    nobody knows (it was cancelled). The probe's success closes the breaker, its failure opens it for as long again.
    What was under way when it opened changes nothing any more. `changed` is told the new state. `clock` tells seconds
    that never go back.

    >>> breaker = Breaker("Redis", threshold=2, open_seconds=15)
    >>> for _ in range(2):
    ...     breaker.leave(breaker.enter(), failed=True)
    >>> breaker.state
    'open'
    """

    def __init__(
        self,
        name: str,
        threshold: int,
        open_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[State], None] | None = None,
    ) -> None:
        self.name = name
        self.failures = 0
        self.opens = 0
        self._threshold = threshold
        self._open_seconds = open_seconds
        self._clock = clock
        self._changed = changed
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> State:
        """`half_open` from when the next call, or one that is under way, is a probe."""
        if self._opened_at is None:
            return "closed"
        return "half_open" if self._probing or not self.retry_after else "open"

    @property
    def retry_after(self) -> float:
        """Seconds until the next probe; 0.0 when calls are let through."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._open_seconds - self._clock())

    def enter(self) -> bool:
        """Ask for a call; whether it is the probe. `CircuitBreakerOpen` when it must not be made."""
        if self._opened_at is None:
            return False
        remaining = self.retry_after
        if self._probing or remaining:
            raise CircuitBreakerOpen(
                f"{self.name} has failed {self.failures} times in a row and is not asked for a while",
                retry_after=max(0.1, remaining),
                service=self.name,
            )
        self._probing = True
        return True

    def leave(self, probe: bool, failed: bool | None) -> None:
        """Tell how a call went."""
        if probe:
            self._probing = False
        elif self._opened_at is not None:
            return
        if failed:
            self.failures += 1
            if probe or self.failures >= self._threshold:
                self._open()
        elif failed is not None:
            self.failures = 0
            if probe:
                self._opened_at = None
                self._tell("closed")

    def _open(self) -> None:
        self._opened_at = self._clock()
        self.opens += 1
        self._tell("open")

    def _tell(self, state: State) -> None:
        if self._changed is not None:
            self._changed(state)
