"""Generated requests to every documented path: never a 5xx, and every answer fits its documentation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from kato.api.app import create_app
from kato.settings import load
from tests.api.driving import serving

EXAMPLES = 8
CHECKS = [
    checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A real server in a thread of its own."""
    ready, found, stop = threading.Event(), list[str](), list[Any]()

    async def serve() -> None:
        async with serving(max_sessions=0, max_request_size=1 << 20) as (_, where):
            loop, over = asyncio.get_running_loop(), asyncio.Event()
            found.append(where)
            stop.append(lambda: loop.call_soon_threadsafe(over.set))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    yield found[0]
    stop[0]()
    thread.join(30)


@pytest.fixture(scope="module")
def connection(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{address}") as found:
        yield found


schema = schemathesis.openapi.from_dict(create_app(load(kato_data=":memory:")).openapi()).exclude(
    # The same declarations as without the prefix.
    path_regex="^/v1/"
)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_generated_requests(case: Any, address: str, connection: httpx.Client) -> None:
    """A session that exists stands in for most of the generated ids: what is behind it shall be tested too."""
    named = case.path_parameters.get("session_id")
    if named is not None and len(named) % 4:
        created = connection.post("/v2/sessions", json={"user_id": "generated"})
        case.path_parameters["session_id"] = created.json()["session_id"]
    case.call_and_validate(base_url=f"http://{address}", checks=CHECKS)
