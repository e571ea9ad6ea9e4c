"""The server process: how it starts, what it says, how it stops."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx
import pytest

from kato import bootstrap
from kato.api import listeners
from kato.api.server import Server, run, serve
from kato.service import Kato
from kato.settings import Settings, SettingsError, load
from tests.api.driving import serving

SCRIPT = "from kato.api.server import serve; from kato.settings import load; serve(load())"


def started(data: Path, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PORT": "0", "KATO_DATA": str(data), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_one_clear_line_then_service_then_a_clean_end(tmp_path: Path) -> None:
    with started(tmp_path / "data") as process:
        assert process.stderr is not None
        line = process.stderr.readline().strip()
        assert line.startswith("KATO ")
        assert line.endswith(f"data in {tmp_path / 'data'}")
        address = line.split()[4].rstrip(",")
        answer = httpx.post(f"{address}/observe", json={"strings": ["a"]})
        assert answer.status_code == 200
        assert "server" not in answer.headers
        second = started(tmp_path / "data")
        _, complaint = second.communicate(timeout=30)
        assert second.returncode != 0
        assert "DataDirectoryError" in complaint
        process.send_signal(signal.SIGTERM)
        out, rest = process.communicate(timeout=30)
        assert (out, rest) == ("", "")
    with started(tmp_path / "data") as process:
        assert process.stderr is not None
        address = process.stderr.readline().split()[4].rstrip(",")
        assert httpx.get(f"{address}/stm").json()["stm"] == [["a"]]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def test_more_workers_need_other_stores() -> None:
    with pytest.raises(SettingsError, match="WORKERS"):
        serve(load(workers=4, kato_data=":memory:"))


def test_told_to_stop_while_it_serves() -> None:
    handler = signal.getsignal(signal.SIGTERM)
    ports: list[int] = []

    def stop(server: Server) -> None:
        ports.append(server.port)
        signal.raise_signal(signal.SIGTERM)

    with listeners.bound("127.0.0.1", 0) as sockets:
        run(load(kato_data=":memory:"), sockets, stop)
    assert len(ports) == 1
    assert signal.getsignal(signal.SIGTERM) == handler


def test_told_to_stop_before_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def interrupted(settings: Settings) -> AsyncIterator[Kato]:
        signal.raise_signal(signal.SIGTERM)
        async with running(settings) as kato:
            yield kato

    running = bootstrap.running
    monkeypatch.setattr(bootstrap, "running", interrupted)
    with listeners.bound("127.0.0.1", 0) as sockets:
        run(load(kato_data=str(tmp_path)), sockets, lambda server: pytest.fail("it serves"))
    assert not list(tmp_path.glob("*-wal"))


def test_a_host_with_several_addresses() -> None:
    """All on one port, and each of them answers."""
    answers: list[int] = []

    def ask(server: Server) -> None:
        addresses = {each[4][0] for each in socket.getaddrinfo("localhost", server.port)}

        def call() -> None:
            for address in addresses:
                connection = http.client.HTTPConnection(address, server.port, timeout=10)
                with closing(connection):
                    connection.request("GET", "/ping")
                    answers.append(connection.getresponse().status)
            signal.raise_signal(signal.SIGTERM)

        threading.Thread(target=call).start()
        assert len(server.servers) == len(addresses)

    with listeners.bound("localhost", 0) as sockets:
        run(load(kato_data=":memory:", host="localhost"), sockets, ask)
    assert set(answers) == {200}


async def test_a_body_over_the_limit_on_a_real_connection() -> None:
    async with (
        serving(max_request_size=1024) as (_, address),
        httpx.AsyncClient(base_url=f"http://{address}") as http,
    ):
        answer = await http.post("/observe", content=b" " * 2048)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "REQUEST_TOO_LARGE")
        assert (await http.get("/ping")).status_code == 200
