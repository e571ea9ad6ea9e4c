"""What both kinds of WebSocket have in common: the handshake, its refusals, sending, closing."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import msgspec

from kato.api import errors
from kato.api.instance import Closable, Instance
from kato.api.routing import JSON, Headers, Receive
from kato.api.surface import Scope, Send, trace_id
from kato.errors import KatoError, NotFound, ServiceUnavailable
from kato.ops.logging import TRACE, logger
from kato.service import Kato

log = logger("kato.api.sockets")
encode = msgspec.json.Encoder().encode

GOING_AWAY = 1001
POLICY_VIOLATION = 1008
TOO_BIG = 1009
INTERNAL_ERROR = 1011


class Gone(Exception):
    """The other side has closed the socket."""


class Socket:
    """One WebSocket: text out, text in, with the envelope of the handshake's trace id."""

    def __init__(self, instance: Instance, kato: Kato, scope: Scope, receive: Receive, send: Send) -> None:
        self.instance = instance
        self.kato = kato
        self.headers: Headers = dict(scope["headers"])
        self.path: str = scope["path"]
        self.query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        self.trace_id = TRACE.get()
        self._refusable = "websocket.http.response" in scope.get("extensions", {})
        self._receive = receive
        self._send = send
        self._open = False
        self._answering = asyncio.Lock()

    async def accept(self) -> None:
        """Complete the handshake."""
        self._open = True
        await self._out({"type": "websocket.accept", "headers": [(b"x-trace-id", self.trace_id.encode())]})

    async def refuse(self, error: KatoError) -> None:
        """End the handshake with an HTTP error (where the server cannot, with nothing but a refusal)."""
        self.kato.counters.error(error.code)
        if not self._refusable:
            await self._out({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": error.code})
            return
        await refuse(self._send, error, self.trace_id, self.path)

    async def receive(self) -> str | bytes:
        """The next message; raises `Gone` when there will be none."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._open = False
            raise Gone
        text: str | None = message.get("text")
        return message.get("bytes", b"") if text is None else text

    async def send(self, value: Any) -> None:
        """Send a Struct as JSON text."""
        await self.send_text(encode(value).decode())

    async def send_text(self, text: str) -> None:
        """Send text as it is; raises `Gone` after the end."""
        if not self._open:
            raise Gone
        await self._out({"type": "websocket.send", "text": text})

    async def close(self, code: int, reason: str = "") -> None:
        """End it; closing what is closed does nothing."""
        if self._open:
            self._open = False
            with contextlib.suppress(Gone):
                await self._out({"type": "websocket.close", "code": code, "reason": reason})

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Held while a command is answered, so that `dismiss` lets it finish; raises `Gone` after that."""
        async with self._answering:
            if not self._open:
                raise Gone
            yield

    async def dismiss(self, seconds: float) -> None:
        """Say goodbye as soon as the command in work is answered, after `seconds` at the latest."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._answering:
                pass
        await self.close(GOING_AWAY, "KATO is stopping")

    async def _out(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except (OSError, RuntimeError):
            # The server raises RuntimeError when it has closed the socket by itself: a ping stayed unanswered.
            self._open = False
            raise Gone from None


Conversation: TypeAlias = Callable[[Socket, str | None], Awaitable[None]]
"""What happens on a socket; the second argument is the session its path fixes."""


async def refuse(send: Send, error: KatoError, trace: str, path: str) -> None:
    """Answer a handshake with an HTTP error."""
    body = encode(errors.answer(error, trace, path))
    headers = [
        (b"content-type", JSON),
        (b"content-length", b"%d" % len(body)),
        (b"x-trace-id", trace.encode()),
    ]
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


class Paths:
    """Which conversation is held on which path."""

    def __init__(self, instance: Instance, commands: Conversation, events: Conversation) -> None:
        self._instance = instance
        self._fixed = {"/ws": commands, "/v1/ws": commands, "/ws/events": events, "/v1/ws/events": events}
        self._commands = commands
        self._session: re.Pattern[str] | None = None
        if instance.settings.enable_v2_features:
            self._fixed["/v2/ws/events"] = events
            self._session = re.compile(r"/(?:v2/)?sessions/([^/]+)/ws")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold a conversation with one client from handshake to close."""
        trace = trace_id(dict(scope["headers"]))
        TRACE.set(trace)
        await receive()
        kato = self._instance.kato
        if kato is None or self._instance.draining:
            await send({"type": "websocket.accept"})
            code = INTERNAL_ERROR if kato is None else GOING_AWAY
            await send({"type": "websocket.close", "code": code, "reason": "KATO is not running"})
            return
        socket = Socket(self._instance, kato, scope, receive, send)
        conversation, session_id = self._find(scope["path"])
        if conversation is None:
            await socket.refuse(NotFound(f"There is no WebSocket at {scope['path']}"))
            return
        try:
            await conversation(socket, session_id)
        except Gone:
            return
        except asyncio.CancelledError:
            # The server cancels what is still running when its time is up.
            if not self._instance.draining:
                raise
        except Exception as error:
            log.error("unexpected error", path=scope["path"], exc_info=error)
            await socket.close(INTERNAL_ERROR, "internal error")

    def _find(self, path: str) -> tuple[Conversation | None, str | None]:
        match = self._session.fullmatch(path) if self._session else None
        return (self._commands, match[1]) if match else (self._fixed.get(path), None)


async def admitted(socket: Socket, places: set[Closable]) -> bool:
    """Accept the handshake unless all places are taken."""
    limit = socket.instance.settings.websocket_max_connections
    if len(places) >= limit:
        await socket.refuse(
            ServiceUnavailable("Too many open WebSockets", retry_after=5, limit=limit, open=len(places))
        )
        return False
    places.add(socket)
    try:
        await socket.accept()
    except Gone:
        places.discard(socket)
        raise
    if socket.instance.draining:
        await socket.dismiss(0)
    return True
