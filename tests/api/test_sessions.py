"""The session surface in both vocabularies."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from kato.settings import load
from tests.api.driving import Client, client, refused
from tests.support.clock import Clock

V2, V3 = "/v2/sessions", "/sessions"
BOTH = pytest.mark.parametrize("root", [V2, V3])
OWNER = {V2: "user_id", V3: "node_id"}
WORD = {V2: "ok", V3: "okay"}


async def opened(http: Client, root: str, owner: str = "alice", **more: Any) -> dict[str, Any]:
    answer = await http.post(root, json={OWNER[root]: owner, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


class TestCreation:
    @BOTH
    async def test_everything_given_comes_back(self, http: Client, root: str) -> None:
        answer = await http.post(
            root,
            json={
                OWNER[root]: "alice",
                "metadata": {"a": [1, "x"]},
                "ttl_seconds": 120,
                "config": {"recall_threshold": 0.5},
                "unknown": 1,
            },
        )
        found = answer.json()
        assert found["user_id"] == found["node_id"] == "alice"
        assert found["metadata"] == {"a": [1, "x"]}
        assert found["ttl_seconds"] == 120
        assert found["session_config"] == {"recall_threshold": 0.5}
        born, ends = (datetime.fromisoformat(found[name]) for name in ("created_at", "expires_at"))
        assert (ends - born).total_seconds() == 120
        assert born.tzinfo is not None
        assert answer.headers["x-session-id"] == found["session_id"]

    async def test_v2_needs_no_owner_and_no_body(self, http: Client) -> None:
        for content in (b"", b"{}"):
            found = (await http.post(V2, content=content)).json()
            assert (found["user_id"], found["node_id"]) == (None, "kato")
            assert found["ttl_seconds"] == load().session_ttl

    async def test_v3_needs_a_node(self, http: Client) -> None:
        refused(await http.post(V3, json={}), 422, "VALIDATION_ERROR", "node_id")
        refused(await http.post(V3), 422, "VALIDATION_ERROR", "body")

    @pytest.mark.parametrize("owner", ["", "a\nb", "\x7f", "x" * 257, 5])
    @BOTH
    async def test_owners_are_named_sensibly(self, http: Client, root: str, owner: object) -> None:
        answer = await http.post(root, json={OWNER[root]: owner})
        refused(answer, 422, "VALIDATION_ERROR", OWNER[root])

    @pytest.mark.parametrize("seconds", [0, -1, 86_401, 1.5, "60", True])
    @BOTH
    async def test_time_to_live_has_limits(self, http: Client, root: str, seconds: object) -> None:
        answer = await http.post(root, json={OWNER[root]: "a", "ttl_seconds": seconds})
        refused(answer, 422, "VALIDATION_ERROR", "ttl_seconds")

    @BOTH
    async def test_metadata_is_at_most_64_kib(self, http: Client, root: str) -> None:
        fits = {"k": "x" * (64 * 1024 - 8)}
        await opened(http, root, metadata=fits)
        answer = await http.post(root, json={OWNER[root]: "a", "metadata": {"k": fits["k"] + "x"}})
        refused(answer, 422, "VALIDATION_ERROR", "metadata")

    @BOTH
    async def test_wrong_configuration_opens_nothing(self, http: Client, root: str) -> None:
        answer = await http.post(root, json={OWNER[root]: "a", "config": {"recall_threshold": 1.5}})
        refused(answer, 400, "CONFIGURATION_INVALID")
        assert answer.json()["detail"] == {
            "error": "Configuration validation failed",
            "validation_errors": {"recall_threshold": "Must be a number between 0.0 and 1.0"},
        }
        assert (await http.get(f"{root}/count")).json() == {"active_session_count": 0}

    async def test_sessions_are_limited(self) -> None:
        async with client(max_sessions=1) as http:
            await http.session()
            answer = await http.post(V3, json={"node_id": "b"})
            error = refused(answer, 429, "SESSION_LIMIT_EXCEEDED")
            assert error["details"]["limit_value"] == 1
            assert int(answer.headers["retry-after"]) >= 1
            assert error["retry_after"] > 0


class TestLife:
    @BOTH
    async def test_show_list_count_exists_delete(self, http: Client, root: str) -> None:
        first, second = await opened(http, root), await opened(http, root, "bob")
        one = f"{root}/{first['session_id']}"
        shown = (await http.get(one)).json()
        assert {**first, "access_count": 1} == {
            **shown,
            **{k: first[k] for k in ("last_accessed", "expires_at")},
        }
        assert (await http.get(f"{root}/count")).json()["active_session_count"] == 2
        assert (await http.get(f"{one}/exists")).json() == {
            "exists": True,
            "expired": False,
            "session_id": first["session_id"],
        }
        assert (await http.delete(one)).json() == {"status": "deleted", "session_id": first["session_id"]}
        refused(await http.delete(one), 404, "SESSION_NOT_FOUND")
        refused(await http.get(one), 404, "SESSION_NOT_FOUND")
        assert (await http.get(f"{one}/exists")).json()["exists"] is False
        listed = (await http.get(root)).json()
        assert [s["session_id"] for s in listed["sessions"]] == [second["session_id"]]

    @BOTH
    async def test_pages(self, http: Client, root: str) -> None:
        ids = sorted([(await opened(http, root, owner))["session_id"] for owner in "aabba"])
        seen, cursor = [], None
        while True:
            page = (
                await http.get(root, params={"limit": 2, **({"cursor": cursor} if cursor else {})})
            ).json()
            assert (page["total"], page["count"]) == (5, len(page["sessions"]))
            seen += [s["session_id"] for s in page["sessions"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == ids
        assert (await http.get(root, params={OWNER[root]: "b"})).json()["total"] == 2

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=x", "limit"),
            ("include_expired=maybe", "include_expired"),
            ("node_id=", "node_id"),
            ("user_id=%0A", "user_id"),
            ("cursor=" + "x" * 129, "cursor"),
            ("limit=%FF", "query"),
        ],
    )
    async def test_wrong_queries_name_the_parameter(self, http: Client, query: str, field: str) -> None:
        refused(await http.get(f"{V2}?{query}"), 422, "VALIDATION_ERROR", field)

    @BOTH
    async def test_extend_by_query_or_body(self, http: Client, root: str) -> None:
        one = f"{root}/{(await opened(http, root))['session_id']}/extend"
        assert (await http.post(one)).json()["ttl_seconds"] == 3600
        assert (await http.post(one, json={"ttl_seconds": 60})).json()["ttl_seconds"] == 60
        answer = (await http.post(f"{one}?ttl_seconds=90", json={"ttl_seconds": 60})).json()
        assert (answer["status"], answer["ttl_seconds"]) == ("extended", 90)
        assert datetime.fromisoformat(answer["expires_at"])
        refused(await http.post(f"{one}?ttl_seconds=0"), 422, "VALIDATION_ERROR", "ttl_seconds")
        refused(await http.post(one, json={"ttl_seconds": 86_401}), 422, "VALIDATION_ERROR", "ttl_seconds")

    async def test_expired_sessions_say_so(self) -> None:
        clock = Clock()
        async with client(clock) as http:
            session = await http.session(ttl_seconds=10)
            clock.advance(11)
            error = refused(await http.get(f"{session}/stm"), 404, "SESSION_EXPIRED")
            assert "not found or expired" in error["message"]
            assert (await http.get(f"{session}/exists")).json()["expired"] is True
            assert (await http.get(V3)).json()["total"] == 0
            assert (await http.get(f"{V3}?include_expired=true")).json()["total"] == 1

    @pytest.mark.parametrize("bad", ["nobody", "%00", "a%20b", "x" * 129, "%F0%9F%98%80", "..", "a%2Fb"])
    async def test_bad_ids_are_unknown_ids(self, http: Client, bad: str) -> None:
        answer = await http.get(f"http://kato/v2/sessions/{bad}/stm")
        assert answer.status_code == 404


class TestConfiguration:
    @BOTH
    async def test_read_change_read(self, http: Client, root: str) -> None:
        one = f"{root}/{(await opened(http, root, config={'persistence': 9}))['session_id']}/config"
        before = (await http.get(one)).json()["config"]
        assert (before["persistence"], before["recall_threshold"]) == (9, 0.1)
        assert "fuzzy_token_threshold" not in before
        answer = await http.post(one, json={"config": {"recall_threshold": 0.4}})
        assert answer.json()["message"] == "Configuration updated"
        assert answer.json()["status"] == "okay"
        await http.put(one, json={"max_predictions": 7})
        after = (await http.get(one)).json()["config"]
        assert after == {**before, "recall_threshold": 0.4, "max_predictions": 7}

    @BOTH
    async def test_all_or_nothing(self, http: Client, root: str) -> None:
        one = f"{root}/{(await opened(http, root))['session_id']}/config"
        before = (await http.get(one)).json()
        answer = await http.post(one, json={"config": {"persistence": 7, "max_predictions": 0}})
        error = refused(answer, 400, "CONFIGURATION_INVALID")
        assert list(error["details"]["validation_errors"]) == ["max_predictions"]
        assert (await http.get(one)).json() == before
        refused(await http.post(one, json={"config": 5}), 422, "VALIDATION_ERROR", "config")
        refused(await http.post(one, json=[1]), 422, "VALIDATION_ERROR", "body")
        refused(await http.post(one), 422, "VALIDATION_ERROR", "body")


class TestMemory:
    @BOTH
    async def test_from_observing_to_predicting(self, http: Client, root: str) -> None:
        state = await opened(http, root)
        one = f"{root}/{state['session_id']}"
        seen = await http.post(f"{one}/observe", json={"strings": ["b", "a"], "unique_id": "u1"})
        assert seen.headers["x-session-id"] == state["session_id"]
        assert seen.json() == {
            "status": WORD[root],
            "session_id": state["session_id"],
            "processor_id": "alice_kato",
            "stm_length": 1,
            "time": 1,
            "unique_id": "u1",
            "auto_learned_pattern": None,
        }
        await http.post(f"{one}/observe", json={"strings": ["c"]})
        assert (await http.get(f"{one}/stm")).json() == {
            "stm": [["a", "b"], ["c"]],
            "session_id": state["session_id"],
            "length": 2,
        }
        learned = (await http.post(f"{one}/learn", content=b"")).json()
        assert learned["status"] == "learned"
        assert learned["pattern_name"].startswith("PTRN|")
        assert learned["message"] == f"Learned pattern: {learned['pattern_name']}"
        await http.post(f"{one}/observe", json={"strings": ["a", "b"]})
        found = (await http.get(f"{one}/predictions")).json()
        assert found["time"] is None
        assert found["count"] == len(found["predictions"]) == 1
        assert found["session_id"] == state["session_id"]
        best = found["predictions"][0]
        assert (best["future"], best["pattern_name"]) == ([["c"]], learned["pattern_name"])
        assert found["future_potentials"][0]["future"] == [["c"]]
        percept = (await http.get(f"{one}/percept-data")).json()
        assert percept["percept_data"]["strings"] == ["a", "b"]
        assert percept["node_id"] == percept["user_id"] == "alice"
        thoughts = (await http.get(f"{one}/cognition-data")).json()["cognition_data"]
        assert thoughts["short_term_memory"] == [["a", "b"]]
        assert len(thoughts["predictions"]) == 1
        final = (await http.post(f"{one}/finalize-training", json={})).json()
        assert (final["status"], final["patterns_processed"], final["node_id"]) == ("completed", 1, "alice")
        cleared = (await http.post(f"{one}/clear-stm")).json()
        assert (cleared["status"], cleared["scope"]) == ("cleared", "stm")
        cleared = (await http.post(f"{one}/clear-all", json={})).json()
        assert (cleared["status"], cleared["scope"]) == ("cleared", "all")
        await http.post(f"{one}/observe", json={"strings": ["a"]})
        assert (await http.get(f"{one}/predictions")).json()["count"] == 0

    @BOTH
    async def test_predictions_take_a_limit_and_an_observation(self, http: Client, root: str) -> None:
        one = f"{root}/{(await opened(http, root))['session_id']}"
        for last in "xyz":
            await http.teach(one, "a", last)
        await http.observe(one, "a", unique_id="first")
        await http.observe(one, "x")
        assert (await http.get(f"{one}/predictions")).json()["count"] == 3
        limited = (await http.get(f"{one}/predictions?limit=1")).json()
        assert limited["count"] == len(limited["predictions"]) == 1
        asked = (await http.get(f"{one}/predictions?unique_id=first")).json()
        assert {tuple(map(tuple, p["future"])) for p in asked["predictions"]} == {
            (("x",),),
            (("y",),),
            (("z",),),
        }
        refused(await http.get(f"{one}/predictions?unique_id=other"), 404, "NOT_FOUND")
        refused(await http.get(f"{one}/predictions?limit=0"), 422, "VALIDATION_ERROR", "limit")

    @BOTH
    async def test_learning_from_nothing_is_refused(self, http: Client, root: str) -> None:
        one = f"{root}/{(await opened(http, root))['session_id']}"
        refused(await http.post(f"{one}/learn"), 400, "EMPTY_STM")
        await http.observe(one, "a")
        answer = (await http.post(f"{one}/learn")).json()
        assert (answer["pattern_name"], answer["message"]) == ("", "Insufficient data for learning")

    @BOTH
    async def test_a_batch(self, http: Client, root: str) -> None:
        state = await opened(http, root, config={"max_pattern_length": 2})
        one = f"{root}/{state['session_id']}"
        answer = await http.post(
            f"{one}/observe-sequence",
            json={"observations": [{"strings": [s]} for s in "abcde"], "learn_at_end": True},
        )
        found = answer.json()
        assert found["status"] == "completed"
        assert found["observations_processed"] == 5
        assert (found["initial_stm_length"], found["final_stm_length"]) == (0, 0)
        assert (found["final_learned_pattern"], found["isolated"]) == ("", False)
        assert len(found["auto_learned_patterns"]) == 2
        assert [r["sequence_position"] for r in found["results"]] == [0, 1, 2, 3, 4]
        assert {r["status"] for r in found["results"]} == {WORD[root]}
        assert found["results"][1]["auto_learned_pattern"] == found["auto_learned_patterns"][0]

    @BOTH
    async def test_a_batch_is_all_or_nothing(self, http: Client, root: str) -> None:
        one = f"{root}/{(await opened(http, root))['session_id']}"
        items: list[dict[str, Any]] = [{"strings": ["a"]}, {"strings": ["b"], "vectors": [[1, 2], [1]]}]
        answer = await http.post(f"{one}/observe-sequence", json={"observations": items})
        error = refused(answer, 400, "VECTOR_DIMENSION_ERROR")
        assert error["details"] == {
            "expected_dimension": 2,
            "actual_dimension": 1,
            "vector_name": "vectors[1]",
            "observation_index": 1,
        }
        assert answer.json()["detail"]["actual_dimension"] == 1
        assert (await http.get(f"{one}/stm")).json()["length"] == 0

    async def test_a_batch_that_takes_too_long_is_given_up(self) -> None:
        async with client(endpoint_batch_timeout=1e-6) as http:
            session = await http.session()
            answer = await http.post(
                f"{session}/observe-sequence",
                json={"observations": [{"strings": ["a", str(i)]} for i in range(100)], "learn_at_end": True},
            )
            refused(answer, 504, "TIMEOUT_ERROR")

    @BOTH
    @pytest.mark.parametrize("verb", ["observe", "observe-sequence", "learn"])
    async def test_a_key_is_done_once(self, http: Client, root: str, verb: str) -> None:
        one = f"{root}/{(await opened(http, root))['session_id']}"
        await http.observe(one, "a")
        await http.observe(one, "b")
        body = {
            "observe": {"strings": ["c"]},
            "observe-sequence": {"observations": [{"strings": ["c"]}]},
            "learn": {},
        }
        headers = {"Idempotency-Key": "once"}
        first = await http.post(f"{one}/{verb}", json=body[verb], headers=headers)
        stm = (await http.get(f"{one}/stm")).json()
        again = await http.post(f"{one}/{verb}", json=body[verb], headers=headers)
        assert first.status_code == 200
        assert again.content == first.content
        assert (await http.get(f"{one}/stm")).json() == stm
        other = "observe-sequence" if verb == "observe" else "observe"
        answer = await http.post(f"{one}/{other}", json=body[other], headers=headers)
        refused(answer, 422, "VALIDATION_ERROR", "Idempotency-Key")

    @pytest.mark.parametrize("key", ["", "x" * 256, "a\x7f"])
    async def test_keys_are_printable_and_short(self, http: Client, key: str) -> None:
        session = await http.session()
        answer = await http.post(f"{session}/observe", json={}, headers={"Idempotency-Key": key})
        refused(answer, 422, "VALIDATION_ERROR", "Idempotency-Key")

    async def test_both_vocabularies_see_one_memory(self, http: Client) -> None:
        v2, v3 = await opened(http, V2), await opened(http, V3)
        name = await http.teach(f"{V2}/{v2['session_id']}", "a", "b")
        await http.observe(f"{V3}/{v3['session_id']}", "a")
        found = (await http.get(f"{V3}/{v3['session_id']}/predictions")).json()
        assert [p["pattern_name"] for p in found["predictions"]] == [name]
        assert (await http.get(f"{V2}/{v3['session_id']}/stm")).json()["length"] == 1


async def test_without_v2_features_only_v1_is_there() -> None:
    async with client(enable_v2_features=False) as http:
        for path in (V2, V3, "/v2/patterns", "/symbols/stats", "/v2/health", "/v2/status"):
            refused(await http.get(path), 404, "NOT_FOUND")
        refused(await http.post(V3, json={"node_id": "a"}), 404, "NOT_FOUND")
        assert (await http.post("/observe", json={"strings": ["a"]})).status_code == 200
        refused(await http.get("/pattern/x?node_id=a"), 404, "PATTERN_NOT_FOUND")
        assert (await http.get("/health")).json()["features"]["v2"] is False
