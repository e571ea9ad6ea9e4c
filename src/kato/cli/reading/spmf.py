"""SPMF sequence databases: `1 2 -1 3 -1 -2`, where -1 ends an event and -2 the sequence."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kato import validation
from kato.cli.reading.lines import Lines, Sequence, problem
from kato.errors import ValidationError
from kato.model import Observation
from kato.validation import SYMBOL_LENGTH, SYMBOLS, ObservationRequest

_LINE = re.compile(r"(<-?\d+>|-?\d+)(\s+(<-?\d+>|-?\d+))*")
_NAMED = re.compile(r"@ITEM=(-?\d+)=(.*)")


def is_comment(text: str) -> bool:
    """Whether a line says something about the file instead of being a sequence."""
    return text.startswith(("#", "%", "@"))


def looks_like(text: str) -> bool:
    """Whether a line could be a sequence of this format."""
    items = text.split()
    return _LINE.fullmatch(text.strip()) is not None and ("-1" in items or "-2" in items)


def sequences(lines: Lines) -> Iterator[Sequence]:
    """The sequences of a file. Names as in `@ITEM=1=apple` replace numbers; time stamps `<5>` are skipped."""
    names: dict[str, str] = {}
    for number, text in lines:
        named = _NAMED.fullmatch(text.strip())
        if named:
            names[named[1]] = named[2]
        if not text.strip() or is_comment(text):
            continue
        try:
            sequence = _sequence(text, names)
        except ValidationError as error:
            raise problem(lines.path, number, error.message) from None
        if sequence:
            yield sequence


def _sequence(text: str, names: dict[str, str]) -> Sequence:
    if not looks_like(text):
        raise ValidationError("expected items like `1 2 -1 3 -1 -2`: -1 ends an event, -2 the sequence")
    observations: list[Observation] = []
    event: list[str] = []
    items = [item for item in text.split() if not item.startswith("<")]
    end = items.index("-2") if "-2" in items else len(items)
    if items[end + 1 :]:
        raise ValidationError("there is something after -2, which ends the sequence")
    for item in [*items[:end], "-1"]:
        if item != "-1":
            event.append(names.get(item, item))
        elif event:
            observations.append(_observation(event))
            event = []
    return tuple(observations)


def _observation(event: list[str]) -> Observation:
    if len(event) > SYMBOLS:
        raise ValidationError(f"an event has {len(event)} items, at most {SYMBOLS} are allowed")
    longest = max(map(len, event))
    if longest > SYMBOL_LENGTH:
        raise ValidationError(f"an item has {longest} characters, at most {SYMBOL_LENGTH} are allowed")
    return validation.observation(ObservationRequest(strings=tuple(event)))
