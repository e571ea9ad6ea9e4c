"""Percept vectors in Qdrant 1.17 or newer (`pip install kato[qdrant]`): one collection per dimension.

A node's dimension, and a random `life` that ends with `drop`, are kept by one marker point per node in a collection
of its own; Qdrant inserts it only if there is none, so of two instances that begin a node one decides. Every vector
carries its node and the life it was stored in, and only those of the node's present life are ever found.

Qdrant computes with single precision. The vectors themselves are kept in full (base64 of little-endian doubles in
the payload); Qdrant only proposes candidates, whose distances are then computed exactly. More are asked for until
none that was left out can be nearer, so that with exact search answers equal those of the embedded store to the bit.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, models

from kato.errors import StorageError
from kato.stores.codec import utf8
from kato.stores.link import Link
from kato.stores.qdrant.failures import DRIVER_ERRORS, damaged, failure, translated, unless_missing
from kato.stores.qdrant.points import decode, having, name_of, out_of_reach, point, point_id, single
from kato.stores.sqlite.vectors import distances

MOST_CANDIDATES: Final = 10_000
"""Where so many are about equally far, the answer is the best of these."""
_SPARE: Final = 16
_ELEMENTS_AT_ONCE: Final = 2**18
"""Numbers in one request: some megabytes."""
_POINTS_AT_ONCE: Final = 1000
_NAMES_AT_ONCE: Final = 5000
_LIVES_KEPT: Final = 10_000
_KEEPALIVE: Final = {"grpc.keepalive_time_ms": 10_000, "grpc.keepalive_timeout_ms": 5_000}


class _Node(NamedTuple):
    """What a node's marker says."""

    dimension: int
    life: str


class QdrantVectorStore:
    """A `VectorStore` in Qdrant that any number of instances share.

    `location` is the server's URL (REST), `:memory:` for the client's local mode, or a client, which is then not
    closed with the store. Without `exact` Qdrant searches its HNSW graph and may miss some of the nearest. At most
    `concurrency` requests are under way at once; a further one waits `acquire_timeout` seconds for its turn.
    `timeout` bounds a request. With `prefer_grpc` data travel by gRPC on `grpc_port`.

    >>> async def find() -> list[tuple[str, float]]:
    ...     store = QdrantVectorStore(":memory:")
    ...     await store.put("node", {"VCTR|a": [0.0, 0.0], "VCTR|b": [3.0, 4.0]})
    ...     found = await store.nearest("node", [0.0, 0.0], 2)
    ...     await store.close()
    ...     return found
    >>> asyncio.run(find())
    [('VCTR|a', 0.0), ('VCTR|b', 5.0)]
    """

    def __init__(
        self,
        location: str | AsyncQdrantClient,
        *,
        prefix: str = "kato",
        exact: bool = True,
        prefer_grpc: bool = True,
        grpc_port: int = 6334,
        api_key: str | None = None,
        timeout: float = 10.0,
        concurrency: int = 20,
        acquire_timeout: float = 5.0,
    ) -> None:
        self._location = location
        self._remote: dict[str, Any] = {
            "prefer_grpc": prefer_grpc,
            "grpc_port": grpc_port,
            "api_key": api_key,
            "timeout": max(1, round(timeout)),
            "grpc_options": dict(_KEEPALIVE),
            # It would ask the server from a thread and complain by warnings.
            "check_compatibility": False,
        }
        self._markers = f"{prefix}_vector_nodes"
        self._vectors = f"{prefix}_vectors_"
        self._exact = exact
        self._permits = asyncio.Semaphore(concurrency)
        self._concurrency = concurrency
        self._used = 0
        self._acquire_timeout = acquire_timeout
        self._link: Link[AsyncQdrantClient] = Link("Qdrant", self._connect, self._disconnect)
        self._ready: set[str] = set()
        self._lives: OrderedDict[str, _Node] = OrderedDict()

    # The connection --------------------------------------------------------------------------------

    async def _connect(self) -> AsyncQdrantClient:
        if not isinstance(self._location, str):
            return self._location
        if self._location == ":memory:":
            return AsyncQdrantClient(location=self._location)
        try:
            return AsyncQdrantClient(url=self._location, **self._remote)
        except Exception:  # noqa: BLE001 - whatever it says, it may quote the URL
            raise StorageError("Qdrant: the URL is not valid") from None

    async def _disconnect(self, client: AsyncQdrantClient) -> None:
        if isinstance(self._location, str):
            with contextlib.suppress(*DRIVER_ERRORS):
                await client.close()

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncQdrantClient]:
        """The client for one request, which `close` waits for; errors inside become KATO's."""
        async with self._link.use() as client:
            try:
                async with asyncio.timeout(self._acquire_timeout):
                    await self._permits.acquire()
            except TimeoutError:
                raise failure("too many requests are under way") from None
            self._used += 1
            try:
                with translated():
                    yield client
            finally:
                self._used -= 1
                self._permits.release()

    async def ping(self) -> None:
        """Ask for a sign of life; `StorageError` when there is none."""
        async with self._client() as client:
            await client.get_collections()

    @property
    def under_way(self) -> tuple[int, int]:
        """How many requests may be sent before others have to wait for them, and how many are under way.

        All travel over one client, none before it is made.
        """
        return (self._concurrency if self._link.made is not None else 0), self._used

    async def close(self) -> None:
        """Finish what was accepted and release every resource."""
        await self._link.close()

    # Collections --------------------------------------------------------------------------------

    async def _prepare(self, client: AsyncQdrantClient, collection: str, size: int) -> None:
        """Make sure that a collection and its indexes are there."""
        if collection in self._ready:
            return
        if not await client.collection_exists(collection):
            try:
                await client.create_collection(
                    collection,
                    vectors_config=models.VectorParams(size=size, distance=models.Distance.EUCLID),
                    # Every search is within one node: a graph for each instead of one for all.
                    hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
                    on_disk_payload=True,
                )
            except DRIVER_ERRORS:
                # Another instance may have been quicker.
                if not await client.collection_exists(collection):
                    raise
        if not _is_local(client):
            keyword = models.KeywordIndexType.KEYWORD
            tenant = models.KeywordIndexParams(type=keyword, is_tenant=True)
            await client.create_payload_index(collection, "node", tenant, wait=True)
            await client.create_payload_index(
                collection, "life", models.KeywordIndexParams(type=keyword), wait=True
            )
        self._ready.add(collection)

    async def _insert(self, collection: str, points: list[models.PointStruct]) -> None:
        """Add the points whose ids are not there yet."""
        async with self._client() as client:
            await self._prepare(client, collection, len(points[0].vector))  # type: ignore[arg-type]
            try:
                await client.upsert(
                    collection,
                    points,
                    wait=True,
                    ordering=models.WriteOrdering.STRONG,
                    update_mode=models.UpdateMode.INSERT_ONLY,
                )
            except Exception:
                # Should it be gone, the next attempt makes it anew.
                self._ready.discard(collection)
                raise

    async def _node(self, node: str) -> _Node | None:
        """What the node's marker says, None when the node holds no vectors."""
        found: list[models.Record] = []
        with unless_missing():
            async with self._client() as client:
                found = await client.retrieve(self._markers, [point_id(node)], with_payload=True)
        if not found:
            self._lives.pop(node, None)
            return None
        payload = found[0].payload or {}
        try:
            marker = _Node(int(payload["dimension"]), str(payload["life"]))
        except (KeyError, ValueError) as error:
            raise damaged("a node's marker cannot be read") from error
        self._lives[node] = marker
        self._lives.move_to_end(node)
        if len(self._lives) > _LIVES_KEPT:
            self._lives.popitem(last=False)
        return marker

    async def _begin(self, node: str, dimension: int) -> _Node:
        """Give the node a dimension, or learn which one another instance gave it."""
        payload = {"node": node, "dimension": dimension, "life": secrets.token_hex(8)}
        await self._insert(
            self._markers, [models.PointStruct(id=point_id(node), vector=[0.0], payload=payload)]
        )
        marker = await self._node(node)
        if marker is None:
            raise failure("the node was removed meanwhile")
        return marker

    # Vectors --------------------------------------------------------------------------------

    async def put(self, node: str, vectors: Mapping[str, Sequence[float]]) -> list[str]:
        """Store vectors by name, acknowledged by Qdrant on return; returns those of another dimension."""
        utf8(node, "node_id")
        for name in vectors:
            utf8(name, "vector")
        contents = {name: np.asarray(vector, dtype="<f8") for name, vector in vectors.items()}
        if not contents:
            return []
        marker = await self._node(node)
        first = next(iter(contents.values()))
        if marker is None and first.size:
            marker = await self._begin(node, first.size)
        if marker is None:
            return list(vectors)
        points = [
            point(node, marker.life, name, content)
            for name, content in contents.items()
            if content.size == marker.dimension
        ]
        at_once = _at_once(marker)
        for start in range(0, len(points), at_once):
            await self._insert(self._collection(marker), points[start : start + at_once])
        return [name for name, content in contents.items() if content.size != marker.dimension]

    def _collection(self, marker: _Node) -> str:
        return f"{self._vectors}{marker.dimension}"

    async def nearest(self, node: str, vector: Sequence[float], k: int) -> list[tuple[str, float]]:
        """The k nearest vectors as (name, distance), nearest first, equal distances by name."""
        utf8(node, "node_id")
        wanted = np.asarray(vector, dtype=np.float64)
        if k < 1 or not wanted.size:
            return []
        guess = self._lives.get(node)
        if guess is not None and guess.dimension == wanted.size:
            # What was true a moment ago mostly still is: asking and searching at once saves a round trip.
            marker, found = await asyncio.gather(self._node(node), self._search(guess, wanted, k))
            if marker == guess:
                return found
        else:
            marker = await self._node(node)
        if marker is None or marker.dimension != wanted.size:
            return []
        return await self._search(marker, wanted, k)

    async def _search(self, marker: _Node, wanted: NDArray[np.float64], k: int) -> list[tuple[str, float]]:
        limit = k + _SPARE
        while True:
            points = await self._candidates(marker, wanted, limit)
            rows = [decode(each.payload, marker.dimension) for each in points]
            matrix = np.array([content for _, content in rows]).reshape(len(rows), marker.dimension)
            exact = distances(matrix, wanted).tolist()
            ranked = sorted(zip(exact, (name for name, _ in rows), strict=True))
            found = [(name, distance) for distance, name in ranked[:k]]
            if len(points) < limit or limit >= max(MOST_CANDIDATES, k + _SPARE):
                return found
            if out_of_reach(points[-1].score, wanted) > found[-1][1]:
                return found
            limit = min(4 * limit, max(MOST_CANDIDATES, k + _SPARE))

    async def _candidates(
        self, marker: _Node, wanted: NDArray[np.float64], limit: int
    ) -> list[models.ScoredPoint]:
        with unless_missing():
            async with self._client() as client:
                answer = await client.query_points(
                    self._collection(marker),
                    query=single(wanted),
                    query_filter=having("life", marker.life),
                    # Local mode always compares with all, and complains about being told to.
                    search_params=None if _is_local(client) else models.SearchParams(exact=self._exact),
                    limit=limit,
                    with_payload=["name", "vector"],
                )
                return answer.points
        return []

    async def scan(self, node: str) -> AsyncIterator[list[tuple[str, tuple[float, ...]]]]:
        """All vectors of a node as (name, elements) in batches, in ascending order of name.

        The names are read first, so vectors stored meanwhile may be left out.
        """
        utf8(node, "node_id")
        marker = await self._node(node)
        if marker is None:
            return
        names = sorted([row async for row in self._names(marker)])
        at_once = _at_once(marker)
        for start in range(0, len(names), at_once):
            ids: list[int | str | uuid.UUID] = [point for _, point in names[start : start + at_once]]
            async with self._client() as client:
                found = await client.retrieve(self._collection(marker), ids, with_payload=["name", "vector"])
            rows = sorted(
                (decode(record.payload, marker.dimension) for record in found), key=lambda row: row[0]
            )
            if rows:
                yield [(name, tuple(content.tolist())) for name, content in rows]

    async def _names(self, marker: _Node) -> AsyncIterator[tuple[str, str]]:
        async for record in self._all(self._collection(marker), "name", having("life", marker.life)):
            yield name_of(record.payload), str(record.id)

    async def _all(
        self, collection: str, field: str, chosen: models.Filter | None = None
    ) -> AsyncIterator[models.Record]:
        """The points of a collection with one field of their payload; none while there is no such collection."""
        offset: Any = None
        while True:
            records: list[models.Record] = []
            with unless_missing():
                async with self._client() as client:
                    records, offset = await client.scroll(
                        collection,
                        scroll_filter=chosen,
                        limit=_NAMES_AT_ONCE,
                        offset=offset,
                        with_payload=[field],
                    )
            for record in records:
                yield record
            if offset is None:
                return

    async def drop(self, node: str) -> None:
        """Remove all vectors of a node; the next one may have another dimension."""
        utf8(node, "node_id")
        self._lives.pop(node, None)
        with unless_missing():
            async with self._client() as client:
                # From here on none of its vectors is found, whatever becomes of the rest.
                await client.delete(self._markers, [point_id(node)], wait=True)
        async with self._client() as client:
            collections = (await client.get_collections()).collections
            for name in [each.name for each in collections if each.name.startswith(self._vectors)]:
                selector = models.FilterSelector(filter=having("node", node))
                await client.delete(name, selector, wait=True)

    async def nodes(self) -> list[str]:
        """The ids of all nodes that hold vectors, ascending; one whose first was not acknowledged may be there."""
        markers = [record.payload or {} async for record in self._all(self._markers, "node")]
        try:
            return sorted([str(payload["node"]) for payload in markers])
        except KeyError as error:
            raise damaged("a node's marker cannot be read") from error


def _at_once(marker: _Node) -> int:
    """How many vectors travel in one request."""
    return min(_POINTS_AT_ONCE, max(1, _ELEMENTS_AT_ONCE // marker.dimension))


def _is_local(client: AsyncQdrantClient) -> bool:
    options = client.init_options
    return options.get("location") == ":memory:" or options.get("path") is not None
