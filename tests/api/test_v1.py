"""The v1 surface: the session of a call, the verbs, genes."""

from __future__ import annotations

import pytest

from tests.api.driving import Client, client, refused

EVERYWHERE = pytest.mark.parametrize("prefix", ["", "/v1"])


@EVERYWHERE
async def test_the_default_session(http: Client, prefix: str) -> None:
    seen = (await http.post(f"{prefix}/observe", json={"strings": ["a"], "unique_id": "u"})).json()
    assert seen == {
        "status": "okay",
        "processor_id": "kato",
        "session_id": "default-kato",
        "auto_learned_pattern": None,
        "time": 1,
        "unique_id": "u",
    }
    await http.post(f"{prefix}/observe", json={"strings": ["b"]})
    for path in ("/stm", "/short-term-memory"):
        found = await http.get(prefix + path)
        assert found.json() == {"stm": [["a"], ["b"]], "processor_id": "kato", "session_id": "default-kato"}
        assert found.headers["x-session-id"] == "default-kato"


@EVERYWHERE
async def test_learn_predict_clear(http: Client, prefix: str) -> None:
    learned = (await http.post(f"{prefix}/learn")).json()
    assert (learned["pattern_name"], learned["message"]) == ("", "Insufficient data for learning")
    for symbol in "ab":
        await http.post(f"{prefix}/observe", json={"strings": [symbol]})
    learned = (await http.post(f"{prefix}/learn", content=b"")).json()
    assert learned["message"] == f"Learned pattern: {learned['pattern_name']}"
    await http.post(f"{prefix}/observe", json={"strings": ["a"], "unique_id": "u"})
    for method in ("GET", "POST"):
        found = (await http.request(method, f"{prefix}/predictions")).json()
        assert found["processor_id"] == "kato"
        assert found["predictions"][0]["future"] == [["b"]]
        assert (await http.request(method, f"{prefix}/predictions?unique_id=u")).json() == found
        refused(await http.request(method, f"{prefix}/predictions?unique_id=v"), 404, "NOT_FOUND")
    assert (await http.get(f"{prefix}/percept-data")).json()["percept_data"]["strings"] == ["a"]
    assert (await http.get(f"{prefix}/cognition-data")).json()["cognition_data"]["symbols"] == ["a"]
    shown = (await http.get(f"{prefix}/pattern/{learned['pattern_name']}")).json()
    assert shown["pattern"] == {
        "name": learned["pattern_name"],
        "pattern_data": [["a"], ["b"]],
        "length": 2,
        "frequency": 1,
        "emotives": [],
        "metadata": {},
    }
    bare = learned["pattern_name"].removeprefix("PTRN|")
    assert (await http.get(f"{prefix}/pattern/{bare}")).json() == shown
    for path in ("/clear-stm", "/clear-short-term-memory"):
        assert (await http.post(prefix + path)).json()["message"] == "stm-cleared"
    for path in ("/clear-all", "/clear-all-memory"):
        assert (await http.post(prefix + path, json={})).json()["message"] == "all-cleared"
    refused(await http.get(f"{prefix}/pattern/{bare}"), 404, "PATTERN_NOT_FOUND")


@EVERYWHERE
async def test_a_batch(http: Client, prefix: str) -> None:
    await http.post(
        "/observe-sequence", json={"observations": [{"strings": [s]} for s in "ab"], "learn_at_end": True}
    )
    answer = await http.post(f"{prefix}/observe-sequence", json={"observations": [{"strings": ["a"]}]})
    found = answer.json()
    assert (found["status"], found["observations_processed"], found["patterns_learned"]) == ("okay", 1, [])
    assert [r["status"] for r in found["individual_results"]] == ["okay"]
    assert found["final_predictions"][0]["future"] == [["b"]]
    ended = (
        await http.post(f"{prefix}/observe-sequence", json={"observations": [], "learn_at_end": True})
    ).json()
    assert (ended["observations_processed"], ended["final_predictions"]) == (0, [])


class TestSessionChoice:
    async def test_header_then_cookie_then_default(self, http: Client) -> None:
        first = (await http.session("one")).rpartition("/")[2]
        second = (await http.session("two")).rpartition("/")[2]
        cookie = {"Cookie": f"theme=dark; session_id={second}"}
        by_both = await http.post(
            "/observe", json={"strings": ["x"]}, headers={"X-Session-ID": first, **cookie}
        )
        assert (by_both.json()["session_id"], by_both.json()["processor_id"]) == (first, "one_kato")
        assert by_both.headers["x-session-id"] == first
        by_cookie = await http.post("/observe", json={"strings": ["x"]}, headers=cookie)
        assert by_cookie.json()["session_id"] == second
        assert (await http.get("/stm", headers={"Cookie": "theme=dark"})).json()[
            "session_id"
        ] == "default-kato"
        assert (await http.get("/stm", headers={"Cookie": "session_id"})).status_code in (200, 404)

    @pytest.mark.parametrize(
        "method_path",
        [
            "GET /stm",
            "POST /observe",
            "POST /learn",
            "GET /status",
            "GET /pattern/x",
            "GET /gene/sort",
            "POST /genes/update",
            "POST /clear-all",
        ],
    )
    async def test_an_unknown_session_is_never_replaced(self, http: Client, method_path: str) -> None:
        method, path = method_path.split()
        body = b"{}" if method == "POST" else b""
        for headers in ({"X-Session-ID": "nobody"}, {"Cookie": "session_id=nobody"}):
            answer = await http.request(method, path, content=body, headers=headers)
            refused(answer, 404, "SESSION_NOT_FOUND")
        assert (await http.get("/sessions")).json()["sessions"] == []

    async def test_patterns_are_those_of_the_session(self, http: Client) -> None:
        session = await http.session("mine")
        name = await http.teach(session, "a", "b")
        headers = {"X-Session-ID": session.rpartition("/")[2]}
        assert (await http.get(f"/pattern/{name}", headers=headers)).json()["processor_id"] == "mine_kato"
        refused(await http.get(f"/pattern/{name}"), 404, "PATTERN_NOT_FOUND")

    async def test_the_default_session_survives_a_restart(self, tmp_path: object) -> None:
        for expected in (1, 2):
            async with client(kato_data=str(tmp_path)) as http:
                await http.post("/observe", json={"strings": ["a"]})
                assert len((await http.get("/stm")).json()["stm"]) == expected


class TestPatternForms:
    async def test_a_named_node_asks_in_v3(self, http: Client) -> None:
        session = await http.session("test_n")
        name = await http.teach(session, "a", "b")
        for query, headers in (
            ({"node_id": "test_n"}, {}),
            ({}, {"X-Test-ID": "n"}),
            ({}, {"X-Node-ID": "test_n"}),
            ({}, {"X-Test-ID": "n", "X-Node-ID": "other"}),
            ({"node_id": "test_n"}, {"X-Test-ID": "other"}),
        ):
            found = (await http.get(f"/pattern/{name}", params=query, headers=headers)).json()
            assert found["node_id"] == "test_n"
            assert found["pattern"]["status"] == "okay"
            assert found["pattern"]["pattern"]["pattern_data"] == [["a"], ["b"]]
            missing = await http.get("/pattern/zzz", params=query, headers=headers)
            assert missing.json()["pattern"] == {"status": "error", "message": "Pattern zzz not found"}
        refused(await http.get("/pattern/zzz"), 404, "PATTERN_NOT_FOUND")

    async def test_node_headers_are_checked(self, http: Client) -> None:
        refused(
            await http.get("/pattern/x", headers={b"X-Node-ID": b"\xff"}),
            422,
            "VALIDATION_ERROR",
            "X-Node-Id",
        )
        refused(await http.get("/pattern/x", headers={"X-Node-ID": ""}), 422, "VALIDATION_ERROR", "X-Node-ID")


class TestGenes:
    @EVERYWHERE
    async def test_read_change_read(self, http: Client, prefix: str) -> None:
        answer = await http.post(
            f"{prefix}/genes/update", json={"genes": {"persistence": 9, "smoothness": 5}}
        )
        assert answer.json()["message"] == "genes-updated"
        await http.post(f"{prefix}/genes/update", json={"sort": False})
        for name, value in (("persistence", 9), ("smoothness", 5), ("sort", False), ("quiescence", 3)):
            found = (await http.get(f"{prefix}/gene/{name}")).json()
            assert (found["gene_name"], found["gene_value"]) == (name, value)
            assert found["processor_id"] == "kato"

    async def test_read_only_genes(self, http: Client) -> None:
        for name, value in (("indexer_type", "VI"), ("id", "kato"), ("name", "KatoProcessor")):
            assert (await http.get(f"/gene/{name}")).json()["gene_value"] == value
            refused(await http.post("/genes/update", json={name: value}), 400, "UNKNOWN_GENE")
        refused(await http.get("/gene/__class__"), 404, "GENE_NOT_FOUND")

    async def test_all_or_nothing(self, http: Client) -> None:
        refused(await http.post("/genes/update", json={"persistence": 9, "magic": 1}), 400, "UNKNOWN_GENE")
        wrong = await http.post("/genes/update", json={"genes": {"persistence": 9, "max_predictions": 0}})
        refused(wrong, 400, "CONFIGURATION_INVALID")
        assert (await http.get("/gene/persistence")).json()["gene_value"] == 5
        refused(await http.post("/genes/update", json={"genes": []}), 422, "VALIDATION_ERROR", "genes")

    async def test_a_session_keeps_its_genes_to_itself(self, http: Client) -> None:
        mine = {"X-Session-ID": (await http.session()).rpartition("/")[2]}
        await http.post("/genes/update", json={"persistence": 7}, headers=mine)
        assert (await http.get("/gene/persistence", headers=mine)).json()["gene_value"] == 7
        assert (await http.get("/gene/persistence")).json()["gene_value"] == 5
        await http.post("/genes/update", json={"persistence": 8})
        fresh = {"X-Session-ID": (await http.session()).rpartition("/")[2]}
        assert (await http.get("/gene/persistence", headers=fresh)).json()["gene_value"] == 8
