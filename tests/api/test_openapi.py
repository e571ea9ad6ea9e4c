"""The OpenAPI document says what is there, completely."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kato.api.app import create_app, declared
from kato.api.routing import Route, Routes
from kato.settings import load
from tests.api.driving import Client, client

SETTINGS = load(kato_data=":memory:")
DOCUMENT = create_app(SETTINGS).openapi()
ROUTES = declared(SETTINGS)
EVERY_ROUTE = pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


@EVERY_ROUTE
def test_every_route_is_documented(route: Route) -> None:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    assert operation["summary"]
    assert operation["tags"] == [route.tag]
    answers = operation["responses"]
    expected = {"200", "500", "503", "504"}
    if route.request is not None:
        expected |= {"413", "415", "422"}
        assert operation["requestBody"]["content"]["application/json"]["schema"]
        assert operation["requestBody"]["required"] is not route.optional_body
    else:
        assert "requestBody" not in operation
    if "{session_id}" in route.path or route.sessioned:
        expected.add("404")
    expected |= {str(error.status) for error in route.errors}
    assert expected <= set(answers)
    for status, answer in answers.items():
        assert set(answer["headers"]) >= {"X-Trace-ID", "X-Request-ID"}
        schema = json.dumps(answer["content"]["application/json"]["schema"])
        assert ("ErrorAnswer" in schema) == (status != "200"), status
    parameters = {(p["in"], p["name"]) for p in operation["parameters"]}
    assert {name for place, name in parameters if place == "path"} == set(route.parameters)
    if route.query is not None:
        assert {n for place, n in parameters if place == "query"} == set(route.query.__struct_fields__)
    assert (("header", "Idempotency-Key") in parameters) == route.keyed
    assert (("header", "X-Session-ID") in parameters) == route.sessioned
    assert (("header", "X-Node-ID") in parameters) == route.node_headers


def test_nothing_else_is_documented() -> None:
    documented = {(m.upper(), path) for path, methods in DOCUMENT["paths"].items() for m in methods}
    assert documented == {(route.method, route.path) for route in ROUTES}
    identifiers = [o["operationId"] for methods in DOCUMENT["paths"].values() for o in methods.values()]
    assert len(set(identifiers)) == len(identifiers)


def test_every_reference_leads_somewhere() -> None:
    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    found = set(references(DOCUMENT))
    assert found <= known


def test_v1_has_every_path_twice() -> None:
    plain = {(r.method, r.path) for r in ROUTES if r.tag == "v1" and not r.path.startswith("/v1")}
    below = {
        (r.method, r.path.removeprefix("/v1")) for r in ROUTES if r.tag == "v1" and r.path.startswith("/v1")
    }
    assert plain == below


def test_limits_are_documented() -> None:
    observation = DOCUMENT["components"]["schemas"]["ObservationRequest"]["properties"]
    assert observation["strings"]["maxItems"] == 1000
    assert observation["strings"]["items"]["maxLength"] == 1024
    assert observation["vectors"]["maxItems"] == 64
    assert observation["emotives"]["maxProperties"] == 256


async def test_it_is_served(http: Client) -> None:
    answer = await http.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT
    assert answer.json()["openapi"].startswith("3.1")


async def test_without_v2_only_v1_is_documented() -> None:
    async with client(enable_v2_features=False) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    assert not [path for path in paths if path.startswith(("/v2", "/sessions", "/symbols"))]


def test_a_path_cannot_be_declared_twice() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        Routes([ROUTES[0], ROUTES[0]])
