"""Calls as HTTP requests, and answers as values or errors, without a network."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import kato
from kato import errors
from kato.client import http
from kato.errors import KatoError
from kato.verbs import calls

BASE = "http://kato.test"
Answering = Callable[[httpx.Request], httpx.Response]


def client(answer: Answering) -> kato.Client:
    return kato.Client(BASE, transport=httpx.MockTransport(answer))


def answering(status: int, body: Any, **headers: str) -> Answering:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda request: httpx.Response(status, content=content, headers=headers)


def envelope(code: str, message: str = "what happened", **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **more}, "status": 0, "detail": message}


def classes() -> list[type[KatoError]]:
    """All kinds of errors that have a code of their own."""
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    return [kind for kind in kinds if issubclass(kind, KatoError) and "code" in vars(kind)]


# Requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("plain", "/symbols/plain/affinity"),
        ("a/b?c#d", "/symbols/a%2Fb%3Fc%23d/affinity"),
        ("%41", "/symbols/%2541/affinity"),
        ("..", "/symbols/%2E%2E/affinity"),
        (".", "/symbols/%2E/affinity"),
        ("", "/symbols//affinity"),
        ("é😀\x00", "/symbols/%C3%A9%F0%9F%98%80%00/affinity"),
    ],
)
def test_symbols_are_one_segment_of_the_path(text: str, path: str) -> None:
    seen: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path)
        return httpx.Response(200, json={"affinity": {}})

    with client(answer) as memory:
        memory.affinity(text, "n&m")
    assert seen == [path.encode() + b"?node_id=n%26m"]


def test_a_body_and_a_key_are_sent() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"session_id": "s", "node_id": "n"})

    with kato.Client(BASE + "/", headers={"X-Node": "me"}, transport=httpx.MockTransport(answer)) as memory:
        session = memory.session("n")
        session.observe(["a"], idempotency_key="key")
        session.learn()
    creation, observation, learning = seen
    assert creation.url == f"{BASE}/sessions"
    assert json.loads(creation.content) == {"node_id": "n"}
    assert creation.headers["content-type"] == "application/json"
    assert creation.headers["x-node"] == "me"
    assert observation.url == f"{BASE}/sessions/s/observe"
    assert observation.headers["idempotency-key"] == "key"
    assert learning.content == b""
    assert "content-type" not in learning.headers


# Errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_its_class(kind: type[KatoError]) -> None:
    told = envelope(kind.code, "a: b", details={"field": [1]}, retry_after=2.5, trace_id="t-1")
    with client(answering(kind.status, told)) as memory, pytest.raises(KatoError) as raised:
        memory.count_sessions()
    error = raised.value
    assert type(error) is kind or (kind is KatoError and type(error).__mro__[1] is KatoError)
    assert (error.code, error.status, error.message) == (kind.code, kind.status, "a: b")
    assert (str(error), error.details, error.retry_after) == ("a: b", {"field": [1]}, 2.5)
    assert error.__notes__ == ["trace id: t-1"]


def test_codes_are_distinct() -> None:
    codes = [kind.code for kind in classes()]
    assert len(codes) == len(set(codes))


def test_an_unknown_code_is_a_kato_error() -> None:
    with client(answering(418, envelope("TEAPOT"))) as memory, pytest.raises(KatoError) as raised:
        memory.count_sessions()
    assert isinstance(raised.value, KatoError)
    assert (raised.value.code, raised.value.status) == ("TEAPOT", 418)
    assert not hasattr(raised.value, "__notes__")


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (502, b"<html>bad gateway</html>", KatoError, "INTERNAL_ERROR"),
        (503, b"", errors.ServiceUnavailable, "SERVICE_UNAVAILABLE"),
        (504, b"{}", errors.RequestTimeout, "TIMEOUT_ERROR"),
        (404, b'{"detail":"Not Found"}', errors.NotFound, "NOT_FOUND"),
        (413, b"\xff\xfe", errors.RequestTooLarge, "REQUEST_TOO_LARGE"),
        (302, b"", KatoError, "INTERNAL_ERROR"),
    ],
)
def test_answers_of_somebody_else(status: int, body: bytes, kind: type[KatoError], code: str) -> None:
    with client(answering(status, body)) as memory, pytest.raises(kind, match=f"HTTP {status}") as raised:
        memory.count_sessions()
    assert raised.value.code == code
    assert raised.value.status == status


def test_an_answer_that_is_not_json() -> None:
    with client(answering(200, b"<html>")) as memory, pytest.raises(KatoError, match="not one of KATO's"):
        memory.count_sessions()
    with (
        client(answering(200, b'{"a":"\xff"}')) as memory,
        pytest.raises(KatoError, match="not one of KATO's"),
    ):
        memory.count_sessions()
    with client(answering(200, {"other": 1})) as memory, pytest.raises(KatoError, match="lacks 'active"):
        memory.count_sessions()


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (httpx.ConnectError("refused"), errors.ServiceUnavailable, "cannot be reached: refused"),
        (httpx.ReadError("cut"), errors.ServiceUnavailable, "cannot be reached: cut"),
        (httpx.ReadTimeout("late"), errors.RequestTimeout, "did not answer in time"),
    ],
)
async def test_what_the_network_does(failure: Exception, kind: type[KatoError], message: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise failure

    with client(answer) as memory, pytest.raises(kind, match=message) as raised:
        memory.count_sessions()
    assert raised.value.__cause__ is failure
    assert raised.value.details == {"base_url": BASE}
    async with kato.AsyncClient(BASE, transport=httpx.MockTransport(answer)) as later:
        with pytest.raises(kind, match=message):
            await later.count_sessions()


async def test_a_closed_client_says_so() -> None:
    memory = client(answering(200, {}))
    memory.close()
    memory.close()
    with pytest.raises(errors.ServiceUnavailable, match="closed"):
        memory.count_sessions()
    later = kato.AsyncClient(BASE, transport=httpx.MockTransport(answering(200, {})))
    await later.close()
    await later.close()
    with pytest.raises(errors.ServiceUnavailable, match="closed"):
        await later.count_sessions()


# The service ------------------------------------------------------------------------------------------------


async def test_health_is_an_answer_even_when_it_is_bad() -> None:
    ill = answering(503, {"status": "unhealthy", "issues": ["disk"]})
    with client(ill) as memory:
        assert memory.health() == {"status": "unhealthy", "issues": ["disk"]}
    async with kato.AsyncClient(BASE, transport=httpx.MockTransport(ill)) as later:
        assert (await later.health())["status"] == "unhealthy"
    starting = envelope("SERVICE_UNAVAILABLE")
    with client(answering(503, starting)) as memory, pytest.raises(errors.ServiceUnavailable):
        memory.health()


async def test_status() -> None:
    well = answering(200, {"status": "okay"})
    with client(well) as memory:
        assert memory.status() == {"status": "okay"}
    async with kato.AsyncClient(BASE, transport=httpx.MockTransport(well)) as later:
        assert await later.status() == {"status": "okay"}
        assert repr(later) == f"AsyncClient({BASE!r})"
    assert repr(memory) == f"Client({BASE!r})"


async def test_sessions_of_an_async_client_are_contexts() -> None:
    found = answering(200, {"session_id": "s", "node_id": "n"})
    async with kato.AsyncClient(BASE, transport=httpx.MockTransport(found)) as memory:
        async with await memory.session("n") as session:
            assert repr(session) == "AsyncSession('s', node_id='n')"
        with pytest.raises(errors.ValidationError, match="another node"):
            await memory.session("m", session_id="s")


def test_requests_of_every_verb_have_a_path() -> None:
    made = {
        name
        for name, value in vars(calls).items()
        if inspect.isfunction(value) and not name.startswith("_") and value.__module__ == calls.__name__
    }
    named = set(http.PATHS) - {"create_session", "create_base_session"} | {"session"}
    assert made == named | {"raw", "checked"}
