"""A server in this process that stops while requests and commands are in work."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from kato.api.app import Application, create_app
from kato.api.server import Server
from kato.api.sockets import Gone, Socket
from kato.model import SessionState
from kato.settings import load
from tests.api.driving import client, serving
from tests.support.waiting import until

COMMAND = json.dumps({"type": "clear_stm"})


class Gate:
    """What a verb waits for."""

    def __init__(self, app: Application) -> None:
        self.entered = 0
        self.opened = asyncio.Event()
        kato = app.instance.kato
        assert kato is not None
        self._clear = kato.clear_stm
        kato.clear_stm = self._waiting  # type: ignore[method-assign]

    async def _waiting(self, session_id: str) -> SessionState:
        self.entered += 1
        await self.opened.wait()
        return await self._clear(session_id)

    async def is_entered(self) -> None:
        await until(lambda: self.entered > 0)


def application(graceful: int) -> Application:
    return create_app(load(kato_data=":memory:", port=0, graceful_shutdown_timeout=graceful))


async def draining(app: Application, server: Server) -> None:
    server.should_exit = True
    await until(lambda: app.instance.draining)


async def closed_with(connection: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(connection.recv(), 10)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def test_a_request_whose_time_is_up_gets_the_envelope(capfd: pytest.CaptureFixture[str]) -> None:
    app = application(1)
    async with serving(app) as (server, address), httpx.AsyncClient(base_url=f"http://{address}") as http:
        gate = Gate(app)
        asked = asyncio.create_task(http.post("/clear-stm"))
        await gate.is_entered()
        await draining(app, server)
        answer = await asked
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "TIMEOUT_ERROR")
    assert answer.json()["error"]["message"] == "KATO had to stop before the request was done"
    assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
    assert "Traceback" not in capfd.readouterr().err


async def test_a_request_that_is_cancelled_otherwise_stays_cancelled() -> None:
    app = application(1)
    async with serving(app) as (_, _address):
        gate = Gate(app)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://kato") as http:
            asked = asyncio.create_task(http.post("/clear-stm"))
            await gate.is_entered()
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked


async def test_every_answer_of_a_server_that_stops_ends_its_connection() -> None:
    app = application(1)
    async with serving(app) as (_, address), httpx.AsyncClient(base_url=f"http://{address}") as http:
        for path in ("/ping", "/nowhere", "/docs", "/health/ready"):
            assert "connection" not in (await http.get(path)).headers
            app.instance.draining = True
            answer = await http.get(path)
            assert answer.headers.get_list("connection") == ["close"], path
            app.instance.draining = False


async def test_a_command_in_work_is_answered_and_no_other_begun() -> None:
    app = application(30)
    async with serving(app) as (server, address), connect(f"ws://{address}/ws") as connection:
        gate = Gate(app)
        await connection.send(COMMAND)
        await connection.send(COMMAND)
        await gate.is_entered()
        await draining(app, server)
        # Whoever comes now is told at once.
        assert await closed_with(await connect(f"ws://{address}/ws")) == 1001
        gate.opened.set()
        answer: dict[str, Any] = json.loads(await connection.recv())
        assert answer["data"]["message"] == "stm-cleared"
        assert await closed_with(connection) == 1001
        assert gate.entered == 1


async def test_a_command_whose_time_is_up_ends_with_its_socket(capfd: pytest.CaptureFixture[str]) -> None:
    app = application(1)
    async with serving(app) as (server, address), connect(f"ws://{address}/ws") as connection:
        gate = Gate(app)
        await connection.send(COMMAND)
        await gate.is_entered()
        await draining(app, server)
        assert await closed_with(connection) == 1001
    assert "Traceback" not in capfd.readouterr().err


async def test_a_socket_that_opens_while_the_others_are_told_is_told_too() -> None:
    app = application(1)
    session = "default-kato"
    async with serving(app) as (server, address), httpx.AsyncClient(base_url=f"http://{address}") as http:
        assert (await http.post("/observe", json={"strings": ["a"]})).status_code == 200
        kato = app.instance.kato
        assert kato is not None
        exists, opened, entered = kato.exists, asyncio.Event(), asyncio.Event()

        async def slow(session_id: str) -> Any:
            entered.set()
            await opened.wait()
            return await exists(session_id)

        kato.exists = slow  # type: ignore[method-assign]
        opening = asyncio.create_task(asyncio.wait_for(connect(f"ws://{address}/sessions/{session}/ws"), 10))
        await entered.wait()
        await draining(app, server)
        opened.set()
        assert await closed_with(await opening) == 1001


async def test_a_client_that_is_gone_keeps_nobody_from_being_told() -> None:
    app = application(1)
    async with serving(app) as (server, address):
        connections = [await connect(f"ws://{address}/ws") for _ in range(3)]
        connections[1].transport.abort()
        await draining(app, server)
        assert [await closed_with(connections[each]) for each in (0, 2)] == [1001, 1001]


@pytest.mark.parametrize("error", [OSError("the client has left"), RuntimeError("closed by the server")])
async def test_a_socket_that_is_closed_already_is_gone(error: Exception) -> None:
    async def receive() -> dict[str, Any]:
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] != "websocket.accept":
            raise error

    async with client() as http:
        scope = {"headers": [], "path": "/ws", "query_string": b""}
        sockets = [Socket(http.app.instance, http.kato, scope, receive, send) for _ in range(2)]
        for socket in sockets:
            await socket.accept()
        await sockets[0].dismiss(0)
        with pytest.raises(Gone):
            await sockets[1].send_text("a")
        for socket in sockets:
            with pytest.raises(Gone):
                await socket.send_text("b")
            await socket.dismiss(0)
            with pytest.raises(Gone):
                async with socket.answering():
                    pytest.fail("nobody is there to be answered")
