"""Servers in processes of their own: KATO, and an echo to compare it with."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import machine

START_SECONDS = 120.0
STOP_SECONDS = 60.0
_KATO = "import sys; from kato.cli.main import app; sys.argv[0] = 'kato'; app()"


class Server:
    """A server on a free port of 127.0.0.1, ready when the block begins and gone when it ends."""

    def __init__(
        self,
        command: list[str],
        probe: str,
        directory: Path,
        name: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = _free_port()
        self.start_seconds = 0.0
        self.stop_seconds = 0.0
        self._command = [part.replace("{port}", str(self.port)) for part in command]
        self._environment = environment
        self._probe = probe
        self._log = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def base(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start and wait until it answers."""
        begin = time.perf_counter()
        with self._log.open("ab") as log:
            # `app` of the echo is found beside this file.
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=Path(__file__).parent,
                env={**os.environ, **(self._environment or {})},
            )
        try:
            while not self._answers():
                if self._process.poll() is not None or time.perf_counter() - begin > START_SECONDS:
                    raise RuntimeError(f"{' '.join(self._command)} does not answer:\n{self._tail()}")
                time.sleep(0.005)
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.perf_counter() - begin
        return self

    def stop(self) -> None:
        """Ask it to end; after a while, make it."""
        process, self._process = self._process, None
        if process is None:
            return
        begin = time.perf_counter()
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.stop_seconds = time.perf_counter() - begin

    def cpu_seconds(self) -> float:
        """Processor time it has used so far, its workers included."""
        return sum(map(machine.cpu_seconds, self._family()))

    def resident_bytes(self) -> int:
        """Memory it holds, its workers included."""
        return sum(map(machine.resident_bytes, self._family()))

    def _family(self) -> list[int]:
        return [self.pid, *machine.children(self.pid)]

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", self._probe)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def kato(data: Path, directory: Path) -> Server:
    """`kato serve` as a user starts it, with its data in `data`."""
    serve = ["serve", "--host", "127.0.0.1", "--port", "{port}", "--data", str(data)]
    return Server([sys.executable, "-c", _KATO, *serve], "/health", directory, "kato")


def instance(number: int, environment: Mapping[str, str], directory: Path) -> Server:
    """One of several `kato serve` on the servers that the environment names."""
    serve = ["serve", "--host", "127.0.0.1", "--port", "{port}"]
    command = [sys.executable, "-c", _KATO, *serve]
    return Server(command, "/health/ready", directory, f"instance-{number}", environment)


def echo(directory: Path) -> Server:
    """The do-nothing FastAPI application, under the same server with the same settings."""
    return Server([sys.executable, "echo.py", "{port}"], "/nothing", directory, "echo")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
