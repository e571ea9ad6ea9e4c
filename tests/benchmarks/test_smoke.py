"""Every section of the benchmarks runs in a tiny size; what it measures then is of no interest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NEED_WRK = {"http", "sessions", "production"}


BESIDE_OTHERS = 5


@pytest.mark.parametrize(
    "section", ["search", "predictions", "learning", "opening", "http", "sessions", "production"]
)
def test_a_section_runs(section: str, tmp_path: Path) -> None:
    if section in NEED_WRK and shutil.which("wrk") is None:
        pytest.skip("the program wrk is not installed (apt-get install -y wrk)")
    together = tmp_path / "all.json"
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--tiny", "--only", section]
    command += ["--results", str(tmp_path), "--msnbc", str(tmp_path / "none"), "--json", str(together)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    written = json.loads((tmp_path / f"{section}.json").read_text())
    rows = written["sections"][section]
    assert rows
    assert all(isinstance(row["value"], int | float) and row["name"] for row in rows)
    # Beside all other tests a server may answer a few too late; by themselves the benchmarks allow no error.
    assert not [row for row in rows if row["name"].strip() == "errors" and row["value"] > BESIDE_OTHERS]
    assert {"cpu", "cores", "memory_mib", "kernel", "python", "packages", "simd", "load_average"} <= set(
        written["machine"]
    )
    assert list(json.loads(together.read_text())["sections"]) == [section]
    assert "budgets met" in result.stdout


def test_a_section_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--only", "nothing", "--results", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "no such section: nothing; there are search, " in result.stderr
