"""The ports again, each operation led through the guard of the server behind it.

What an operation serves decides its bulkhead and its pauses. What may be repeated after an acknowledgement was lost:
everything but removals and sweeps, whose answer would then be another one. A repeated write is recognized by what it
carries: a learn by its operation, an update by its revision, a session's state by the state itself, a vector by its
name.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TypeVar, cast

from kato.memory.feed import Entry, Feed, Tail
from kato.model import Pattern, PatternRecord, SessionState
from kato.ops.guard import Guard
from kato.sessions.shared import SharedStore
from kato.stores.ports import PatternStore, SessionIds, SessionPage, VectorStore

T = TypeVar("T")


async def _batches(guard: Guard, scan: Callable[[], AsyncIterator[T]]) -> AsyncIterator[T]:
    """A scan; until its first batch is there it may begin anew. It holds its connection, so it holds a place too."""

    async def begin() -> tuple[AsyncGenerator[T, None], T | None]:
        # Every adapter writes its scans as generators.
        batches = cast("AsyncGenerator[T, None]", scan())
        return batches, await anext(batches, None)

    async with guard.bulkheads["admin"]:
        batches, batch = await guard.run("predict", begin)
        async with aclosing(batches):
            while batch is not None:
                yield batch
                batch = await guard.run("predict", lambda: anext(batches, None), repeatable=False)


class GuardedPatterns:
    """A `PatternStore` behind its guard."""

    def __init__(self, store: PatternStore, guard: Guard) -> None:
        self._store = store
        self._guard = guard

    async def insert(self, node: str, patterns: Sequence[Pattern]) -> set[str]:
        """Repeated, it also returns names that the first attempt has added."""
        return await self._guard.run("learn", lambda: self._store.insert(node, patterns))

    async def replace(self, node: str, pattern: Pattern, revision: int) -> bool:
        """Repeated, it is False when the first attempt has done it."""
        return await self._guard.run("learn", lambda: self._store.replace(node, pattern, revision))

    async def fetch(self, node: str, names: Sequence[str]) -> dict[str, Pattern]:
        """As the port says."""
        return await self._guard.run("predict", lambda: self._store.fetch(node, names))

    async def delete(self, node: str, name: str, revision: int | None = None) -> bool:
        """As the port says."""
        return await self._guard.run(
            "admin", lambda: self._store.delete(node, name, revision), repeatable=False
        )

    def scan(self, node: str) -> AsyncIterator[list[PatternRecord]]:
        """As the port says."""
        return _batches(self._guard, lambda: self._store.scan(node))

    async def drop(self, node: str) -> int:
        """As the port says."""
        return await self._guard.run("admin", lambda: self._store.drop(node), repeatable=False)

    async def nodes(self) -> list[str]:
        """As the port says."""
        return await self._guard.run("admin", self._store.nodes)

    async def count(self, node: str) -> int:
        """As the port says."""
        return await self._guard.run("admin", lambda: self._store.count(node))

    async def close(self) -> None:
        """As the port says."""
        await self._store.close()


class GuardedVectors:
    """A `VectorStore` behind its guard."""

    def __init__(self, store: VectorStore, guard: Guard) -> None:
        self._store = store
        self._guard = guard

    async def put(self, node: str, vectors: Mapping[str, Sequence[float]]) -> list[str]:
        """As the port says."""
        return await self._guard.run("learn", lambda: self._store.put(node, vectors))

    async def nearest(self, node: str, vector: Sequence[float], k: int) -> list[tuple[str, float]]:
        """As the port says."""
        return await self._guard.run("observe", lambda: self._store.nearest(node, vector, k))

    def scan(self, node: str) -> AsyncIterator[list[tuple[str, tuple[float, ...]]]]:
        """As the port says."""
        return _batches(self._guard, lambda: self._store.scan(node))

    async def drop(self, node: str) -> None:
        """As the port says."""
        await self._guard.run("admin", lambda: self._store.drop(node))

    async def nodes(self) -> list[str]:
        """As the port says."""
        return await self._guard.run("admin", self._store.nodes)

    async def close(self) -> None:
        """As the port says."""
        await self._store.close()


class GuardedSessions:
    """A store of shared sessions behind its guard."""

    def __init__(self, store: SharedStore, guard: Guard) -> None:
        self._store = store
        self._guard = guard
        self.exclusive = store.exclusive

    async def create(self, state: SessionState, limit: int, limit_per_user: int) -> bool:
        """As the port says."""
        return await self._guard.run("observe", lambda: self._store.create(state, limit, limit_per_user))

    async def load(self, session_id: str, held: SessionState | None = None) -> SessionState | None:
        """As the port says."""
        return await self._guard.run("observe", lambda: self._store.load(session_id, held))

    async def save(self, state: SessionState) -> SessionState | None:
        """As the port says."""
        return await self._guard.run("observe", lambda: self._store.save(state))

    async def touch(self, state: SessionState) -> bool:
        """As the port says."""
        return await self._guard.run("observe", lambda: self._store.touch(state))

    async def delete(self, session_id: str) -> bool:
        """As the port says."""
        return await self._guard.run("admin", lambda: self._store.delete(session_id), repeatable=False)

    async def count(self, now: float) -> int:
        """As the port says."""
        return await self._guard.run("admin", lambda: self._store.count(now))

    async def page(
        self, limit: int, cursor: str | None, node: str | None, now: float, include_expired: bool
    ) -> SessionPage:
        """As the port says."""
        return await self._guard.run(
            "admin", lambda: self._store.page(limit, cursor, node, now, include_expired)
        )

    async def expire(self, now: float) -> SessionIds:
        """As the port says."""
        return await self._guard.run("admin", lambda: self._store.expire(now), repeatable=False)

    async def expired(self, session_id: str) -> bool:
        """As the port says."""
        return await self._guard.run("observe", lambda: self._store.expired(session_id))

    async def close(self) -> None:
        """As the port says."""
        await self._store.close()


class GuardedFeed:
    """A feed behind the guard of the server that carries it; an entry that arrives twice says nothing new."""

    def __init__(self, feed: Feed, guard: Guard) -> None:
        self._feed = feed
        self._guard = guard

    async def append(self, node: str, entries: Sequence[Entry]) -> str:
        """As the port says."""
        return await self._guard.run("learn", lambda: self._feed.append(node, entries))

    async def position(self, node: str) -> str:
        """As the port says."""
        return await self._guard.run("predict", lambda: self._feed.position(node))

    async def tail(self, node: str, after: str) -> Tail:
        """As the port says."""
        return await self._guard.run("predict", lambda: self._feed.tail(node, after))

    async def close(self) -> None:
        """As the port says."""
        await self._feed.close()
