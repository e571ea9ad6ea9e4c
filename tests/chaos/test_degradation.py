"""One server after the other is stopped and started again: the table of "When a server is down", cell by cell."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.api.driving import Client, client
from tests.support.degrading import LEFT_OUT
from tests.support.postgres import PostgresServer, postgres
from tests.support.qdrant_server import QdrantServer
from tests.support.redis import RedisServer, redis

WITH_VECTORS: dict[str, Any] = {"strings": ["v"], "vectors": [[1, 2]]}
DOWN = {"STORAGE_ERROR", "CIRCUIT_BREAKER_OPEN"}
QUICKLY = 2.0
"""Seconds; what is retried before it is refused takes a fraction of them."""


class Servers:
    """Everything behind a KATO."""

    def __init__(self, patterns: PostgresServer, sessions: RedisServer, vectors: QdrantServer) -> None:
        self.patterns = patterns
        self.sessions = sessions
        self.vectors = vectors

    def start(self) -> None:
        """Start what was stopped."""
        for server in (self.patterns, self.sessions):
            if not server.alive:
                server.start()
        self.vectors.start()


@pytest.fixture(scope="module")
def machines() -> Iterator[Servers]:
    with ExitStack() as stack:
        vectors = QdrantServer()
        stack.callback(vectors.remove)
        yield Servers(stack.enter_context(postgres()), stack.enter_context(redis(durable=True)), vectors)


@pytest.fixture
def servers(machines: Servers) -> Iterator[Servers]:
    yield machines
    machines.start()


@asynccontextmanager
async def instance(servers: Servers, **settings: Any) -> AsyncIterator[Client]:
    """A KATO as operators run it, with shorter times."""
    chosen: dict[str, Any] = {
        "kato_store": "postgres",
        "database_url": servers.patterns.url,
        "redis_url": servers.sessions.url,
        "qdrant_host": "127.0.0.1",
        "qdrant_port": servers.vectors.port,
        "qdrant_prefer_grpc": False,
        "kato_database_pool_size": 8,
        "processor_id": uuid.uuid4().hex,
        "max_sessions": 0,
        "health_check_interval": 0.1,
        "retry_base_delay": 0.05,
        "retry_max_delay": 0.1,
        "kato_database_recovery_timeout": 0.3,
        "qdrant_recovery_timeout": 0.3,
        "redis_recovery_timeout": 0.3,
    }
    async with client(**(chosen | settings)) as http:
        yield http


@pytest.fixture
async def http(servers: Servers) -> AsyncIterator[Client]:
    async with instance(servers) as running:
        yield running
        # It closes in order only with its servers.
        servers.start()


@pytest.fixture
def node() -> str:
    return f"node-{uuid.uuid4().hex}"


async def refused(call: Awaitable[httpx.Response]) -> httpx.Response:
    """The answer to a request that a server's absence makes impossible: at once, and saying when to come again."""
    began = time.monotonic()
    answer = await call
    assert time.monotonic() - began < QUICKLY
    assert answer.status_code == 503, answer.text
    error = answer.json()["error"]
    assert error["code"] in DOWN
    assert error["retry_after"] > 0
    assert int(answer.headers["retry-after"]) >= 1
    return answer


async def eventually(call: Callable[[], Awaitable[httpx.Response]], wanted: Callable[[Any], bool]) -> Any:
    """Ask again and again until the answer is a success and as wanted; refusals on the way are in order."""
    deadline = time.monotonic() + 30
    while True:
        answer = await call()
        assert answer.status_code in (200, 503), answer.text
        if answer.status_code == 200 and wanted(answer.json()):
            return answer.json()
        assert time.monotonic() < deadline, answer.text
        await asyncio.sleep(0.01)


async def undegraded(http: Client, session: str) -> None:
    """Everything works again as if nothing had happened."""
    await eventually(
        lambda: http.post(f"{session}/observe", json=WITH_VECTORS), lambda seen: "warnings" not in seen
    )
    await eventually(lambda: http.post(f"{session}/learn"), lambda _: True)
    await eventually(lambda: http.get(f"{session}/predictions"), lambda found: "stale" not in found)
    seen = await http.observe(session, "a")
    assert "warnings" not in seen


async def get(http: Client, path: str) -> Any:
    answer = await http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def state(http: Client, session: str) -> tuple[Any, int]:
    """STM and time."""
    return (await get(http, f"{session}/stm"))["stm"], (await get(http, session))["time"]


async def frequencies(http: Client, node: str) -> list[int]:
    return [each["frequency"] for each in (await get(http, f"/v2/patterns?node_id={node}"))["patterns"]]


# PostgreSQL --------------------------------------------------------------------------------


async def test_without_postgresql_sessions_go_on_and_predictions_are_stale(
    servers: Servers, http: Client, node: str
) -> None:
    session = await http.session(node)
    await http.teach(session, "a", "b", "c")
    for event in "ab":
        await http.observe(session, event)
    before = await get(http, f"{session}/predictions")
    assert "stale" not in before
    servers.patterns.stop()
    stale = await eventually(lambda: http.get(f"{session}/predictions"), lambda found: "stale" in found)
    assert stale.pop("stale") is True
    assert stale == before
    assert (await get(http, f"{session}/cognition-data"))["cognition_data"]["stale"] is True
    assert (await get(http, f"/symbols/stats?node_id={node}"))["stale"] is True
    assert (await http.observe(session, "c"))["stm_length"] == 3
    assert "warnings" not in await http.observe(session, "v", vectors=[[1, 2]])
    before = await state(http, session)
    for _ in range(3):
        await refused(http.post(f"{session}/learn"))
        await refused(http.post(f"{session}/clear-all"))
        assert await state(http, session) == before
    other = await http.session(node)
    await http.observe(other, "x")
    assert (await http.delete(other)).status_code == 200
    servers.patterns.start()
    await undegraded(http, session)
    assert sorted(await frequencies(http, node)) == [1, 1]


async def test_without_postgresql_a_node_that_is_not_open_is_refused(
    servers: Servers, http: Client, node: str
) -> None:
    session = await http.session(node)
    servers.patterns.stop()
    for event in "ab":
        await http.observe(session, event)
    for _ in range(3):
        await refused(http.get(f"{session}/predictions"))
        await refused(http.post(f"{session}/learn"))
        await refused(http.get(f"/symbols/stats?node_id={node}"))
        assert await state(http, session) == ([["a"], ["b"]], 2)
    servers.patterns.start()
    await undegraded(http, session)
    assert await frequencies(http, node) == [1]


@pytest.mark.parametrize("known", [True, False], ids=["open", "not open"])
async def test_without_postgresql_an_automatic_learn_refuses_its_observation(
    servers: Servers, http: Client, node: str, known: bool
) -> None:
    session = await http.session(node, config={"max_pattern_length": 3})
    if known:
        for event in "xyz":
            await http.observe(session, event)
    servers.patterns.stop()
    for event in "ab":
        await http.observe(session, event)
    before = await state(http, session)
    items = {"observations": [{"strings": [event]} for event in "cdefg"]}
    for _ in range(2):
        await refused(http.post(f"{session}/observe", json={"strings": ["c"]}))
        await refused(http.post(f"{session}/observe-sequence", json=items))
        assert await state(http, session) == before
    servers.patterns.start()
    learned = await eventually(
        lambda: http.post(f"{session}/observe", json={"strings": ["c"]}), lambda _: True
    )
    assert learned["auto_learned_pattern"]
    assert await frequencies(http, node) == [1] * (1 + known)


async def test_a_v1_batch_is_answered_without_postgresql(servers: Servers, http: Client) -> None:
    servers.patterns.stop()
    items = {"observations": [{"strings": ["a"]}, {"strings": ["b"]}]}
    answer = (await http.post("/observe-sequence", json=items)).json()
    assert answer["final_predictions"] == []
    assert len(answer["warnings"]) == 1
    servers.patterns.start()
    await eventually(lambda: http.get("/predictions"), lambda found: "stale" not in found)
    assert len((await get(http, "/stm"))["stm"]) == 2


# Qdrant --------------------------------------------------------------------------------


async def test_without_qdrant_vectors_are_left_out_and_everything_else_goes_on(
    servers: Servers, http: Client, node: str
) -> None:
    session, waiting = await http.session(node), await http.session(node)
    await http.observe(waiting, "w", vectors=[[1, 2]])
    servers.vectors.stop()
    for _ in range(5):
        began = time.monotonic()
        seen = await http.observe(session, "a", vectors=[[1, 2]])
        assert time.monotonic() - began < QUICKLY
        assert seen["warnings"] == [LEFT_OUT]
    name = (await http.post(f"{session}/learn")).json()["pattern_name"]
    assert name
    before = await state(http, waiting)
    for _ in range(2):
        await refused(http.post(f"{waiting}/learn"))
        await refused(http.post(f"{session}/clear-all"))
        assert await state(http, waiting) == before
    assert await frequencies(http, node) == [1]
    await http.observe(session, "a")
    found = await get(http, f"{session}/predictions")
    assert ([each["pattern_name"] for each in found["predictions"]], "stale" in found) == ([name], False)
    servers.vectors.start()
    await undegraded(http, session)
    await eventually(lambda: http.post(f"{waiting}/learn"), lambda _: True)
    await http.observe(waiting, vectors=[[1, 2.5]])
    assert len((await state(http, waiting))[0][-1]) == 2


@pytest.mark.parametrize("server", ["vectors", "patterns"])
async def test_a_server_that_hangs_is_given_up_while_there_is_time_to_answer(
    servers: Servers, node: str, server: str
) -> None:
    async with instance(servers, request_timeout=4, health_check_interval=60) as http:
        session = await http.session(node)
        await http.teach(session, "x", "y")
        await http.observe(session, "a", vectors=[[1, 2]])
        before = await state(http, session)
        hanging: Any = getattr(servers, server)
        hanging.pause()
        try:
            answer = await http.post(f"{session}/learn")
            # Not 504: nobody would know what has become of it.
            assert (answer.status_code, await state(http, session)) == (503, before)
            if server == "vectors":
                other = await http.session(node)
                assert (await http.observe(other, "b", vectors=[[1, 2]]))["warnings"] == [LEFT_OUT]
        finally:
            hanging.resume()
        # Perhaps it was written although nobody waited for it any more: the repeated learn counts it once.
        await eventually(lambda: http.post(f"{session}/learn"), lambda _: True)
        assert await frequencies(http, node) == [1, 1]
        await undegraded(http, session)


# Redis --------------------------------------------------------------------------------


async def test_without_redis_sessions_are_refused_at_once_and_go_on_afterwards(
    servers: Servers, http: Client, node: str
) -> None:
    session = await http.session(node)
    name = await http.teach(session, "a", "b")
    await http.observe(session, "a")
    servers.sessions.stop()
    for _ in range(3):
        for call in (
            http.post(f"{session}/observe", json={"strings": ["b"]}),
            http.post(f"{session}/learn"),
            http.get(f"{session}/stm"),
            http.get(f"{session}/predictions"),
            http.get(session),
            http.post("/sessions", json={"node_id": node}),
            http.post("/observe", json={"strings": ["b"]}),
        ):
            await refused(call)
    # What needs no session is answered by who has it.
    assert (await get(http, f"/symbols/stats?node_id={node}"))["stale"] is True
    assert (await get(http, f"/v2/patterns/{name}?node_id={node}"))["pattern"]["frequency"] == 1
    servers.sessions.start()
    found = await eventually(lambda: http.get(f"{session}/stm"), lambda _: True)
    assert found["stm"] == [["a"]]
    await undegraded(http, session)
    assert "stale" not in await get(http, f"/symbols/stats?node_id={node}")
