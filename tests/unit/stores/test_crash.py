"""kill -9 at any moment: what was acknowledged is there."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from kato.stores.directory import DataDirectory
from kato.stores.sqlite import SqlitePatternStore, SqliteSessionStore
from kato.stores.sqlite.check import check
from tests.contract.values import name

WRITE = """
import asyncio, sys
from msgspec.structs import replace
from kato.stores.directory import DataDirectory
from kato.stores.sqlite import SqlitePatternStore, SqliteSessionStore
from tests.contract.values import pattern, session

async def learn(store, worker):
    for number in range(1_000_000):
        batch = [pattern(f"{sys.argv[2]} {worker} {number} {each}") for each in range(1 + number % 3)]
        await store.insert("node", batch)
        print("pattern", *(each.name for each in batch), flush=True)

async def observe(store, worker):
    state = await store.load(f"s{worker}")
    if state is None:
        state = session(f"s{worker}")
        await store.create(state, 0, 0)
    while True:
        state = replace(state, revision=state.revision + 1)
        assert await store.save(state) is None
        print("session", state.session_id, state.revision, flush=True)
        await asyncio.sleep(0)

async def main():
    with DataDirectory(sys.argv[1]) as directory:
        patterns = SqlitePatternStore(directory.patterns)
        sessions = SqliteSessionStore(directory.sessions, log_bytes=100_000)
        learners = [learn(patterns, each) for each in range(4)]
        await asyncio.gather(*learners, *(observe(sessions, each) for each in range(4)))

asyncio.run(main())
"""


async def test_kill_in_a_loop(tmp_path: Path) -> None:
    source = random.Random(3)
    script = tmp_path / "write.py"
    script.write_text(WRITE)
    data = tmp_path / "data"
    names: set[str] = {name("never")}
    revisions: dict[str, int] = {}
    root = Path(__file__).parents[3]
    for attempt in range(12):
        with subprocess.Popen(
            [sys.executable, str(script), str(data), str(attempt)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env={"PYTHONPATH": f"{root}:{root / 'src'}"},
        ) as writer:
            assert writer.stdout is not None
            for _ in range(source.randrange(1, 400)):
                take(writer.stdout.readline(), names, revisions)
            writer.kill()
            # What it printed before it died counts; a line that the kill cut short does not.
            for line in writer.stdout:
                take(line, names, revisions)
        with DataDirectory(data) as directory:
            patterns = SqlitePatternStore(directory.patterns)
            assert names - set(await patterns.fetch("node", sorted(names))) == {name("never")}
            await patterns.close()
            sessions = SqliteSessionStore(directory.sessions)
            for session_id, revision in revisions.items():
                state = await sessions.load(session_id)
                assert state is not None
                assert state.revision >= revision
            await sessions.close()
    assert len(names) > 12
    assert revisions
    assert {finding.problem for finding in check(data)} == {"its name is not that of its events"}


def take(line: str, names: set[str], revisions: dict[str, int]) -> None:
    assert line, "the writer ended by itself"
    if not line.endswith("\n"):
        return
    kind, *values = line.split()
    if kind == "pattern":
        names.update(values)
    else:
        revisions[values[0]] = int(values[1])
