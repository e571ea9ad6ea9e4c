"""Looks for damage in a data directory: what `kato check` reports. Reads everything, changes nothing."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from array import array
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from kato.errors import KatoError
from kato.model import Events, PatternRecord
from kato.stores.codec import decode_pattern, decode_session
from kato.stores.directory import FORMAT_FILE, PATTERNS_FILE, SESSIONS_FILE, format_problem
from kato.stores.sqlite.connection import schema_problem
from kato.stores.sqlite.schema import PATTERNS, SESSIONS, Schema

_MOST_FINDINGS: Final = 1000
"""Per file; a file with more is to be restored, not repaired record by record."""

_Problems = Iterator[tuple[str, str]]


class Finding(NamedTuple):
    """One problem: in which file, at which place in it (a table, a record, or "" for the file), and what."""

    file: str
    place: str
    problem: str


def check(path: str | Path, name_of: Callable[[Events], str] | None = None) -> list[Finding]:
    """Every problem found in the data directory at `path`; an empty list when all is well.

    Checks the FORMAT file, the integrity of both database files, that each record can be read, and that each
    pattern is stored under the name that `name_of` (`kato.engine.naming.pattern_name`) gives its events. Safe
    beside a running KATO.

    >>> check("/nonexistent")[0].problem
    'there is no such directory'
    """
    if name_of is None:
        from kato.engine.naming import pattern_name

        name_of = pattern_name
    directory = Path(path)
    if not directory.is_dir():
        return [Finding(str(directory), "", "there is no such directory")]
    findings = [Finding(FORMAT_FILE, "", problem) for problem in _format(directory)]
    for file, schema, records in (
        (PATTERNS_FILE, PATTERNS, lambda connection: _patterns(connection, name_of)),
        (SESSIONS_FILE, SESSIONS, _sessions),
    ):
        problems = _database(directory / file, schema, records)
        findings += [Finding(file, *problem) for problem in islice(problems, _MOST_FINDINGS)]
        if next(problems, None) is not None:
            findings.append(Finding(file, "", f"more than {_MOST_FINDINGS} problems; the rest is not listed"))
    return findings


def _format(directory: Path) -> Iterator[str]:
    try:
        problem = format_problem(
            directory, (directory / FORMAT_FILE).read_text(encoding="utf-8", errors="replace")
        )
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
    if problem:
        yield problem


def _database(path: Path, schema: Schema, records: Callable[[sqlite3.Connection], _Problems]) -> _Problems:
    if not path.exists():
        yield "", "the file is missing"
        return
    try:
        # Read-only: looking at damage must not make it worse, nor create what is not there.
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        with contextlib.closing(connection):
            problem = schema_problem(connection, schema)
            if problem:
                yield "", problem
                return
            for (line,) in connection.execute("PRAGMA integrity_check"):
                if line != "ok":
                    yield "", line
            yield from records(connection)
    except sqlite3.Error as error:
        yield "", str(error)


def _patterns(connection: sqlite3.Connection, name_of: Callable[[Events], str]) -> _Problems:
    rows = connection.execute(
        "SELECT nodes.node, name, events, frequency, details, revision"
        " FROM patterns LEFT JOIN nodes ON nodes.id = patterns.node"
    )
    for node, *values in rows:
        record, revision = PatternRecord._make(values[:4]), values[4]
        place = f"pattern {_text(record.name, hexadecimal=True)} of node {_text(node)}"
        for problem in _pattern(node, record, revision, name_of):
            yield place, problem
    rows = connection.execute(
        "SELECT vector_nodes.node, dimension, name, vector"
        " FROM vectors LEFT JOIN vector_nodes ON vector_nodes.id = vectors.node"
    )
    for node, dimension, name, vector in rows:
        place = f"vector {_text(name)} of node {_text(node)}"
        if node is None:
            yield place, "its node is not known"
        elif not isinstance(vector, bytes) or len(vector) != 8 * dimension:
            yield place, f"it does not have the {dimension} elements of its node"
        elif not all(map(math.isfinite, array("d", vector))):
            yield place, "an element is not a finite number"


def _pattern(
    node: bytes | None, record: PatternRecord, revision: int, name_of: Callable[[Events], str]
) -> Iterator[str]:
    if node is None:
        yield "its node is not known"
    if not isinstance(record.frequency, int) or record.frequency < 0:
        yield f"its frequency is {record.frequency}"
    if not isinstance(revision, int) or revision < 1:
        yield f"its revision is {revision}"
    try:
        pattern = decode_pattern(record, revision)
        if name_of(pattern.events) != pattern.name:
            yield "its name is not that of its events"
    except (KatoError, TypeError, AttributeError) as error:
        yield str(error)


def _sessions(connection: sqlite3.Connection) -> _Problems:
    rows = connection.execute("SELECT id, node, user, created_at, expires_at, revision, state FROM sessions")
    for session_id, *columns, content in rows:
        place = f"session {session_id}"
        try:
            state = decode_session(content)
        except (KatoError, TypeError) as error:
            yield place, str(error)
            continue
        stored = [state.node_id, state.user_id, state.created_at, state.expires_at, state.revision]
        if state.session_id != session_id or stored != columns:
            yield place, "its columns do not agree with its state"
        if state.revision < 0:
            yield place, f"its revision is {state.revision}"


def _text(content: object, hexadecimal: bool = False) -> str:
    if not isinstance(content, bytes):
        return repr(content)
    return content.hex() if hexadecimal else content.decode(errors="replace")
