"""Searches of the compiled index alone: time by number of patterns and threshold, memory, loading.

Run by itself it prints every figure as a line of JSON too.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import machine
import material
from kato._core import Index
from kato.model import Events, PatternRecord
from options import Options, main
from report import Row, median, percentile

LIMIT = 300
THRESHOLDS = (0.1, 0.3, 0.5)
BUDGETS_MS = {
    10_000: (1.5, 0.3, 0.15),
    100_000: (12.0, 1.2, 0.3),
    1_000_000: (100.0, 8.0, 2.0),
}
BUDGET_BYTES = {1_000_000: 300}
BATCH = 20_000
SECONDS = 20.0
"""After so long a row is made of what has been measured."""


def run(options: Options) -> list[Row]:
    """The zipf workload in each size, then the msnbc data set."""
    rows: list[Row] = []
    # All of them stay until the end: memory that one gave back would hide what the next one needs.
    kept: list[Index] = []
    for patterns in options.pick((10_000, 100_000, 1_000_000), (10_000, 100_000), (300,)):
        name = f"{patterns:,} patterns"
        records = material.zipf_records(patterns)
        kept.append(_load(name, records, BUDGET_BYTES.get(patterns), rows))
        queries = (material.query(number, patterns) for number in range(options.pick(200, 100, 5)))
        states = [state for query in queries if len(state := _flat(query)) > 1]
        rows += _searches(name, kept[-1], states, BUDGETS_MS.get(patterns))
    return rows + _adversarial(options)


def _adversarial(options: Options) -> list[Row]:
    """Real visits over 17 page categories, of up to 14,795 pages, and states up to a thousand symbols."""
    if not options.msnbc.is_dir():
        print(f"  msnbc-full is not at {options.msnbc} (choose with --msnbc DIR): left out")
        return []
    rows: list[Row] = []
    records = material.msnbc_records(options.msnbc, options.pick(None, 100_000, 2_000))
    name = f"msnbc-full, {len(records):,} patterns"
    index = _load(name, records, None, rows)
    visits = [_flat(visit) for visit in material.msnbc(options.msnbc, options.pick(None, 100_000, 2_000))]
    chance = random.Random(1)
    for symbols in (10, 100, 1000):
        long = [visit for visit in visits if len(visit) >= symbols] or [("1", "2")]
        states = [chance.choice(long)[:symbols] for _ in range(options.pick(20, 10, 2))]
        rows += _searches(f"{name}, state of {symbols:,}", index, states, None, (0.0, *THRESHOLDS))
    return rows


def _load(name: str, records: Sequence[PatternRecord], budget: float | None, rows: list[Row]) -> Index:
    """A new index with the records, as a node opens it; adds its rows for loading and memory."""
    before = machine.resident_bytes(os.getpid())
    begin = time.perf_counter()
    index = Index()
    for start in range(0, len(records), BATCH):
        batch = records[start : start + BATCH]
        index.load(
            [record.name for record in batch],
            [record.events for record in batch],
            [record.frequency for record in batch],
            [0] * len(batch),
        )
    seconds = time.perf_counter() - begin
    resident = machine.resident_bytes(os.getpid()) - before
    rows.append(Row(f"{name}, loading", len(records) / seconds, "patterns/s", note=f"{seconds:.2f} s in all"))
    note = f"its own count {index.memory_bytes() / len(records):.0f}"
    rows.append(Row(f"{name}, memory", resident / len(records), "bytes/pattern", budget, "lower", note))
    return index


def _searches(
    name: str,
    index: Index,
    states: Sequence[Sequence[str]],
    budgets: Sequence[float] | None,
    thresholds: Iterable[float] = THRESHOLDS,
) -> list[Row]:
    rows = []
    for place, threshold in enumerate(thresholds):
        times, found = list[float](), list[int]()
        end = time.perf_counter() + SECONDS
        index.search(states[0], threshold, LIMIT)
        for state in states:
            begin = time.perf_counter()
            ensemble = index.search(state, threshold, LIMIT)
            times.append((time.perf_counter() - begin) * 1000)
            found.append(len(ensemble))
            if time.perf_counter() > end:
                break
        p90, p99 = percentile(times, 0.9), percentile(times, 0.99)
        rows.append(
            Row(
                f"{name}, threshold {threshold}",
                median(times),
                "ms",
                budgets[place] if budgets else None,
                "lower",
                f"p50 of {len(times)}; p90 {p90:.2f}, p99 {p99:.2f}; {median(found):.0f} rows",
                {
                    "times_ms": [round(value, 4) for value in times],
                    "p90_ms": p90,
                    "p99_ms": p99,
                    "rows": found,
                },
            )
        )
    return rows


def _flat(events: Events) -> tuple[str, ...]:
    return tuple([symbol for event in events for symbol in event])


def _run_aloud(options: Options) -> list[Row]:
    rows = run(options)
    for row in rows:
        print(json.dumps({key: value for key, value in asdict(row).items() if key != "raw"}))
    return rows


if __name__ == "__main__":
    main("search", _run_aloud)
