"""Whole predictions, search and metrics, of a node in memory: by number of patterns and recall threshold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import material
from kato.memory.node import Node
from kato.model import Events, PatternRecord, SessionConfig
from kato.stores.ports import PatternStore
from options import Options, main
from report import Row, median, percentile

THRESHOLDS = (0.1, 0.3, 0.5)
SECONDS = 20.0
"""After so long a row is made of what has been measured."""


def run(options: Options) -> list[Row]:
    """The zipf workload in each size, then the msnbc data set."""
    rows: list[Row] = []
    for patterns in options.pick((10_000, 100_000, 1_000_000), (10_000, 100_000), (300,)):
        records = material.zipf_records(patterns)
        queries = [material.query(number, patterns) for number in range(options.pick(50, 20, 3))]
        rows += asyncio.run(_measure(f"{patterns:,} patterns", records, queries))
    return rows + _adversarial(options)


def _adversarial(options: Options) -> list[Row]:
    """A million visits over 17 page categories: nearly every pattern resembles every state."""
    if not options.msnbc.is_dir():
        print(f"  msnbc-full is not at {options.msnbc} (choose with --msnbc DIR): left out")
        return []
    records = material.msnbc_records(options.msnbc, options.pick(None, 100_000, 2_000))
    visits = material.msnbc(options.msnbc, 20_000)
    queries = [visit[-6:-1] for visit in visits if 6 <= len(visit) <= 40][:: options.pick(100, 200, 400)]
    return asyncio.run(_measure(f"msnbc-full, {len(records):,} patterns", records, queries[:20]))


async def _measure(name: str, records: Sequence[PatternRecord], queries: Sequence[Events]) -> list[Row]:
    with ThreadPoolExecutor(1) as threads:
        node = Node("node", cast(PatternStore, material.Records(records)), threads)
        await node.open()
        return [await _row(name, node, queries, threshold) for threshold in THRESHOLDS]


async def _row(name: str, node: Node, queries: Sequence[Events], threshold: float) -> Row:
    config = SessionConfig(recall_threshold=threshold)
    times, found = list[float](), list[int]()
    end = time.perf_counter() + SECONDS
    await node.predict(queries[0], config)
    for query in queries:
        begin = time.perf_counter()
        predictions = await node.predict(query, config)
        times.append((time.perf_counter() - begin) * 1000)
        found.append(len(predictions.predictions))
        if time.perf_counter() > end:
            break
    p90, longest = percentile(times, 0.9), max(times)
    return Row(
        f"{name}, threshold {threshold}",
        median(times),
        "ms",
        better="lower",
        note=f"p50 of {len(times)}; p90 {p90:.2f}, longest {longest:.2f}; {median(found):.0f} predictions",
        raw={"times_ms": [round(value, 4) for value in times], "predictions": found},
    )


if __name__ == "__main__":
    main("predictions", run)
