"""One conversation with six KATOs: embedded in memory and in a directory, over HTTP waiting and awaited, and over
HTTP with all data on servers: PostgreSQL or MongoDB's protocol, Redis, and the stand-in for Qdrant.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kato
from kato.api.errors import answer as envelope
from kato.errors import KatoError
from kato.verbs.asynchronous import AsyncSession
from tests.support import mongo, postgres
from tests.support.qdrant_server import qdrant_server
from tests.support.redis import redis
from tests.support.served import served

VOLATILE = {"created_at", "last_accessed", "expires_at", "time_ms", "timestamp", "trace_id"}
MADE_IDS = re.compile(r"session-[0-9a-f]{32}-[0-9a-f]{16}|(?:seq-)?obs-[0-9a-f]{32}(?:-\d+)?")


class Awaited:
    """An `AsyncClient` or one of its sessions for tests that wait."""

    def __init__(self, runner: asyncio.Runner, target: Any) -> None:
        self._runner = runner
        self._target = target

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            answer = self._runner.run(found(*arguments, **named))
            return Awaited(self._runner, answer) if isinstance(answer, AsyncSession) else answer

        return call


class Production:
    """What a KATO keeps on servers; each has its own, because the same nodes are spoken of to all."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def postgres(self) -> dict[str, Any]:
        database = f"congruence_{uuid.uuid4().hex}"
        server = postgres.shared()
        server.sql(f"CREATE DATABASE {database}")
        url = urlsplit(server.url)._replace(path=f"/{database}").geturl()
        return {"kato_store": "postgres", "database_url": url, "kato_database_pool_size": 4, **self._others()}

    def mongo(self) -> dict[str, Any]:
        url = urlsplit(mongo.shared().url)._replace(path=f"/{mongo.fresh_database()}").geturl()
        return {"kato_store": "mongo", "mongo_base_url": url, "mongo_min_pool_size": 1, **self._others()}

    def _others(self) -> dict[str, Any]:
        vectors = self._stack.enter_context(qdrant_server())
        sessions = self._stack.enter_context(redis())
        return {
            "redis_url": sessions.url,
            "qdrant_host": "127.0.0.1",
            "qdrant_port": vectors.port,
            "qdrant_prefer_grpc": False,
        }


@contextmanager
def speakers(directory: Path) -> Iterator[dict[str, Any]]:
    """Six KATOs that have never heard of each other, by name."""
    with ExitStack() as stack:

        def client(**settings: Any) -> kato.Client:
            return stack.enter_context(kato.Client(stack.enter_context(served(**settings))))

        production = Production(stack)
        address = stack.enter_context(served())
        runner = stack.enter_context(asyncio.Runner())
        awaited = Awaited(runner, kato.AsyncClient(address))
        stack.callback(awaited.close)
        yield {
            "memory": stack.enter_context(kato.open(":memory:")),
            "file": stack.enter_context(kato.open(directory / "data")),
            "client": client(),
            "async client": awaited,
            "client of PostgreSQL": client(**production.postgres()),
            "client of MongoDB": client(**production.mongo()),
        }


def normal(value: Any) -> Any:
    """An answer without what must differ: made ids and times."""
    if isinstance(value, dict):
        return {k: "-" if k in VOLATILE else normal(v) for k, v in value.items()}
    if isinstance(value, list):
        return [normal(item) for item in value]
    if isinstance(value, bytes):
        return MADE_IDS.sub("-", value.decode()).encode()
    return MADE_IDS.sub("-", value) if isinstance(value, str) else value


def told(call: Callable[[], Any]) -> Any:
    """What a call answers, or which error it raises with every part of it."""
    try:
        return normal(call())
    except KatoError as error:
        # Values of a client are cut short in an envelope, so all are compared as an envelope shows them.
        shown = envelope(error, "", "").error
        parts = (type(error).__name__, error.code, error.status, error.retry_helps, error.retry_after)
        return (*parts, normal(shown.message), normal(shown.details))


def agree(answers: dict[str, Any]) -> Any:
    """The one answer that all of them gave."""
    first, *others = answers
    for other in others:
        assert answers[other] == answers[first], f"{other} differs from {first}"
    return answers[first]
