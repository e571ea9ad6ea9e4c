"""Several worker processes on the shared PostgreSQL and Redis."""

from __future__ import annotations

import http.client
import json
import os
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.support import postgres, redis

SECONDS = 60.0


def variables(workers: int = 2) -> dict[str, str]:
    """The environment of a KATO of its own with so many workers."""
    return {
        "KATO_STORE": "postgres",
        "DATABASE_URL": postgres.shared().url,
        "KATO_DATABASE_POOL_SIZE": "5",
        "REDIS_URL": redis.shared().url,
        "KATO_VECTORS": "off",
        "PROCESSOR_ID": uuid.uuid4().hex,
        "WORKERS": str(workers),
    }


def broken(directory: Path, statement: str) -> Path:
    """A driver on which workers stumble when `directory` is in their PYTHONPATH; they start again once it is gone."""
    module = directory / "asyncpg.py"
    module.write_text(statement)
    return module


def children(pid: int) -> set[int]:
    """The processes that a process has started and that still run."""
    return {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def runs(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ask(address: str, path: str) -> Any:
    """The body of an answer over a connection of its own."""
    with closing(http.client.HTTPConnection(address, timeout=SECONDS)) as connection:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())


def answering(address: str, connections: int = 40) -> set[int]:
    """The processes that answer."""
    return {ask(address, "/status")["pid"] for _ in range(connections)}


def until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Ask now and then until it is so; AssertionError after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
