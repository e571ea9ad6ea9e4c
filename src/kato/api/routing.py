"""The one kind of route: declared once, matched by path segments, decoded from bytes, encoded to bytes.

A declaration (`Route`) says everything about an endpoint: what it reads, what it answers, which errors it can
give. `Routes` finds the declaration for a request, `kato.api.openapi` documents the same list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote

import msgspec

from kato import validation
from kato.api.errors import UnsupportedMediaType
from kato.api.instance import Instance
from kato.errors import KatoError, RequestTimeout, ValidationError
from kato.ops.deadline import due
from kato.service import Kato
from kato.settings import Settings

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Headers: TypeAlias = dict[bytes, bytes]

JSON = b"application/json"


class ClientGone(Exception):
    """The client closed the connection before it had sent its request."""


class Call:
    """One request as a handler sees it.

    `session_id` is the session the call is bound to; a handler that chooses one itself sets it, so that the
    answer carries it in `X-Session-ID`.
    """

    __slots__ = ("headers", "instance", "kato", "parameters", "query", "session_id")

    def __init__(
        self, instance: Instance, kato: Kato, headers: Headers, parameters: Sequence[str] = ()
    ) -> None:
        self.instance = instance
        self.kato = kato
        self.headers = headers
        self.parameters = parameters
        self.query: Any = None
        self.session_id = ""

    @property
    def settings(self) -> Settings:
        """The settings of the process."""
        return self.kato.settings

    def header(self, name: bytes) -> str | None:
        """A header as text."""
        value = self.headers.get(name)
        if value is None:
            return None
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValidationError("Must be UTF-8", field=name.decode().title()) from None

    @property
    def key(self) -> str | None:
        """The idempotency key."""
        return validation.idempotency_key(self.headers.get(b"idempotency-key"))


Handler: TypeAlias = Callable[..., Awaitable[Any]]
"""`async (call)` or, for a route with a request type, `async (call, body)`; returns the answer."""


class Raw(msgspec.Struct, frozen=True):
    """An answer that is not a plain success in JSON: another status, or another content type."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON


@dataclass(frozen=True, kw_only=True)
class Route:
    """The declaration of one endpoint.

    `path` holds parameters as `{name}`. `request` is the type of the body, None when there is none to read;
    `optional_body` allows its absence. `query` is a Struct of the query parameters. `keyed` routes take an
    `Idempotency-Key`, `sessioned` ones the `X-Session-ID` header, `node_headers` stands for `X-Test-ID` and
    `X-Node-ID`. `errors` are the errors it can answer besides those every route of its kind can, `statuses`
    further statuses under which it gives the same kind of answer.
    """

    method: str
    path: str
    handler: Handler
    answers: tuple[Any, ...]
    summary: str
    tag: str
    request: Any = None
    optional_body: bool = False
    query: type[msgspec.Struct] | None = None
    keyed: bool = False
    sessioned: bool = False
    node_headers: bool = False
    errors: tuple[type[KatoError], ...] = ()
    statuses: tuple[int, ...] = ()
    batch: bool = False
    decode: Callable[[bytes], Any] | None = field(init=False, default=None, compare=False)
    session_parameter: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        if self.request is not None:
            object.__setattr__(self, "decode", validation.decoder(self.request))
        object.__setattr__(self, "session_parameter", "{session_id}" in self.path)

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters in the path, in order."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]

    async def answer(self, call: Call, query_string: bytes, receive: Receive) -> Any:
        """Read what the declaration says, and let the handler answer."""
        if self.session_parameter:
            call.session_id = call.parameters[0]
        if self.query is not None:
            call.query = _query(self.query, query_string)
        timeout = call.settings.endpoint_batch_timeout if self.batch else call.settings.request_timeout
        if self.decode is None:
            return await within(timeout, self.handler(call))
        body = await _body(call.headers, receive, call.settings.max_request_size)
        if not body and self.optional_body:
            return await within(timeout, self.handler(call, None))
        if body:
            _check_media_type(call.headers)
        return await within(timeout, self.handler(call, self.decode(body)))


async def within(seconds: float, work: Awaitable[Any]) -> Any:
    """Give up after `seconds`; what had already been handed to a store may still be done."""
    try:
        with due(seconds):
            async with asyncio.timeout(seconds):
                return await work
    except TimeoutError:
        raise RequestTimeout(
            f"The request took longer than {seconds:g} s", retry_after=5, timeout=seconds
        ) from None


def _query(kind: type[msgspec.Struct], query_string: bytes) -> Any:
    if not query_string:
        return validation.query(kind, {})
    try:
        pairs = parse_qsl(query_string.decode(), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise ValidationError("The query string is not valid UTF-8 or too long", field="query") from None
    return validation.query(kind, dict(pairs))


def _check_media_type(headers: Headers) -> None:
    """Clients of old send none; one that says something else than JSON does not mean JSON."""
    declared = headers.get(b"content-type", JSON)
    if declared == JSON or not declared:
        return
    kind = declared.split(b";")[0].strip().lower()
    if kind != JSON and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
        raise UnsupportedMediaType(
            "Send the body as JSON with Content-Type: application/json", content_type=kind.decode("latin-1")
        )


async def _body(headers: Headers, receive: Receive, limit: int) -> bytes:
    declared = headers.get(b"content-length")
    if declared is not None and declared.isdigit():
        validation.check_size(int(declared) if len(declared) < 20 else limit + 1, limit)
    message = await receive()
    if not message.get("more_body"):
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message.get("body", b"")
        validation.check_size(len(body), limit)
        return body
    parts, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        validation.check_size(size, limit)
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()


@dataclass(frozen=True)
class _Segment:
    """A place in the tree of paths: what may follow, and the routes that end here by method."""

    fixed: dict[str, _Segment] = field(default_factory=dict)
    variable: list[_Segment] = field(default_factory=list)
    methods: dict[str, Route] = field(default_factory=dict)


class Routes:
    """All declared routes; finds the one for a path in a few dictionary look-ups."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.declared = tuple(routes)
        self._root = _Segment()
        for route in self.declared:
            place = self._root
            for part in route.path.split("/")[1:]:
                if part.startswith("{"):
                    if not place.variable:
                        place.variable.append(_Segment())
                    place = place.variable[0]
                else:
                    place = place.fixed.setdefault(part, _Segment())
            if route.method in place.methods:
                raise ValueError(f"declared twice: {route.method} {route.path}")
            place.methods[route.method] = route

    def find(self, raw_path: bytes) -> tuple[dict[str, Route], list[str]] | None:
        """The routes by method and the parameters for a path as it was sent (a `%2F` separates nothing)."""
        parameters: list[str] = []
        place = _descend(self._root, raw_path.decode("latin-1").split("/"), 1, parameters)
        if place is None:
            return None
        parameters.reverse()
        return place.methods, parameters


def _descend(place: _Segment, parts: list[str], at: int, parameters: list[str]) -> _Segment | None:
    """The place a path leads to; fixed segments win, parameters are collected from the last to the first."""
    if at == len(parts):
        return place if place.methods else None
    part = parts[at]
    following = place.fixed.get(part)
    if following is not None:
        found = _descend(following, parts, at + 1, parameters)
        if found is not None:
            return found
    if place.variable:
        found = _descend(place.variable[0], parts, at + 1, parameters)
        if found is not None:
            parameters.append(unquote(part, errors="replace") if "%" in part else part)
            return found
    return None
