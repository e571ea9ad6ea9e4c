"""What every request meets: trace ids, methods, CORS, unknown paths, failures."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import httpx
import pytest

from kato import errors
from kato.api.errors import answer as envelope
from kato.api.surface import trace_id
from tests.api.driving import Client, client, refused

GENERATED = re.compile("kato-[0-9a-f]{32}")


class TestTrace:
    async def test_the_callers_id_comes_back(self, http: Client) -> None:
        for path in ("/ping", "/nowhere", "/docs"):
            answer = await http.get(path, headers={"X-Trace-ID": "my-trace_1"})
            assert answer.headers["x-trace-id"] == "my-trace_1"

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            (
                {b"traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
                "4bf92f3577b34da6a3ce929d0e0e4736",
            ),
            (
                {
                    b"x-trace-id": b"a",
                    b"traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                },
                "a",
            ),
            ({b"x-trace-id": b"x" * 129}, None),
            ({b"x-trace-id": b"a b"}, None),
            ({b"traceparent": b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01"}, None),
            ({b"traceparent": b"nonsense"}, None),
            ({}, None),
        ],
    )
    def test_choice(self, headers: dict[bytes, bytes], expected: str | None) -> None:
        found = trace_id(headers)
        assert found == expected if expected else GENERATED.fullmatch(found)

    async def test_request_ids_are_new(self, http: Client) -> None:
        ids = {(await http.get("/ping")).headers["x-request-id"] for _ in range(5)}
        assert len(ids) == 5


class TestMethods:
    async def test_others_are_refused(self, http: Client) -> None:
        answer = await http.put("/predictions")
        error = refused(answer, 405, "METHOD_NOT_ALLOWED")
        assert error["details"] == {"allowed": ["GET", "POST"]}
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
        refused(await http.request("TRACE", "/observe"), 405, "METHOD_NOT_ALLOWED")
        refused(await http.post("/docs"), 405, "METHOD_NOT_ALLOWED")

    async def test_head_is_get_without_its_body(self, http: Client) -> None:
        got, headed = await http.get("/ping"), await http.head("/ping")
        assert (headed.status_code, headed.content) == (200, b"")
        assert headed.headers["content-length"] == str(len(got.content))
        missing = await http.head("/v2/sessions/nobody")
        assert (missing.status_code, missing.content) == (404, b"")
        assert (await http.head("/observe")).status_code == 405

    async def test_options_and_cors(self, http: Client) -> None:
        origin = {"Origin": "https://example.org"}
        preflight = await http.options(
            "/observe", headers={**origin, "Access-Control-Request-Method": "POST"}
        )
        assert preflight.status_code == 200
        assert preflight.headers["allow"] == "OPTIONS, POST"
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert "POST" in preflight.headers["access-control-allow-methods"]
        answer = await http.get("/ping", headers=origin)
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "X-Trace-ID" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers
        assert "access-control-allow-origin" not in (await http.get("/ping")).headers
        assert (await http.get("/nowhere", headers=origin)).headers["access-control-allow-origin"] == "*"


class TestPaths:
    @pytest.mark.parametrize(
        "path", ["/nowhere", "/observe/", "//stm", "/sessions/a/b/c", "/v3/stm", "/%FF", "/ws"]
    )
    async def test_unknown_ones(self, http: Client, path: str) -> None:
        answer = await http.get(f"http://kato{path}")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "NOT_FOUND"

    async def test_documentation_pages(self, http: Client) -> None:
        for path in ("/docs", "/redoc"):
            answer = await http.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
        async with client(docs_enabled=False) as silent:
            for path in ("/docs", "/redoc", "/openapi.json"):
                refused(await silent.get(path), 404, "NOT_FOUND")
            assert (await silent.get("/")).json()["docs"] is None


class TestFailures:
    async def test_a_defect_shows_nothing(
        self, http: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def broken(*_: Any) -> None:
            raise ZeroDivisionError("secret")

        monkeypatch.setattr(http.kato.sessions, "get", broken)
        with caplog.at_level(logging.ERROR):
            answer = await http.get("/sessions/x/stm", headers={"X-Trace-ID": "t1"})
        error = refused(answer, 500, "INTERNAL_ERROR")
        assert (error["message"], error["details"]) == ("internal error", {})
        assert "secret" not in answer.text
        assert "ZeroDivisionError: secret" in caplog.text
        assert caplog.records[0].__dict__["path"] == "/sessions/x/stm"

    async def test_an_answer_that_cannot_be_written_is_a_defect(
        self, http: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def odd(*_: Any) -> tuple[dict[str, Any], Any]:
            return {"strings": object()}, await http.kato.session(await http.kato.default_session())

        monkeypatch.setattr(http.kato, "percept_data", odd)
        refused(await http.get("/percept-data"), 500, "INTERNAL_ERROR")

    @pytest.mark.parametrize(
        ("raised", "status", "seconds"),
        [
            (errors.StorageError("The store is away", retry_after=2.5), 503, "3"),
            (errors.ConcurrencyError("Busy", retry_after=1), 409, "1"),
            (errors.DataCorrupted("Damaged"), 500, None),
        ],
    )
    async def test_errors_of_the_stores(
        self,
        http: Client,
        monkeypatch: pytest.MonkeyPatch,
        raised: errors.KatoError,
        status: int,
        seconds: str | None,
    ) -> None:
        session = await http.session()

        async def failing(*_: Any) -> None:
            raise raised

        monkeypatch.setattr(http.kato.sessions._store, "save", failing)
        answer = await http.post(f"{session}/observe", json={"strings": ["a"]})
        error = refused(answer, status, raised.code)
        assert answer.headers.get("retry-after") == seconds
        assert error.get("retry_after") == raised.retry_after
        monkeypatch.undo()
        assert (await http.get(f"{session}/stm")).json()["stm"] == []

    async def test_a_request_that_takes_too_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with client(request_timeout=0.01) as http:

            async def forever(*_: Any) -> None:
                await asyncio.Event().wait()

            monkeypatch.setattr(http.kato.sessions, "get", forever)
            answer = await http.get("/sessions/x/stm")
            refused(answer, 504, "TIMEOUT_ERROR")
            assert answer.headers["retry-after"] == "5"

    async def test_before_the_start_and_after_the_end(self) -> None:
        async with client() as http:
            http.app.instance.kato, kept = None, http.app.instance.kato
            refused(await http.get("/ping"), 503, "SERVICE_UNAVAILABLE")
            assert (await http.get("/docs")).status_code == 200
            refused(await http.get("/nowhere"), 404, "NOT_FOUND")
            http.app.instance.kato = kept

    async def test_a_client_that_leaves_gets_nothing(self, http: Client) -> None:
        for before in ([], [{"type": "http.request", "body": b"{", "more_body": True}]):
            messages: list[dict[str, Any]] = [*before, {"type": "http.disconnect"}]
            sent: list[Any] = []

            async def receive(waiting: list[dict[str, Any]] = messages) -> dict[str, Any]:
                return waiting.pop(0)

            async def send(message: Any, out: list[Any] = sent) -> None:
                out.append(message)

            scope = {"type": "http", "method": "POST", "path": "/observe", "query_string": b"", "headers": []}
            await http.app(scope, receive, send)
            assert sent == []

    async def test_figures(self, http: Client) -> None:
        await http.get("/ping")
        await http.get("/nowhere")
        await http.get("/sessions/nobody")
        counters = http.kato.counters
        assert (counters.requests, counters.request_errors) == (2, 2)
        assert counters.errors_by_code == {"NOT_FOUND": 1, "SESSION_NOT_FOUND": 1}

    async def test_requests_are_logged_at_debug_without_their_content(
        self, http: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            await http.post("/observe", json={"strings": ["a-secret"]})
        assert [r for r in caplog.records if r.name.startswith("kato")] == []
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "kato.api"):
            await http.post("/observe", json={"strings": ["a-secret"]})
            await http.post("/observe", json={"strings": ["a-secret", 5]})
        assert [
            (r.msg, r.__dict__["path"], r.__dict__["status"]) for r in caplog.records if r.name == "kato.api"
        ] == [
            ("request", "/observe", 200),
            ("refused", "/observe", 422),
        ]
        assert not any("a-secret" in str(r.__dict__) for r in caplog.records)


class TestEnvelope:
    def test_long_values_are_cut(self) -> None:
        raised = errors.NotFound(f"No {'x' * 500} here", name="y" * 500, nested=[{"k" * 500: 1}])
        shown = envelope(raised, "t", "/p")
        assert shown.error.message == f"No {'x' * 100}… here"
        assert shown.error.details == {"name": "y" * 100 + "…", "nested": [{"k" * 100 + "…": 1}]}
        assert shown.detail == shown.error.message
        assert len(envelope(errors.NotFound("word " * 500), "t", "/p").error.message) == 1000

    async def test_a_gene_of_any_length(self, http: Client) -> None:
        answer = await http.get(f"/gene/{'x' * 5000}")
        assert len(refused(answer, 404, "GENE_NOT_FOUND")["message"]) < 200

    async def test_times_are_utc(self, http: Client) -> None:
        assert refused(await http.get("/nowhere"), 404, "NOT_FOUND")["timestamp"].endswith("+00:00")


async def test_many_at_once_on_one_session(http: Client) -> None:
    session = await http.session()
    answers = await asyncio.gather(*(http.observe(session, f"s{n}") for n in range(200)))
    assert sorted(a["time"] for a in answers) == list(range(1, 201))
    assert (await http.get(f"{session}/stm")).json()["length"] == 200


async def test_same_calls_same_bytes() -> None:
    async def run() -> list[bytes]:
        async with client() as http:
            session = await http.session()
            for events in ("abc", "abd", "xabc"):
                await http.teach(session, *events)
            for symbol in "ab":
                await http.observe(session, symbol, emotives={"joy": 0.1})
            found: list[httpx.Response] = [
                await http.get("/symbols/stats?node_id=node"),
                await http.get("/v2/patterns?user_id=node"),
            ]
            predictions = (await http.get(f"{session}/predictions")).content
            return [*(r.content for r in found), predictions.replace(session.encode()[10:], b"-")]

    assert await run() == await run()
