"""kill -9 at any moment under load: what was acknowledged is there, what was in flight counts at most once."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.workers import Patterns, Worker, expected_of, load, patterns_of
from tests.support.http import calling
from tests.support.server import Server

CYCLES = int(os.environ.get("KATO_KILL_CYCLES", "8"))
SEED = os.environ.get("KATO_KILL_SEED", "kato")
WORKERS = 8
NODES = 3


class Tally:
    """What the cycles found."""

    def __init__(self) -> None:
        self.lost = 0
        self.doubled = 0
        self.wrong: list[str] = []
        self.start_seconds: list[float] = []

    def compare(self, node: str, expected: Patterns, found: Patterns) -> None:
        for text in expected | found:
            if found[text] != expected[text]:
                self.lost += max(0, expected[text] - found[text])
                self.doubled += max(0, found[text] - expected[text])
                self.wrong.append(f"{node} {text!r}: learned {expected[text]} times, found {found[text]}")


async def verify(server: Server, workers: list[Worker], tally: Tally) -> None:
    async with calling(server.url) as client:
        for wrong in await asyncio.gather(*(worker.settle(client) for worker in workers)):
            tally.wrong += wrong
        for node in {worker.node for worker in workers}:
            tally.compare(node, expected_of(workers, node), await patterns_of(client, node))


async def cycle(server: Server, workers: list[Worker], random_: random.Random) -> None:
    """Load, and in the middle of it the end."""
    async with calling(server.url) as client:
        for worker in workers:
            if not worker.session:
                await worker.open(client)
        await load(client, workers, random_.randint(1, 300), server.process.kill)
    server.kill()


@pytest.mark.timeout(60 + 10 * CYCLES)
async def test_nothing_acknowledged_is_lost_and_nothing_counts_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random_, tally = random.Random(SEED), Tally()
    workers = [Worker(number, f"node-{number % NODES}", SEED) for number in range(WORKERS)]
    began = time.perf_counter()
    server = Server(tmp_path)
    try:
        for _ in range(CYCLES):
            await cycle(server, workers, random_)
            server = Server(tmp_path)
            tally.start_seconds.append(server.start_seconds)
            await verify(server, workers, tally)
            assert tally.wrong == []
    finally:
        if server.process.returncode is None:
            server.kill()
        verbs = sum((worker.acknowledged for worker in workers), Counter[str]())
        flights = sum((worker.flights for worker in workers), Counter[str]())
        starts = sorted(tally.start_seconds) or [0.0]
        with capsys.disabled():
            print(
                f"\nkill -9: {CYCLES} cycles, acknowledged {dict(sorted(verbs.items()))}, "
                f"patterns learned {sum(worker.learned.total() for worker in workers)}, "
                f"in flight {dict(sorted(flights.items()))}, "
                f"lost {tally.lost}, doubled {tally.doubled}, "
                f"{(time.perf_counter() - began) / CYCLES:.2f} s per cycle, "
                f"start {starts[len(starts) // 2]:.2f} s (median)"
            )
