"""Servers that speak MongoDB's protocol: mongo-java-server from Maven Central, or a real replica set.

mongo-java-server needs a JDK and Maven (Debian: `apt-get install maven openjdk-17-jdk-headless`). It says
that it is a MongoDB 4.4, has no sessions and keeps everything in memory. `KATO_TEST_MONGO_URI` names a real
replica set.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import re
import select
import shutil
import subprocess
import uuid
from pathlib import Path

import pymongo
import pytest

START_SECONDS = 60.0
STOP_SECONDS = 30.0
REAL = "KATO_TEST_MONGO_URI"
_HERE = Path(__file__).parent / "mongo"
_CACHE = Path(__file__).parents[2] / "build" / "mongo"


class StartFailed(AssertionError):
    """The server ended, or was not ready in time."""


def _require() -> str:
    """The class path of the server; without Java and Maven the test is skipped loudly, in CI it fails."""
    if not (shutil.which("java") and shutil.which("mvn")):
        reason = "mongo-java-server needs a JDK and Maven (Debian: maven openjdk-17-jdk-headless)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return _class_path()


def _class_path() -> str:
    """What Maven resolves `pom.xml` to; asked once, because it takes seconds."""
    pom = _HERE / "pom.xml"
    remembered = _CACHE / f"classpath-{hashlib.sha256(pom.read_bytes()).hexdigest()[:16]}"
    if remembered.exists() and all(Path(each).exists() for each in remembered.read_text().split(os.pathsep)):
        return remembered.read_text()
    _CACHE.mkdir(parents=True, exist_ok=True)
    fresh = remembered.with_name(f"{remembered.name}.{os.getpid()}")
    command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:build-classpath", f"-Dmdep.outputFile={fresh}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise StartFailed(done.stdout + done.stderr)
    fresh.rename(remembered)
    return remembered.read_text()


class MongoServer:
    """mongo-java-server on a free port. Its data live as long as the process."""

    def __init__(self) -> None:
        self._class_path = _require()
        self.port = 0
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where the server listens; it cannot repeat writes by itself."""
        return f"mongodb://127.0.0.1:{self.port}/?retryWrites=false&directConnection=true"

    def start(self) -> MongoServer:
        """Run the server until it accepts connections; a started-again one has its old port and no data."""
        # The process ends when its standard input does, so none outlives the tests.
        self.process = subprocess.Popen(
            ["java", "-Xmx2g", "-cp", self._class_path, str(_HERE / "Launcher.java"), str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], START_SECONDS)
        said = self.process.stdout.readline() if ready else "it was not ready in time"
        found = re.match(r"port (\d+)$", said)
        if found is None:
            said += self.kill9()
            raise StartFailed(said)
        self.port = int(found[1])
        return self

    def stop(self) -> str:
        """Let the server end by itself; returns what it has said."""
        assert self.process is not None
        try:
            said, _ = self.process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise
        return said

    def kill9(self) -> str:
        """End the server at once; returns what it has said."""
        assert self.process is not None
        self.process.kill()
        said, _ = self.process.communicate()
        return said


@functools.cache
def shared() -> MongoServer:
    """The server that the tests share, started by the first that needs it and ended at the end of the run."""
    server = MongoServer().start()
    atexit.register(server.stop)
    return server


def real_url() -> str:
    """The replica set named by the environment; without one the test is skipped loudly."""
    url = os.environ.get(REAL)
    if not url:
        pytest.skip(f"{REAL} names no replica set: this was not proved on a real MongoDB")
    return url


def fresh_database(url: str | None = None) -> str:
    """A database name that no other test uses; with a `url`, it is dropped at the end of the run."""
    database = f"kato_test_{uuid.uuid4().hex}"
    if url is not None:
        atexit.register(_drop, url, database)
    return database


def _drop(url: str, database: str) -> None:
    with pymongo.MongoClient[dict[str, object]](url) as client:
        client.drop_database(database)
