"""`kato copy`: everything that one store keeps put into another one, and verified there."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.progress import Progress

from kato import settings
from kato.cli import output
from kato.errors import BadRequest
from kato.moving.copying import VERIFYING
from kato.moving.move import Choice, Moved, MovedNode, move
from kato.moving.places import Access
from kato.moving.sides import Side, side

Vectors = Annotated[
    str | None, typer.Option(metavar="URL", help="Qdrant beside a server: http(s)://host:port[?prefix=NAME].")
]
Sessions = Annotated[str | None, typer.Option(metavar="URL", help="Redis beside a server: redis://...")]


def copy(
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="URL", help="Data directory, postgresql://... or mongodb://... to read."
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--to", metavar="URL", help="Data directory, postgresql://... or mongodb://... to write."
        ),
    ],
    from_vectors: Vectors = None,
    to_vectors: Vectors = None,
    from_sessions: Sessions = None,
    to_sessions: Sessions = None,
    without_vectors: Annotated[bool, typer.Option("--without-vectors", help="Leave vectors behind.")] = False,
    without_sessions: Annotated[
        bool, typer.Option("--without-sessions", help="Leave sessions behind.")
    ] = False,
    node: Annotated[
        list[str] | None,
        typer.Option(help="Copy only this node; may be given several times.  [default: all]"),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Overwrite patterns and sessions that the target holds with other values."
        ),
    ] = False,
    as_json: output.Json = False,
) -> None:
    """Copy patterns, vectors and living sessions from one store to another, whole, and verify them.

    A data directory (a path, or file:PATH) holds all three. A server holds patterns; where its vectors and
    sessions are is named beside it. Qdrant's key and the prefix of its collections are read from
    QDRANT_API_KEY and QDRANT_COLLECTION_PREFIX. If the source holds vectors or sessions and no place is
    named for them in the target, nothing is copied; --without-vectors and --without-sessions leave them
    behind. A server's vectors and sessions that are not named stay where they are. Notes of `kato learn` and
    knowledge of expired sessions are not copied.

    Everything is compared before anything is written. If the target holds something of a node that the
    source does not hold, or holds with other values, nothing is copied; what it holds of other nodes does not
    matter. Nothing else may write to either side meanwhile: a data directory is locked, instances on servers
    must be stopped.

    Afterwards both sides are read again: the number of records and a SHA-256 over all of them must agree. A
    copy that was interrupted, by whatever, is completed by repeating the command; what is there already is
    not written again.
    """
    started = time.monotonic()
    for given, without, what in (
        (to_vectors, without_vectors, "vectors"),
        (to_sessions, without_sessions, "sessions"),
    ):
        if given is not None and without:
            raise BadRequest(f"give either --to-{what} or --without-{what}, not both")
    here = side("--from", source, from_vectors, from_sessions)
    there = side("--to", target, to_vectors, to_sessions)
    choice = Choice(tuple(node or ()), not without_vectors, not without_sessions, replace)
    with output.progress(not as_json) as bar:
        moved = asyncio.run(move(here, there, choice, _Bar(bar), time.time(), _access()))
    seconds = time.monotonic() - started
    if as_json:
        output.emit({"from": here.name, "to": there.name, "nodes": moved, "seconds": round(seconds, 3)})
    else:
        _say(here, there, moved, seconds)


def _access() -> Access:
    # Those of a production store need not be complete here.
    chosen = settings.load(kato_store="embedded")
    key = chosen.qdrant_api_key
    return Access(key.get_secret_value() if key else None, chosen.qdrant_collection_prefix)


class _Bar:
    """Shows how far a copy is."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("Copying", total=None, done="")
        self._expected = 0
        self._doing = ""
        self._done: Counter[str] = Counter()

    def expect(self, kind: str, records: int) -> None:
        """The source holds so many more records of a kind."""
        self._expected += records

    def __call__(self, doing: str, kind: str, records: int) -> None:
        """So many more records of a kind are compared, copied or verified (`doing`)."""
        if doing != self._doing:
            self._doing = doing
            self._done.clear()
            sides = 2 if doing == VERIFYING else 1
            self._bar.reset(self._task, description=doing, total=sides * self._expected, done="")
        self._done[kind] += records
        self._bar.update(self._task, completed=self._done.total(), done=f"{self._done[kind]} {kind}s")


def _say(here: Side, there: Side, moved: list[MovedNode], seconds: float) -> None:
    rows = [
        (each.node, kind, what.count, what.written, what.digest)
        for each in moved
        for kind, what in _kinds(each)
        if what is not None and what.count
    ]
    output.table(("node", "kind", "#records", "#written", "SHA-256"), rows)
    for kind in [kind for kind, what in _kinds(moved[0]) if what is None]:
        output.say(f"{kind.capitalize()} were not copied.")
    written = sum(row[3] for row in rows)
    if written:
        output.say(
            f"Copied {written} records from {here.name} to {there.name} in {seconds:.1f} s; both sides agree."
        )
    else:
        output.say(f"{there.name} held everything already; both sides agree.")


def _kinds(moved: MovedNode) -> Iterable[tuple[str, Moved | None]]:
    return ("patterns", moved.patterns), ("vectors", moved.vectors), ("sessions", moved.sessions)
