"""The sockets on which a server listens."""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import closing

import pytest

from kato.api import listeners
from kato.settings import SettingsError, load

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has socket filters")


def connect(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname()[:2], timeout=10)


@linux
def test_who_has_connected_stays_and_nobody_else_comes() -> None:
    with listeners.bound("127.0.0.1", 0) as (listener,):
        listener.listen()
        with closing(connect(listener)) as early:
            early.sendall(b"early")
            listeners.refuse(listener)
            refusals: list[OSError] = []

            def late() -> None:
                try:
                    connect(listener).close()
                except OSError as error:
                    refusals.append(error)

            attempt = threading.Thread(target=late)
            attempt.start()
            accepted, _ = listener.accept()
            listener.settimeout(0.2)
            with pytest.raises(TimeoutError):
                listener.accept()
            listener.close()
            attempt.join()
            with closing(accepted):
                assert accepted.recv(10) == b"early"
                early.sendall(b"again")
                assert accepted.recv(10) == b"again"
            assert [type(error) for error in refusals] == [ConnectionRefusedError]


def test_a_system_without_filters_lets_them_come(monkeypatch: pytest.MonkeyPatch) -> None:
    with listeners.bound("127.0.0.1", 0) as (listener,):
        listener.listen()
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(sys, "platform", "elsewhere")
            listeners.refuse(listener)
        connect(listener).close()
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(listeners, "_SO_ATTACH_FILTER", 0x7FFFFFFF)
            listeners.refuse(listener)
        connect(listener).close()


def test_shared_sockets_let_others_in_and_the_port_stays_taken() -> None:
    with listeners.bound("127.0.0.1", 0) as (first,):
        port = first.getsockname()[1]
        listeners.share(first)
        second, third = (listeners.bind("127.0.0.1", port, beside=True)[0] for _ in range(2))
        with closing(second), closing(third):
            for each in (first, second, third):
                each.listen()
            with pytest.raises(SettingsError, match="Address already in use"):
                listeners.bind("127.0.0.1", port)
            connections = [connect(first) for _ in range(60)]
            for each in (first, second, third):
                each.accept()[0].close()
            for connection in connections:
                connection.close()


def test_a_host_that_is_none() -> None:
    with pytest.raises(SettingsError, match=r"HOST, PORT: cannot listen on 192\.0\.2\.1:0: Cannot assign"):
        listeners.bind("192.0.2.1", 0)
    with pytest.raises(
        SettingsError, match=r"cannot listen on no-such-host\.invalid:0: .*(known|resolution)"
    ):
        listeners.bind("no-such-host.invalid", 0)


def test_the_line_names_address_and_place() -> None:
    assert "http://[::1]:81, data in :memory:" in listeners.announcement(
        load(host="::1", kato_data=":memory:"), 81
    )
    servers = {
        "kato_store": "postgres",
        "database_url": "postgresql://u:secret@h/d",
        "redis_url": "redis://h",
    }
    line = listeners.announcement(load(kato_vectors=False, **servers), 81)
    assert line.endswith("http://127.0.0.1:81, data in postgres and redis")
