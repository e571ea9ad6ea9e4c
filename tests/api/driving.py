"""The HTTP surface under test: the real application on the real service, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from kato import bootstrap
from kato.api.app import Application, create_app
from kato.api.server import Server, configured
from kato.service import Kato
from kato.settings import load


class Client(httpx.AsyncClient):
    """An HTTP client with the application it talks to."""

    app: Application

    @property
    def kato(self) -> Kato:
        """The service behind it."""
        found = self.app.instance.kato
        assert found is not None
        return found

    async def session(self, node_id: str = "node", **more: Any) -> str:
        """A new v3 session; returns its path."""
        answer = await self.post("/sessions", json={"node_id": node_id, **more})
        assert answer.status_code == 200, answer.text
        return f"/sessions/{answer.json()['session_id']}"

    async def observe(self, session: str, *symbols: str, **more: Any) -> dict[str, Any]:
        """Show a session one event."""
        answer = await self.post(f"{session}/observe", json={"strings": symbols, **more})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def teach(self, session: str, *events: str) -> str:
        """Learn a sequence of one-symbol events; returns the pattern's name."""
        for event in events:
            await self.observe(session, event)
        answer = await self.post(f"{session}/learn")
        assert answer.status_code == 200, answer.text
        name: str = answer.json()["pattern_name"]
        return name


@asynccontextmanager
async def client(clock: Callable[[], float] | None = None, **settings: Any) -> AsyncIterator[Client]:
    """A client of a fresh KATO in memory."""
    wanted = load(**{"kato_data": ":memory:", **settings})
    if clock is None:
        app = create_app(wanted)
        async with app.router.lifespan_context(app), _connected(app) as connected:
            yield connected
        return
    async with bootstrap.running(wanted, clock) as kato, _connected(create_app(wanted, kato)) as connected:
        yield connected


@asynccontextmanager
async def _connected(app: Application) -> AsyncIterator[Client]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with Client(transport=transport, base_url="http://kato") as connected:
        connected.app = app
        yield connected


@asynccontextmanager
async def serving(app: Application | None = None, **settings: Any) -> AsyncIterator[tuple[Server, str]]:
    """A real server on a free port; yields it with its address, `127.0.0.1:port`."""
    wanted = load(**{"kato_data": ":memory:", "port": 0, "graceful_shutdown_timeout": 2, **settings})
    server = configured(app or create_app(wanted))
    running = asyncio.create_task(server.serve())
    while not server.started:
        assert not running.done(), running.result()
        await asyncio.sleep(0.001)
    try:
        yield server, f"127.0.0.1:{server.port}"
    finally:
        server.should_exit = True
        await running


def refused(answer: httpx.Response, status: int, code: str, field: str | None = None) -> dict[str, Any]:
    """Check that an answer is the one error envelope; returns its `error`."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error", "status", "detail"}
    error: dict[str, Any] = body["error"]
    assert {"code", "message", "details", "trace_id", "timestamp", "path"} <= set(error)
    assert (error["code"], body["status"]) == (code, status)
    assert error["trace_id"] == answer.headers["x-trace-id"]
    assert error["path"] == answer.request.url.path
    if code not in ("CONFIGURATION_INVALID", "VECTOR_DIMENSION_ERROR"):
        assert body["detail"] == error["message"]
    if field is not None:
        assert [e["field"] for e in error["details"]["validation_errors"]] == [field]
    return error
