"""How answers look to people: lists that print as tables in a terminal and in a notebook.

They hold nothing but the JSON values of the answer; everything a client wrote is escaped or made printable
before it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]

ROWS_SHOWN = 10
TEXT_SHOWN = 60
"""Longest text of a cell, in characters."""

_TABLE = 'style="border-collapse:collapse;font-family:sans-serif;font-size:13px"'
_CELL = 'style="text-align:left;padding:2px 8px"'
_CHIP = "display:inline-block;margin:1px;padding:0 5px;border-radius:8px;"
_MATCHED = _CHIP + "background:#cdebd0;color:#123"
_PLAIN = _CHIP + "background:#e6e8ee;color:#123"
_ABSENT = _CHIP + "border:1px dashed #b58900;color:#b58900"
_EXTRA = _CHIP + "text-decoration:line-through;border:1px solid #c55;color:#c55"


class STM(list[list[str]]):
    """A short-term memory: a list of events, oldest first, each a list of symbols.

    >>> STM([["hello"], ["big", "world"]])
    STM of 2 events
      0  hello
      1  big world
    >>> STM([["hello"]]) == [["hello"]]
    True
    """

    def __repr__(self) -> str:
        head = f"STM of {len(self)} event{'' if len(self) == 1 else 's'}"
        return "\n".join([head, *_latest(self._lines(), len(self))])

    def _lines(self) -> list[str]:
        width = len(str(max(len(self) - 1, 0)))
        return [f"  {number:>{width}}  {_event(event)}" for number, event in enumerate(self)]

    def _repr_html_(self) -> str:
        rows = [
            f"<tr><td {_CELL}>{number}</td><td {_CELL}>{_chips(event, _PLAIN)}</td></tr>"
            for number, event in enumerate(self)
        ]
        if len(rows) > ROWS_SHOWN:
            note = f'<tr><td {_CELL} colspan="2">… {len(rows) - ROWS_SHOWN} earlier</td></tr>'
            rows = [note, *rows[-ROWS_SHOWN:]]
        head = f"<tr><th {_CELL}>#</th><th {_CELL}>symbols</th></tr>"
        return f"<table {_TABLE}><caption>STM of {len(self)} events</caption>{head}{''.join(rows)}</table>"


class Predictions(list[Row]):
    """Predictions, best first: a list of dictionaries with every metric, and what they add up to.

    `future_potentials` lists the futures that members share, with their share of the total weight. `stale` says
    that they may lack what was learned elsewhere, because a server was down.

    >>> found = Predictions([{"name": "1dde44bd", "potential": 2.5, "similarity": 0.5, "evidence": 0.5,
    ...                       "frequency": 3, "matches": ["a"], "future": [["b"]]}])
    >>> found
    Predictions (1)
      #  pattern   potential  similarity  evidence  frequency  matches  future
      1  1dde44bd     2.5000      0.5000    0.5000          3  a        b
    >>> found.best["future"]
    [['b']]
    """

    def __init__(
        self, predictions: Iterable[Row] = (), future_potentials: Iterable[Row] = (), stale: bool = False
    ) -> None:
        super().__init__(predictions)
        self.future_potentials: list[Row] = list(future_potentials)
        self.stale = stale

    @property
    def best(self) -> Row | None:
        """The prediction that ranks first; None when there is none."""
        return self[0] if self else None

    def __repr__(self) -> str:
        head = self._head()
        if not self:
            return head
        titles = ("#", "pattern", "potential", "similarity", "evidence", "frequency", "matches", "future")
        rows = [titles, *(_cells(number, row) for number, row in enumerate(self[:ROWS_SHOWN], 1))]
        widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
        lines = ["  " + "  ".join(map(_aligned, row, widths, range(len(titles)))).rstrip() for row in rows]
        if len(self) > ROWS_SHOWN:
            lines.append(f"  … {len(self) - ROWS_SHOWN} more")
        return "\n".join([head, *lines])

    def _head(self) -> str:
        return f"Predictions ({len(self)}{', stale' if self.stale else ''})"

    def _repr_html_(self) -> str:
        titles = ("#", "pattern", "potential", "similarity", "evidence", "past", "present", "future")
        head = "".join(f"<th {_CELL}>{title}</th>" for title in titles)
        highest = max((_number(row, "potential") for row in self), default=0.0)
        rows = "".join(_html_row(number, row, highest) for number, row in enumerate(self[:ROWS_SHOWN], 1))
        if len(self) > ROWS_SHOWN:
            more = f"… {len(self) - ROWS_SHOWN} more"
            rows += f'<tr><td {_CELL} colspan="{len(titles)}">{more}</td></tr>'
        caption = f"<caption>{self._head()}</caption>"
        return f"<table {_TABLE}>{caption}<tr>{head}</tr>{rows}</table>{self._futures_html()}"

    def _futures_html(self) -> str:
        if not self.future_potentials:
            return ""
        highest = max(_number(row, "aggregate_potential") for row in self.future_potentials)
        rows = "".join(
            f"<tr><td {_CELL}>{_events_html(row.get('future', ()), _PLAIN)}</td>"
            f"<td {_CELL}>{_bar(_number(row, 'aggregate_potential'), highest)}</td>"
            f"<td {_CELL}>{escape(_text(str(row.get('supporting_patterns', ''))))}</td></tr>"
            for row in self.future_potentials[:ROWS_SHOWN]
        )
        head = f"<tr><th {_CELL}>future</th><th {_CELL}>potential</th><th {_CELL}>patterns</th></tr>"
        return f"<table {_TABLE}><caption>Futures</caption>{head}{rows}</table>"


# Text -----------------------------------------------------------------------------------------------


def symbol_text(symbol: object) -> str:
    """A symbol as it may be printed: as it is, or quoted when it is empty, has blanks or cannot be printed.

    >>> print(symbol_text("hello"), symbol_text("two words"), symbol_text(chr(27) + "[2J"))
    hello 'two words' '\\x1b[2J'
    """
    text = str(symbol)
    return _text(text if text.isprintable() and text and " " not in text else repr(text))


def _text(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else text[: TEXT_SHOWN - 1] + "…"


def _event(event: object) -> str:
    symbols = event if isinstance(event, list | tuple) else [event]
    return _text(" ".join(map(symbol_text, symbols))) if symbols else "(nothing)"


def _events(events: Sequence[object]) -> str:
    return _text(" | ".join(map(_event, events)))


def _number(row: Row, field: str) -> float:
    value = row.get(field)
    return float(value) if isinstance(value, int | float) else 0.0


def _cells(number: int, row: Row) -> tuple[str, ...]:
    return (
        str(number),
        symbol_text(row.get("name", ""))[:8],
        f"{_number(row, 'potential'):.4f}",
        f"{_number(row, 'similarity'):.4f}",
        f"{_number(row, 'evidence'):.4f}",
        _text(str(row.get("frequency", ""))),
        _event(row.get("matches", ())),
        _events(row.get("future", ())),
    )


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column in (0, 2, 3, 4, 5) else cell.ljust(width)


def _latest(lines: list[str], total: int) -> list[str]:
    return lines if total <= ROWS_SHOWN else [f"  … {total - ROWS_SHOWN} earlier", *lines[-ROWS_SHOWN:]]


# HTML -----------------------------------------------------------------------------------------------


def _chips(event: object, style: str) -> str:
    symbols = event if isinstance(event, list | tuple) else [event]
    return "".join(f'<span style="{style}">{escape(symbol_text(symbol))}</span>' for symbol in symbols)


def _events_html(events: Sequence[object], style: str) -> str:
    return " · ".join(_chips(event, style) for event in events if event)


def _bar(value: float, highest: float) -> str:
    share = min(max(value / highest, 0.0), 1.0) if highest > 0 else 0.0
    return (
        '<span style="display:inline-block;width:60px;height:9px;background:#e6e8ee">'
        f'<span style="display:block;width:{share:.0%};height:9px;background:#4a7fb5"></span></span>'
        f" {value:.4f}"
    )


def _present_html(row: Row) -> str:
    """The matched part of the pattern: observed, missing of it, observed too much."""
    parts = [
        _chips(row.get("matches", ()), _MATCHED),
        _events_html(row.get("missing", ()), _ABSENT),
        _events_html(row.get("extras", ()), _EXTRA),
    ]
    return " ".join(filter(None, parts))


def _html_row(number: int, row: Row, highest: float) -> str:
    name = escape(symbol_text(row.get("name", ""))[:8])
    cells = (
        str(number),
        f"<code>{name}</code> ×{escape(_text(str(row.get('frequency', ''))))}",
        _bar(_number(row, "potential"), highest),
        _bar(_number(row, "similarity"), 1.0),
        _bar(_number(row, "evidence"), 1.0),
        _events_html(row.get("past", ()), _PLAIN),
        _present_html(row),
        _events_html(row.get("future", ()), _PLAIN),
    )
    return "<tr>" + "".join(f"<td {_CELL}>{cell}</td>" for cell in cells) + "</tr>"
