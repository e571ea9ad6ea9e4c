"""Every limit on what a client may send, and the field each refusal names."""

from __future__ import annotations

from typing import Any

import pytest

from kato.settings import load
from tests.api.driving import Client, client, refused

DEEP = 100_000


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "field"),
        [
            (b'{"strings": "a"}', "strings"),
            (b'{"strings": null}', "strings"),
            (b'{"strings": ["a", 5]}', "strings[1]"),
            (b'{"strings": ["a", true]}', "strings[1]"),
            (b'{"strings": ["a", ["b"]]}', "strings[1]"),
            (rb'{"strings": ["a", "b\u0000c"]}', "strings[1]"),
            (b'{"strings": ["' + b"x" * 1025 + b'"]}', "strings[0]"),
            (b'{"strings": [' + b'"a",' * 1000 + b'"a"]}', "strings"),
            (b'{"vectors": [1]}', "vectors[0]"),
            (b'{"vectors": [[1], [true]]}', "vectors[1][0]"),
            (b'{"vectors": [[1], ["2"]]}', "vectors[1][0]"),
            (b'{"vectors": [[1e101]]}', "vectors[0][0]"),
            (b'{"vectors": [[1e999]]}', "vectors[0][0]"),
            (b'{"vectors": [[]]}', "vectors[0]"),
            (b'{"vectors": [' + b"[1]," * 64 + b"[1]]}", "vectors"),
            (b'{"emotives": []}', "emotives"),
            (b'{"emotives": {"calm": 1, "joy": true}}', "emotives.joy"),
            (b'{"emotives": {"calm": 1, "joy": "1", "fear": null}}', "emotives.joy"),
            (b'{"emotives": {"calm": 1.5e3, "joy": 1e999}}', "emotives.joy"),
            (b'{"emotives": {"calm": 1, "joy": ' + b"9" * 400 + b"}}", "emotives.joy"),
            (b'{"emotives": {"joy": -1e101}}', "emotives.joy"),
            (b'{"metadata": 1}', "metadata"),
            (b'{"metadata": {"a": [{"b": 18446744073709551616}]}}', "metadata.a[0].b"),
            (b'{"metadata": {"a": 1e999}}', "metadata"),
            (b'{"metadata": {"a": ' + b"[" * 40 + b"]" * 40 + b"}}", "metadata"),
            (b'{"unique_id": ""}', "unique_id"),
            (b'{"unique_id": 7}', "unique_id"),
            (b'{"unique_id": "' + b"x" * 257 + b'"}', "unique_id"),
            (b"[]", "body"),
            (b"5", "body"),
            (b"", "body"),
            (b"  ", "body"),
        ],
    )
    async def test_an_observation(self, http: Client, body: bytes, field: str) -> None:
        session = await http.session()
        for path in (f"{session}/observe", "/observe"):
            refused(await http.post(path, content=body), 422, "VALIDATION_ERROR", field)
        item = b'{"observations": [{}, {}, ' + (body.strip() or b"null") + b"]}"
        inner = "observations[2]" if field == "body" else f"observations[2].{field}"
        for path in (f"{session}/observe-sequence", "/observe-sequence"):
            refused(await http.post(path, content=item), 422, "VALIDATION_ERROR", inner)
        assert (await http.get(f"{session}/stm")).json()["length"] == 0
        assert http.kato.counters.observations == 0

    @pytest.mark.parametrize(
        ("body", "word"),
        [
            (b"{", "surrogate"),
            (b'{"strings": ["a",]}', "byte 17"),
            (b'{"emotives": {"joy": NaN}}', "byte 21"),
            (b'{"emotives": {"joy": -Infinity}}', "byte"),
            (b'{"emotives": {"joy": Infinity}}', "byte 21"),
            (b'{"strings": ["a"]} x', "byte"),
            (rb'{"strings": ["\ud800"]}', "surrogate"),
            (rb'{"strings": ["\ud800abcdef"]}', "byte"),
            (b'{"strings": ["\x00"]}', "byte 14"),
            (b'{"strings": ["\xff"]}', "UTF-8"),
            (b'{"x": ' + b"[" * DEEP + b"]" * DEEP + b"}", "deeply"),
            (b'{"metadata": {"a": ' + b"[" * DEEP + b"]" * DEEP + b"}}", "deeply"),
            (b'{"metadata": {"a": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}}", "deeply"),
            ("{}".encode("utf-16"), "byte"),
        ],
    )
    async def test_what_is_not_json(self, http: Client, body: bytes, word: str) -> None:
        session = await http.session()
        error = refused(await http.post(f"{session}/observe", content=body), 422, "VALIDATION_ERROR")
        assert word in error["message"]
        assert len(error["message"]) < 200

    async def test_batches(self) -> None:
        async with client(endpoint_batch_size_limit=3) as http:
            session = await http.session()
            path = f"{session}/observe-sequence"
            assert (await http.post(path, json={"observations": [{}] * 3})).status_code == 200
            answer = await http.post(path, json={"observations": [{}] * 4})
            assert "At most 3" in refused(answer, 422, "VALIDATION_ERROR", "observations")["message"]
            refused(await http.post(path, json={}), 422, "VALIDATION_ERROR", "observations")
            wrong = {"observations": [], "learn_at_end": "yes"}
            refused(await http.post(path, json=wrong), 422, "VALIDATION_ERROR", "learn_at_end")

    async def test_configured_vector_dimension(self) -> None:
        async with client(vector_dimension=3) as http:
            session = await http.session()
            error = refused(
                await http.post(f"{session}/observe", json={"vectors": [[1, 2]]}),
                400,
                "VECTOR_DIMENSION_ERROR",
            )
            assert (error["details"]["expected_dimension"], error["details"]["actual_dimension"]) == (3, 2)


class TestAcceptance:
    @pytest.mark.parametrize(
        "symbols",
        [
            ["x" * 1024],
            ["😀" * 1024],
            ["it's", 'say "hi"', "\\", "\n\t\x01", "", " ", "ſ́", "PTRN|x"],
            ["s"] * 1000,
        ],
    )
    async def test_unusual_symbols(self, http: Client, symbols: list[str]) -> None:
        session = await http.session()
        await http.observe(session, *symbols)
        assert (await http.get(f"{session}/stm")).json()["stm"] == [sorted(symbols)]

    @pytest.mark.parametrize(
        "body",
        [
            {"vectors": [[0.5]] * 64},
            {"vectors": [[1e100, -1e100]] * 64},
            {"emotives": {str(n): n for n in range(256)}},
            {"emotives": {"joy": 10**22, "": -0.0}},
            {"metadata": {"a": [None, True, 2**64 - 1, -(2**63), {"b": "\x00"}]}},
            {"unknown": {"deeply": [[[[]]]]}},
            {"unique_id": "x" * 256},
            {},
        ],
    )
    async def test_within_the_limits(self, http: Client, body: dict[str, Any]) -> None:
        session = await http.session()
        assert (await http.post(f"{session}/observe", json=body)).status_code == 200
        assert (await http.post(f"{session}/learn")).status_code in (200, 400)
        assert (await http.post(f"{session}/observe", json=body)).status_code == 200
        assert (await http.get(f"{session}/predictions")).status_code == 200

    async def test_nothing_observed_still_takes_time(self, http: Client) -> None:
        session = await http.session()
        for expected in (1, 2):
            seen = await http.observe(session)
            assert (seen["time"], seen["stm_length"]) == (expected, 0)
            assert seen["unique_id"].startswith("obs-")

    async def test_another_dimension_is_observed_under_its_own_name(self, http: Client) -> None:
        session = await http.session()
        for vector in ([1, 2], [1, 2, 3]):
            answer = await http.post(f"{session}/observe", json={"vectors": [vector], "strings": ["a"]})
            assert answer.status_code == 200
            assert (await http.post(f"{session}/learn")).json()["pattern_name"]
        await http.observe(session, vectors=[[3, 2, 1]])
        stm = (await http.get(f"{session}/stm")).json()["stm"]
        assert [len(event) for event in stm] == [1]


class TestBodies:
    async def test_content_types(self, http: Client) -> None:
        session = await http.session()
        body = b'{"strings": ["a"]}'
        for kind in (
            "application/json",
            "application/json; charset=utf-8",
            "Application/JSON",
            "application/ld+json",
            "",
        ):
            answer = await http.post(f"{session}/observe", content=body, headers={"Content-Type": kind})
            assert answer.status_code == 200, kind
        for kind in (
            "text/plain",
            "application/xml",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
        ):
            answer = await http.post(f"{session}/observe", content=body, headers={"Content-Type": kind})
            error = refused(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
            assert error["details"] == {"content_type": kind}

    async def test_size_as_declared(self, http: Client) -> None:
        limit = load().max_request_size
        for length in (str(limit + 1), "9" * 30):
            answer = await http.post("/observe", content=b"{}", headers={"Content-Length": length})
            error = refused(answer, 413, "REQUEST_TOO_LARGE")
            assert error["details"] == {"limit_bytes": limit}

    async def test_size_as_streamed(self) -> None:
        async with client(max_request_size=2000) as http:
            asked = 0

            async def pieces() -> Any:
                nonlocal asked
                yield b'{"metadata": {"a": "'
                for _ in range(100):
                    asked += 1
                    yield b"x" * 500

            refused(await http.post("/observe", content=pieces()), 413, "REQUEST_TOO_LARGE")
            assert asked < 10

            async def fitting() -> Any:
                for piece in (b'{"strings"', b': ["a"', b"]}"):
                    yield piece

            assert (await http.post("/observe", content=fitting())).status_code == 200
            refused(await http.post("/observe", content=b" " * 2001, headers={}), 413, "REQUEST_TOO_LARGE")

    async def test_a_hundred_mebibytes(self, http: Client) -> None:
        body = b'{"strings": ["a"], "unknown": "' + b"x" * (100 * 1024 * 1024 - 33) + b'"}'
        assert len(body) == 100 * 1024 * 1024
        assert (await http.post("/observe", content=body)).status_code == 200
        refused(await http.post("/observe", content=body + b" "), 413, "REQUEST_TOO_LARGE")

    async def test_session_memory(self) -> None:
        async with client(max_session_memory_bytes=4096) as http:
            session = await http.session()
            await http.observe(session, "a")
            answer = await http.post(
                f"{session}/observe", json={"strings": ["x" * 1000 + str(i) for i in range(9)]}
            )
            refused(answer, 507, "RESOURCE_EXHAUSTED")
            assert (await http.get(f"{session}/stm")).json()["stm"] == [["a"]]
