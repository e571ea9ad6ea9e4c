"""What the commands print: tables for people, JSON for programs, one sentence on stderr for errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

WIDTH = 120
"""Width of tables when the output is not a terminal and COLUMNS is not set."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def console() -> Console:
    """The console of this moment's stdout."""
    fixed = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(file=sys.stdout, highlight=False, width=WIDTH if fixed else None, soft_wrap=False)


def say(text: str) -> None:
    """Print a line for people, as it is."""
    typer.echo(text)


def emit(document: Any) -> None:
    """Print one JSON document on a line of its own."""
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """Print a table; columns whose name begins with `#` hold numbers and are aligned right."""
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        numeric = column.startswith("#")
        shown.add_column(
            Text(column.removeprefix("#")),
            justify="right" if numeric else "left",
            no_wrap=numeric,
            overflow="fold",
        )
    for row in rows:
        shown.add_row(*(Text(cell(value)) for value in row))
    page = console()
    with page.capture() as captured:
        page.print(shown)
    for line in captured.get().splitlines():
        say(line.rstrip())


def cell(value: Any) -> str:
    """A value as it stands in a table: floats with four digits, nothing for None.

    >>> cell(2 / 3), cell(None), cell(3)
    ('0.6667', '', '3')
    """
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else printable(str(value))


def printable(text: str) -> str:
    """A text that cannot disturb a terminal: control characters are written as escapes.

    >>> printable("big world"), printable("a\\x1b[2J")
    ('big world', 'a\\\\x1b[2J')
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def events(value: Iterable[Iterable[str]]) -> str:
    """Events on one line: symbols of one event joined by commas, events by arrows, an empty event as a dot.

    >>> events([["a", "b"], ["c"], []])
    'a,b → c → ·'
    """
    return " → ".join(",".join(map(printable, event)) or "·" for event in value)


def fail(message: str, code: int = 1) -> NoReturn:
    """End the command with one sentence on stderr."""
    typer.echo(f"kato: {message}", err=True)
    raise typer.Exit(code)


def progress(shown: bool) -> Progress:
    """A progress bar on stderr; silent when that is not a terminal or `shown` is false."""
    stderr = Console(file=sys.stderr)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[done]}"),
        TimeRemainingColumn(),
        console=stderr,
        disable=not (shown and stderr.is_terminal),
        transient=True,
    )
