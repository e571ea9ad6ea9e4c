"""How long a node takes to open from the embedded store, and how much memory its patterns take."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import material
from kato import bootstrap, settings
from kato.engine import learning
from kato.stores.sqlite import SqlitePatternStore
from options import Options, main
from report import Row, median

NODE = "large"
SECONDS_BUDGET = {1_000_000: 6.0}
BYTES_BUDGET = 300
BATCH = 20_000


def run(options: Options) -> list[Row]:
    """Opening and memory for each size."""
    rows = []
    for patterns in options.pick((100_000, 1_000_000), (100_000,), (200,)):
        with tempfile.TemporaryDirectory() as directory:
            rate = asyncio.run(_fill(directory, patterns))
            # Each in a process of its own: fresh memory, and a start as after a restart.
            runs = [_in_fresh_process(directory) for _ in range(options.pick(3, 2, 1))]
        rows += _rows(patterns, rate, runs)
    return rows


def _rows(patterns: int, rate: float, runs: list[dict[str, Any]]) -> list[Row]:
    raw = {"runs": runs, "fill_patterns_per_second": rate}
    cpu = median(run["cpu_seconds"] for run in runs)
    return [
        Row(
            f"open a node of {patterns:,} patterns",
            median(run["seconds"] for run in runs),
            "s",
            SECONDS_BUDGET.get(patterns),
            "lower",
            f"CPU {cpu:.2f} s, file in the page cache, {len(runs)} runs",
            raw,
        ),
        Row(
            f"  index memory per pattern, {patterns:,}",
            median(run["index_bytes"] / run["patterns"] for run in runs),
            "bytes",
            BYTES_BUDGET if patterns >= 1_000_000 else None,
            "lower",
        ),
        Row(
            f"  process memory per pattern after opening, {patterns:,}",
            median(run["resident_bytes"] / run["patterns"] for run in runs),
            "bytes",
            better="lower",
            note="growth of resident memory",
        ),
        Row(
            f"  highest process memory per pattern while opening, {patterns:,}",
            _peak(runs),
            "bytes",
            better="lower",
        ),
        Row(f"  file size per pattern, {patterns:,}", runs[0]["file_bytes"] / runs[0]["patterns"], "bytes"),
        Row(
            f"  filling the store alone, durable, {patterns:,}", rate, "patterns/s", note="batches of 20,000"
        ),
    ]


def _peak(runs: list[dict[str, Any]]) -> float:
    return median(run["peak_bytes"] / run["patterns"] for run in runs)


async def _fill(directory: str, patterns: int) -> float:
    """Write the patterns into the store of a data directory; the rate, generating not counted."""
    async with bootstrap.running(settings.load(kato_data=directory)) as kato:
        config = kato.defaults
    seconds = 0.0
    store = SqlitePatternStore(Path(directory, "patterns.db"))
    for start in range(0, patterns, BATCH):
        made = {}
        for number in range(start, min(patterns, start + BATCH)):
            pattern = learning.first(_lesson(number, config.persistence))
            made[pattern.name] = pattern
        begin = time.perf_counter()
        await store.insert(NODE, list(made.values()))
        seconds += time.perf_counter() - begin
    await store.close()
    return patterns / seconds


def _lesson(number: int, persistence: int) -> Any:
    from kato.engine import naming
    from kato.model import Lesson

    events = material.events(number)
    return Lesson(
        name=naming.pattern_name(events), events=events, persistence=persistence, operation=f"fill:{number}:0"
    )


def _in_fresh_process(directory: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--open", directory]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if result.returncode:
        raise RuntimeError(f"opening failed: {result.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


async def _open(directory: str) -> dict[str, Any]:
    async with bootstrap.running(settings.load(kato_data=directory)) as kato:
        await kato.memory.node("another")
        before, highest = machine.resident_bytes(os.getpid()), machine.peak_resident_bytes(os.getpid())
        begin, used = time.perf_counter(), time.process_time()
        node = await kato.memory.node(NODE)
        seconds = time.perf_counter() - begin
        used = time.process_time() - used
        return {
            "seconds": seconds,
            "cpu_seconds": used,
            "patterns": len(node),
            "index_bytes": node.memory_bytes(),
            "resident_bytes": machine.resident_bytes(os.getpid()) - before,
            "peak_bytes": machine.peak_resident_bytes(os.getpid()) - highest,
            "file_bytes": Path(directory, "patterns.db").stat().st_size,
            "load_average": machine.load_average(),
        }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--open"]:
        print(json.dumps(asyncio.run(_open(sys.argv[2]))))
    else:
        main("opening", run)
