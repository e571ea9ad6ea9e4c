"""What clients see of a server that is down: `warnings`, `stale`, and errors that say when to come again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

import kato
from kato import answering
from kato.api.app import create_app
from kato.api.v1 import PREDICTIONS_LEFT_OUT
from kato.errors import DataCorrupted, StorageError
from kato.settings import load
from kato.verbs.asynchronous import AsyncVerbs
from kato.verbs.calls import Call
from tests.api.driving import Client, refused, serving
from tests.support.degrading import LEFT_OUT, Degrading, degrading

WITH_VECTORS: dict[str, Any] = {"strings": ["a"], "vectors": [[1, 2]]}
BATCH: dict[str, Any] = {"observations": [{"strings": ["x"]}, WITH_VECTORS]}
V1 = ["", "/v1"]
SESSIONS = ["/sessions", "/v2/sessions"]


@asynccontextmanager
async def speaking(parts: Degrading) -> AsyncIterator[Client]:
    app = create_app(parts.kato.settings, parts.kato)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with Client(transport=transport, base_url="http://kato") as client:
        client.app = app
        yield client


@pytest.fixture
async def parts() -> AsyncIterator[Degrading]:
    async with degrading(opening_seconds=0.05) as made:
        yield made


@pytest.fixture
async def http(parts: Degrading) -> AsyncIterator[Client]:
    async with speaking(parts) as client:
        yield client


async def posted(http: Client, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
    answer = await http.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def got(http: Client, path: str) -> dict[str, Any]:
    answer = await http.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


# Vectors left out


@pytest.mark.parametrize("root", [*V1, *SESSIONS])
async def test_observe_answers_carry_warnings_only_when_there_are_some(
    parts: Degrading, http: Client, root: str
) -> None:
    where = root
    if root in SESSIONS:
        where = f"{root}/{(await posted(http, root, {'node_id': 'n', 'user_id': 'n'}))['session_id']}"
    items = "individual_results" if root in V1 else "results"
    assert "warnings" not in await posted(http, f"{where}/observe", WITH_VECTORS)
    assert "warnings" not in json.dumps(await posted(http, f"{where}/observe-sequence", BATCH))
    parts.vectors.down = True
    assert (await posted(http, f"{where}/observe", WITH_VECTORS))["warnings"] == [LEFT_OUT]
    assert "warnings" not in await posted(http, f"{where}/observe", {"strings": ["a"]})
    shown = await posted(http, f"{where}/observe-sequence", BATCH)
    assert shown["warnings"] == [LEFT_OUT]
    assert [item.get("warnings") for item in shown[items]] == [None, [LEFT_OUT]]


@pytest.mark.parametrize("way", ["observe", "observe-sequence"])
async def test_a_repeated_request_gets_the_warnings_of_the_first(
    parts: Degrading, http: Client, way: str
) -> None:
    session = await http.session()
    body = WITH_VECTORS if way == "observe" else BATCH
    parts.vectors.down = True
    first = await posted(http, f"{session}/{way}", body, **{"Idempotency-Key": "k"})
    parts.vectors.down = False
    again = await posted(http, f"{session}/{way}", body, **{"Idempotency-Key": "k"})
    assert first == again
    assert again["warnings"] == [LEFT_OUT]


@pytest.mark.parametrize("root", ["", "session"])
async def test_a_learn_whose_vectors_cannot_be_stored_says_when_to_come_again(
    parts: Degrading, http: Client, root: str
) -> None:
    where = root and await http.session()
    await posted(http, f"{where}/observe", WITH_VECTORS)
    parts.vectors.down = True
    for path in ("learn", "clear-all"):
        answer = await http.post(f"{where}/{path}")
        error = refused(answer, 503, "STORAGE_ERROR")
        assert "Qdrant" in error["message"]
        assert (error["retry_after"], answer.headers["retry-after"]) == (1, "1")
        assert len((await got(http, f"{where}/stm"))["stm"]) == 1
    parts.vectors.down = False
    await posted(http, f"{where}/learn")


# Stale


async def remembering(http: Client) -> str:
    """The path of a session that predicts from one pattern."""
    session = await http.session()
    for event in "abc":
        await posted(http, f"{session}/observe", {"strings": [event], "emotives": {"joy": 1}})
    await posted(http, f"{session}/learn")
    for event in "ab":
        await http.observe(session, event)
    return session


def mark_of(answer: dict[str, Any]) -> Any:
    """What the answer says of its age, None when nothing."""
    return answer.get("cognition_data", answer).get("stale")


READ_FROM_THE_INDEX: list[Callable[[str], str]] = [
    lambda session: f"{session}/predictions",
    lambda session: f"/v2{session}/predictions",
    lambda session: f"{session}/cognition-data",
    lambda session: f"/v2{session}/cognition-data",
    lambda _: "/symbols/stats?node_id=node",
    lambda _: "/symbols/affinity?node_id=node",
    lambda _: "/symbols/a/affinity?node_id=node",
    lambda _: "/v2/patterns?node_id=node",
]


@pytest.mark.parametrize("path", READ_FROM_THE_INDEX)
async def test_answers_from_the_index_are_marked_only_while_they_are_stale(
    parts: Degrading, http: Client, path: Callable[[str], str]
) -> None:
    where = path(await remembering(http))
    fresh = await http.get(where)
    assert b"stale" not in fresh.content
    parts.line.error = StorageError("the feed is down")
    stale = await got(http, where)
    assert mark_of(stale) is True
    stale.get("cognition_data", stale).pop("stale")
    assert stale == fresh.json()
    parts.line.error, parts.known_to_be_available = None, False
    assert mark_of(await got(http, where)) is True
    parts.known_to_be_available = True
    assert (await http.get(where)).content == fresh.content


@pytest.mark.parametrize("root", V1)
async def test_v1_marks_what_is_stale(parts: Degrading, http: Client, root: str) -> None:
    for event in "abc":
        await posted(http, f"{root}/observe", {"strings": [event]})
    await posted(http, f"{root}/learn")
    body = {"observations": [{"strings": ["a"]}, {"strings": ["b"]}]}
    assert "stale" not in await posted(http, f"{root}/observe-sequence", body)
    parts.known_to_be_available = False
    shown = await posted(http, f"{root}/observe-sequence", body)
    assert (len(shown["final_predictions"]), shown["stale"]) == (1, True)
    for answer in (await got(http, f"{root}/predictions"), await posted(http, f"{root}/predictions")):
        assert (len(answer["predictions"]), answer["stale"]) == (1, True)
    assert mark_of(await got(http, f"{root}/cognition-data")) is True
    parts.known_to_be_available = True
    assert "stale" not in await got(http, f"{root}/predictions")


async def test_a_v1_batch_that_was_taken_is_answered_without_the_predictions_it_cannot_have(
    parts: Degrading, http: Client
) -> None:
    parts.patterns.down = True
    shown = await posted(http, "/observe-sequence", BATCH)
    assert (shown["final_predictions"], shown["warnings"]) == ([], [PREDICTIONS_LEFT_OUT])
    parts.vectors.down = True
    shown = await posted(http, "/observe-sequence", BATCH)
    assert shown["warnings"] == [LEFT_OUT, PREDICTIONS_LEFT_OUT]
    assert len((await got(http, "/stm"))["stm"]) == 4


async def test_damage_is_told_also_after_a_v1_batch(
    parts: Degrading, http: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(_: str) -> Any:
        raise DataCorrupted("PostgreSQL: the stored patterns are damaged")

    monkeypatch.setattr(parts.patterns, "scan", damaged)
    refused(await http.post("/observe-sequence", json=BATCH), 500, "DATA_CONSISTENCY_ERROR")


# Refused


async def test_a_node_that_is_not_open_says_when_to_come_again(parts: Degrading, http: Client) -> None:
    session = await http.session()
    await http.observe(session, "a")
    parts.patterns.down = True
    for path in (f"{session}/predictions", f"{session}/cognition-data", "/symbols/stats?node_id=node"):
        refused(await http.get(path), 503, "STORAGE_ERROR")
    assert (await http.observe(session, "b"))["stm_length"] == 2
    parts.patterns.down = False
    assert (await got(http, f"{session}/predictions"))["predictions"] == []


async def test_a_node_that_is_being_opened_holds_nobody_else_up(parts: Degrading, http: Client) -> None:
    other = await remembering(http)
    session = await http.session("large")
    await http.observe(session, "a")
    gate = parts.patterns.scan_gate = asyncio.Event()
    for _ in range(2):
        waiting = asyncio.create_task(http.get(f"{session}/predictions"))
        served = 0
        while not waiting.done():
            assert len((await got(http, f"{other}/predictions"))["predictions"]) == 1
            served += 1
        assert served > 3
        answer = waiting.result()
        error = refused(answer, 503, "SERVICE_UNAVAILABLE")
        assert error["details"] == {"node_id": "large"}
        assert (error["retry_after"], answer.headers["retry-after"]) == (2, "2")
        assert (await http.observe(session, "b"))["status"] == "okay"
    gate.set()
    while (answer := await http.get(f"{session}/predictions")).status_code == 503:
        pass
    assert answer.json()["predictions"] == []


# Other ways in


async def test_the_command_socket_says_the_same(parts: Degrading) -> None:
    app = create_app(parts.kato.settings, parts.kato)
    async with serving(app) as (_, address), connect(f"ws://{address}/ws") as socket:

        async def ask(kind: str, payload: Any = None) -> dict[str, Any]:
            await socket.send(json.dumps({"type": kind, "payload": payload}))
            found: dict[str, Any] = json.loads(await socket.recv())
            return found["data"]  # type: ignore[no-any-return]

        for event in "abc":
            assert "warnings" not in await ask("observe", {"strings": [event]})
        await ask("learn")
        await ask("observe", WITH_VECTORS)
        parts.vectors.down, parts.known_to_be_available = True, False
        assert (await ask("observe", WITH_VECTORS))["warnings"] == [LEFT_OUT]
        assert (await ask("learn"))["code"] == "STORAGE_ERROR"
        shown = await ask("observe_sequence", BATCH)
        assert (shown["warnings"], shown["stale"]) == ([LEFT_OUT], True)
        assert (await ask("get_predictions"))["stale"] is True
        parts.known_to_be_available = True
        assert "stale" not in await ask("get_predictions")


class Inside(AsyncVerbs):
    """The verbs of `kato.open`, on a service that is given."""

    def __init__(self, parts: Degrading) -> None:
        self._parts = parts

    async def carry(self, call: Call[Any]) -> bytes:
        return await answering.answer(self._parts.kato, call)

    async def close(self) -> None:
        """The service is somebody else's."""


@pytest.mark.parametrize("remote", [True, False], ids=["client", "inside"])
async def test_python_clients_show_it(parts: Degrading, remote: bool) -> None:
    transport = httpx.ASGITransport(create_app(parts.kato.settings, parts.kato))
    verbs = kato.AsyncClient("http://kato", transport=transport) if remote else Inside(parts)
    async with verbs as memory:
        session = await memory.session("node")
        await session.observe_sequence([["a"], ["b"], ["c"]], learn_at_end=True)
        assert "warnings" not in await session.observe(["a"], vectors=[[1, 2]])
        assert not (await session.predictions()).stale
        parts.vectors.down, parts.known_to_be_available = True, False
        assert (await session.observe(["b"], vectors=[[1, 2]]))["warnings"] == [LEFT_OUT]
        shown = await session.observe_sequence([{"vectors": [[1, 2]]}])
        assert (shown["warnings"], shown["results"][0]["warnings"]) == ([LEFT_OUT], [LEFT_OUT])
        found = await session.predictions()
        assert (len(found), found.stale) == (1, True)
        assert "Predictions (1, stale)" in repr(found)
        assert (await session.cognition_data())["stale"] is True
        assert (await memory.patterns("node"))["stale"] is True
        with pytest.raises(StorageError) as caught:
            await session.learn()
        assert caught.value.retry_after == 1


# The document


DOCUMENT = create_app(load(kato_data=":memory:")).openapi()


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ObserveAnswer", {"warnings"}),
        ("SequenceItem", {"warnings"}),
        ("SequenceAnswer", {"warnings"}),
        ("V1Observed", {"warnings"}),
        ("V1Sequence", {"warnings", "stale"}),
        ("V1Predictions", {"stale"}),
        ("PredictionsAnswer", {"stale"}),
        ("PatternListAnswer", {"stale"}),
        ("SymbolsAnswer", {"stale"}),
        ("AffinitiesAnswer", {"stale"}),
        ("AffinityAnswer", {"stale"}),
    ],
)
def test_the_document_tells_of_what_may_be_there(name: str, fields: set[str]) -> None:
    schema = DOCUMENT["components"]["schemas"][name]
    assert fields <= set(schema["properties"])
    assert not fields & set(schema["required"])
    assert schema["properties"].get("stale", {"type": "boolean"}) == {"type": "boolean"}
    warnings = {"type": "array", "items": {"type": "string"}}
    assert schema["properties"].get("warnings", warnings) == warnings


def test_the_document_tells_of_open_breakers() -> None:
    learn = DOCUMENT["paths"]["/sessions/{session_id}/learn"]["post"]["responses"]["503"]
    assert "CIRCUIT_BREAKER_OPEN" in learn["description"]
