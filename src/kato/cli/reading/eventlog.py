"""CSV event logs: one event per row, grouped by case, ordered by time."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import TypeAlias

import msgspec

from kato import validation
from kato.cli.reading.lines import Lines, Sequence, problem
from kato.errors import ValidationError
from kato.model import Observation
from kato.validation import SYMBOL_LENGTH, ObservationRequest

CASE = ("case", "case_id", "caseid", "case id", "case:concept:name")
ACTIVITY = ("activity", "concept:name", "activity_id", "activityid", "event")
TIME = ("time", "timestamp", "time:timestamp", "completetimestamp", "complete timestamp")
DELIMITERS = ",;\t|"

Row: TypeAlias = tuple[float, Observation]


def looks_like(line: str) -> bool:
    """Whether a line could be the header of an event log."""
    return any(delimiter in line for delimiter in DELIMITERS)


def cases(
    lines: Lines, case: str | None, activity: tuple[str, ...], time: str | None, keep: bool
) -> list[Sequence]:
    """One sequence per case, in the order in which the cases first appear; held in memory as a whole.

    Rows of a case are ordered by time, rows of equal time stay in the order of the file; so do all rows
    without a time column. Several activity columns give several symbols per event; empty cells give none.
    With `keep` the first event of a case carries the case's name as metadata.
    """
    numbered = iter(lines)
    first = next(numbered, None)
    if first is None:
        raise problem(lines.path, 1, "the file is empty")
    delimiter = max(DELIMITERS, key=first[1].count)
    texts = (text for _, text in chain([first], numbered))
    rows: dict[str, list[Row]] = {}
    number = 1
    try:
        reader = csv.reader(texts, delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(reader)]
        place = _Places(header, case, activity, time)
        when = _times() if place.time is not None else None
        for cells in reader:
            number = lines.number
            if any(cell.strip() for cell in cells):
                name, row = place.row(cells, when)
                rows.setdefault(name, []).append(row)
    except csv.Error as error:
        raise problem(lines.path, lines.number, f"not valid CSV ({error})") from None
    except (ValidationError, ValueError) as error:
        raise problem(lines.path, number, str(error)) from None
    return list(_ordered(rows, keep))


def _ordered(rows: dict[str, list[Row]], keep: bool) -> Iterator[Sequence]:
    for case, events in rows.items():
        events.sort(key=lambda row: row[0])
        sequence = tuple(observation for _, observation in events if observation.strings)
        if sequence:
            first = msgspec.structs.replace(sequence[0], metadata={"case": case}) if keep else sequence[0]
            yield first, *sequence[1:]


class _Places:
    """Which columns hold what."""

    def __init__(
        self, header: list[str], case: str | None, activity: tuple[str, ...], time: str | None
    ) -> None:
        self.header = header
        self.case = self._find(case, CASE, "case")
        self.activities = [self._find(name, (), "activity") for name in activity]
        self.activities = self.activities or [self._find(None, ACTIVITY, "activity")]
        self.time: int | None = self._usual(TIME) if time is None else self._find(time, (), "time")

    def _usual(self, names: tuple[str, ...]) -> int | None:
        lowered = [name.lower() for name in self.header]
        return next((lowered.index(name) for name in names if name in lowered), None)

    def _find(self, name: str | None, usual: tuple[str, ...], what: str) -> int:
        place = (
            self._usual(usual) if name is None else self.header.index(name) if name in self.header else None
        )
        if place is None:
            wanted = f"no column {name!r}" if name is not None else f"no {what} column"
            raise ValueError(
                f"{wanted}; the columns are {', '.join(self.header)}; choose one with --{what}-column"
            )
        return place

    def row(self, cells: list[str], when: Callable[[str], float] | None) -> tuple[str, Row]:
        """The case of a row, and its event with its time."""
        if len(cells) != len(self.header):
            raise ValueError(f"{len(cells)} cells, the header has {len(self.header)}")
        case = cells[self.case].strip()
        if not case:
            raise ValueError(f"the column {self.header[self.case]!r} is empty")
        symbols = tuple(cells[place].strip() for place in self.activities if cells[place].strip())
        for symbol in symbols:
            if len(symbol) > SYMBOL_LENGTH:
                raise ValueError(
                    f"an activity has {len(symbol)} characters, at most {SYMBOL_LENGTH} are allowed"
                )
        observation = validation.observation(ObservationRequest(strings=symbols))
        return case, (
            0.0 if when is None or self.time is None else when(cells[self.time].strip()),
            observation,
        )


def _times() -> Callable[[str], float]:
    """Reads the cells of a time column, all numbers or all ISO 8601 (without zone: UTC) as the first one."""
    numbers: list[bool] = []

    def read(text: str) -> float:
        if not numbers:
            numbers.append(_is_number(text))
        try:
            if numbers[0]:
                return float(text)
            moment = datetime.fromisoformat(text)
        except ValueError:
            kind = "a number like the first time" if numbers[0] else "an ISO 8601 time or a number"
            raise ValueError(f"{text!r} is not {kind}") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

    return read


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
