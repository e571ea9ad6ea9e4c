"""Counters begin at zero and count errors by their code."""

from __future__ import annotations

from kato.ops.counters import Counters


def test_errors_are_counted_together_and_by_code() -> None:
    counters = Counters()
    for code in ("NOT_FOUND", "STORAGE_ERROR", "NOT_FOUND"):
        counters.error(code)
    assert counters.request_errors == 3
    assert counters.errors_by_code == {"NOT_FOUND": 2, "STORAGE_ERROR": 1}


def test_counters_are_not_shared() -> None:
    Counters().error("NOT_FOUND")
    assert Counters() == Counters()
    assert Counters().errors_by_code == {}
