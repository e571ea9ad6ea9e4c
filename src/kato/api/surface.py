"""The one ASGI layer around all endpoints: trace ids, errors, counters, CORS, the way to the right route."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec
from starlette.exceptions import HTTPException

from kato.api import errors
from kato.api.instance import Instance
from kato.api.routing import JSON, Call, ClientGone, Headers, Message, Raw, Receive, Route, Routes
from kato.errors import KatoError, NotFound, RequestTimeout, ServiceUnavailable
from kato.ops.logging import TRACE, logger

Scope: TypeAlias = dict[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
HeaderList: TypeAlias = list[tuple[bytes, bytes]]
Asgi: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logger("kato.api")
DEBUG = logging.getLogger("kato.api")
encode = msgspec.json.Encoder().encode

_TRACE_ID = re.compile(rb"[A-Za-z0-9_-]{1,128}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
_SESSION_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_NO_TRACE = b"0" * 32
_EXPOSED = b"X-Trace-ID, X-Request-ID, X-Session-ID, Retry-After"
_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-max-age", b"3600"),
]


def trace_id(headers: Headers) -> str:
    """The caller's trace id (X-Trace-ID, else the W3C traceparent's), or a new one."""
    given = headers.get(b"x-trace-id")
    if given is not None and _TRACE_ID.fullmatch(given):
        return given.decode()
    parent = headers.get(b"traceparent")
    if parent is not None:
        match = _TRACEPARENT.fullmatch(parent)
        if match and match[1] != _NO_TRACE:
            return match[1].decode()
    return "kato-" + os.urandom(16).hex()


class Surface:
    """Answers every HTTP request: by a declared route, else by `fallback` (the framework's own pages)."""

    def __init__(self, instance: Instance, routes: Routes, fallback: Asgi) -> None:
        self._instance = instance
        self._routes = routes
        self._fallback = fallback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers: Headers = dict(scope["headers"])
        trace = trace_id(headers)
        TRACE.set(trace)
        extra = [(b"x-trace-id", trace.encode()), (b"x-request-id", os.urandom(16).hex().encode())]
        if b"origin" in headers:
            extra += [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED)]
        found = self._routes.find(scope.get("raw_path") or scope["path"].encode())
        if found is None:
            await self._elsewhere(scope, receive, send, extra)
            return
        methods, parameters = found
        route = methods.get(scope["method"])
        if route is None:
            await self._other_method(methods, scope, receive, send, extra)
            return
        await self._serve(route, parameters, scope, headers, receive, send, extra)

    async def _serve(
        self,
        route: Route,
        parameters: list[str],
        scope: Scope,
        headers: Headers,
        receive: Receive,
        send: Send,
        extra: HeaderList,
    ) -> None:
        kato = self._instance.kato
        if kato is None:
            await self._refuse(
                ServiceUnavailable("KATO is starting or stopping", retry_after=1), scope, send, extra
            )
            return
        kato.counters.requests += 1
        call = Call(self._instance, kato, headers, parameters)
        try:
            answer = await route.answer(call, scope["query_string"], receive)
            raw = answer if type(answer) is Raw else None
            body = encode(answer) if raw is None else raw.body
        except ClientGone:
            return
        except asyncio.CancelledError:
            if not self._instance.draining:
                raise
            # The server cancels what is still running when its time is up.
            error = RequestTimeout("KATO had to stop before the request was done", retry_after=1)
            await self._refuse(error, scope, send, extra)
            return
        except Exception as error:  # noqa: BLE001 - whatever happens, the client gets the envelope
            _name_session(call, extra)
            await self._refuse(_expected(error, scope), scope, send, extra)
            return
        _name_session(call, extra)
        if raw is None:
            await self._send(send, 200, body, extra)
        else:
            if raw.status >= 400:
                kato.counters.error("SERVICE_UNAVAILABLE")
            await self._send(send, raw.status, body, extra, raw.content_type)
        if DEBUG.isEnabledFor(logging.DEBUG):
            log.debug(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=200 if raw is None else raw.status,
            )

    async def _refuse(self, error: KatoError, scope: Scope, send: Send, extra: HeaderList) -> None:
        kato = self._instance.kato
        if kato is not None:
            kato.counters.error(error.code)
        if DEBUG.isEnabledFor(logging.DEBUG):
            log.debug(
                "refused", method=scope["method"], path=scope["path"], status=error.status, code=error.code
            )
        if error.retry_after is not None:
            extra.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
        body = encode(errors.answer(error, TRACE.get(), scope["path"]))
        await self._send(send, error.status, b"" if scope["method"] == "HEAD" else body, extra)

    async def _other_method(
        self, methods: dict[str, Route], scope: Scope, receive: Receive, send: Send, extra: HeaderList
    ) -> None:
        """HEAD is GET without its body; OPTIONS says what is allowed; the rest is refused."""
        method, allowed = scope["method"], {*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])}
        extra_allow = (b"allow", ", ".join(sorted(allowed)).encode())
        if method == "HEAD" and "GET" in methods:

            async def headless(message: Message) -> None:
                await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

            await self({**scope, "method": "GET"}, receive, headless)
        elif method == "OPTIONS":
            await self._send(send, 200, b"", [*extra, extra_allow, *_PREFLIGHT])
        else:
            error = errors.MethodNotAllowed(
                f"{method} is not allowed here, only {', '.join(sorted(methods))}", allowed=sorted(methods)
            )
            await self._refuse(error, scope, send, [*extra, extra_allow])

    async def _elsewhere(self, scope: Scope, receive: Receive, send: Send, extra: HeaderList) -> None:
        """A path that no route declares: the documentation pages, or nothing."""
        started = False

        async def traced(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *extra, *self._parting()]
            await send(message)

        try:
            await self._fallback(scope, receive, traced)
        except Exception as error:
            if started:
                raise
            await self._refuse(_expected(error, scope), scope, send, extra)

    async def _send(
        self, send: Send, status: int, body: bytes, extra: HeaderList, content_type: bytes = JSON
    ) -> None:
        start = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *extra]
        await send({"type": "http.response.start", "status": status, "headers": start + self._parting()})
        await send({"type": "http.response.body", "body": body})

    def _parting(self) -> HeaderList:
        """Tells clients of a process that is about to stop to send their next request over another connection."""
        return [(b"connection", b"close")] if self._instance.draining else []


def _name_session(call: Call, extra: HeaderList) -> None:
    if call.session_id and _SESSION_ID.fullmatch(call.session_id):
        extra.append((b"x-session-id", call.session_id.encode()))


def _expected(error: Exception, scope: Scope) -> KatoError:
    """The error to show; what nobody foresaw is logged and shown as nothing but an internal error."""
    if isinstance(error, KatoError):
        if error.status >= 500:
            log.warning("request failed", code=error.code, reason=error.message, path=scope["path"])
        return error
    if isinstance(error, HTTPException):
        if error.status_code == 405:
            return errors.MethodNotAllowed(f"{scope['method']} is not allowed here")
        return NotFound(f"There is nothing at {scope['path']}")
    log.error("unexpected error", method=scope["method"], path=scope["path"], exc_info=error)
    return errors.InternalError("internal error")
