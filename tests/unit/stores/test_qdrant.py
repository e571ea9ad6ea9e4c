from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from kato.errors import DataCorrupted, StorageError
from kato.stores.qdrant import QdrantVectorStore
from kato.stores.qdrant.failures import Missing, translate
from kato.stores.sqlite import SqliteVectorStore
from tests.support import redis as ports
from tests.support.waiting import idle


class Remote(AsyncQdrantClient):
    """Local mode that passes for a server: takes what only servers heed, writes it down, and can be told to fail."""

    def __init__(self) -> None:
        super().__init__(location=":memory:")
        self.indexes: list[tuple[str, str, bool | None]] = []
        self.searches: list[tuple[int, bool | None]] = []
        self.hidden = 0
        self.failing: Exception | None = None
        self.gate: asyncio.Event | None = None

    @property
    def init_options(self) -> dict[str, Any]:
        return {"url": "http://localhost:6333"}

    async def collection_exists(self, collection_name: str, **kwargs: Any) -> bool:
        if self.hidden:
            self.hidden -= 1
            return False
        return await super().collection_exists(collection_name, **kwargs)

    async def create_payload_index(
        self, collection_name: str, field_name: str, *rest: Any, **kwargs: Any
    ) -> Any:
        self.indexes.append((collection_name, field_name, rest[0].is_tenant))

    async def query_points(self, *args: Any, **kwargs: Any) -> Any:
        self.searches.append((kwargs["limit"], kwargs.pop("search_params").exact))
        return await super().query_points(*args, **kwargs)

    async def get_collections(self, **kwargs: Any) -> Any:
        if self.gate is not None:
            await self.gate.wait()
        if self.failing is not None:
            raise self.failing
        return await super().get_collections(**kwargs)


@pytest.fixture
def client() -> Remote:
    return Remote()


@pytest.fixture
async def stores(client: Remote) -> AsyncIterator[list[QdrantVectorStore]]:
    """Those of two instances."""
    made = [QdrantVectorStore(client) for _ in range(2)]
    yield made
    for store in made:
        await store.close()


# Answers --------------------------------------------------------------------------------


async def test_what_single_precision_cannot_tell_apart_is_told_apart(stores: list[QdrantVectorStore]) -> None:
    near = {f"v{number:03}": [1.0 + number * 1e-12, 0.0] for number in range(200)}
    shuffled = list(near.items())
    random.Random(1).shuffle(shuffled)
    await stores[0].put("node", dict(shuffled))
    found = await stores[0].nearest("node", [1.0, 0.0], 10)
    assert [name for name, _ in found] == [f"v{number:03}" for number in range(10)]
    assert [distance for _, distance in found] == [near[name][0] - 1.0 for name, _ in found]


async def test_answers_equal_the_embedded_stores_to_the_bit(stores: list[QdrantVectorStore]) -> None:
    source = random.Random(7)
    embedded = SqliteVectorStore(":memory:")
    stored = {
        f"v{number}": [source.choice([0.0, 0.1, 0.1 + 1e-9, source.gauss(0, 1)]) for _ in range(8)]
        for number in range(400)
    }
    for store in (stores[0], embedded):
        assert await store.put("node", stored) == []
    for k in (1, 5, 50, 1000):
        wanted = [source.choice([0.0, 0.1, source.gauss(0, 1)]) for _ in range(8)]
        assert await stores[0].nearest("node", wanted, k) == await embedded.nearest("node", wanted, k)
    await embedded.close()


async def test_no_more_candidates_are_asked_for_than_needed(
    stores: list[QdrantVectorStore], client: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stores[0].put("node", {f"v{number:03}": [float(number)] for number in range(300)})
    await stores[0].nearest("node", [0.0], 4)
    assert client.searches == [(20, True)]
    await stores[0].put("equal", {f"v{number:03}": [1.0, float(number % 2)] for number in range(300)})
    client.searches.clear()
    assert await stores[0].nearest("equal", [1.0, 0.5], 2) == [("v000", 0.5), ("v001", 0.5)]
    assert [limit for limit, _ in client.searches] == [18, 72, 288, 1152]
    monkeypatch.setattr("kato.stores.qdrant.vectors.MOST_CANDIDATES", 30)
    client.searches.clear()
    assert len(await stores[0].nearest("equal", [1.0, 0.5], 2)) == 2
    assert [limit for limit, _ in client.searches] == [18, 30]


async def test_elements_beyond_single_precision(stores: list[QdrantVectorStore]) -> None:
    await stores[0].put("node", {"huge": [1e300, -1e300], "small": [1.0, 1e-100]})
    assert await stores[0].nearest("node", [1e300, -1e300], 1) == [("huge", 0.0)]
    assert await stores[0].nearest("node", [1.0, 0.0], 1) == [("small", 1e-100)]
    scanned = [row async for batch in stores[0].scan("node") for row in batch]
    assert scanned == [("huge", (1e300, -1e300)), ("small", (1.0, 1e-100))]


async def test_without_exact_the_graph_is_searched(client: Remote) -> None:
    store = QdrantVectorStore(client, exact=False)
    await store.put("node", {"a": [1.0]})
    assert await store.nearest("node", [1.0], 1) == [("a", 0.0)]
    assert client.searches[-1][1] is False
    await store.close()


async def test_much_travels_in_parts(
    stores: list[QdrantVectorStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kato.stores.qdrant.vectors._ELEMENTS_AT_ONCE", 10)
    monkeypatch.setattr("kato.stores.qdrant.vectors._NAMES_AT_ONCE", 7)
    vectors = {f"v{number:02}": [float(number)] * 3 for number in range(20)}
    await stores[0].put("node", vectors)
    batches = [batch async for batch in stores[0].scan("node")]
    assert [len(batch) for batch in batches] == [3] * 6 + [2]
    assert [name for batch in batches for name, _ in batch] == sorted(vectors)


# Nodes, dimensions, collections ------------------------------------------------------------------


async def test_collections_are_made_once_with_the_node_as_tenant(
    stores: list[QdrantVectorStore], client: Remote
) -> None:
    await stores[0].put("node", {"a": [1.0, 2.0]})
    await stores[0].put("other", {"a": [1.0, 2.0]})
    assert client.indexes == [
        ("kato_vector_nodes", "node", True),
        ("kato_vector_nodes", "life", None),
        ("kato_vectors_2", "node", True),
        ("kato_vectors_2", "life", None),
    ]
    payload = (await client.scroll("kato_vectors_2", limit=1))[0][0].payload
    assert payload is not None
    assert sorted(payload) == ["life", "name", "node", "vector"]


async def test_two_instances_may_make_a_collection_at_once(
    stores: list[QdrantVectorStore], client: Remote
) -> None:
    await stores[0].put("node", {"a": [1.0]})
    client.hidden = 1
    assert await stores[1].put("other", {"a": [2.0]}) == []
    assert await stores[1].nearest("other", [2.0], 1) == [("a", 0.0)]
    client.hidden = 2
    third = QdrantVectorStore(client)
    with pytest.raises(StorageError):
        await third.put("third", {"a": [2.0]})
    await third.close()


async def test_of_two_first_dimensions_one_wins_for_all(stores: list[QdrantVectorStore]) -> None:
    refused = await asyncio.gather(
        stores[0].put("node", {"a": [1.0]}), stores[1].put("node", {"b": [1.0, 2.0]})
    )
    assert sorted(map(len, refused)) == [0, 1]
    loser, size = (1, 2) if refused[0] == [] else (0, 1)
    assert await stores[loser].nearest("node", [1.0] * size, 3) == []
    assert len(await stores[loser].nearest("node", [1.0] * (3 - size), 3)) == 1


async def test_what_another_instance_dropped_and_began_anew(stores: list[QdrantVectorStore]) -> None:
    here, there = stores
    await here.put("node", {"a": [1.0, 2.0]})
    assert await here.nearest("node", [1.0, 2.0], 1) == [("a", 0.0)]
    await there.drop("node")
    assert await here.nearest("node", [1.0, 2.0], 1) == []
    await there.put("node", {"b": [3.0, 2.0]})
    await here.nearest("node", [1.0, 2.0], 1)
    await there.drop("node")
    await there.put("node", {"c": [4.0, 2.0]})
    assert await here.nearest("node", [1.0, 2.0], 1) == [("c", 3.0)]
    await there.drop("node")
    await there.put("node", {"d": [4.0]})
    assert await here.nearest("node", [1.0, 2.0], 1) == []
    assert await here.put("node", {"e": [1.0, 2.0]}) == ["e"]


async def test_vectors_put_while_the_node_is_dropped_are_no_ghosts(
    stores: list[QdrantVectorStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = stores
    await here.put("node", {"a": [1.0]})
    insert = here._insert

    async def too_late(collection: str, points: list[models.PointStruct]) -> None:
        await there.drop("node")
        await there.put("node", {"b": [2.0]})
        await insert(collection, points)

    monkeypatch.setattr(here, "_insert", too_late)
    await here.put("node", {"late": [3.0]})
    for store in stores:
        assert await store.nearest("node", [3.0], 9) == [("b", 1.0)]
        assert [row async for batch in store.scan("node") for row in batch] == [("b", (2.0,))]


async def test_a_node_that_is_dropped_while_it_begins(
    stores: list[QdrantVectorStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = stores
    insert = here._insert

    async def and_drop(collection: str, points: list[models.PointStruct]) -> None:
        await insert(collection, points)
        await there.drop("node")

    monkeypatch.setattr(here, "_insert", and_drop)
    with pytest.raises(StorageError, match="removed meanwhile"):
        await here.put("node", {"a": [1.0]})


async def test_a_scan_goes_on_when_the_rest_is_dropped(
    stores: list[QdrantVectorStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kato.stores.qdrant.vectors._ELEMENTS_AT_ONCE", 1)
    await stores[0].put("node", {"a": [1.0], "b": [2.0]})
    scan = stores[0].scan("node")
    assert await anext(scan) == [("a", (1.0,))]
    await stores[1].drop("node")
    assert [batch async for batch in scan] == []


async def test_a_collection_that_vanished_is_made_anew(
    stores: list[QdrantVectorStore], client: Remote
) -> None:
    store = stores[0]
    await store.put("node", {"a": [1.0]})
    await client.delete_collection("kato_vectors_1")
    assert await store.nearest("node", [1.0], 1) == []
    assert [batch async for batch in store.scan("node")] == []
    with pytest.raises(StorageError):
        await store.put("node", {"b": [1.0]})
    assert await store.put("node", {"b": [1.0]}) == []
    assert await store.nearest("node", [1.0], 1) == [("b", 0.0)]


async def test_many_nodes_do_not_pile_up(
    stores: list[QdrantVectorStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kato.stores.qdrant.vectors._LIVES_KEPT", 2)
    for number in range(5):
        await stores[0].put(f"n{number}", {"a": [float(number)]})
    assert len(stores[0]._lives) == 2
    assert await stores[0].nearest("n0", [0.0], 1) == [("a", 0.0)]


# Faults --------------------------------------------------------------------------------


async def test_damage_is_told(stores: list[QdrantVectorStore], client: Remote) -> None:
    store = stores[0]
    await store.put("node", {"a": [1.0]})
    point = (await client.scroll("kato_vectors_1"))[0][0]
    assert point.payload is not None
    for content in ("AAAA", "no base64!", 7, None, "A" * 22 + "=="):
        payload = {**point.payload, "vector": content}
        await client.upsert(
            "kato_vectors_1", [models.PointStruct(id=point.id, vector=[1.0], payload=payload)]
        )
        with pytest.raises(DataCorrupted):
            await store.nearest("node", [1.0], 1)
    await client.overwrite_payload("kato_vectors_1", {"life": point.payload["life"]}, [point.id])
    with pytest.raises(DataCorrupted):
        await anext(store.scan("node"))
    marker = (await client.scroll("kato_vector_nodes"))[0][0]
    await client.overwrite_payload("kato_vector_nodes", {"node": "node"}, [marker.id])
    with pytest.raises(DataCorrupted):
        await store.nearest("node", [1.0], 1)


@pytest.mark.parametrize("prefer_grpc", [True, False])
async def test_without_a_server_everything_fails_and_quotes_nothing(prefer_grpc: bool) -> None:
    port, grpc_port = ports.free_port(), ports.free_port()
    store = QdrantVectorStore(
        f"http://localhost:{port}", prefer_grpc=prefer_grpc, grpc_port=grpc_port, timeout=2.0
    )
    for call in (
        store.ping(),
        store.put("node", {"a": [1.0]}),
        store.nearest("node", [1.0], 1),
        anext(store.scan("node")),
        store.drop("node"),
    ):
        with pytest.raises(StorageError) as refusal:
            await call
        assert str(refusal.value) == "Qdrant: the server cannot be reached"
        assert refusal.value.retry_after
    await store.close()
    with pytest.raises(StorageError):
        await store.ping()


async def test_local_mode_needs_no_server() -> None:
    store = QdrantVectorStore(":memory:")
    await store.put("node", {"a": [1.0]})
    assert await store.nearest("node", [0.0], 1) == [("a", 1.0)]
    await store.close()


async def test_a_url_that_makes_no_sense() -> None:
    store = QdrantVectorStore("ftp://user:secret@host")
    with pytest.raises(StorageError) as refusal:
        await store.ping()
    assert str(refusal.value) == "Qdrant: the URL is not valid"
    await store.close()


async def test_only_so_many_requests_at_once(client: Remote) -> None:
    store = QdrantVectorStore(client, concurrency=1, acquire_timeout=0.01)
    client.gate = asyncio.Event()
    first = asyncio.ensure_future(store.ping())
    await idle()
    with pytest.raises(StorageError, match="too many"):
        await store.ping()
    closing = asyncio.ensure_future(store.close())
    await idle()
    assert not closing.done()
    client.gate.set()
    await first
    await closing


async def test_the_store_takes_a_failing_client_for_what_it_is(client: Remote) -> None:
    store = QdrantVectorStore(client)
    client.failing = ResponseHandlingException(httpx.ReadTimeout("secret"))
    with pytest.raises(StorageError, match="in time"):
        await store.ping()
    client.failing = None
    await store.ping()
    await store.close()


def answered(code: grpc.StatusCode) -> Exception:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "secret", "secret")


def status(number: int) -> Exception:
    return UnexpectedResponse(number, "secret", b"secret", httpx.Headers())


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (answered(grpc.StatusCode.UNAVAILABLE), "cannot be reached"),
        (answered(grpc.StatusCode.DEADLINE_EXCEEDED), "in time"),
        (answered(grpc.StatusCode.UNAUTHENTICATED), "credentials"),
        (answered(grpc.StatusCode.NOT_FOUND), "does not exist"),
        (answered(grpc.StatusCode.INTERNAL), "the operation failed"),
        (status(403), "credentials"),
        (status(404), "does not exist"),
        (status(500), "the operation failed"),
        (status(503), "not ready"),
        (ResponseHandlingException(httpx.ConnectError("secret")), "cannot be reached"),
        (ResourceExhaustedResponse("secret", 3), "too much to do"),
        (TimeoutError("secret"), "in time"),
        (ValueError("secret"), "refused"),
        (ValueError("Collection secret not found"), "does not exist"),
    ],
)
def test_every_error_is_told_without_quoting_it(error: Exception, cause: str) -> None:
    told = translate(error)
    assert cause in told.message
    assert "secret" not in told.message
    assert told.retry_after
    assert isinstance(told, Missing) == ("exist" in cause)
