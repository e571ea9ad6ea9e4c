"""What a node knows, ready to be searched: the compiled index and the emotives beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kato._core import Index
from kato.engine import learning
from kato.engine.matching import FINALIZED
from kato.memory.affinity import Affinities
from kato.model import FORGOTTEN, Emotives, Events, Pattern, PatternRecord
from kato.stores import codec


class Contents:
    """The patterns of one node as of one moment; a cache of the store that can be built anew and swapped.

    >>> contents = Contents()
    >>> contents.apply(Pattern(name="0f" * 20, events=(("a", "b"),), affinity={"joy": 1.0}))
    >>> contents.index.vocabulary(), contents.affinities.of("a")
    (['a', 'b'], {'joy': 1.0})
    >>> contents.remove("0f" * 20)
    >>> len(contents.index)
    0
    """

    __slots__ = ("affinities", "emotions", "forgotten", "index")

    def __init__(self) -> None:
        self.index = Index()
        self.affinities = Affinities()
        self.emotions: dict[str, tuple[dict[str, Any], Emotives]] = {}
        self.forgotten: list[str] = []

    def load(self, batch: Sequence[PatternRecord]) -> None:
        """Add records in their stored form; most of it runs without the GIL, so call it in a thread.

        Of those whose pattern is forgotten only the names are noted.
        """
        names, events, frequencies, _ = zip(*batch, strict=True)
        if min(frequencies) == FORGOTTEN:
            self.forgotten += [record.name.hex() for record in batch if record.frequency == FORGOTTEN]
            if alive := [record for record in batch if record.frequency != FORGOTTEN]:
                self.load(alive)
            return
        details = [codec.details_of(record) for record in batch]
        flags = [FINALIZED if detail.finalized else 0 for detail in details]
        self.index.load(names, events, frequencies, flags)
        for record, detail in zip(batch, details, strict=True):
            if detail.emotives or detail.affinity:
                self._feel(codec.decode_pattern(record))

    def apply(self, pattern: Pattern) -> None:
        """Add a pattern, or put it in place of the one of its name; take out one that is forgotten."""
        if pattern.forgotten:
            self.remove(pattern.name)
            return
        index, flags = self.index, FINALIZED if pattern.finalized else 0
        if pattern.name in index:
            index.set_frequency(pattern.name, pattern.frequency)
            index.set_flags(pattern.name, flags)
        else:
            index.insert(pattern.name, pattern.events, pattern.frequency, flags)
        self._unfeel(pattern.name, pattern.events)
        self._feel(pattern)

    def remove(self, name: str) -> None:
        """Take a pattern out with all its influence, if it is there."""
        events = self.index.events(name)
        if events is not None:
            self._unfeel(name, events)
            self.index.remove(name)

    def _feel(self, pattern: Pattern) -> None:
        if pattern.emotives or pattern.affinity:
            self.emotions[pattern.name] = (learning.shown_emotives(pattern), pattern.affinity)
            self.affinities.add(_distinct(pattern.events), pattern.affinity)

    def _unfeel(self, name: str, events: Events) -> None:
        _, affinity = self.emotions.pop(name, ({}, {}))
        if affinity:
            self.affinities.remove(_distinct(events), affinity)


def _distinct(events: Events) -> list[str]:
    return list(dict.fromkeys(symbol for event in events for symbol in event))
