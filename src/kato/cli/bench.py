"""`kato bench`: how fast is KATO on this machine?"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from kato import bootstrap, settings
from kato.cli import output
from kato.cli.tickets import Random
from kato.errors import NotFound
from kato.model import Events, Observation, SessionConfig

PATTERNS = 10_000
QUERIES = 200
SYMBOLS = 5000
EVENTS_OBSERVED = 5
THRESHOLDS = (0.1, 0.3, 0.5)
BATCH = 1000
NODE = "bench"


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """Time of a prediction at one recall threshold, in milliseconds."""

    threshold: float
    p50_ms: float
    p99_ms: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured; the learning rate is that of durable learning in bulk."""

    patterns: int
    learned_per_second: float
    predictions: list[Search]


def bench(
    full: Annotated[
        bool, typer.Option("--full", help="Run all benchmarks of the repository; takes minutes.")
    ] = False,
    patterns: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="Patterns of the quick figure.")
    ] = PATTERNS,
    as_json: output.Json = False,
) -> None:
    """Measure the time of predictions and the rate of learning on generated patterns.

    Runs in a temporary directory. `--full` needs the repository, from which KATO must be installed.
    """
    if full:
        raise typer.Exit(_full())
    with tempfile.TemporaryDirectory(prefix="kato-bench-") as directory:
        figures = asyncio.run(_measure(directory, patterns))
    if as_json:
        output.emit(figures)
        return
    output.say(f"{figures.patterns} patterns learned, {figures.learned_per_second:,.0f} per second")
    rows = [(row.threshold, f"{row.p50_ms:.2f}", f"{row.p99_ms:.2f}") for row in figures.predictions]
    output.table(("#recall threshold", "#prediction p50, ms", "#p99, ms"), rows)


def _full() -> int:
    script = Path(__file__).resolve().parents[3] / "benchmarks" / "run.py"
    if not script.exists():
        raise NotFound("the benchmarks are part of the repository, and this KATO is not installed from it")
    return subprocess.run([sys.executable, str(script)], check=False).returncode


async def _measure(directory: str, count: int) -> Figures:
    learned = [_events(number) for number in range(count)]
    async with bootstrap.running(settings.load(kato_data=directory)) as kato:
        started = time.perf_counter()
        for start in range(0, count, BATCH):
            part = [
                [Observation(strings=event) for event in events] for events in learned[start : start + BATCH]
            ]
            await kato.teach(NODE, part, f"bench:{start}")
        rate = count / (time.perf_counter() - started)
        node = await kato.memory.node(NODE)
        rows = []
        for threshold in THRESHOLDS:
            config = SessionConfig(recall_threshold=threshold)
            times = []
            for number in range(QUERIES):
                events = learned[number * 7919 % count]
                place = number % (len(events) - EVENTS_OBSERVED + 1)
                started = time.perf_counter()
                await node.predict(events[place : place + EVENTS_OBSERVED], config)
                times.append((time.perf_counter() - started) * 1000)
            cuts = statistics.quantiles(times, n=100)
            rows.append(Search(threshold=threshold, p50_ms=round(cuts[49], 3), p99_ms=round(cuts[98], 3)))
    return Figures(patterns=count, learned_per_second=round(rate, 1), predictions=rows)


def _events(number: int) -> Events:
    """A pattern of 8 to 12 events with 1 to 3 symbols each; a few symbols are very frequent, as in texts."""
    random = Random(number * 0x9E3779B97F4A7C15)
    return tuple(
        tuple(sorted({_symbol(random) for _ in range(1 + random.below(3))}))
        for _ in range(8 + random.below(5))
    )


def _symbol(random: Random) -> str:
    # The quotient of two even draws falls off like 1/rank, as Zipf's law does.
    return f"s{min(SYMBOLS - 1, SYMBOLS // (1 + random.below(SYMBOLS)) - 1 + random.below(3))}"
