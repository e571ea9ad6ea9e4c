"""Health, status, figures."""

from __future__ import annotations

from typing import Any

import pytest

from kato.errors import StorageError
from tests.api.driving import Client, refused

EVERYWHERE = pytest.mark.parametrize("prefix", ["", "/v1", "/v2"])


@EVERYWHERE
class TestHealth:
    @pytest.mark.parametrize("path", ["/health", "/health/detailed"])
    async def test_well(self, http: Client, prefix: str, path: str) -> None:
        await http.post("/observe", json={"strings": ["a"]})
        found = (await http.get(prefix + path)).json()
        assert (found["status"], found["processor_status"], found["issues"]) == ("healthy", "healthy", [])
        assert (found["processor_id"], found["base_processor_id"]) == ("kato", "kato")
        assert (found["active_sessions"], found["stm_length"]) == (1, 1)
        assert found["memory_usage"] > 1_000_000
        assert found["uptime"] >= 0
        assert set(found["dependencies"]) == {"sessions", "patterns"}
        assert found["features"]["websocket_events"] is True

    @pytest.mark.parametrize("store", ["sessions", "patterns"])
    async def test_a_store_is_away(
        self, http: Client, prefix: str, store: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def away(*_: Any) -> int:
            raise StorageError("The disk is full")

        place = http.kato.sessions._store if store == "sessions" else http.kato.memory.patterns
        monkeypatch.setattr(place, "count", away)
        answer = await http.get(f"{prefix}/health")
        assert answer.status_code == 503
        found = answer.json()
        assert (found["status"], found["issues"]) == ("unhealthy", [f"{store}: The disk is full"])
        assert found["dependencies"][store]["status"] == "unhealthy"
        answer = await http.get(f"{prefix}/health/ready")
        assert answer.status_code == 503
        assert answer.json()["checks"][f"{store}_store"] is False

    async def test_life_cycle(self, http: Client, prefix: str) -> None:
        assert (await http.get(f"{prefix}/health/live")).json() == {"status": "alive"}
        assert (await http.get(f"{prefix}/health/startup")).json() == {"started": True}
        ready = await http.get(f"{prefix}/health/ready")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        await http.app.instance.drain()
        ready = await http.get(f"{prefix}/health/ready")
        assert (ready.status_code, ready.json()["checks"]["accepting"]) == (503, False)
        assert (await http.get(f"{prefix}/health")).json()["issues"] == ["stopping"]
        assert (await http.get(f"{prefix}/health/live")).status_code == 200

    async def test_looking_opens_no_session(self, http: Client, prefix: str) -> None:
        for path in ("/health", "/status", "/metrics", "/ping"):
            assert (await http.get(prefix + path)).status_code == 200
        assert (await http.get("/sessions/count")).json() == {"active_session_count": 0}


@EVERYWHERE
async def test_status(http: Client, prefix: str) -> None:
    session = await http.session("mine")
    await http.teach(session, "a", "b")
    await http.observe(session, "a")
    found = (await http.get(f"{prefix}/status")).json()
    assert (found["status"], found["stm_length"], found["time"], found["session_id"]) == ("okay", 0, 0, None)
    assert found["sessions"]["active_sessions"] == 1
    assert found["processors"]["processors"] == [
        {"processor_id": "mine_kato", "node_id": "mine", "patterns": 1}
    ]
    assert found["configuration"]["recall_threshold"] == 0.1
    named = session.rpartition("/")[2]
    answer = await http.get(f"{prefix}/status", headers={"X-Session-ID": named})
    found = answer.json()
    assert (found["stm_length"], found["time"], found["session_id"]) == (1, 3, named)
    assert answer.headers["x-session-id"] == named
    refused(await http.get(f"{prefix}/status", headers={"X-Session-ID": "nobody"}), 404, "SESSION_NOT_FOUND")


async def test_figures(http: Client) -> None:
    for symbol in "ab":
        await http.post("/observe", json={"strings": [symbol]})
    await http.post("/learn")
    await http.post("/observe", json={"strings": ["a"]})
    await http.get("/predictions")
    await http.get("/gene/unknown")
    for path in ("/metrics", "/v1/metrics"):
        found = (await http.get(path)).json()
        assert found.pop("uptime_seconds") >= 0
        assert found == {
            "processor_id": "kato",
            "observations_processed": 3,
            "patterns_learned": 1,
            "predictions_generated": 1,
            "stm_size": 1,
        }
    found = (await http.get("/v2/metrics")).json()
    assert found["operations"] == {"observations": 3, "patterns_learned": 1, "predictions": 1, "stm_trims": 0}
    assert found["errors_by_code"] == {"GENE_NOT_FOUND": 1}
    assert found["performance"]["total_errors"] == 1
    assert found["sessions"]["active"] == found["active_sessions"] == 1
    assert found["resources"]["memory_bytes"] > 0
    assert found["rates"]["requests_per_second"] > 0


async def test_what_this_is(http: Client) -> None:
    found = (await http.get("/")).json()
    assert (found["service"], found["status"], found["session_support"]) == ("kato", "running", True)
    for path in ("/ping", "/v1/ping", "/v2/ping"):
        assert (await http.get(path)).json() == {"status": "okay", "processor_id": "kato"}
