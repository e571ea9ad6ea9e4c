"""Real PostgreSQL servers: each in a directory of its own on a free port, ended by process id.

Needs the server's programs (Debian: `apt-get install postgresql`). Root may not run them, so under root they
run as the user `postgres`. Commits reach the disk: nothing is relaxed for speed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.processes import family, kill_family
from tests.support.redis import until

START_SECONDS = 30.0
STOP_SECONDS = 30.0
USER = "kato"
GUARDED_USER = "guarded"
"""A role that must give a password; `USER` need not."""
GUARDED_PASSWORD = "pässword of:the@guarded/role"
_PORT_TAKEN = "could not bind"


class StartFailed(AssertionError):
    """The server ended, or was not ready in time."""


def programs() -> Path | None:
    """The directory of the newest installed server's programs."""
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda each: int(each.parts[-3])
    )
    found = str(versions[-1]) if versions else shutil.which("postgres")
    return Path(found).parent if found else None


def require() -> Path:
    """The programs' directory; without them the test is skipped loudly, in CI it fails."""
    found = programs()
    if found is None:
        reason = "no PostgreSQL server is installed (Debian: apt-get install postgresql)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class PostgresServer:
    """A server that can be started, stopped, killed, started again, followed by a replica and promoted.

    `url` stays the same as long as the server lives, also over restarts.
    """

    def __init__(self, directory: Path | None = None, settings: Sequence[str] = ()) -> None:
        self._programs = require()
        self.directory = directory or Path(tempfile.mkdtemp(prefix="kato-postgres-"))
        self._owner = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        if self._owner is not None:
            os.chown(self.directory, self._owner.pw_uid, self._owner.pw_gid)
        self._settings = list(settings)
        self.data = self.directory / "data"
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        self.output = ""
        self._ready = threading.Event()
        self._reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where the server listens, for its superuser, who needs no password."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> PostgresServer:
        """Create the cluster unless there is one, and run the server until it accepts connections."""
        if not self.data.exists():
            self._initialize()
        for _ in range(5):
            # Someone may take the port between our look and the server's; once used, it is kept.
            port = self.port or _free_port()
            if self._run(port):
                self.port = port
                return self
            if _PORT_TAKEN not in self.output:
                break
        raise StartFailed(self.output)

    def _initialize(self) -> None:
        self._call(
            "initdb", "-D", str(self.data), "-U", USER, "-E", "UTF8", "--locale=C", "-A", "trust", "-N"
        )
        access = f"host all {GUARDED_USER} 127.0.0.1/32 scram-sha-256\n"
        rules = self.data / "pg_hba.conf"
        rules.write_text(access + rules.read_text())

    def _run(self, port: int) -> bool:
        settings = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            "fsync=on",
            "full_page_writes=on",
            "log_min_messages=log",
            *self._settings,
        ]
        self.output = ""
        self._ready.clear()
        self.process = subprocess.Popen(
            [str(self._programs / "postgres"), "-D", str(self.data), "-p", str(port)]
            + [part for setting in settings for part in ("-c", setting)],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            user=self._owner.pw_uid if self._owner else None,
            group=self._owner.pw_gid if self._owner else None,
            extra_groups=[] if self._owner else None,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        ready = self._ready.wait(START_SECONDS) and self.alive
        if not ready:
            self.kill9()
        return ready

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.output += line
            if re.search(r"database system is ready to accept (read-only )?connections", line):
                self._ready.set()
        self._ready.set()

    def _call(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            user=self._owner.pw_uid if self._owner else None,
            group=self._owner.pw_gid if self._owner else None,
            extra_groups=[] if self._owner else None,
            timeout=START_SECONDS,
        )
        if done.returncode:
            raise StartFailed(f"{program}: {done.stdout}{done.stderr}")
        return done.stdout

    def url_of(self, database: str) -> str:
        """Where a database of the server is, for its superuser."""
        return self.url.removesuffix("postgres") + database

    def sql(self, statement: str, database: str = "postgres") -> str:
        """The unadorned output of a statement that the superuser runs."""
        url = self.url_of(database)
        return self._call(
            "psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statement
        ).strip()

    def stop(self) -> None:
        """End the server as an operator does who will not wait for its clients."""
        if self.alive:
            assert self.process is not None
            self.process.send_signal(signal.SIGINT)
        self._reap()

    def kill9(self) -> None:
        """End every process of the server at once, as a power cut does."""
        if self.alive:
            assert self.process is not None
            kill_family(self.process.pid)
        self._reap()

    def pause(self) -> None:
        """Let every process of the server stand still: connections stay open and nobody answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self.process is not None
        for each in family(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)

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
            assert self.process.stderr is not None
            self.process.stderr.close()
        self.process = None

    def replica(self, synchronous: bool = True, port: int = 0) -> PostgresServer:
        """A started standby that streams from this server, on a given port if need be.

        With `synchronous` this server acknowledges from now on only what the standby has on its disk.
        """
        standby = PostgresServer(settings=self._settings)
        standby.port = port
        source = f"host=127.0.0.1 port={self.port} user={USER} application_name=standby"
        standby._call(
            "pg_basebackup", "-d", source, "-D", str(standby.data), "-R", "-X", "stream", "-c", "fast", "-N"
        )
        standby.data.chmod(0o700)
        standby.start()
        if synchronous:
            # Set after the copy was taken, so that the promoted standby waits for nobody.
            self.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
            self.sql("SELECT pg_reload_conf()")
            until(lambda: self.sql("SHOW synchronous_standby_names") == "standby" and self._synchronous())
            # Commits wait once the checkpointer has heard of it, and it hears before it obeys.
            self.sql("CHECKPOINT")
        return standby

    def _synchronous(self) -> bool:
        """Whether the standby has caught up and is waited for."""
        state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'"
        return self.sql(state) == "1"

    def promote(self) -> None:
        """Make this standby a primary; it accepts writes on return."""
        self._call("pg_ctl", "promote", "-D", str(self.data), "-w")

    def remove(self) -> None:
        """Stop the server and delete its files."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def postgres(settings: Sequence[str] = ()) -> Iterator[PostgresServer]:
    """A running server that is gone afterwards, whatever happened."""
    server = PostgresServer(settings=settings)
    try:
        yield server.start()
    finally:
        server.remove()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@functools.cache
def shared() -> PostgresServer:
    """The server that the tests share, started by the first that needs it, removed at the end of the run."""
    server = PostgresServer()
    atexit.register(server.remove)
    return server.start()


@contextlib.contextmanager
def database() -> Iterator[str]:
    """The URL of an empty database of the shared server, gone afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    shared().sql(f"CREATE DATABASE {name}")
    try:
        yield shared().url_of(name)
    finally:
        shared().sql(f"DROP DATABASE {name} WITH (FORCE)")


def fresh_schema() -> str:
    """A schema name that no other test uses."""
    return f"test {uuid.uuid4().hex}"
