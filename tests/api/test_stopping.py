"""A server process that is told to stop: it says so, finishes what it has begun, and cuts nobody off."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support import postgres, redis
from tests.support.http import Pool, Refused, calling
from tests.support.server import Server, serving

PATIENCE = 10.0


def connected(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=PATIENCE)


def asked(connection: http.client.HTTPConnection, path: str) -> tuple[int, Any, str | None]:
    """Status, body, and what the answer says about the connection."""
    connection.request("GET", path)
    return answered(connection)


def answered(connection: http.client.HTTPConnection) -> tuple[int, Any, str | None]:
    with connection.getresponse() as answer:
        return answer.status, json.loads(answer.read()), answer.headers["connection"]


@contextmanager
def stopping(server: Server, number: int = signal.SIGTERM) -> Iterator[None]:
    """From the moment at which the server is not ready any more to its end."""
    connection = connected(server)
    with closing(connection):
        assert asked(connection, "/health/ready")[0] == 200
        server.process.send_signal(number)
        status, answer, parting = 200, {}, None
        while status != 503:
            # On this open connection; a new one is refused.
            status, answer, parting = asked(connection, "/health/ready")
        assert not answer["ready"]
        assert not answer["checks"]["accepting"]
        assert parting == "close"
    yield
    assert server.process.wait(PATIENCE) == 0
    server.stop()
    assert "Traceback" not in server.output


def refused(server: Server) -> bool:
    address = server.url.removeprefix("http://").split(":")
    try:
        socket.create_connection((address[0], int(address[1])), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_is_not_ready_refuses_new_connections_and_ends(tmp_path: Path, number: int) -> None:
    with serving(tmp_path) as server, stopping(server, number):
        assert refused(server)


def test_a_request_in_work_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as server, closing(connected(server)) as connection:
        connection.putrequest("POST", "/observe")
        connection.putheader("content-length", "18")
        connection.endheaders(b'{"strings"')
        with stopping(server):
            # Long after the last moment at which anybody could connect.
            assert refused(server)
            connection.send(b': ["a"]}')
            status, answer, parting = answered(connection)
            assert (status, answer["time"], parting) == (200, 1, "close")
    with serving(tmp_path) as server, closing(connected(server)) as connection:
        assert asked(connection, "/stm")[1]["stm"] == [["a"]]


def test_a_request_that_never_ends_is_told_when_the_time_is_up(tmp_path: Path) -> None:
    environment = {"GRACEFUL_SHUTDOWN_TIMEOUT": "2"}
    with (
        serving(tmp_path, environment) as server,
        closing(connected(server)) as connection,
        closing(connected(server)) as idle,
    ):
        assert asked(idle, "/ping")[0] == 200
        connection.putrequest("POST", "/observe")
        connection.putheader("content-length", "18")
        connection.endheaders(b'{"strings"')
        began = time.monotonic()
        with stopping(server):
            pass
        assert 1.5 < time.monotonic() - began < PATIENCE
        status, answer, parting = answered(connection)
        assert (status, answer["error"]["code"], parting) == (504, "TIMEOUT_ERROR", "close")
        assert idle.sock is not None
        assert idle.sock.recv(1) == b""


def test_an_open_connection_alone_keeps_nobody_waiting(tmp_path: Path) -> None:
    with serving(tmp_path) as server, closing(connected(server)) as idle:
        assert asked(idle, "/ping")[0] == 200
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0
        server.stop()


def test_ctrl_c_once_more_waits_for_nobody(tmp_path: Path) -> None:
    with serving(tmp_path) as server, closing(connected(server)) as connection:
        connection.putrequest("POST", "/observe")
        connection.putheader("content-length", "18")
        connection.endheaders(b'{"strings"')
        with stopping(server, signal.SIGINT):
            server.process.send_signal(signal.SIGINT)


async def test_under_load_every_request_is_answered_or_refused(tmp_path: Path) -> None:
    """Clients that keep their connection, and clients that open one for each request."""
    count = 0

    async def work(pool: Pool, headers: dict[str, str]) -> None:
        nonlocal count
        while True:
            try:
                answer = await pool.call("POST", "/observe", {"strings": ["a"]}, headers)
            except Refused:
                return
            assert answer.status == 200, answer
            count += 1
            if count == 500:
                server.process.terminate()

    with serving(tmp_path) as server:
        async with calling(server.url) as pool:
            await asyncio.gather(*(work(pool, {"Connection": way}) for way in ["close", "keep-alive"] * 8))
        assert server.process.wait(PATIENCE) == 0
        server.stop()
    assert count >= 500
    with serving(tmp_path) as server, closing(connected(server)) as connection:
        assert asked(connection, "/status")[1]["time"] == count


# Sockets, and what takes long --------------------------------------------------------------------------------


@pytest.fixture
def slow() -> Iterator[postgres.PostgresServer]:
    """A server for patterns that a test may pause."""
    with postgres.postgres() as server:
        yield server
        server.resume()


@pytest.fixture
def shared_server(slow: postgres.PostgresServer, tmp_path: Path) -> Iterator[Server]:
    environment = {
        "KATO_STORE": "postgres",
        "DATABASE_URL": slow.url,
        "REDIS_URL": redis.shared().url,
        "KATO_VECTORS": "off",
        "PROCESSOR_ID": redis.fresh_prefix(),
    }
    with serving(tmp_path, environment) as server, server.client() as client:
        assert client.post("/observe", json={"strings": ["a", "b"]}).status_code == 200
        yield server


def closed_with(connection: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        connection.recv(PATIENCE)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def test_a_slow_learn_is_answered(shared_server: Server, slow: postgres.PostgresServer) -> None:
    slow.pause()
    with closing(connected(shared_server)) as connection:
        connection.request("POST", "/learn", b"{}")
        with stopping(shared_server):
            assert refused(shared_server)
            slow.resume()
            status, answer, _ = answered(connection)
            assert status == 200, answer
    assert slow.sql("SELECT count(*) FROM kato.patterns") == "1"


def test_sockets_are_told_after_the_command_in_work(
    shared_server: Server, slow: postgres.PostgresServer
) -> None:
    url = shared_server.url.replace("http", "ws")
    with connect(f"{url}/ws") as busy, connect(f"{url}/ws") as idle, connect(f"{url}/ws/events") as listening:
        listening.recv(PATIENCE)
        idle.send(json.dumps({"type": "ping"}))
        idle.recv(PATIENCE)
        slow.pause()
        busy.send(json.dumps({"type": "learn"}))
        busy.send(json.dumps({"type": "observe", "payload": {"strings": ["never"]}}))
        with stopping(shared_server):
            assert closed_with(idle) == closed_with(listening) == 1001
            assert refused(shared_server)
            slow.resume()
            assert json.loads(busy.recv(PATIENCE))["data"]["pattern_name"].startswith("PTRN|")
            assert closed_with(busy) == 1001
