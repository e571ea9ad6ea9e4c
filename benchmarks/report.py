"""Figures beside their budgets: rows, tables and result files."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import machine

BUSY = 1.5
"""Tasks per core above which a benchmark (two tasks of its own) has had to share."""

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Row:
    """One measured figure.

    `better` says in which direction the budget may be passed; `raw` holds what the figure was made of.
    """

    name: str
    value: float
    unit: str
    budget: float | None = None
    better: Better = "higher"
    note: str = ""
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the budget is kept; None without one."""
        if self.budget is None:
            return None
        return self.value >= self.budget if self.better == "higher" else self.value <= self.budget

    @property
    def verdict(self) -> str:
        """`met`, `missed by x %`, or nothing without a budget."""
        if self.met is None or self.budget is None:
            return ""
        if self.met:
            return "met"
        return f"missed by {abs(self.value - self.budget) / self.budget:.0%}" if self.budget else "missed"


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which `share` of all values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Iterable[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def number(value: float) -> str:
    """As many digits as mean something."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def table(rows: Sequence[Row]) -> str:
    """The rows as text in columns."""
    lines = [("", "value", "unit", "budget", "verdict", "")]
    for row in rows:
        sign = ">=" if row.better == "higher" else "<="
        budget = "" if row.budget is None else f"{sign} {number(row.budget)}"
        lines.append((row.name, number(row.value), row.unit, budget, row.verdict, row.note))
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    return "\n".join(
        f"  {line[0]:<{widths[0]}}  {line[1]:>{widths[1]}}  {line[2]:<{widths[2]}}  "
        f"{line[3]:>{widths[3]}}  {line[4]:<{widths[4]}}  {line[5]}".rstrip()
        for line in lines
    )


def summary(sections: dict[str, list[Row]]) -> str:
    """How many budgets were kept, and which were not."""
    budgeted = [(section, row) for section, rows in sections.items() for row in rows if row.met is not None]
    missed = [(section, row) for section, row in budgeted if not row.met]
    lines = [f"{len(budgeted) - len(missed)} of {len(budgeted)} budgets met"]
    busy = machine.load_average()[0] / (os.cpu_count() or 1)
    if missed and busy > BUSY:
        lines.append(
            f"  (the machine was busy, {busy:.1f} tasks per core: compare the ratios and the CPU times)"
        )
    lines += [
        f"  {section}: {row.name.strip()}: {number(row.value)} {row.unit}, {row.verdict}"
        for section, row in missed
    ]
    return "\n".join(lines)


def document(sections: dict[str, list[Row]], facts: dict[str, Any], size: str) -> dict[str, Any]:
    """Everything that was measured, for machines."""
    return {
        "machine": facts,
        "load_average_after": machine.load_average(),
        "size": size,
        "sections": {
            section: [{**asdict(row), "met": row.met, "verdict": row.verdict} for row in rows]
            for section, rows in sections.items()
        },
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a result file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".tmp")
    fresh.write_text(json.dumps(content, indent=1) + "\n")
    fresh.replace(path)
