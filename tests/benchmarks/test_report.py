"""Verdicts and tables say what the figures say."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("report")
    for name in ("report", "machine"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("value", "budget", "better", "verdict"),
    [
        (8000, 8000, "higher", "met"),
        (6000, 8000, "higher", "missed by 25%"),
        (0.5, 1.0, "lower", "met"),
        (1.5, 1.0, "lower", "missed by 50%"),
        (0, 0, "lower", "met"),
        (3, 0, "lower", "missed"),
        (3, None, "lower", ""),
    ],
)
def test_verdict(report: Any, value: float, budget: float | None, better: str, verdict: str) -> None:
    assert report.Row("figure", value, "ms", budget, better).verdict == verdict


def test_summary_names_what_was_missed(report: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.machine, "load_average", lambda: [0.0, 0.0, 0.0])
    rows = [report.Row("slow", 6000, "requests/s", 8000), report.Row("fast", 9000, "requests/s", 8000)]
    assert report.summary({"http": rows, "none": [report.Row("free", 1, "s")]}).splitlines() == [
        "1 of 2 budgets met",
        "  http: slow: 6,000 requests/s, missed by 25%",
    ]


def test_table_is_in_columns(report: Any) -> None:
    rows = [report.Row("a", 1234.5, "requests/s", 8000, note="said"), report.Row("longer", 0.25, "ms")]
    assert report.table(rows).splitlines() == [
        "          value  unit          budget  verdict",
        "  a       1,234  requests/s  >= 8,000  missed by 85%  said",
        "  longer  0.250  ms",
    ]


def test_result_file_is_written_whole(report: Any, tmp_path: Path) -> None:
    row = report.Row("a", 1, "s", 2, "lower", raw={"runs": [1]})
    facts = {"cpu": "one"}
    report.write(tmp_path / "deep" / "a.json", report.document({"a": [row]}, facts, "quick"))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.json"]
    document = report.document({"a": [row]}, facts, "quick")
    assert document["sections"]["a"][0]["met"] is True
    assert document["machine"] == facts


def test_percentile(report: Any) -> None:
    assert report.percentile(range(100), 0.99) == 99
    assert report.percentile([3.0], 0.5) == 3.0
