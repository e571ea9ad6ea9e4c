"""A real Qdrant server, where the environment names one; no package of it can be had here."""

from __future__ import annotations

import atexit
import os
import uuid

import pytest
from qdrant_client import QdrantClient

REAL = "KATO_TEST_QDRANT_URL"


def real_url() -> str:
    """The server's REST URL (gRPC on port 6334); without one the test is skipped loudly."""
    url = os.environ.get(REAL)
    if not url:
        pytest.skip(
            f"{REAL} names no server: this was not proved on a real Qdrant, only on the client's local mode"
        )
    return url


def fresh_prefix(url: str) -> str:
    """A prefix of collections that no other test uses; they are removed at the end of the run."""
    prefix = f"test-{uuid.uuid4().hex}"
    atexit.register(_remove, url, prefix)
    return prefix


def _remove(url: str, prefix: str) -> None:
    client = QdrantClient(url=url)
    for collection in client.get_collections().collections:
        if collection.name.startswith(prefix):
            client.delete_collection(collection.name)
    client.close()
