"""The client for programs on an event loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from kato.client import http
from kato.errors import ServiceUnavailable
from kato.verbs import calls
from kato.verbs.asynchronous import AsyncVerbs
from kato.verbs.calls import JSON, Call


class AsyncClient(AsyncVerbs):
    """A KATO service at `base_url`: `Client`, awaited. To be used on one event loop.

    async with kato.AsyncClient("http://127.0.0.1:8000") as memory:
        session = await memory.session("a-node")
        await session.observe(["hello"])
    """

    def __init__(
        self,
        base_url: str = http.SERVER,
        timeout: float | None = http.TIMEOUT,
        *,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self.base_url, timeout=timeout, headers=headers, transport=transport
        )

    def __repr__(self) -> str:
        return f"AsyncClient({self.base_url!r})"

    async def carry(self, call: Call[Any]) -> bytes:
        """Send the call's request."""
        if self._http.is_closed:
            raise ServiceUnavailable("This client is closed")
        request = http.request(call)
        try:
            response = await self._http.request(
                request.method,
                request.url,
                params=request.params,
                headers=request.headers,
                content=request.content,
            )
        except httpx.HTTPError as failure:
            raise http.unreachable(failure, self.base_url) from failure
        return http.body(call, response)

    async def health(self) -> JSON:
        """How the service is doing: `status` is "healthy" or "unhealthy", with the checks behind it."""
        return await self._ask(calls.health())

    async def status(self) -> JSON:
        """What the service is and how long it has been up."""
        return await self._ask(calls.status())

    async def close(self) -> None:
        """Close the connections; sessions stay."""
        await self._http.aclose()
