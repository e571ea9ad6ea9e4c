"""Vectors over the network: one store for several processes, on a server that stops, hangs and loses its data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path

import httpx
import pytest

from kato.errors import StorageError
from kato.stores.qdrant import QdrantVectorStore
from tests.support.qdrant_server import QdrantServer, qdrant_server

OTHER_PROCESS = """
import asyncio, sys
from kato.stores.qdrant import QdrantVectorStore

async def use() -> None:
    store = QdrantVectorStore(sys.argv[1], prefer_grpc=False)
    print(await store.nearest("node", [1.0, 0.0], 5))
    await store.put("node", {"theirs": [1.0, 0.0]})
    await store.close()

asyncio.run(use())
"""


@pytest.fixture
def server() -> Iterator[QdrantServer]:
    with qdrant_server() as running:
        yield running


@pytest.fixture
async def store(server: QdrantServer) -> AsyncIterator[QdrantVectorStore]:
    store = QdrantVectorStore(server.url, prefer_grpc=False)
    yield store
    await store.close()


async def test_processes_share_one_store(server: QdrantServer, store: QdrantVectorStore) -> None:
    await store.put("node", {"ours": [1.0, 0.5]})
    command = [sys.executable, "-c", OTHER_PROCESS, server.url]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    assert done.stdout == "[('ours', 0.5)]\n"
    assert await store.nearest("node", [1.0, 0.0], 5) == [("theirs", 0.0), ("ours", 0.5)]


async def test_a_stopped_server_is_told_at_once_and_is_used_again_when_it_is_back(
    server: QdrantServer, store: QdrantVectorStore
) -> None:
    url = server.url
    await store.put("node", {"a": [1.0]})
    server.stop()
    for call in (store.nearest("node", [1.0], 1), store.put("node", {"b": [2.0]}), store.ping()):
        with pytest.raises(StorageError, match="cannot be reached"):
            await call
    server.start()
    assert server.url == url
    assert await store.nearest("node", [1.0], 5) == [("a", 0.0)]


async def test_a_server_that_stands_still_costs_no_more_than_the_timeout(
    server: QdrantServer, store: QdrantVectorStore
) -> None:
    await store.put("node", {"a": [1.0]})
    hasty = QdrantVectorStore(server.url, prefer_grpc=False, timeout=1.0)
    server.pause()
    with pytest.raises(StorageError, match="in time"):
        await hasty.nearest("node", [1.0], 1)
    await hasty.close()
    server.resume()
    assert await store.nearest("node", [1.0], 5) == [("a", 0.0)]


async def refused(call: Awaitable[object]) -> bool:
    try:
        await call
    except StorageError:
        return True
    return False


@pytest.mark.parametrize("lost", ["request", "reply"])
async def test_whichever_step_of_a_put_is_lost_it_is_repeated_without_harm(
    server: QdrantServer, store: QdrantVectorStore, lost: str
) -> None:
    lose = server.proxy.drop_next if lost == "request" else server.proxy.swallow_replies
    step, failed = 0, True
    while failed:
        fresh, node = QdrantVectorStore(server.url, prefer_grpc=False), f"node {step}"
        lose(1, after=step)
        failed = await refused(fresh.put(node, {"a": [float(step), 2.0]}))
        lose(0)
        assert await fresh.put(node, {"a": [float(step), 2.0], "b": [0.0, 3.0]}) == []
        assert await store.nearest(node, [float(step), 2.0], 1) == [("a", 0.0)]
        assert len(await store.nearest(node, [0.0, 0.0], 9)) == 2
        await fresh.close()
        step += 1
    assert 10 < step < 30


async def test_a_server_that_lost_its_data_is_filled_anew(
    server: QdrantServer, store: QdrantVectorStore
) -> None:
    await store.put("node", {"a": [1.0]})
    server.lose()
    assert await store.nearest("node", [1.0], 5) == []
    # The first one finds out that the collection is gone.
    with pytest.raises(StorageError, match="does not exist"):
        await store.put("node", {"a": [1.0]})
    assert await store.put("node", {"a": [1.0, 2.0]}) == []
    assert await store.nearest("node", [1.0, 2.0], 5) == [("a", 0.0)]


def test_what_it_is_asked_and_does_not_know_it_says(server: QdrantServer) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        assert client.get("/collections").json()["result"] == {"collections": []}
        assert client.get("/telemetry").status_code == 501
        assert client.post("/collections/x/points/search", json={}).status_code == 501
        assert client.put("/collections/x/points", json={"points": "none"}).status_code == 400
        assert client.put("/collections/x/points", json={"points": []}).status_code == 404
        created = {"vectors": {"size": 2, "distance": "Euclid"}}
        assert client.put("/collections/x", json=created).json()["result"] is True
        assert client.put("/collections/x", json=created).status_code == 409
        assert client.delete("/collections/x").json()["result"] is True
        assert client.get("/collections/x/exists").json()["result"] == {"exists": False}
