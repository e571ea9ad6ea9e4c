"""The HTTP application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from kato import bootstrap
from kato.api import event_socket, monitoring, openapi, statistics, v1, v2, v3, websocket
from kato.api.instance import Instance, release
from kato.api.routing import Receive, Route, Routes
from kato.api.sockets import Paths
from kato.api.surface import Scope, Send, Surface
from kato.service import Kato
from kato.settings import Settings


class Application(FastAPI):
    """FastAPI with our own way to the endpoints.

    Requests go straight to the declared routes; FastAPI keeps the life cycle, the documentation pages and
    whatever routes someone adds to it in the usual way.
    """

    def __init__(self, instance: Instance, **options: Any) -> None:
        super().__init__(**options)
        self.instance = instance
        self.routes_declared = Routes(declared(instance.settings))
        self._http = Surface(instance, self.routes_declared, self.router)
        self._sockets = Paths(instance, websocket.converse, event_socket.converse)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        """Serve one request, one socket, or the life cycle."""
        kind = scope["type"]
        if kind == "http":
            scope["app"] = self
            await self._http(scope, receive, send)
        elif kind == "websocket":
            await self._sockets(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The complete OpenAPI document, written from the declared routes."""
        if self.openapi_schema is None:
            self.openapi_schema = openapi.document(self.routes_declared.declared, self.title, self.version)
        return self.openapi_schema


def declared(settings: Settings) -> list[Route]:
    """All endpoints under these settings: without ENABLE_V2_FEATURES only those of v1."""
    v2_too = settings.enable_v2_features
    found = [*v1.routes(), *monitoring.routes(v2=v2_too), *statistics.routes(v2=v2_too)]
    if settings.enable_v2_features:
        found += [*v2.routes(), *v3.routes()]
    return found


def create_app(settings: Settings, kato: Kato | None = None) -> Application:
    """The application; if it has no running `kato` by its start-up, it builds one and closes it at the end."""
    instance = Instance(settings, kato)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            running = instance.kato
            if running is None:
                running = instance.kato = await stack.enter_async_context(bootstrap.running(settings))
            sampling = asyncio.create_task(
                running.series.sample(lambda: statistics.figures(running), running.clock)
            )
            try:
                yield
            finally:
                await instance.drain()
                sampling.cancel()
                await asyncio.gather(sampling, return_exceptions=True)
                instance.kato = None

    docs = settings.docs_enabled
    return Application(
        instance,
        title="KATO",
        version=release(),
        description=monitoring.DESCRIPTION,
        lifespan=lifespan,
        openapi_url="/openapi.json" if docs else None,
        docs_url="/docs" if docs else None,
        redoc_url="/redoc" if docs else None,
    )
