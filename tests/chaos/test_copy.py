"""kill -9 of a copy at any moment: the same command completes it, and nothing is written twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kato.engine.naming import pattern_name
from kato.model import Pattern
from kato.stores.directory import DataDirectory
from kato.stores.sqlite import Database, SqlitePatternStore, SqliteVectorStore
from tests.support import postgres
from tests.support.environment import clean_environment
from tests.support.moving import NODES, Servers, fill, servers

PATTERNS = int(os.environ.get("KATO_COPY_PATTERNS", "12000"))
KILLS = int(os.environ.get("KATO_COPY_KILLS", "3"))
SEED = os.environ.get("KATO_COPY_SEED", "kato")
SECONDS = 600.0
POLL_SECONDS = 0.01
MOST_MEMORY = 600 * 2**20
ROOT = Path(__file__).parents[2]


async def grow(data: Path) -> None:
    """Many patterns of 20 symbols beside what `fill` has put there, and a vector for each twentieth."""
    chosen = random.Random(SEED)
    with DataDirectory(data) as directory:
        database = Database(directory.patterns)
        patterns, vectors = SqlitePatternStore(database), SqliteVectorStore(database)
        for start in range(0, PATTERNS, 5_000):
            batch = [_pattern(chosen, number) for number in range(start, min(PATTERNS, start + 5_000))]
            await patterns.insert("n", batch)
            named = {f"VCTR|{each.name}": [chosen.random(), chosen.random()] for each in batch[::20]}
            await vectors.put("n", named)
        await vectors.close()
        await patterns.close()


def _pattern(chosen: random.Random, number: int) -> Pattern:
    events = (
        (f"number {number}",),
        *((f"a{chosen.randrange(5000)}", f"b{chosen.randrange(50)}") for _ in range(10)),
    )
    return Pattern(
        name=pattern_name(events),
        events=events,
        frequency=chosen.randint(1, 9),
        emotives=({"joy": chosen.random()},),
        operations=(f"learn:{number}",),
        revision=chosen.randint(1, 9),
    )


class Ended(NamedTuple):
    """A copy that was not killed."""

    report: dict[str, Any]
    memory: int
    """Most bytes that it held."""

    def written(self, kind: str) -> int:
        return sum(node[kind]["written"] for node in self.report["nodes"])


def begin(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.serve", "copy", *words, "--json"],
        cwd=ROOT,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(words: list[str]) -> Ended:
    with begin(words) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said, complaint = process.stdout.read(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, complaint
    return Ended(json.loads(said), usage.ru_maxrss * 1024)


def kill_when(words: list[str], moment: Callable[[], bool]) -> bool:
    """Kill a copy at the moment; False when it had ended before."""
    with begin(words) as process:
        deadline = time.monotonic() + SECONDS
        while not moment():
            assert time.monotonic() < deadline
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
                break
        process.kill()
        assert process.wait() in (0, -signal.SIGKILL), process.stderr and process.stderr.read()
        return process.returncode != 0


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def in_postgres(url: str) -> int:
    """How many patterns are there, 0 before there is a table."""
    with contextlib.suppress(postgres.StartFailed):
        return int(postgres.shared().sql("SELECT count(*) FROM kato.patterns", url.rpartition("/")[2]))
    return 0


def in_directory(directory: Path) -> int:
    file = directory / "patterns.db"
    if not file.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        found: int = connection.execute("SELECT count(*) FROM patterns").fetchone()[0]
        return found


@pytest.fixture
def fresh() -> Iterator[Servers]:
    with servers() as found:
        yield found


class Tally:
    """What the cycles of one direction found."""

    def __init__(self) -> None:
        self.partial: list[int] = []
        self.killed = 0


def killed_again_and_again(words: list[str], count: Callable[[], int], chosen: random.Random) -> Tally:
    """Kill copies when they have written a random number of patterns more, or at a random time."""
    tally = Tally()
    for cycle in range(KILLS):
        there = count()
        if cycle % 2:
            moment = after(chosen.uniform(0.5, 3.0 + PATTERNS / KILLS / 1_000))
        else:
            goal = chosen.randint(there + 1, max(there + 1, there + PATTERNS // KILLS))
            moment = lambda goal=goal: count() >= goal  # type: ignore[misc]  # noqa: E731
        tally.killed += kill_when(words, moment)
        tally.partial.append(count())
    return tally


def complete(words: list[str], there: int, nodes: list[dict[str, Any]] | None) -> Ended:
    """The copy that ends well, after one that did not; repeated, it writes nothing."""
    ended = finish(words)
    total = sum(node["patterns"]["count"] for node in ended.report["nodes"])
    assert total == PATTERNS + 44
    assert ended.written("patterns") == total - there
    assert ended.memory < MOST_MEMORY
    again = finish(words)
    assert [again.written(kind) for kind in ("patterns", "vectors", "sessions")] == [0, 0, 0]
    for node, other in zip(ended.report["nodes"], nodes or again.report["nodes"], strict=True):
        for kind in ("patterns", "vectors", "sessions"):
            assert node[kind]["digest"] == other[kind]["digest"]
    return ended


@pytest.mark.timeout(120 + KILLS * 30 + PATTERNS // 200)
def test_a_copy_survives_its_kills(
    tmp_path: Path, fresh: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = random.Random(SEED)
    data, again = tmp_path / "data", tmp_path / "again"
    fill(data)
    asyncio.run(grow(data))
    place = ["--to", fresh.postgres, "--to-sessions", fresh.redis[0], "--to-vectors", fresh.qdrant[0].url]
    words = ["--from", str(data), *place]
    there = killed_again_and_again(words, lambda: in_postgres(fresh.postgres), chosen)
    first = complete(words, there.partial[-1], None)
    words = [*(word.replace("--to", "--from") for word in place), "--to", str(again)]
    back = killed_again_and_again(words, lambda: in_directory(again), chosen)
    second = complete(words, back.partial[-1], first.report["nodes"])
    assert [node["node"] for node in second.report["nodes"]] == sorted(NODES)
    assert any(0 < each < PATTERNS for each in there.partial)
    assert any(0 < each < PATTERNS for each in back.partial)
    with capsys.disabled():
        print(
            f"\ncopy: {PATTERNS} patterns, to PostgreSQL, Redis and the Qdrant stand-in: {there.killed} kills,"
            f" after each {there.partial} patterns there, completed in {first.report['seconds']:.1f} s;"
            f" back: {back.killed} kills, {back.partial}, {second.report['seconds']:.1f} s;"
            f" most memory {max(first.memory, second.memory) // 2**20} MiB"
        )
