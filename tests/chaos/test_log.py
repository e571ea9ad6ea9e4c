"""What the libraries of the production stores see and say does not reach the log."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support import mongo, postgres, redis
from tests.support.qdrant_server import qdrant_server
from tests.support.server import serving

OBSERVED = "observed-" + "secret"
KEY = "key-" + "secret"


def store(kind: str) -> dict[str, Any]:
    if kind == "mongo":
        return {"MONGO_BASE_URL": mongo.shared().url, "MONGO_MIN_POOL_SIZE": "1"}
    return {"DATABASE_URL": postgres.shared().url, "KATO_DATABASE_POOL_SIZE": "2"}


@pytest.mark.parametrize("kind", ["mongo", "postgres"])
def test_not_even_at_debug_does_the_log_hold_what_clients_observe_or_a_key(kind: str, tmp_path: Path) -> None:
    with qdrant_server() as vectors:
        settings = {
            "KATO_STORE": kind,
            **store(kind),
            "REDIS_URL": redis.shared().url,
            **vectors.environment,
            "QDRANT_API_KEY": KEY,
            "MAX_SESSIONS": "0",
            "LOG_LEVEL": "DEBUG",
        }
        with serving(tmp_path, settings) as server, server.client() as client:
            node = f"node-{uuid.uuid4().hex}"
            session = client.post("/sessions", json={"node_id": node}).json()["session_id"]
            for number in range(2):
                body = {"strings": [OBSERVED], "vectors": [[1.0, float(number)]]}
                assert client.post(f"/sessions/{session}/observe", json=body).status_code == 200
            assert client.post(f"/sessions/{session}/learn").json()["pattern_name"]
            # A server that is gone is what libraries complain about most.
            vectors.stop()
            client.post(f"/sessions/{session}/observe", json=body)
    assert f"/sessions/{session}/observe" in server.output
    for word in (OBSERVED, KEY, OBSERVED.encode().hex(), "HTTP Request", node):
        assert word not in server.output
