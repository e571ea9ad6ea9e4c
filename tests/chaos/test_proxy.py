"""The proxy does to connections what it says, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.proxy import Proxy, proxied
from tests.support.redis import redis, until

SILENCE = 0.2
"""Seconds in which something would have come if it could."""


class Echo(socketserver.ThreadingTCPServer):
    """Sends back what it gets and remembers it."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.received = bytearray()
        self.ended: list[str] = []
        self.port: int = self.server_address[1]


class Answering(socketserver.BaseRequestHandler):
    server: Echo

    def handle(self) -> None:
        try:
            while data := self.request.recv(65_536):
                self.server.received += data
                self.request.sendall(data)
            self.server.ended.append("FIN")
        except ConnectionResetError:
            self.server.ended.append("RST")


@pytest.fixture
def server() -> Iterator[Echo]:
    with Echo() as echo:
        thread = threading.Thread(target=echo.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield echo
        echo.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: Echo) -> Iterator[Proxy]:
    with proxied("127.0.0.1", server.port) as found:
        yield found


@contextlib.contextmanager
def connected(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield client


def read(client: socket.socket, number: int) -> bytes:
    found = bytearray()
    while len(found) < number:
        data = client.recv(min(number - len(found), 1 << 20))
        assert data, "the connection has ended"
        found += data
    return bytes(found)


def ask(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return read(client, len(text))


def silent(client: socket.socket) -> bool:
    """Whether nothing comes and the connection stays open."""
    client.settimeout(SILENCE)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(10)
    return False


# Undisturbed --------------------------------------------------------------------------------


def test_everything_passes_unchanged_both_ways(server: Echo, proxy: Proxy) -> None:
    content = bytes(range(256)) * 8192
    with connected(proxy) as client:
        sender = threading.Thread(target=client.sendall, args=(content,))
        sender.start()
        assert read(client, len(content)) == content
        sender.join()
    assert server.received == content


def test_connections_are_counted(proxy: Proxy) -> None:
    assert (proxy.connections, proxy.accepted) == (0, 0)
    with connected(proxy) as first, connected(proxy) as second:
        assert (ask(first, b"a"), ask(second, b"b")) == (b"a", b"b")
        assert (proxy.connections, proxy.accepted) == (2, 2)
    until(lambda: proxy.connections == 0)
    assert proxy.accepted == 2


def test_an_end_passes_and_leaves_the_other_direction_open(server: Echo, proxy: Proxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert read(client, 10) == b"last words"
        assert client.recv(1) == b""
    assert server.ended == ["FIN"]


def test_a_failure_of_one_side_is_one_for_the_other(server: Echo, proxy: Proxy) -> None:
    with connected(proxy) as client:
        ask(client, b"a")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until(lambda: server.ended == ["RST"])


def test_a_server_that_is_not_there_is_a_broken_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with proxied("127.0.0.1", unused.getsockname()[1]) as proxy:
            # It may be broken before it is made.
            with pytest.raises(ConnectionResetError), connected(proxy) as client:
                client.recv(1)
            until(lambda: proxy.connections == 0)


def accepted(client: socket.socket, most: int) -> int:
    """How many bytes can be sent before one has to wait for long."""
    client.settimeout(SILENCE)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < most:
            sent += client.send(b"x" * 65_536)
    client.settimeout(10)
    return sent


def test_a_slow_receiver_makes_the_sender_wait(proxy: Proxy) -> None:
    with connected(proxy) as client:
        sent = accepted(client, 1 << 30)
        assert sent < 1 << 30
        assert read(client, sent) == b"x" * sent


def test_another_process_may_use_it_and_a_loop_that_also_controls_it(proxy: Proxy) -> None:
    program = (
        "import socket, sys\n"
        "with socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=10) as client:\n"
        "    client.sendall(b'hello')\n"
        "    print(client.recv(5).decode())\n"
    )
    command = [sys.executable, "-c", program, str(proxy.port)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "hello\n"

    async def talk() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.freeze()
        writer.write(b"hello")
        proxy.thaw()
        answer = await reader.readexactly(5)
        proxy.cut()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        return answer

    assert asyncio.run(talk()) == b"hello"


# Disturbed --------------------------------------------------------------------------------


def test_latency_delays_each_direction_and_is_not_a_queue(proxy: Proxy) -> None:
    with connected(proxy) as client:
        ask(client, b"a")
        proxy.latency = 0.2
        started = time.monotonic()
        assert ask(client, b"b") == b"b"
        assert time.monotonic() - started >= 0.4
        started = time.monotonic()
        for _ in range(40):
            client.sendall(b"cd")
            # So that each is a chunk of its own.
            time.sleep(0.005)
        read(client, 80)
        assert 0.4 <= time.monotonic() - started < 40 * 0.2
        proxy.latency = 0.0
        started = time.monotonic()
        ask(client, b"e")
        assert time.monotonic() - started < 0.2


def test_a_cut_ends_what_is_open_and_refuses_what_is_new_until_it_is_mended(
    server: Echo, proxy: Proxy
) -> None:
    port = proxy.port
    with connected(proxy) as client:
        ask(client, b"a")
        proxy.cut()
        assert proxy.connections == 0
        assert client.recv(1) == b""
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)
        proxy.cut()
    until(lambda: server.ended == ["FIN"])
    with socket.socket() as thief, pytest.raises(OSError, match="in use"):
        thief.bind(("127.0.0.1", port))
    for _ in range(2):
        proxy.mend()
        with connected(proxy) as client:
            assert ask(client, b"b") == b"b"
    assert (proxy.port, proxy.accepted) == (port, 3)


def test_a_client_that_has_just_connected_is_cut_and_reset_too(proxy: Proxy) -> None:
    for _ in range(50):
        with connected(proxy) as client:
            proxy.cut()
            assert client.recv(1) == b""
        proxy.mend()
        with connected(proxy) as client:
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_a_reset_breaks_what_is_open_and_accepts_what_is_new(server: Echo, proxy: Proxy) -> None:
    with connected(proxy) as client:
        ask(client, b"a")
        proxy.reset()
        assert proxy.connections == 0
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    until(lambda: server.ended == ["RST"])
    with connected(proxy) as client:
        assert ask(client, b"b") == b"b"


def test_frozen_nothing_passes_and_thawed_everything_arrives(server: Echo, proxy: Proxy) -> None:
    with connected(proxy) as client:
        ask(client, b"a")
        proxy.freeze()
        client.sendall(b"b")
        with connected(proxy) as newcomer:
            newcomer.sendall(b"c")
            assert silent(client)
            assert silent(newcomer)
            assert proxy.connections == 2
            assert server.received == b"a"
            proxy.thaw()
            assert read(client, 1) == b"b"
            assert read(newcomer, 1) == b"c"


def test_frozen_not_even_an_end_or_a_failure_passes(server: Echo, proxy: Proxy) -> None:
    with connected(proxy) as ending, connected(proxy) as failing:
        ask(ending, b"a")
        ask(failing, b"b")
        proxy.freeze()
        failing.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        failing.close()
        ending.close()
        time.sleep(SILENCE)
        assert server.ended == []
        proxy.thaw()
        until(lambda: sorted(server.ended) == ["FIN", "RST"])


def test_a_reply_under_way_is_frozen_too_and_lost_by_a_cut(server: Echo, proxy: Proxy) -> None:
    with connected(proxy) as client:
        proxy.latency = 0.1
        client.sendall(b"a")
        until(lambda: server.received == b"a")
        proxy.freeze()
        assert silent(client)
        client.sendall(b"never arrives")
        proxy.cut()
        assert client.recv(1) == b""
    assert server.received == b"a"


def test_dropped_requests_never_reach_the_server(server: Echo, proxy: Proxy) -> None:
    proxy.drop_next(2)
    for request in (b"a", b"b"):
        with connected(proxy) as client:
            client.sendall(request)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    with connected(proxy) as client:
        assert ask(client, b"c") == b"c"
        assert ask(client, b"d") == b"d"
    assert server.received == b"cd"


def test_those_before_a_lost_one_pass(server: Echo, proxy: Proxy) -> None:
    proxy.drop_next(1, after=2)
    with connected(proxy) as client:
        assert (ask(client, b"a"), ask(client, b"b")) == (b"a", b"b")
        client.sendall(b"c")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    proxy.swallow_replies(1, after=1)
    with connected(proxy) as client:
        assert ask(client, b"d") == b"d"
        client.sendall(b"e")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert server.received == b"abde"


def test_only_connections_with_a_lost_chunk_are_reset(proxy: Proxy) -> None:
    with connected(proxy) as bystander, connected(proxy) as victim:
        ask(bystander, b"a")
        ask(victim, b"b")
        proxy.drop_next(1)
        victim.sendall(b"c")
        with pytest.raises(ConnectionResetError):
            victim.recv(1)
        assert ask(bystander, b"d") == b"d"
        proxy.drop_next(1)
        proxy.drop_next(0)
        assert ask(bystander, b"e") == b"e"


def test_what_a_swallowed_reply_acknowledged_was_done() -> None:
    with redis() as server, proxied("127.0.0.1", server.port) as proxy:
        with connected(proxy) as client:
            client.sendall(b"INCR counter\r\n")
            assert read(client, 4) == b":1\r\n"
            proxy.swallow_replies(1)
            client.sendall(b"INCR counter\r\n")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with connected(proxy) as client:
            client.sendall(b"INCR counter\r\n")
            assert read(client, 4) == b":3\r\n"


def test_it_leaves_nothing_behind(server: Echo) -> None:
    def threads() -> list[Any]:
        return [each for each in threading.enumerate() if each.name == "proxy"]

    before = threads()
    with proxied("127.0.0.1", server.port) as proxy, connected(proxy) as client:
        ask(client, b"a")
        proxy.freeze()
        assert len(threads()) == len(before) + 1
    assert threads() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
