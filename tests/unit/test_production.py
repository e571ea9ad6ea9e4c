"""The stores that several instances share: made from the settings, connected at the start, released in any case."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from kato import bootstrap, production
from kato.errors import BadRequest, ConfigurationError
from kato.settings import Settings, SettingsError
from kato.stores.mongo import MongoPatternStore
from kato.stores.novectors import NoVectors
from kato.stores.postgres import PostgresPatternStore
from kato.stores.qdrant import QdrantVectorStore
from tests.support import postgres, redis
from tests.support.kato import kato_running, opened, seen, taught

NOWHERE = "127.0.0.1:1"


def settings(store: str = "postgres", **more: Any) -> Settings:
    chosen: dict[str, Any] = {
        "KATO_STORE": store,
        "DATABASE_URL": f"postgresql://user:s3cret@{NOWHERE}/db",
        "MONGO_BASE_URL": f"mongodb://user:s3cret@{NOWHERE}",
        "REDIS_URL": f"redis://:s3cret@{NOWHERE}",
        "QDRANT_HOST": "127.0.0.1",
    }
    return Settings(**(chosen | more))


async def test_the_settings_choose_the_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, dict[str, Any]] = {}

    def recorded(kind: type) -> None:
        initialize = kind.__init__  # type: ignore[misc]

        def init(self: object, *args: Any, **options: Any) -> None:
            given[kind.__name__] = options
            initialize(self, *args, **options)

        monkeypatch.setattr(kind, "__init__", init)

    for kind in (PostgresPatternStore, MongoPatternStore, QdrantVectorStore):
        recorded(kind)
    first = production.chosen(
        settings(
            KATO_DATABASE_POOL_SIZE=3,
            KATO_VECTOR_EXACT=False,
            QDRANT_API_KEY="k",
            QDRANT_COLLECTION_PREFIX="team",
        )
    )
    assert isinstance(first.patterns, PostgresPatternStore)
    assert given["PostgresPatternStore"] == {"min_connections": 3, "max_connections": 3}
    assert isinstance(first.vectors, QdrantVectorStore)
    qdrant = given["QdrantVectorStore"]
    assert (qdrant["exact"], qdrant["api_key"], qdrant["prefix"]) == (False, "k", "team")
    assert first.sessions.client is first.redis
    second = production.chosen(
        settings(
            "mongo",
            MONGO_POOL_SIZE=7,
            MONGO_CONNECT_TIMEOUT=1,
            MONGO_SOCKET_TIMEOUT=2,
            MONGO_SERVER_SELECTION_TIMEOUT=3,
            MONGO_WAIT_QUEUE_TIMEOUT=4,
            MONGO_MAX_IDLE_TIME=5,
            KATO_VECTORS="off",
        )
    )
    assert isinstance(second.patterns, MongoPatternStore)
    assert given["MongoPatternStore"] == {
        "min_connections": 7,
        "max_connections": 7,
        "connect_timeout": 1,
        "socket_timeout": 2,
        "server_selection_timeout": 3,
        "wait_queue_timeout": 4,
        "idle": 5,
    }
    assert isinstance(second.vectors, NoVectors)
    for stores in (first, second):
        await stores.close()


@pytest.mark.parametrize("down", ["patterns", "sessions"])
async def test_a_server_that_cannot_be_reached_is_waited_for(down: str) -> None:
    urls = {"DATABASE_URL": postgres.shared().url, "REDIS_URL": redis.shared().url}
    del urls["DATABASE_URL" if down == "patterns" else "REDIS_URL"]
    async with bootstrap.running(settings(KATO_VECTORS=False, **urls), time.time) as kato:
        assert not kato.health.started
        found = await kato.health.latest()
        assert {kept for kept, each in found.items() if each.status == "unhealthy"} == {down}
        check = found[down].check
        assert check is not None
        assert check.error is not None
        assert "s3cret" not in check.error


async def test_a_url_that_makes_no_sense_is_not_quoted() -> None:
    with pytest.raises(ConfigurationError, match="Redis: the URL is not valid") as caught:
        production.chosen(settings(REDIS_URL="redis://:s3cret@h?nonsense=1"))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("store", "driver"), [("postgres", "asyncpg"), ("mongo", "bson"), ("mongo", "qdrant_client")]
)
def test_a_driver_that_is_not_installed_is_named(
    store: str, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith(("kato.stores.postgres", "kato.stores.mongo", "kato.stores.qdrant", driver)):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(SettingsError, match=rf"the driver '{driver}' is not installed.*kato\[{store},redis"):
        production.chosen(settings(store))


async def test_without_vectors_they_are_refused_and_everything_else_works() -> None:
    async with kato_running(KATO_VECTORS="off") as kato:
        session = await opened(kato)
        assert await taught(kato, session, "a b")
        with pytest.raises(BadRequest, match="KATO_VECTORS=off"):
            await kato.observe(session, seen("c", [[1, 2]]))
        assert (await kato.session(session)).stm == ()
        await kato.clear_all(session)
    store = NoVectors()
    assert await store.put("node", {}) == []
    with pytest.raises(BadRequest):
        await store.put("node", {"VCTR|a": [1.0]})
    assert [batch async for batch in store.scan("node")] == []
    assert await store.nodes() == []
