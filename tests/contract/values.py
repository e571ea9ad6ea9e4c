"""Values that the suites store."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from kato.model import Events, Pattern, PatternRecord, SessionState
from kato.stores.ports import PatternStore

NODES = (
    "node",
    "",
    " ",
    "a-b",
    "a_b",
    "a.b",
    "A-B",
    "é",
    "e\u0301",
    "🧠",
    "x" * 1024,
    "x" * 1023 + "y",
    "a\0b",
    "'\"%*",
)
"""Node ids that a careless adapter confuses."""

NOW = float(int(time.time()))
"""Real, because a store may let sessions expire by its own clock."""


def name(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def pattern(text: str, events: Events = (("a", "b"), ("c",)), **fields: Any) -> Pattern:
    return Pattern(name=name(text), events=events, **fields)


RICH = pattern(
    "rich",
    (("", "\0", "naïve 日本 🧠"), ("x" * 70_000,)),
    frequency=7,
    emotives=({"joy": 0.1, "fear": -1.5}, {}, {"joy": 1e-300}),
    metadata={"source": ("book", "talk"), "empty": ()},
    affinity={"joy": 2.0},
    operations=("one", "two"),
    finalized=True,
    revision=9,
)


def session(session_id: str, **fields: Any) -> SessionState:
    defaults: dict[str, Any] = {
        "node_id": "node",
        "created_at": NOW,
        "last_accessed": NOW,
        "expires_at": NOW + 3600.0,
        "ttl_seconds": 3600,
    }
    return SessionState(session_id=session_id, **{**defaults, **fields})


async def scanned(store: PatternStore, node: str) -> list[PatternRecord]:
    return [record async for batch in store.scan(node) for record in batch]
