"""The same conversation has the same bytes: again, under another hash seed, in memory and in a directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, sys
import kato
from tests.congruence.script import SCRIPTS
from tests.congruence.speakers import normal

with kato.open(sys.argv[1]) as memory:
    for script in SCRIPTS:
        for answer in script(memory):
            print(json.dumps(normal(answer), default=repr))
    session = memory.session("many")
    sequences = [[[f"s{(i * j) % 17}", f"s{(i + j) % 13}"] for j in range(6)] for i in range(200)]
    memory.learn_many("many", sequences)
    session.observe_sequence([["s1", "s5"], ["s9"], ["s3", "s4", "s12"]])
    print(normal(session.predictions_json()).decode())
    print(json.dumps(memory.symbols("many")))
"""


def said(where: str, seed: str) -> bytes:
    """What the conversation answers in a process of its own."""
    environment = {
        **os.environ,
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, where], capture_output=True, env=environment, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_bytes_do_not_depend_on_the_hash_seed_the_run_or_the_store(tmp_path: Path) -> None:
    first = said(":memory:", "0")
    assert len(first.splitlines()) > 300
    assert b'"predictions":[{' in first
    assert said(":memory:", "0") == first
    assert said(":memory:", "4242") == first
    assert said(str(tmp_path / "data"), "17") == first
