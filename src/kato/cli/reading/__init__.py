"""Files of sequences as KATO learns them: JSON Lines, CSV event logs, SPMF; plain or gzip-compressed."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from kato.cli.reading import eventlog, jsonl, spmf
from kato.cli.reading.lines import Lines, Sequence, problem

__all__ = ["Columns", "Format", "Read", "Sequence", "detect", "read"]

SNIFFED_LINES = 50


class Format(StrEnum):
    """How a file writes its sequences."""

    AUTO = "auto"
    JSONL = "jsonl"
    CSV = "csv"
    SPMF = "spmf"


class Columns(NamedTuple):
    """The chosen columns of a CSV event log; None and () stand for the usual names."""

    case: str | None = None
    activity: tuple[str, ...] = ()
    time: str | None = None
    keep: bool = False
    """Whether the first event of a case carries the case's name as metadata."""


class Read(NamedTuple):
    """One sequence, and the share of the file (0 to 1) that has been read with it."""

    share: float
    sequence: Sequence


def detect(path: Path) -> Format:
    """The format of a file: by its name where that says it, otherwise by its first lines."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    ending = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    known = {".jsonl": Format.JSONL, ".ndjson": Format.JSONL, ".json": Format.JSONL, ".csv": Format.CSV}
    known |= {".tsv": Format.CSV, ".spmf": Format.SPMF}
    if ending in known:
        return known[ending]
    with Lines(path) as lines:
        for _, (number, text) in zip(range(SNIFFED_LINES), lines, strict=False):
            if not text.strip() or spmf.is_comment(text):
                continue
            if text.lstrip()[0] in "{[":
                return Format.JSONL
            if spmf.looks_like(text):
                return Format.SPMF
            if eventlog.looks_like(text):
                return Format.CSV
            raise problem(
                path, number, "the format is not recognised; name it with --format jsonl, csv or spmf"
            )
    raise problem(path, 1, "the file is empty")


def read(path: Path, form: Format, columns: Columns = Columns()) -> Iterator[Read]:
    """The sequences of a file in order, those without any event left out; `form` must not be AUTO.

    Raises `BadRequest` that names file and line for whatever cannot be read.
    """
    with Lines(path) as lines:
        if form is Format.CSV:
            cases = eventlog.cases(lines, *columns)
            for number, sequence in enumerate(cases, 1):
                yield Read(number / len(cases), sequence)
            return
        for sequence in jsonl.sequences(lines) if form is Format.JSONL else spmf.sequences(lines):
            yield Read(lines.share, sequence)
