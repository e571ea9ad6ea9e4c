"""The OpenAPI document, written from the declared routes: documented is what is decoded and answered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from kato import errors
from kato.api.errors import ErrorAnswer, InternalError, MethodNotAllowed, UnsupportedMediaType
from kato.api.routing import Route

REFERENCE = "#/components/schemas/{name}"
TAGS = {
    "v3 sessions": "Explicit sessions; long-term memory is named by `node_id`.",
    "v3 symbols": "What a node knows about its symbols.",
    "v2 sessions": "Explicit sessions; long-term memory is named by `user_id`.",
    "v2 patterns": "Long-term memory, readable and editable.",
    "v1": "No session in the path: header `X-Session-ID`, cookie `session_id`, or the default session.",
    "monitoring": "How the process is doing.",
}
SESSION_HEADER = {
    "name": "X-Session-ID",
    "in": "header",
    "required": False,
    "description": "The session; without it the cookie `session_id`, then the default session.",
    "schema": {"type": "string"},
}
KEY_HEADER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A repeated request with the same key within 24 hours gets the first answer again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
}
NODE_HEADERS = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string", "minLength": 1, "maxLength": 250, "pattern": "^[!-~]+$"},
    }
    for name, description in (
        ("X-Test-ID", "Names the node `test_` + this, when no node_id is given."),
        ("X-Node-ID", "Names the node, when neither node_id nor X-Test-ID is given."),
    )
]
ANSWER_HEADERS = {
    "X-Trace-ID": {"description": "The trace id of the request.", "schema": {"type": "string"}},
    "X-Request-ID": {"description": "A new id for every request.", "schema": {"type": "string"}},
}
MEANINGS = {
    400: "The request makes no sense",
    404: "There is no such thing",
    405: "Not with this method",
    409: "Others kept changing the same record; nothing was changed",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "The request does not have the required shape",
    429: "A limit is reached",
    500: "A defect",
    503: "Cannot be answered now",
    504: "It took too long",
    507: "The session would grow beyond its memory limit",
}


def document(routes: Sequence[Route], title: str, version: str) -> dict[str, Any]:
    """The whole document."""
    types = _types(routes)
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
    schema_of = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of, components)
    used = {route.tag for route in routes}
    plain = _plain(
        {
            "openapi": "3.1.0",
            "info": {
                "title": title,
                "version": version,
                "description": "A memory that predicts: deterministic, explainable, editable.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "tags": [{"name": name, "description": text} for name, text in TAGS.items() if name in used],
            "paths": paths,
            "components": {"schemas": components},
        }
    )
    assert isinstance(plain, dict)
    return plain


def _types(routes: Iterable[Route]) -> list[Any]:
    found: dict[str, Any] = {repr(ErrorAnswer): ErrorAnswer}
    for route in routes:
        for kind in (route.request, route.query, *route.answers):
            if kind is not None:
                found[repr(kind)] = kind
    return list(found.values())


def _operation(route: Route, schema_of: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _identifier(route),
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": _parameters(route, components),
        "responses": _responses(route, schema_of),
    }
    if route.request is not None:
        operation["requestBody"] = {
            "required": not route.optional_body,
            "content": {"application/json": {"schema": schema_of[repr(route.request)]}},
        }
    return operation


def _identifier(route: Route) -> str:
    words = re.findall(r"[A-Za-z0-9]+", route.path) or ["root"]
    return "_".join([route.method.lower(), *words])


def _parameters(route: Route, components: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in route.parameters
    ]
    if route.query is not None:
        # A query is documented parameter by parameter; its Struct itself is nothing a client sees.
        shape = components[route.query.__name__]
        required = shape.get("required", ())
        found += [
            {"name": name, "in": "query", "required": name in required, "schema": _without_null(schema)}
            for name, schema in shape["properties"].items()
        ]
    if route.keyed:
        found.append(KEY_HEADER)
    if route.sessioned:
        found.append(SESSION_HEADER)
    if route.node_headers:
        found += NODE_HEADERS
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter left out is not null: the empty alternative does not exist in a query."""
    if "anyOf" not in schema:
        return schema
    kept = [part for part in schema["anyOf"] if part != {"type": "null"}]
    return kept[0] if len(kept) == 1 else {"anyOf": kept}


def _responses(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    own = [schema_of[repr(kind)] for kind in route.answers]
    content = {"application/json": {"schema": own[0] if len(own) == 1 else {"anyOf": own}}}
    refusal = {"application/json": {"schema": schema_of[repr(ErrorAnswer)]}}
    found = {"200": {"description": "Success", "headers": ANSWER_HEADERS, "content": content}}
    for status, codes in sorted(_errors(route).items()):
        found[str(status)] = {
            "description": f"{MEANINGS[status]}: {', '.join(sorted(codes))}",
            "headers": ANSWER_HEADERS,
            "content": refusal,
        }
    for status in route.statuses:
        known = found.get(str(status))
        found[str(status)] = {
            "description": MEANINGS[status],
            "headers": ANSWER_HEADERS,
            "content": {"application/json": {"schema": {"anyOf": [*own, schema_of[repr(ErrorAnswer)]]}}}
            if known
            else content,
        }
    return found


def _errors(route: Route) -> dict[int, set[str]]:
    """The codes a route can answer by status: its own and those of its kind."""
    kinds: set[type[errors.KatoError]] = {
        InternalError,
        MethodNotAllowed,
        errors.ServiceUnavailable,
        errors.StorageError,
        errors.CircuitBreakerOpen,
        errors.RequestTimeout,
        *route.errors,
    }
    if "{session_id}" in route.path or route.sessioned:
        kinds |= {errors.SessionNotFound, errors.SessionExpired}
    if route.request is not None:
        kinds |= {errors.ValidationError, errors.RequestTooLarge, UnsupportedMediaType}
    if route.query is not None or route.keyed:
        kinds.add(errors.ValidationError)
    if "unique_id" in (route.query.__struct_fields__ if route.query else ()):
        kinds.add(errors.NotFound)
    if route.method != "GET":
        kinds.add(errors.ConcurrencyError)
        kinds.add(errors.ResourceExhausted)
    found: dict[int, set[str]] = {}
    for kind in kinds:
        found.setdefault(kind.status, set()).add(kind.code)
    return found


def _plain(value: Any) -> Any:
    """Defaults of our types are tuples and Structs; a JSON document has lists and objects."""
    return msgspec.json.decode(msgspec.json.encode(value))
