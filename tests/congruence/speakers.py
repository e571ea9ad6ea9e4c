"""One conversation with four KATOs: embedded in memory and in a directory, over HTTP waiting and awaited."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import kato
from kato import bootstrap, settings
from kato.api.app import create_app
from kato.api.errors import answer as envelope
from kato.api.server import Server, configured
from kato.errors import KatoError
from kato.verbs.asynchronous import AsyncSession

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


class _Announced(Server):
    ready: Future[int]

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.ready.set_result(self.port)


@contextmanager
def served() -> Iterator[str]:
    """The address of a KATO server of its own, on a free port."""
    ready: Future[int] = Future()
    running: list[_Announced] = []

    async def serve() -> None:
        chosen = settings.load(kato_data=":memory:", host="127.0.0.1", port=0)
        async with bootstrap.running(chosen) as service:
            server = configured(create_app(chosen, service))
            server.__class__ = _Announced
            assert isinstance(server, _Announced)
            server.ready = ready
            running.append(server)
            await server.serve()

    def live() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    thread = threading.Thread(target=live, name="kato-server")
    thread.start()
    try:
        yield f"http://127.0.0.1:{ready.result()}"
    finally:
        for server in running:
            server.should_exit = True
        thread.join()


@contextmanager
def speakers(directory: Path) -> Iterator[dict[str, Any]]:
    """Four KATOs that have never heard of each other, by name."""
    with ExitStack() as stack:
        client = stack.enter_context(kato.Client(stack.enter_context(served())))
        address = stack.enter_context(served())
        runner = stack.enter_context(asyncio.Runner())
        awaited = Awaited(runner, kato.AsyncClient(address))
        stack.callback(awaited.close)
        yield {
            "memory": stack.enter_context(kato.open(":memory:")),
            "file": stack.enter_context(kato.open(directory / "data")),
            "client": client,
            "async client": awaited,
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
