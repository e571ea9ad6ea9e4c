"""Percept vectors in SQLite, found by an exact scan over a matrix that is kept in memory."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kato.stores.codec import utf8
from kato.stores.sqlite.connection import damaged
from kato.stores.sqlite.database import Database

_CACHE_BYTES: Final = 2**28
_QUICK_ELEMENTS: Final = 2**16
"""A scan of so few numbers takes less time than a hop to another thread."""
_ROWS_AT_ONCE: Final = 1024
_ROWS_PER_INSERT: Final = (64, 8, 1)
_INSERT: Final = {
    rows: "INSERT OR IGNORE INTO vectors (node, name, vector) VALUES " + ", ".join(["(?1, ?, ?)"] * rows)
    for rows in _ROWS_PER_INSERT
}
_Accepted = list[tuple[str, bytes]]


def distances(matrix: NDArray[np.float64], vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances of the rows of `matrix` (n x d) from `vector` (d), the same on any machine.

    >>> distances(np.array([[3.0, 4.0], [0.0, 0.0]]), np.zeros(2))
    array([5., 0.])
    """
    result = np.empty(len(matrix), dtype=np.float64)
    # A distance too large for a double is infinite, and that is the right answer.
    with np.errstate(over="ignore"):
        for start in range(0, len(matrix), _ROWS_AT_ONCE):
            difference = matrix[start : start + _ROWS_AT_ONCE] - vector
            np.multiply(difference, difference, out=difference)
            # accumulate adds strictly from left to right; sum and dot choose an order that suits the
            # processor.
            sums = np.add.accumulate(difference, axis=1)
            np.sqrt(sums[:, -1], out=result[start : start + len(sums)])
    return result


class NodeVectors:
    """All vectors of a node in memory. Only ever grows, so a search in a thread may go on beside a `put`."""

    def __init__(self, rows: _Accepted, dimension: int) -> None:
        self.dimension = dimension
        self.names: list[str] = []
        self._known: set[str] = set()
        self._matrix = np.empty((max(len(rows), 8), dimension), dtype=np.float64)
        self.append(rows)

    def append(self, rows: _Accepted) -> None:
        """Add vectors by name; known names are left as they are."""
        fresh: dict[str, bytes] = {}
        for name, content in rows:
            if name not in self._known:
                fresh.setdefault(name, content)
        if not fresh:
            return
        start = len(self.names)
        end = start + len(fresh)
        if end > len(self._matrix):
            larger = np.empty((max(end, 2 * len(self._matrix)), self.dimension), dtype=np.float64)
            larger[:start] = self._matrix[:start]
            self._matrix = larger
        numbers = np.frombuffer(b"".join(fresh.values()), dtype="<f8")
        self._matrix[start:end] = numbers.reshape(len(fresh), self.dimension)
        self._known.update(fresh)
        # Last, because a search that runs meanwhile takes from here how many rows are complete.
        self.names.extend(fresh)

    @property
    def bytes(self) -> int:
        """Memory held, roughly."""
        return self._matrix.nbytes + 200 * len(self.names)

    @property
    def elements(self) -> int:
        """Numbers that a search looks at."""
        return len(self.names) * self.dimension

    def nearest(self, vector: NDArray[np.float64], k: int) -> list[tuple[str, float]]:
        """The k nearest as (name, distance), nearest first, equal distances by name."""
        count = len(self.names)
        found = distances(self._matrix[:count], vector)
        # All that are as near as the k-th stay in, so that names decide between equals.
        border = np.partition(found, k - 1)[k - 1] if k < count else np.inf
        rows = np.flatnonzero(found <= border)
        ranked = sorted((float(found[row]), self.names[row]) for row in rows)
        return [(name, distance) for distance, name in ranked[:k]]


class _Loading:
    """A node's vectors on their way into memory, and what was put meanwhile."""

    def __init__(self) -> None:
        self.put: _Accepted = []
        self.task: asyncio.Task[None] | None = None


class SqliteVectorStore:
    """A `VectorStore` in a SQLite file; give it the `Database` of the pattern store to share the file.

    Vectors are float64 and searched exactly. `cache_bytes` bounds the memory for vectors of recently searched
    nodes (one node is always held). Raises `DataCorrupted` when the file is damaged.

    >>> import asyncio
    >>> async def find() -> list[tuple[str, float]]:
    ...     store = SqliteVectorStore(":memory:")
    ...     await store.put("node", {"VCTR|a": [0.0, 0.0], "VCTR|b": [3.0, 4.0]})
    ...     found = await store.nearest("node", [0.0, 0.0], 2)
    ...     await store.close()
    ...     return found
    >>> asyncio.run(find())
    [('VCTR|a', 0.0), ('VCTR|b', 5.0)]
    """

    def __init__(self, path: str | Path | Database, cache_bytes: int = _CACHE_BYTES) -> None:
        self._database = (path if isinstance(path, Database) else Database(path)).use()
        self._cache_bytes = cache_bytes
        self._cache: OrderedDict[bytes, NodeVectors] = OrderedDict()
        self._loading: dict[bytes, _Loading] = {}

    async def put(self, node: str, vectors: Mapping[str, Sequence[float]]) -> list[str]:
        """Store vectors by name, durable on return; returns the names refused for another dimension."""
        key = utf8(node, "node_id")
        names = {name: utf8(name, "vector") for name in vectors}
        contents = {name: np.asarray(vector, dtype="<f8").tobytes() for name, vector in vectors.items()}
        if not contents:
            return []

        def work(connection: sqlite3.Connection) -> _Accepted:
            number, dimension = _node_of(connection, key, next(iter(contents.values())))
            accepted = [row for row in contents.items() if len(row[1]) == 8 * dimension and dimension]
            fields = [(names[name], content) for name, content in accepted]
            for size in _ROWS_PER_INSERT:
                while len(fields) >= size:
                    part, fields = fields[:size], fields[size:]
                    connection.execute(_INSERT[size], [number, *chain.from_iterable(part)])
            return accepted

        accepted = await self._database.write(work, lambda rows: self._remember(key, rows))
        taken = {name for name, _ in accepted}
        return [name for name in vectors if name not in taken]

    def _remember(self, key: bytes, rows: _Accepted) -> None:
        held = self._cache.get(key)
        if held is not None and not held.names:
            # Loaded while it held nothing; its first vectors bring the dimension.
            del self._cache[key]
        elif held is not None:
            held.append(rows)
            self._shrink()
        elif key in self._loading:
            self._loading[key].put.extend(rows)

    async def nearest(self, node: str, vector: Sequence[float], k: int) -> list[tuple[str, float]]:
        """The k nearest vectors as (name, distance), nearest first, equal distances by name."""
        held = await self._vectors(utf8(node, "node_id"))
        if not held.names or len(vector) != held.dimension or k < 1:
            return []
        wanted = np.asarray(vector, dtype=np.float64)
        if held.elements <= _QUICK_ELEMENTS:
            return held.nearest(wanted, k)
        return await self._database.run(lambda: held.nearest(wanted, k))

    async def scan(self, node: str) -> AsyncIterator[list[tuple[str, tuple[float, ...]]]]:
        """All vectors of a node as (name, elements) in batches, in ascending order of name."""
        key = utf8(node, "node_id")
        # Numbers come before all names, the empty one included.
        after: bytes | int = -1
        while rows := await self._database.read(partial(_page, key=key, after=after)):
            yield [(name.decode(), tuple(np.frombuffer(content, "<f8").tolist())) for name, content in rows]
            after = rows[-1][0]

    async def _vectors(self, key: bytes) -> NodeVectors:
        while key not in self._cache:
            loading = self._loading.get(key)
            if loading is None:
                loading = self._loading[key] = _Loading()
                loading.task = asyncio.ensure_future(self._load(key, loading))
            assert loading.task is not None
            # Shielded: others may wait for the same task when this caller is cancelled.
            await asyncio.shield(loading.task)
        self._cache.move_to_end(key)
        return self._cache[key]

    async def _load(self, key: bytes, loading: _Loading) -> None:
        try:
            rows, dimension = await self._database.read(lambda connection: _stored(connection, key))
            if any(len(content) != 8 * dimension for _, content in rows):
                raise damaged(self._database.path, "a vector has another dimension than its node")
            # Whoever dropped the node meanwhile has also removed `loading`: these rows are then gone.
            if self._loading.get(key) is loading:
                if not rows and loading.put:
                    dimension = len(loading.put[0][1]) // 8
                self._cache[key] = NodeVectors(rows + loading.put, dimension)
                self._shrink()
        finally:
            if self._loading.get(key) is loading:
                del self._loading[key]

    def _shrink(self) -> None:
        used = sum(held.bytes for held in self._cache.values())
        while used > self._cache_bytes and len(self._cache) > 1:
            used -= self._cache.popitem(last=False)[1].bytes

    async def drop(self, node: str) -> None:
        """Remove all vectors of a node; the next one may have another dimension."""
        key = utf8(node, "node_id")

        def work(connection: sqlite3.Connection) -> None:
            rows = connection.execute("SELECT id FROM vector_nodes WHERE node = ?", (key,)).fetchall()
            connection.executemany("DELETE FROM vectors WHERE node = ?", rows)
            connection.executemany("DELETE FROM vector_nodes WHERE id = ?", rows)

        def forget(_: None) -> None:
            self._cache.pop(key, None)
            self._loading.pop(key, None)

        await self._database.write(work, forget)

    async def nodes(self) -> list[str]:
        """The ids of all nodes that hold vectors, ascending."""
        statement = (
            "SELECT node FROM vector_nodes"
            " WHERE EXISTS (SELECT 1 FROM vectors WHERE vectors.node = vector_nodes.id) ORDER BY node"
        )
        rows = await self._database.read(lambda connection: connection.execute(statement).fetchall())
        return [node.decode() for (node,) in rows]

    async def close(self) -> None:
        """Release every resource."""
        tasks = [loading.task for loading in self._loading.values() if loading.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        self._cache.clear()
        await self._database.close()


def _node_of(connection: sqlite3.Connection, key: bytes, first: bytes) -> tuple[int, int]:
    """Number and dimension of a node; a new node gets the dimension of the vector `first`."""
    statement = "SELECT id, dimension FROM vector_nodes WHERE node = ?"
    rows = connection.execute(statement, (key,)).fetchall()
    if not rows and first:
        insert = "INSERT INTO vector_nodes (node, dimension) VALUES (?, ?)"
        connection.execute(insert, (key, len(first) // 8))
        rows = connection.execute(statement, (key,)).fetchall()
    return rows[0] if rows else (0, 0)


def _page(connection: sqlite3.Connection, key: bytes, after: bytes | int) -> list[tuple[bytes, bytes]]:
    statement = (
        "SELECT name, vector FROM vectors WHERE node = (SELECT id FROM vector_nodes WHERE node = ?)"
        " AND name > ? ORDER BY name LIMIT ?"
    )
    return connection.execute(statement, (key, after, _ROWS_AT_ONCE)).fetchall()


def _stored(connection: sqlite3.Connection, key: bytes) -> tuple[_Accepted, int]:
    node = connection.execute("SELECT id, dimension FROM vector_nodes WHERE node = ?", (key,)).fetchall()
    if not node:
        return [], 0
    number, dimension = node[0]
    rows = connection.execute(
        "SELECT name, vector FROM vectors WHERE node = ? ORDER BY name", (number,)
    ).fetchall()
    return [(name.decode(), content) for name, content in rows], dimension
