"""The event socket: every row of service.md 2.2, over a real connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from kato.api.app import Application, create_app
from kato.api.instance import Timing
from kato.settings import load
from tests.api.driving import serving
from tests.support.waiting import until


class World:
    """A served application, its address, and HTTP beside the sockets."""

    def __init__(self, app: Application, address: str, http: httpx.AsyncClient) -> None:
        self.app = app
        self.address = address
        self.http = http

    def listen(self, query: str = "", path: str = "/ws/events") -> connect:
        return connect(f"ws://{self.address}{path}{query}")

    async def session(self, **more: Any) -> str:
        found: str = (await self.http.post("/sessions", json={"node_id": "n", **more})).json()["session_id"]
        return found


async def hear(connection: ClientConnection) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await asyncio.wait_for(connection.recv(), 10))
    return found


@pytest.fixture
async def world() -> AsyncIterator[World]:
    app = create_app(
        load(kato_data=":memory:", port=0, graceful_shutdown_timeout=2, websocket_max_connections=2)
    )
    app.instance.timing = Timing(heartbeat=3600, metrics=0.02, idle=3600)
    async with serving(app) as (_, address), httpx.AsyncClient(base_url=f"http://{address}") as http:
        yield World(app, address, http)


@pytest.mark.parametrize("path", ["/ws/events", "/v1/ws/events", "/v2/ws/events"])
async def test_a_session_from_birth_to_death(world: World, path: str) -> None:
    async with world.listen(path=path) as connection:
        snapshot = await hear(connection)
        assert snapshot["event_type"] == "state.snapshot"
        assert snapshot["data"] == {"active_sessions": 0, "system_status": "healthy"}
        assert {"event_id", "event_type", "timestamp", "data"} <= set(snapshot)
        session = await world.session()
        created = await hear(connection)
        assert created["event_type"] == "session.created"
        assert (created["data"]["session_id"], created["data"]["node_id"]) == (session, "n")
        for symbol in "ab":
            await world.http.post(f"/sessions/{session}/observe", json={"strings": [symbol]})
        name = (await world.http.post(f"/sessions/{session}/learn")).json()["pattern_name"]
        learned = await hear(connection)
        assert learned["event_type"] == "pattern.learned"
        assert learned["data"] == {"pattern_name": name, "session_id": session, "frequency": 1}
        await world.http.delete(f"/sessions/{session}")
        destroyed = await hear(connection)
        assert destroyed["event_type"] == "session.destroyed"
        assert (destroyed["data"]["session_id"], destroyed["data"]["reason"]) == (session, "explicit_delete")
        assert "destroyed_at" in destroyed["data"]


async def test_expired_sessions(world: World) -> None:
    kato = world.app.instance.kato
    assert kato is not None
    session = await world.session(ttl_seconds=1)
    now = kato.clock()
    async with world.listen("?types=session.destroyed") as connection:
        await hear(connection)
        kato.sessions._clock = lambda: now + 2
        await kato.sessions.sweep()
        destroyed = (await hear(connection))["data"]
        assert (destroyed["session_id"], destroyed["reason"]) == (session, "expired")


async def test_filters_and_opt_in(world: World) -> None:
    session = await world.session()
    async with world.listen("?types=session.updated,pattern.learned") as connection:
        await hear(connection)
        await world.session()
        await world.http.post(f"/sessions/{session}/observe", json={"strings": ["a"]})
        updated = await hear(connection)
        assert (updated["event_type"], updated["data"]["stm_size"]) == ("session.updated", 1)


async def test_replay(world: World) -> None:
    async with world.listen() as connection:
        await hear(connection)
        first, second = await world.session(), await world.session()
        heard = [await hear(connection), await hear(connection)]
        assert [h["data"]["session_id"] for h in heard] == [first, second]
    await until(lambda: not world.app.instance.event_sockets)
    async with world.listen(f"?since={heard[0]['event_id']}") as connection:
        assert (await hear(connection))["event_type"] == "state.snapshot"
        assert await hear(connection) == heard[1]
    async with world.listen("?since=unknown&types=session.created") as connection:
        await hear(connection)
        assert [await hear(connection), await hear(connection)] == heard


async def test_metrics_on_request(world: World) -> None:
    async with world.listen("?types=metrics.update") as connection:
        await hear(connection)
        data = (await hear(connection))["data"]
        assert set(data) == {"active_sessions", "requests_per_second", "cpu_percent", "memory_percent"}
        assert 0 < data["memory_percent"] < 100


async def test_heartbeat(world: World) -> None:
    world.app.instance.timing = Timing(heartbeat=0.01)
    async with world.listen() as connection:
        await hear(connection)
        assert (await hear(connection))["event_type"] == "heartbeat"


async def test_ping_and_silence(world: World) -> None:
    async with world.listen() as connection:
        await hear(connection)
        await connection.send("something else")
        await connection.send("ping")
        assert await asyncio.wait_for(connection.recv(), 10) == "pong"
    world.app.instance.timing = Timing(idle=0.01)
    async with world.listen() as connection:
        await hear(connection)
        with pytest.raises(ConnectionClosed) as closed:
            await hear(connection)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "no ping for 0.01 s")


async def test_places_are_limited_and_given_back(world: World) -> None:
    async with world.listen() as first, world.listen() as second:
        await hear(first)
        await hear(second)
        with pytest.raises(InvalidStatus) as refusal:
            await world.listen()
        assert refusal.value.response.status_code == 503
    await until(lambda: not world.app.instance.event_sockets)
    assert world.app.instance.kato is not None
    assert world.app.instance.kato.events.listeners == 0
    async with world.listen() as third:
        assert (await hear(third))["event_type"] == "state.snapshot"


async def test_unknown_types_are_refused(world: World) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        await world.listen("?types=session.created,nonsense")
    assert refusal.value.response.status_code == 422
    error = json.loads(refusal.value.response.body or b"")["error"]
    assert error["details"]["validation_errors"][0]["field"] == "types"


async def test_a_crowd_of_events_is_paced(world: World) -> None:
    kato = world.app.instance.kato
    assert kato is not None
    async with world.listen("?types=pattern.learned") as connection:
        await hear(connection)
        started = asyncio.get_running_loop().time()
        for number in range(101):
            kato.events.publish("pattern.learned", {"pattern_name": str(number)})
        heard = [await hear(connection) for _ in range(101)]
        assert [h["data"]["pattern_name"] for h in heard] == [str(n) for n in range(101)]
        assert asyncio.get_running_loop().time() - started > 0.8


async def test_a_defect_ends_the_conversation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("kato.api.health.dependencies", broken)
    async with world.listen() as connection:
        with pytest.raises(ConnectionClosed) as closed:
            await hear(connection)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "internal error")
    await until(lambda: not world.app.instance.event_sockets)
