"""Real Redis servers and Sentinels: each in a directory of its own on a free port, ended by process id.

Needs the programs (Debian: `apt-get install redis-server redis-sentinel`).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

START_SECONDS = 30.0
STOP_SECONDS = 30.0
MASTER = "kato-master"
"""The name under which Sentinels know a master."""
_PORT_TAKEN = "Address already in use"


class StartFailed(AssertionError):
    """The server ended, or was not ready in time."""


def require(program: str = "redis-server") -> str:
    """The program's path; without it the test is skipped loudly, in CI it fails."""
    found = shutil.which(program)
    if found is None:
        reason = f"no {program} is installed (Debian: apt-get install redis-server redis-sentinel)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class RedisServer:
    """A server that can be started, stopped, killed, started again, and followed by a replica and a Sentinel.

    `url` stays the same as long as the server lives, also over restarts. With `durable` every acknowledged write
    survives `kill9`; without it a restarted server is empty. `settings` are further lines of the configuration.
    """

    ready: ClassVar[str] = r"Ready to accept connections"
    mode: ClassVar[tuple[str, ...]] = ()

    def __init__(self, durable: bool = False, settings: Sequence[str] = ()) -> None:
        self._program = require(self._binary())
        self.directory = Path(tempfile.mkdtemp(prefix="kato-redis-"))
        self._durable = durable
        self._settings = list(settings)
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        self.output = ""
        self._ready = threading.Event()
        self._reader: threading.Thread | None = None

    @staticmethod
    def _binary() -> str:
        return "redis-server"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> RedisServer:
        """Run the server until it accepts connections; a server that ran before keeps its port and files."""
        for _ in range(5):
            # Someone may take the port between our look and the server's; once used, it is kept.
            port = self.port or free_port()
            if self._run(port):
                self.port = port
                return self
            if _PORT_TAKEN not in self.output:
                break
        raise StartFailed(self.output)

    def _lines(self, port: int) -> list[str]:
        durable = ["appendonly yes", "appendfsync everysec"] if self._durable else ["appendonly no"]
        return [
            f"port {port}",
            "bind 127.0.0.1",
            "protected-mode no",
            'save ""',
            "repl-diskless-sync-delay 0",
            *durable,
        ]

    def _run(self, port: int) -> bool:
        configuration = self.directory / "server.conf"
        if not configuration.exists() or not self.port:
            # Once it ran, the file is the server's own: Sentinel keeps its state there.
            configuration.write_text("\n".join([*self._lines(port), *self._settings, ""]))
        self.output = ""
        self._ready.clear()
        self.process = subprocess.Popen(
            [self._program, str(configuration), *self.mode],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        ready = self._ready.wait(START_SECONDS) and self.alive
        if not ready:
            self.kill9()
        return ready

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.output += line
            if re.search(self.ready, line):
                self._ready.set()
        self._ready.set()

    def command(self, *arguments: str) -> str:
        """The reply to a command, as `redis-cli` shows it; '' when the server does not answer."""
        done = subprocess.run(
            [require("redis-cli"), "-h", "127.0.0.1", "-p", str(self.port), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
        return done.stdout.strip()

    def stop(self) -> None:
        """End the server as an operator does: what is in memory reaches the disk if it is durable."""
        if self.alive:
            assert self.process is not None
            self.process.send_signal(signal.SIGTERM)
        self._reap()

    def kill9(self) -> None:
        """End the server at once, as a crash does."""
        if self.alive:
            assert self.process is not None
            self.process.kill()
        self._reap()

    def pause(self) -> None:
        """Let the server stand still: connections stay open and nobody answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _reap(self) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            if self._reader is not None:
                self._reader.join(STOP_SECONDS)
            assert self.process.stdout is not None
            self.process.stdout.close()
        self.process = None

    def replica(self) -> RedisServer:
        """A started replica that has all of this server's data."""
        follower = RedisServer(self._durable, [*self._settings, f"replicaof 127.0.0.1 {self.port}"]).start()
        until(lambda: "master_link_status:up" in follower.command("INFO", "replication"))
        return follower

    def promote(self) -> None:
        """Make this replica a master; it accepts writes on return."""
        self.command("REPLICAOF", "NO", "ONE")
        until(lambda: "role:master" in self.command("INFO", "replication"))

    def demote(self, master: RedisServer) -> None:
        """Make this server a replica of another one, as an operator does who does not cut its clients."""
        self.command("REPLICAOF", "127.0.0.1", str(master.port))

    def sentinel(self, down_after: float = 1.0) -> RedisSentinel:
        """A started Sentinel that decides alone; `down_after` seconds of silence make it fail over."""
        watcher = RedisSentinel(self, down_after)
        watcher.start()
        return watcher

    def remove(self) -> None:
        """Stop the server and delete its files."""
        if self.alive:
            self.resume()
        self.kill9()
        shutil.rmtree(self.directory, ignore_errors=True)


class RedisSentinel(RedisServer):
    """A Sentinel that watches a master under the name `MASTER`."""

    ready: ClassVar[str] = r"\+monitor master"
    mode: ClassVar[tuple[str, ...]] = ("--sentinel",)

    def __init__(
        self, master: RedisServer, down_after: float, settings: Sequence[str] = (), master_port: int = 0
    ) -> None:
        milliseconds = int(down_after * 1000)
        super().__init__(
            settings=[
                *settings,
                f"sentinel monitor {MASTER} 127.0.0.1 {master_port or master.port} 1",
                f"sentinel down-after-milliseconds {MASTER} {milliseconds}",
                f"sentinel failover-timeout {MASTER} {10 * milliseconds}",
            ]
        )

    @staticmethod
    def _binary() -> str:
        return "redis-sentinel"

    def _lines(self, port: int) -> list[str]:
        return [f"port {port}", "bind 127.0.0.1", "protected-mode no", f"dir {self.directory}"]

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.port}/{MASTER}/0"

    def knows_replicas(self, number: int) -> None:
        """Wait until it has found so many replicas to choose from."""
        until(lambda: self.command("SENTINEL", "REPLICAS", MASTER).count("runid") >= number)

    def master_port(self) -> int:
        """Where it thinks the master is."""
        return int(self.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER).split()[1])


@contextlib.contextmanager
def redis(durable: bool = False, settings: Sequence[str] = ()) -> Iterator[RedisServer]:
    """A running server that is gone afterwards, whatever happened."""
    server = RedisServer(durable, settings)
    try:
        yield server.start()
    finally:
        server.remove()


def until(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Ask again and again until it is so; AssertionError after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for this machine that signs itself, and its key."""
    found, key = directory / "server.crt", directory / "server.key"
    words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {found}"
    subprocess.run(
        [require("openssl"), *words.split(), "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )
    return found, key


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@functools.cache
def shared() -> RedisServer:
    """The server that the tests share, started by the first that needs it and removed at the end of the run."""
    server = RedisServer()
    atexit.register(server.remove)
    return server.start()


def fresh_prefix() -> str:
    """A key prefix that no other test uses."""
    return f"test-{uuid.uuid4().hex}"
