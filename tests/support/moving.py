"""What a copy has to do with: a data directory with everything in it, and fresh servers of every kind."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import kato as package
from kato import bootstrap
from kato.model import SessionState
from kato.settings import Settings
from kato.stores.directory import DataDirectory
from kato.stores.sqlite import SqliteSessionStore
from tests.support import mongo, postgres, qdrant_server, redis
from tests.support.kato import answer

NODES = ("n", "n-é🧠", "watching")
"""The nodes of `fill`: with everything, with a few patterns, with nothing but a session."""


EXPIRED = "expired"
"""A session of `fill` whose time is over."""


def fill(data: Path) -> list[str]:
    """Put everything that KATO can keep into a data directory; returns the ids of its living sessions."""
    observation = {
        "strings": ["naïve", "日本", "\U0001f600", 'a "quoted" \\ one'],
        "emotives": {"joy": 0.1, "fear": 1e-300},
        "metadata": {"who": ["ann"], "n": 1},
    }
    with package.open(data) as memory:
        session = memory.session("n", config={"recall_threshold": 0.2, "affinity_emotive": "joy"})
        session.observe_sequence([observation, ["b"]], learn_at_end=True)
        session.observe_sequence([{"strings": ["v"], "vectors": [[0.1, math.pi]]}, ["w"]], learn_at_end=True)
        session.observe_sequence([{"vectors": [[1e-5, -0.0]]}, ["w"]], learn_at_end=True)
        session.finalize_training()
        session.observe_sequence([["a"], ["b"]], learn_at_end=True)
        name = memory.patterns("n", symbol="b")["patterns"][0]["name"]
        memory.update_pattern(name, "n", frequency=2, emotives={"joy": [1.0, 2.5]})
        session.observe_sequence([observation, {"strings": ["v"], "vectors": [[0.1, 3.0]]}])
        other = memory.session("n-é🧠", metadata={"note": {"deep": [1, 2**63, None]}})
        memory.learn_many("n-é🧠", [[["x", "y"], [f"z{number}"]] for number in range(40)], "many")
        other.observe(["x"], emotives={"calm": -2.0})
        watching = memory.session("watching")
        watching.observe(["alone"])
        ids = [session.id, other.id, watching.id]
    over: dict[str, Any] = {"created_at": 1.0, "last_accessed": 1.0, "expires_at": 2.0, "ttl_seconds": 1}
    create(data, SessionState(session_id=EXPIRED, node_id="n", **over))
    return ids


def create(data: Path, state: SessionState) -> None:
    """Put a session into a data directory."""

    async def put() -> None:
        with DataDirectory(data) as directory:
            store = SqliteSessionStore(directory.sessions)
            assert await store.create(state, 0, 0)
            await store.close()

    asyncio.run(put())


class Servers(NamedTuple):
    """Addresses of one fresh store of each kind."""

    postgres: str
    mongo: str
    redis: tuple[str, ...]
    qdrant: tuple[qdrant_server.QdrantServer, ...]


@contextmanager
def servers() -> Iterator[Servers]:
    """An empty PostgreSQL and MongoDB database, two Redis and two Qdrant, all with KATO's own names in them."""
    documents = mongo.shared().url.replace("/?", f"/{mongo.fresh_database(mongo.shared().url)}?")
    with (
        postgres.database() as url,
        redis.redis() as server,
        qdrant_server.qdrant_server() as one,
        qdrant_server.qdrant_server() as two,
    ):
        numbered = tuple(server.url.removesuffix("/0") + f"/{number}" for number in range(2))
        yield Servers(url, documents, numbered, (one, two))


def environment(patterns: str, sessions: str, vectors: qdrant_server.QdrantServer | None) -> dict[str, str]:
    """The settings of a KATO on these servers."""
    kind, variable = (
        ("mongo", "MONGO_BASE_URL") if patterns.startswith("mongo") else ("postgres", "DATABASE_URL")
    )
    place = {"KATO_VECTORS": "off"} if vectors is None else vectors.environment
    return {"KATO_STORE": kind, variable: patterns, "REDIS_URL": sessions, **place}


def answers(settings: Mapping[str, Any], sessions: list[str]) -> list[bytes]:
    """The predictions of sessions of a KATO with these settings, as the bytes that a client gets."""

    async def ask() -> list[bytes]:
        async with bootstrap.running(Settings(**settings)) as kato:
            return [await answer(kato, session) for session in sessions]

    return asyncio.run(ask())
