"""The patterns that the benchmarks teach, in the forms in which KATO takes them."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import cache
from pathlib import Path

import msgspec

from kato.model import Events, Observation, PatternRecord
from zipf_patterns import Workload

WORKLOAD = Workload()


def events(number: int) -> Events:
    """The events of pattern `number` of the zipf workload."""
    return tuple(tuple(event) for event in WORKLOAD.pattern(number))


def query(number: int, patterns: int) -> Events:
    """A short-term memory of five events that resembles one of the first `patterns` patterns."""
    return tuple(tuple(event) for event in WORKLOAD.query(number, patterns)["events"])


def sequences(start: int, count: int) -> list[list[Observation]]:
    """Patterns as sequences of observations."""
    return [[Observation(strings=event) for event in events(start + i)] for i in range(count)]


def distinct(number: int) -> list[Observation]:
    """A short sequence that nobody has learned before."""
    return [Observation(strings=(f"n{number}", "a")), Observation(strings=(f"m{number}", "b"))]


@cache
def zipf_records(patterns: int) -> list[PatternRecord]:
    """The first patterns of the workload as stored records."""
    return _records({events(i): 1 for i in range(patterns)})


def msnbc(path: Path, limit: int | None = None) -> Iterator[Events]:
    """The visits of the msnbc-full data set, one page category per event."""
    with gzip.open(next(path.glob("*.seq.gz")), "rt") as lines:
        found = 0
        for line in lines:
            parts = line.split()
            if parts and all(part.isdigit() for part in parts):
                yield tuple((part,) for part in parts)
                found += 1
                if found == limit:
                    return


def msnbc_records(path: Path, limit: int | None = None) -> list[PatternRecord]:
    """The visits of two pages and more as patterns with their frequencies."""
    return _records(Counter(visit for visit in msnbc(path, limit) if len(visit) > 1))


class Records:
    """A store that can only be read: what `Node.open` needs, without the time of a disk."""

    def __init__(self, records: Sequence[PatternRecord], batch: int = 20_000) -> None:
        self._records = records
        self._batch = batch

    async def scan(self, _node: str) -> AsyncIterator[list[PatternRecord]]:
        """All records in batches."""
        for start in range(0, len(self._records), self._batch):
            yield list(self._records[start : start + self._batch])


def _records(frequencies: dict[Events, int]) -> list[PatternRecord]:
    encode = msgspec.msgpack.Encoder().encode
    # Any name does for a record that is only read; this one costs less than the real one.
    coded = ((encode(events), frequency) for events, frequency in frequencies.items())
    records = [PatternRecord(hashlib.sha1(content).digest(), content, n, b"") for content, n in coded]
    return sorted(records)
