"""Patterns in PostgreSQL: durable on return, one statement per operation, scans on a snapshot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, Final, TypeVar

import asyncpg

from kato.errors import KatoError, ValidationError
from kato.model import Pattern, PatternRecord
from kato.stores.codec import decode_pattern, encode_pattern, name_bytes, utf8
from kato.stores.postgres.failures import damaged, rolled_back
from kato.stores.postgres.pool import Connection, Pool, PoolOptions

T = TypeVar("T")

_ROWS: Final = 2_000
"""Rows per INSERT: many enough that the round trip does not count, few enough for the event loop."""
_FIRST_BATCH: Final = 1_000
_LARGEST_BATCH: Final = 5_000
_BATCH_BYTES: Final = 2**22
_ATTEMPTS: Final = 3
_NODE_BYTES: Final = 2_048
"""An index row of PostgreSQL has about 2,700 bytes; KATO's node ids have at most 1,024."""

_INSERT: Final = (
    "INSERT INTO patterns (node, name, frequency, revision, events, details)"
    " SELECT $1, * FROM unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[])"
    " ON CONFLICT DO NOTHING RETURNING name"
)
_REPLACE: Final = (
    "UPDATE patterns SET frequency = $4, revision = $5, events = $6, details = $7"
    " WHERE node = $1 AND name = $2 AND revision = $3"
)
_FETCH: Final = (
    "SELECT name, events, frequency, details, revision FROM patterns"
    " WHERE node = $1 AND name = ANY($2::bytea[])"
)
_SCAN: Final = "SELECT name, events, frequency, details FROM patterns WHERE node = $1 ORDER BY name"
# Jumps from node to node in the index instead of reading every record.
_NODES: Final = (
    "WITH RECURSIVE found AS ("
    " (SELECT node FROM patterns ORDER BY node LIMIT 1)"
    " UNION ALL SELECT (SELECT node FROM patterns WHERE node > found.node ORDER BY node LIMIT 1)"
    " FROM found WHERE found.node IS NOT NULL"
    ") SELECT node FROM found WHERE node IS NOT NULL"
)

_EVENTS: Final = itemgetter(1)
_DETAILS: Final = itemgetter(3)

_Row = tuple[bytes, int, int, bytes, bytes]


class PostgresPatternStore:
    """A `PatternStore` in the PostgreSQL at `url` (`postgresql://user:password@host[,host]/database`).

    Constructing it does not touch the network: `open`, or the first use, connects and applies what
    migrations the schema lacks. Commits wait for the disk, and for the synchronous standby where the server
    has one (`synchronous_commit=on`). Of several hosts the one that accepts writes is used. Everything that
    the server or the way to it does wrong is a `StorageError`; the outcome of a write that fails so is
    unknown, except that it is done wholly or not at all. Neither messages nor `repr` show the URL.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "kato",
        application_name: str = "kato",
        min_connections: int = 10,
        max_connections: int = 50,
        command_timeout: float = 10.0,
        bulk_timeout: float = 300.0,
        connect_timeout: float = 5.0,
        acquire_timeout: float = 5.0,
    ) -> None:
        options = PoolOptions(
            schema=schema,
            application_name=application_name,
            min_connections=min_connections,
            max_connections=max_connections,
            command_timeout=command_timeout,
            bulk_timeout=bulk_timeout,
            connect_timeout=connect_timeout,
            acquire_timeout=acquire_timeout,
        )
        self._pool = Pool(url, options)

    async def open(self) -> None:
        """Connect and migrate now; without it the first use does.

        Raises `StorageError` when the server cannot be reached or refuses, `DataDirectoryError` when a newer
        KATO has migrated the schema.
        """
        await self._pool.open()

    async def ping(self) -> None:
        """One round trip to the server; `StorageError` when it does not answer."""
        async with self._pool.borrow() as connection:
            await connection.fetchval("SELECT 1")

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are open, and how many of them nobody uses."""
        return self._pool.connections

    async def insert(self, node: str, patterns: Sequence[Pattern]) -> set[str]:
        """Add patterns that are not there yet, all or none, durable on return; returns the known names."""
        key = _node_key(node)
        # All instances lock the names of a batch in the same order, so no two of them wait for each other.
        rows = sorted(map(_row, patterns))
        names = {row[0] for row in rows}
        if len(names) < len(rows):
            raise ValidationError("names one pattern twice", field="patterns")
        if not rows:
            return set()
        added = await self._repeated(lambda connection: _insert(connection, key, rows))
        return {name.hex() for name in names.difference(added)}

    async def replace(self, node: str, pattern: Pattern, revision: int) -> bool:
        """Put `pattern` in place of the record of its name if that still has `revision`; False when not."""
        key = _node_key(node)
        name, *values = _row(pattern)
        status = await self._repeated(
            lambda connection: connection.execute(_REPLACE, key, name, revision, *values)
        )
        return _affected(status) == 1

    async def fetch(self, node: str, names: Sequence[str]) -> dict[str, Pattern]:
        """The records of those names that exist."""
        key = _node_key(node)
        wanted = sorted({content for name in names if (content := name_bytes(name)) is not None})
        if not wanted:
            return {}
        async with self._pool.borrow() as connection:
            rows = await connection.fetch(_FETCH, key, wanted)
        try:
            patterns = (decode_pattern(PatternRecord._make(row[:4]), row[4]) for row in rows)
            return {pattern.name: pattern for pattern in patterns}
        except KatoError as error:
            raise damaged(error.message) from error

    async def delete(self, node: str, name: str, revision: int | None = None) -> bool:
        """Remove a record, with a `revision` only if it still has that; False when there was none to remove."""
        key = _node_key(node)
        content = name_bytes(name)
        if content is None:
            return False
        statement = "DELETE FROM patterns WHERE node = $1 AND name = $2 AND revision = coalesce($3, revision)"
        status = await self._repeated(
            lambda connection: connection.execute(statement, key, content, revision)
        )
        return _affected(status) == 1

    async def scan(self, node: str) -> AsyncIterator[list[PatternRecord]]:
        """All records of a node in batches, in ascending order of name, consistent as of the first batch."""
        key = _node_key(node)
        async with self._pool.snapshot() as snapshot:
            cursor = await snapshot.connection.cursor(_SCAN, key)
            # The first row may have to wait until the server has sorted them all.
            upcoming = snapshot.read_ahead(
                cursor.fetch(_FIRST_BATCH, timeout=self._pool.options.bulk_timeout)
            )
            while rows := await upcoming:
                # The server works on the next batch while the caller does on this one.
                upcoming = snapshot.read_ahead(cursor.fetch(_next_batch(rows)))
                # What PatternRecord._make does, without a Python function call for each record.
                yield list(map(tuple.__new__, repeat(PatternRecord), rows))

    async def drop(self, node: str) -> int:
        """Remove all records of a node at once; returns how many there were."""
        key = _node_key(node)
        statement, limit = "DELETE FROM patterns WHERE node = $1", self._pool.options.bulk_timeout
        status = await self._repeated(lambda connection: connection.execute(statement, key, timeout=limit))
        return _affected(status)

    async def nodes(self) -> list[str]:
        """The ids of all nodes that hold at least one record, ascending."""
        async with self._pool.borrow() as connection:
            rows = await connection.fetch(_NODES, timeout=self._pool.options.bulk_timeout)
        return [node.decode() for (node,) in rows]

    async def count(self, node: str) -> int:
        """How many patterns the node holds."""
        key = _node_key(node)
        statement = "SELECT count(*) FROM patterns WHERE node = $1 AND frequency >= 0"
        limit = self._pool.options.bulk_timeout
        async with self._pool.borrow() as connection:
            return int(await connection.fetchval(statement, key, timeout=limit))

    async def close(self) -> None:
        """Finish what was accepted and release every connection."""
        await self._pool.close()

    async def _repeated(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """The result of `work`, done again when the server undid all of it because of others (a deadlock)."""
        async with self._pool.borrow() as connection:
            for _ in range(_ATTEMPTS - 1):
                try:
                    return await work(connection)
                except asyncpg.PostgresError as error:
                    if not rolled_back(error):
                        raise
            return await work(connection)


async def _insert(connection: Connection, node: bytes, rows: list[_Row]) -> list[bytes]:
    """The names that were added."""
    if len(rows) <= _ROWS:
        # A single statement is a transaction of its own, without the round trips of BEGIN and COMMIT.
        return await _insert_part(connection, node, rows)
    added = []
    async with connection.transaction():
        for start in range(0, len(rows), _ROWS):
            added += await _insert_part(connection, node, rows[start : start + _ROWS])
    return added


async def _insert_part(connection: Connection, node: bytes, rows: Iterable[_Row]) -> list[bytes]:
    return [name for (name,) in await connection.fetch(_INSERT, node, *zip(*rows, strict=True))]


def _next_batch(rows: Sequence[Any]) -> int:
    """How many rows to ask for after these, so that a batch of large records does not fill the memory."""
    size = 64 * len(rows) + sum(map(len, map(_EVENTS, rows))) + sum(map(len, map(_DETAILS, rows)))
    return max(1, min(_LARGEST_BATCH, _BATCH_BYTES * len(rows) // size))


def _row(pattern: Pattern) -> _Row:
    record = encode_pattern(pattern)
    return (record.name, record.frequency, pattern.revision, record.events, record.details)


def _node_key(node: str) -> bytes:
    key = utf8(node, "node_id")
    if len(key) > _NODE_BYTES:
        raise ValidationError(f"is longer than {_NODE_BYTES} bytes", field="node_id")
    return key


def _affected(status: str) -> int:
    """The number at the end of a command's status, as in `UPDATE 1`."""
    return int(status.rpartition(" ")[2])
