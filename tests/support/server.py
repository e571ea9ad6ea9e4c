"""A KATO server as a process of its own: started on a free port, spoken to over HTTP, ended by its id."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.support.environment import clean_environment

START_SECONDS = 30.0
STOP_SECONDS = 30.0
_LISTENS = re.compile(r"listens on (http://\S+), data in")


class StartFailed(AssertionError):
    """The process ended, or said nothing, instead of listening."""


class Server:
    """A running `kato serve`. `output` is what it has written to stderr so far."""

    def __init__(
        self,
        data: Path | str,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        started = time.perf_counter()
        # The child sees nothing of the machine's own settings, and its port is chosen by the kernel.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.serve", "serve", "--port", "0", "--data", str(data)],
            env={**clean_environment(), **(environment or {})},
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,
        )
        self.output = ""
        self._announced = threading.Event()
        self.url = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._announced.wait(START_SECONDS) or not self.url:
            self.kill()
            raise StartFailed(self.output)
        self.start_seconds = time.perf_counter() - started

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.output += line
            found = _LISTENS.search(line)
            if found:
                self.url = found[1]
                self._announced.set()
        self._announced.set()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def _end(self, signal_number: int) -> int:
        if self.alive:
            self.process.send_signal(signal_number)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._reader.join(STOP_SECONDS)
            assert self.process.stderr is not None
            self.process.stderr.close()
        return status

    def kill(self) -> int:
        """SIGKILL; returns the exit status."""
        return self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, as an operator would; returns the exit status."""
        return self._end(signal.SIGTERM)

    def client(self, **options: Any) -> httpx.Client:
        """A client of this server."""
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, **options)


@contextlib.contextmanager
def serving(
    data: Path | str,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Iterator[Server]:
    """A server that is stopped at the end, whatever happened."""
    server = Server(data, environment, before)
    try:
        yield server
    finally:
        if server.process.returncode is None:
            server.stop()
