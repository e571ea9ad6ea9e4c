"""Long-term memory on a real store: lessons, and everything a node shows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from kato.engine.naming import pattern_name
from kato.memory.node import Node
from kato.model import Emotives, Events, Lesson, SessionConfig
from kato.stores.ports import PatternStore
from kato.stores.sqlite import SqlitePatternStore

CONFIGS = (
    SessionConfig(),
    SessionConfig(recall_threshold=0.0, affinity_emotive="joy"),
    SessionConfig(use_token_matching=False),
    SessionConfig(fuzzy_token_threshold=0.8, rank_sort_algo="similarity"),
)


def events(text: str) -> Events:
    """`"ab c"` is the event of a and b, then that of c.

    >>> events("ab c")
    (('a', 'b'), ('c',))
    """
    return tuple(tuple(event) for event in text.split())


def lesson(text: str, operation: str = "", emotives: Sequence[Emotives] = (), **metadata: str) -> Lesson:
    """The lesson that teaches `events(text)`."""
    taught = events(text)
    return Lesson(
        name=pattern_name(taught),
        events=taught,
        emotives=tuple(emotives),
        metadata={key: (value,) for key, value in metadata.items()},
        operation=operation,
    )


def name_of(text: str) -> str:
    """The bare name of the pattern `events(text)`."""
    return pattern_name(events(text))


async def shown(node: Node, states: Sequence[str] = ("a b", "b c", "ab c", "a", "d e f")) -> dict[str, Any]:
    """Everything a node shows, predictions as the bytes a client gets."""
    found = [await node.predict(events(state), config) for state in states for config in CONFIGS]
    page = await node.page(1000, None, None, 0)
    return {
        "totals": node.totals(),
        "symbols": node.symbol_statistics(),
        "affinities": {s: {e: v.hex() for e, v in sums.items()} for s, sums in node.affinities().items()},
        "patterns": page.patterns,
        "predictions": msgspec.json.encode(found),
    }


@asynccontextmanager
async def learning(
    path: Path | str = ":memory:", store: PatternStore | None = None, node_id: str = "node"
) -> AsyncIterator[Node]:
    """An open node on `store`, or on an SQLite store of its own."""
    used = store or SqlitePatternStore(path)
    with ThreadPoolExecutor(2) as threads:
        node = Node(node_id, used, threads)
        await node.open()
        try:
            yield node
        finally:
            if store is None:
                await used.close()


async def reopened(store: PatternStore, node_id: str = "node") -> dict[str, Any]:
    """What a second node of the same store shows that has just been opened."""
    async with learning(store=store, node_id=node_id) as node:
        return await shown(node)
