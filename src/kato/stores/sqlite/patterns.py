"""Patterns in SQLite: durable on return, group commit, scans that do not get in anybody's way."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from binascii import unhexlify
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import chain, repeat
from operator import lt
from pathlib import Path
from struct import Struct
from typing import Any, Final, TypeVar

from kato.errors import KatoError, ValidationError
from kato.model import Pattern, PatternRecord
from kato.stores.codec import NAME_BYTES, decode_pattern, encode_pattern, name_bytes, utf8
from kato.stores.sqlite.connection import damaged, translated
from kato.stores.sqlite.database import Database

T = TypeVar("T")

# Every step of a statement lets go of the interpreter lock, and getting it back from a busy event loop
# takes up to five milliseconds. So a step does much: hundreds of rows are inserted by one statement, and a
# scan gets thousands of records as one row. A scan of a million records takes seconds beside a busy loop
# instead of an hour.
_ROWS: Final = (512, 64, 8, 1)
"""Rows per statement; few sizes, so that each statement is prepared once."""

_FIRST_BATCH: Final = 2_000
_LARGEST_BATCH: Final = 20_000
_BATCH_BYTES: Final = 2**23

_INSERT: Final = {
    rows: "INSERT INTO patterns (node, name, frequency, revision, events, details) VALUES "
    + ", ".join(["(?1, ?, ?, ?, ?, ?)"] * rows)
    for rows in _ROWS
}
_INSERT_ONE: Final = "INSERT OR IGNORE" + _INSERT[1].removeprefix("INSERT")
_KNOWN: Final = {
    rows: f"SELECT name FROM patterns WHERE node = ?1 AND name IN ({', '.join('?' * rows)})" for rows in _ROWS
}
_FETCH: Final = {
    rows: "SELECT name, events, frequency, details, revision FROM patterns"
    f" WHERE node = (SELECT id FROM nodes WHERE node = ?1) AND name IN ({', '.join('?' * rows)})"
    for rows in _ROWS
}
_REPLACE: Final = (
    "UPDATE patterns SET frequency = ?, revision = ?, events = ?, details = ?"
    " WHERE node = ? AND name = ? AND revision = ?"
)
# A concatenation of binary values ends at its first zero byte, one of hexadecimal digits does not. The
# third column is the format by which `struct` cuts the first into fields.
_SCAN: Final = (
    "SELECT count(*), group_concat(hex(name || events || details), ''),"
    f" group_concat(printf('{NAME_BYTES}s%ds%ds', length(events), length(details)), ''),"
    " group_concat(frequency)"
    " FROM (SELECT name, events, frequency, details FROM patterns"
    " WHERE node = ? AND name > ? ORDER BY name LIMIT ?)"
)

_Row = tuple[bytes, int, int, bytes, bytes]


class SqlitePatternStore:
    """A `PatternStore` in SQLite: give it a path, `:memory:`, or a `Database` shared with a vector store.

    Raises `DataCorrupted` when the file is damaged. A write that fails (`StorageError`) has changed nothing.

    >>> import asyncio
    >>> async def learn() -> int:
    ...     store = SqlitePatternStore(":memory:")
    ...     await store.insert("node", [Pattern(name="0f" * 20, events=(("a",), ("b",)))])
    ...     learned = await store.count("node")
    ...     await store.close()
    ...     return learned
    >>> asyncio.run(learn())
    1
    """

    def __init__(self, path: str | Path | Database) -> None:
        self._database = (path if isinstance(path, Database) else Database(path)).use()

    async def insert(self, node: str, patterns: Sequence[Pattern]) -> set[str]:
        """Add patterns that are not there yet, durable on return; returns the names already there."""
        key = utf8(node, "node_id")
        rows = [_row(pattern) for pattern in patterns]
        if len({row[0] for row in rows}) < len(rows):
            raise ValidationError("names one pattern twice", field="patterns")
        if not rows:
            return set()
        # In the order of the tree each of its pages is visited once.
        rows.sort(key=lambda row: row[0])
        return await self._database.write(lambda connection: self._insert(connection, key, rows))

    def _insert(self, connection: sqlite3.Connection, node: bytes, rows: list[_Row]) -> set[str]:
        number = self._node_id(connection, node)
        if len(rows) == 1:
            added = connection.execute(_INSERT_ONE, (number, *rows[0])).rowcount
            return set() if added else {rows[0][0].hex()}
        known = set(_select(connection, _KNOWN, number, [row[0] for row in rows]))
        fresh = [row for row in rows if (row[0],) not in known] if known else rows
        for part in _parts(fresh):
            connection.execute(_INSERT[len(part)], [number, *chain.from_iterable(part)])
        return {name.hex() for (name,) in known}

    def _node_id(self, connection: sqlite3.Connection, node: bytes) -> int:
        ids = self._database.node_ids
        number = ids.get(node)
        if number is None:
            number = _find_node(connection, node)
            if number is None:
                number = connection.execute("INSERT INTO nodes (node) VALUES (?)", (node,)).lastrowid
                assert number is not None
            ids[node] = number
        return number

    async def replace(self, node: str, pattern: Pattern, revision: int) -> bool:
        """Put `pattern` in place of the record of its name if that still has `revision`; False when not."""
        key = utf8(node, "node_id")
        name, *values = _row(pattern)

        def work(connection: sqlite3.Connection) -> bool:
            number = _find_node(connection, key)
            return connection.execute(_REPLACE, (*values, number, name, revision)).rowcount == 1

        return await self._database.write(work)

    async def fetch(self, node: str, names: Sequence[str]) -> dict[str, Pattern]:
        """The records of those names that exist."""
        key = utf8(node, "node_id")
        wanted = sorted({content for name in names if (content := name_bytes(name)) is not None})
        if not wanted:
            return {}
        rows = await self._database.read(lambda connection: _select(connection, _FETCH, key, wanted))
        try:
            patterns = (decode_pattern(PatternRecord._make(row[:4]), row[4]) for row in rows)
            return {pattern.name: pattern for pattern in patterns}
        except KatoError as error:
            raise damaged(self._database.path, error.message) from error

    async def delete(self, node: str, name: str, revision: int | None = None) -> bool:
        """Remove a record, with a `revision` only if it still has that; False when there was none to remove."""
        key = utf8(node, "node_id")
        content = name_bytes(name)
        if content is None:
            return False

        def work(connection: sqlite3.Connection) -> bool:
            number = _find_node(connection, key)
            statement = (
                "DELETE FROM patterns WHERE node = ? AND name = ? AND revision = coalesce(?, revision)"
            )
            return connection.execute(statement, (number, content, revision)).rowcount == 1

        return await self._database.write(work)

    async def scan(self, node: str) -> AsyncIterator[list[PatternRecord]]:
        """All records of a node in batches, in ascending order of name, consistent as of the first batch."""
        key = utf8(node, "node_id")
        if self._database.in_memory:
            for batch in await self._database.read(lambda connection: list(_batches(connection, key))):
                yield batch
            return
        reader = _ScanReader(self._database, key)
        upcoming = self._read_ahead(reader)
        try:
            while (records := await upcoming) is not None:
                upcoming = self._read_ahead(reader)
                yield records
        finally:
            # Not awaited, so that no cancellation comes between; the thread waits for a batch being read.
            with contextlib.suppress(KatoError):
                self._database.run(reader.close)

    def _read_ahead(self, reader: _ScanReader) -> asyncio.Future[list[PatternRecord] | None]:
        future = self._database.run(reader.next)
        # A consumer that stops early never asks for this batch; its error is then nobody's.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future

    async def drop(self, node: str) -> int:
        """Remove all records of a node; returns how many there were."""
        key = utf8(node, "node_id")

        def work(connection: sqlite3.Connection) -> int:
            self._database.node_ids.pop(key, None)
            number = _find_node(connection, key)
            if number is None:
                return 0
            removed = connection.execute("DELETE FROM patterns WHERE node = ?", (number,)).rowcount
            connection.execute("DELETE FROM nodes WHERE id = ?", (number,))
            return removed

        return await self._database.write(work)

    async def nodes(self) -> list[str]:
        """The ids of all nodes that hold at least one record, ascending."""
        statement = (
            "SELECT node FROM nodes"
            " WHERE EXISTS (SELECT 1 FROM patterns WHERE patterns.node = nodes.id) ORDER BY node"
        )
        rows = await self._database.read(lambda connection: connection.execute(statement).fetchall())
        return [node.decode() for (node,) in rows]

    async def count(self, node: str) -> int:
        """How many patterns the node holds."""
        key = utf8(node, "node_id")
        statement = (
            "SELECT count(*) FROM patterns"
            " WHERE node = (SELECT id FROM nodes WHERE node = ?) AND frequency >= 0"
        )
        rows = await self._database.read(lambda connection: connection.execute(statement, (key,)).fetchall())
        return int(rows[0][0])

    async def close(self) -> None:
        """Finish what was accepted and release every resource."""
        await self._database.close()


class _ScanReader:
    """One scan in progress: a borrowed connection whose transaction is the scan's snapshot."""

    def __init__(self, database: Database, node: bytes) -> None:
        self._database = database
        self._node = node
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._batches: Any = None
        self._closed = False

    def next(self) -> list[PatternRecord] | None:
        """The next batch, None after the last one."""
        with self._lock:
            if self._closed:
                return None
            if self._connection is None:
                self._connection = self._database.borrow()
                self._batches = _batches(self._connection, self._node)
            with translated(self._database.path):
                batch: list[PatternRecord] | None = next(self._batches, None)
                return batch

    def close(self) -> None:
        """Wait for a batch that is being read, then end the snapshot."""
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._batches.close()
                self._database.give_back(self._connection)
                self._connection = None


def _batches(connection: sqlite3.Connection, node: bytes) -> Iterable[list[PatternRecord]]:
    number = _find_node(connection, node)
    after = b""
    limit = _FIRST_BATCH
    while True:
        try:
            row = connection.execute(_SCAN, (number, after, limit)).fetchone()
        except sqlite3.DataError:
            # The batch is larger than SQLite's largest value: the records are enormous, take fewer of them.
            if limit == 1:
                raise
            limit = max(1, limit // 8)
            continue
        if not row[0]:
            return
        batch = _records(row)
        yield batch
        after = batch[-1].name
        limit = max(1, min(_LARGEST_BATCH, _BATCH_BYTES * row[0] // len(row[1])))


def _records(row: tuple[int, str, str, str]) -> list[PatternRecord]:
    """The records of one row of `_SCAN`, cut out of its columns by loops that run in C."""
    _, digits, layout, frequencies = row
    fields = Struct(layout).unpack(unhexlify(digits))
    names = fields[::3]
    # SQLite concatenates in the order of the inner query; were it ever otherwise, this must not pass
    # unnoticed.
    assert all(map(lt, names, names[1:]))
    columns = zip(names, fields[1::3], map(int, frequencies.split(",")), fields[2::3], strict=True)
    # What PatternRecord._make does, without a Python function call for each record.
    return list(map(tuple.__new__, repeat(PatternRecord), columns))


def _row(pattern: Pattern) -> _Row:
    record = encode_pattern(pattern)
    return (record.name, record.frequency, pattern.revision, record.events, record.details)


def _find_node(connection: sqlite3.Connection, node: bytes) -> int | None:
    rows = connection.execute("SELECT id FROM nodes WHERE node = ?", (node,)).fetchall()
    return rows[0][0] if rows else None


def _parts(rows: Sequence[T]) -> Iterable[Sequence[T]]:
    """`rows` in pieces whose sizes are in `_ROWS`."""
    start = 0
    for size in _ROWS:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


def _select(
    connection: sqlite3.Connection, statements: dict[int, str], node: int | bytes, names: Sequence[bytes]
) -> list[Any]:
    select: Callable[[Sequence[bytes]], list[Any]] = lambda part: connection.execute(  # noqa: E731
        statements[len(part)], [node, *part]
    ).fetchall()
    return list(chain.from_iterable(map(select, _parts(names))))
