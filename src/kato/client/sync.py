"""The client for programs that wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from kato.client import http
from kato.errors import ServiceUnavailable
from kato.verbs import calls
from kato.verbs.calls import JSON, Call
from kato.verbs.sync import Verbs


class Client(Verbs):
    """A KATO service at `base_url`, with the verbs and answers of `kato.open`.

    Connections are kept open and shared by all threads. `timeout` is in seconds and counts for each call;
    `headers` are sent with every request; `transport` replaces the network (httpx's transports). What the
    network does to a call is raised as `ServiceUnavailable` or `RequestTimeout`; nothing is repeated unasked.

        with kato.Client("http://127.0.0.1:8000") as memory:
            session = memory.session("a-node")
            session.observe(["hello"])
    """

    def __init__(
        self,
        base_url: str = http.SERVER,
        timeout: float | None = http.TIMEOUT,
        *,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.base_url, timeout=timeout, headers=headers, transport=transport
        )

    def __repr__(self) -> str:
        return f"Client({self.base_url!r})"

    def carry(self, call: Call[Any]) -> bytes:
        """Send the call's request."""
        if self._http.is_closed:
            raise ServiceUnavailable("This client is closed")
        request = http.request(call)
        try:
            response = self._http.request(
                request.method,
                request.url,
                params=request.params,
                headers=request.headers,
                content=request.content,
            )
        except httpx.HTTPError as failure:
            raise http.unreachable(failure, self.base_url) from failure
        return http.body(call, response)

    def health(self) -> JSON:
        """How the service is doing: `status` is "healthy" or "unhealthy", with the checks behind it."""
        return self._ask(calls.health())

    def status(self) -> JSON:
        """What the service is and how long it has been up."""
        return self._ask(calls.status())

    def close(self) -> None:
        """Close the connections; sessions stay."""
        self._http.close()
