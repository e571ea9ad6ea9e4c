"""The records that outlive their deleted patterns, and when a node lets go of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from typing import Final

from kato.model import Pattern

KEPT_SECONDS: Final = 3600.0
"""Much longer than a request may last: whoever is about to deliver a learn once more has done it, or never will."""
AT_ONCE: Final = 20
"""Removed with every deletion; more than one each, so that they cannot pile up."""


class Forgotten:
    """The forgotten records that a node knows, in the order in which they may be removed.

    >>> times = iter([0.0, 10.0, 3600.0])
    >>> kept = Forgotten(clock=lambda: next(times))
    >>> kept.add(Pattern(name="0f" * 20, events=(), frequency=-1, revision=7))
    >>> kept.due(), kept.due()
    ([], [('0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f', 7)])
    """

    def __init__(self, seconds: float = KEPT_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._kept: dict[str, tuple[float, int]] = {}

    def add(self, pattern: Pattern) -> None:
        """Keep a record from now on; one that is known already is kept no longer for that."""
        known = self._kept.get(pattern.name)
        if known is None or known[1] != pattern.revision:
            self._kept.pop(pattern.name, None)
            self._kept[pattern.name] = self._clock() + self._seconds, pattern.revision

    def due(self) -> list[tuple[str, int]]:
        """Names and revisions of some records whose time is over."""
        now = self._clock()
        longest = islice(self._kept.items(), AT_ONCE)
        return [(name, revision) for name, (until, revision) in longest if until <= now]

    def postpone(self, name: str, revision: int) -> None:
        """A record whose time is over is still needed."""
        if self.discard(name, revision):
            self._kept[name] = self._clock() + self._seconds, revision

    def discard(self, name: str, revision: int) -> bool:
        """A record is gone; False when this one is not kept."""
        known = self._kept.get(name)
        if known is None or known[1] != revision:
            return False
        del self._kept[name]
        return True

    def clear(self) -> None:
        """All records are gone."""
        self._kept.clear()
