from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "accuracy.py"
SETS = ("BMS", "SIGN", "MSNBC", "FIFA", "LEVIATHAN")


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(SCRIPT), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_missing_data_are_told(tmp_path: Path) -> None:
    ran = _run("--data", str(tmp_path))
    assert ran.returncode == 1
    assert ran.stderr.startswith(
        f"The data are not in {tmp_path} (process-logs, sequence-prediction, hdfs-sessions"
    )


def test_accuracy_of_data_without_doubt(tmp_path: Path) -> None:
    for name in ("process-logs", "sequence-prediction", "hdfs-sessions"):
        (tmp_path / name).mkdir()
    for name in ("helpdesk", "bpi_12_w", "env_permit"):
        (tmp_path / "process-logs" / f"{name}.seq").write_text("1 2 3 4\n" * 30, encoding="utf-8")
    for name in SETS:
        path = tmp_path / "sequence-prediction" / f"{name.lower()}.seq"
        path.write_text("1 2 3 4 5 6 7 8 9\n" * 28, encoding="utf-8")
    rows = "".join(f"{name}\tCPT+\t50.0\t50.0\t100.0\t0\t0\t0\n" for name in SETS)
    (tmp_path / "sequence-prediction" / "results.tsv").write_text(
        "dataset\tpredictor\n" + rows, encoding="utf-8"
    )
    for name, line in (("normal_train", "1 2 3\n"), ("abnormal", "1 2\n")):
        (tmp_path / "hdfs-sessions" / f"{name}.seq.gz").write_bytes(gzip.compress(line.encode() * 10))
    ran = _run("--data", str(tmp_path), "--folds", "2", "--json", str(tmp_path / "out.json"))
    assert ran.returncode == 0, ran.stderr
    results: dict[str, list[dict[str, Any]]] = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert {row["kato"]["accuracy"] for row in results["process-logs"]} == {100.0}
    assert [row["questions"] for row in results["process-logs"]][:2] == [20, 30]
    assert {row["kato"]["overall"] for row in results["sequence-prediction"]} == {100.0}
    assert results["sequence-prediction"][0]["name"] == "bms (2 of 14 folds)"
    assert results["hdfs-sessions"][0]["kato"] == {"recall": 100.0, "false alarms": 0.0}
