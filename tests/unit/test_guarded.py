"""The guarded ports: which operations are repeated, which are not, and in whose compartment they travel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kato.engine import learning
from kato.errors import StorageError
from kato.guarded import GuardedFeed, GuardedPatterns, GuardedSessions, GuardedVectors
from kato.model import SessionState
from kato.ops.breaker import Breaker
from kato.ops.bulkhead import Bulkhead
from kato.ops.guard import KINDS, Guard, Retry
from kato.stores.sqlite import SqlitePatternStore
from tests.support.memory import lesson


class Flaky:
    """Any port; each operation fails once, then answers with its name. Notes the busy compartments."""

    exclusive = False

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.compartments: dict[str, str] = {}
        self.guard = Guard(
            "store",
            Breaker("store", 100, 30),
            {kind: Bulkhead(kind, 10) for kind in KINDS},
            dict.fromkeys(KINDS, Retry(3, 0, 0)),
        )

    def __getattr__(self, verb: str) -> Any:
        async def answer(*_: Any) -> Any:
            self.calls.append(verb)
            self.compartments[verb] = next(k for k, b in self.guard.bulkheads.items() if b.used)
            if self.calls.count(verb) == 1:
                raise StorageError("not acknowledged")
            return verb

        return answer


STATE = SessionState(session_id="s", node_id="n", created_at=0, last_accessed=0, expires_at=1, ttl_seconds=1)
PATTERNS: dict[str, tuple[tuple[Any, ...], str, bool]] = {
    "insert": (("n", []), "learn", True),
    "replace": (("n", learning.first(lesson("a b")), 1), "learn", True),
    "fetch": (("n", []), "predict", True),
    "delete": (("n", "x"), "admin", False),
    "drop": (("n",), "admin", False),
    "nodes": ((), "admin", True),
    "count": (("n",), "admin", True),
}
VECTORS: dict[str, tuple[tuple[Any, ...], str, bool]] = {
    "put": (("n", {}), "learn", True),
    "nearest": (("n", [], 1), "observe", True),
    "drop": (("n",), "admin", True),
}
SESSIONS: dict[str, tuple[tuple[Any, ...], str, bool]] = {
    "create": ((STATE, 0, 0), "observe", True),
    "load": (("s",), "observe", True),
    "save": ((STATE,), "observe", True),
    "touch": ((STATE,), "observe", True),
    "delete": (("s",), "admin", False),
    "count": ((0.0,), "admin", True),
    "page": ((1, None, None, 0.0, False), "admin", True),
    "expire": ((0.0,), "admin", False),
    "expired": (("s",), "observe", True),
}
FEED: dict[str, tuple[tuple[Any, ...], str, bool]] = {
    "append": (("n", []), "learn", True),
    "position": (("n",), "predict", True),
    "tail": (("n", "0"), "predict", True),
}
CASES = [
    (port, verb, *case)
    for port, cases in (
        (GuardedPatterns, PATTERNS),
        (GuardedVectors, VECTORS),
        (GuardedSessions, SESSIONS),
        (GuardedFeed, FEED),
    )
    for verb, case in cases.items()
]


@pytest.mark.parametrize(("port", "verb", "arguments", "kind", "repeated"), CASES)
async def test_an_operation_is_repeated_unless_its_answer_would_be_another(
    port: Any, verb: str, arguments: tuple[Any, ...], kind: str, repeated: bool
) -> None:
    store = Flaky()
    call: Callable[..., Awaitable[Any]] = getattr(port(store, store.guard), verb)
    if repeated:
        # `drop` of vectors answers nothing.
        assert await call(*arguments) in (verb, None)
    else:
        with pytest.raises(StorageError):
            await call(*arguments)
    assert store.calls == [verb] * (1 + repeated)
    assert store.compartments == {verb: kind}


@pytest.mark.parametrize("port", [GuardedPatterns, GuardedVectors, GuardedSessions, GuardedFeed])
async def test_closing_is_not_guarded(port: Any) -> None:
    with pytest.raises(StorageError, match="closed badly"):
        await port(EndsBadly(), Flaky().guard).close()


class EndsBadly:
    """A store whose end fails; nobody tries that again."""

    exclusive = False

    async def close(self) -> None:
        raise StorageError("closed badly")


@contextmanager
def failing_scans(store: SqlitePatternStore, at: list[int]) -> Iterator[list[int]]:
    """Scans that fail before the batches whose numbers are in `at`, each once; counts the scans."""
    scans, scan = list[int](), store.scan

    async def flaky(node: str) -> AsyncIterator[Any]:
        scans.append(1)
        number = 0
        async for batch in scan(node):
            if number in at:
                at.remove(number)
                raise StorageError("lost on the way")
            yield batch
            number += 1

    store.scan = flaky  # type: ignore[method-assign]
    yield scans


@pytest.fixture
async def filled() -> AsyncIterator[SqlitePatternStore]:
    store = SqlitePatternStore(":memory:")
    await store.insert("n", [learning.first(lesson("a b")), learning.first(lesson("c d"))])
    yield store
    await store.close()


async def test_a_scan_begins_anew_until_its_first_batch_is_there(filled: SqlitePatternStore) -> None:
    flaky = Flaky()
    with failing_scans(filled, [0]) as scans:
        found = [record async for batch in GuardedPatterns(filled, flaky.guard).scan("n") for record in batch]
    assert (len(found), len(scans)) == (2, 2)
    assert flaky.guard.bulkheads["admin"].used == 0


async def test_later_it_fails(filled: SqlitePatternStore) -> None:
    flaky = Flaky()

    async def batches(node: str) -> AsyncIterator[Any]:
        yield [1]
        raise StorageError("lost on the way")

    filled.scan = batches  # type: ignore[method-assign]
    scan = GuardedPatterns(filled, flaky.guard).scan("n")
    assert await anext(scan) == [1]
    with pytest.raises(StorageError):
        await anext(scan)
    assert flaky.guard.bulkheads["admin"].used == 0


async def test_while_it_lasts_it_holds_a_place(filled: SqlitePatternStore) -> None:
    flaky = Flaky()
    scan = GuardedPatterns(filled, flaky.guard).scan("n")
    await anext(scan)
    assert flaky.guard.bulkheads["admin"].used == 1
    await scan.aclose()  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    assert flaky.guard.bulkheads["admin"].used == 0
