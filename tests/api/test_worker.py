"""One worker, in this process; the test is its supervisor."""

from __future__ import annotations

import json
import runpy
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from kato.api import listeners
from kato.api.worker import work
from kato.api.workers import READY
from tests.support.workers import ask

PATIENCE = 30.0


class Working:
    """A worker in a thread, its channel and its address."""

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(PATIENCE)
        sockets = listeners.bind("127.0.0.1", 0)
        self.address = f"127.0.0.1:{sockets[0].getsockname()[1]}"
        self.status: int | None = None

        def run() -> None:
            with theirs:
                self.status = work(theirs, sockets)
            listeners.close(sockets)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def tell(self, **settings: Any) -> None:
        self.channel.sendall(json.dumps(settings).encode() + b"\n")

    def hear(self) -> bytes:
        return self.channel.recv(1000)

    def end(self) -> int | None:
        """Close the channel; returns the exit status."""
        self.channel.close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.status


@pytest.fixture
def worker() -> Iterator[Working]:
    working = Working()
    yield working
    working.end()


def test_it_says_when_it_accepts_and_ends_with_its_supervisor(worker: Working) -> None:
    worker.tell(kato_data=":memory:", filter_pipeline=["length"])
    assert worker.hear() == READY
    assert ask(worker.address, "/status")["status"] == "okay"
    assert worker.end() == 0


def test_it_ends_with_a_supervisor_that_did_not_wait(worker: Working) -> None:
    worker.tell(kato_data=":memory:")
    assert worker.end() == 0


def test_it_ends_with_a_supervisor_that_said_nothing(worker: Working) -> None:
    assert worker.end() == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_sessions": -1}, b"Wrong settings: MAX_SESSIONS: "),
        ({"kato_data": __file__}, b"the data directory "),
    ],
)
def test_it_says_why_it_cannot_start(worker: Working, settings: dict[str, Any], sentence: bytes) -> None:
    worker.tell(**settings)
    assert worker.hear().startswith(sentence)
    assert worker.end() == 1


def test_its_sockets_are_given_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    theirs_too = listeners.bind("127.0.0.1", 0)[0]
    with closing(ours):
        ours.sendall(b'{"max_sessions": -1}\n')
        numbers = [str(each.detach()) for each in (theirs, theirs_too)]
        monkeypatch.setattr(sys, "argv", ["worker", *numbers])
        monkeypatch.delitem(sys.modules, "kato.api.worker")
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("kato.api.worker", run_name="__main__")
        assert ended.value.code == 1
        assert b"MAX_SESSIONS" in ours.recv(1000)
