"""Sessions on a real store, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from kato.model import SessionState
from kato.ops.counters import Counters
from kato.ops.events import EventBus, Subscription
from kato.sessions.keeper import Sessions
from kato.sessions.shared import SharedSessions
from kato.settings import Settings
from kato.stores.ports import SessionStore
from kato.stores.redis import RedisSessionStore
from kato.stores.sqlite import SqliteSessionStore
from tests.support import redis
from tests.support.clock import Clock


class Keeping:
    """Sessions with everything around them."""

    def __init__(self, store: SessionStore, clock: Clock, kept: int = 10_000, **settings: Any) -> None:
        self.clock = clock
        self.store = store
        self.counters = Counters()
        self.events = EventBus(clock)
        if isinstance(store, RedisSessionStore):
            self.sessions: Sessions = SharedSessions(
                store, Settings(**settings), self.events, self.counters, clock, kept
            )
        else:
            self.sessions = Sessions(store, Settings(**settings), self.events, self.counters, clock)
        self.heard: Subscription = self.events.subscribe()

    async def create(self, ttl_seconds: int = 60, user_id: str | None = "user", **more: Any) -> SessionState:
        return await self.sessions.create(
            node_id=user_id or "kato",
            user_id=user_id,
            metadata=more.pop("metadata", {}),
            ttl_seconds=ttl_seconds,
            config=more.pop("config", {}),
        )

    async def observe(self, session_id: str, symbol: str = "x") -> int:
        """Append an event; returns the time after it."""

        async def change(state: SessionState) -> tuple[SessionState, int]:
            after = msgspec.structs.replace(state, stm=(*state.stm, (symbol,)), time=state.time + 1)
            return after, after.time

        return await self.sessions.change(session_id, change)

    async def told(self) -> list[tuple[str, dict[str, Any]]]:
        """The events published since the last call."""
        self.events.publish("mark", {})
        found = []
        while (happening := await self.heard.next()).event_type != "mark":
            found.append((happening.event_type, happening.data))
        return found


@asynccontextmanager
async def keeping(
    path: Path | str = ":memory:",
    clock: Clock | None = None,
    store: SessionStore | None = None,
    shared: bool = False,
    **settings: Any,
) -> AsyncIterator[Keeping]:
    """Sessions on `store`, or on a store of their own in SQLite or (`shared`) in Redis; closed at the end."""
    limit = settings.get("MAX_SESSION_MEMORY_BYTES", 10 * 1024 * 1024)
    if store is None and shared:
        store = RedisSessionStore(redis.shared().url, prefix=redis.fresh_prefix(), max_bytes=limit)
    kept = Keeping(store or SqliteSessionStore(path, max_bytes=limit), clock or Clock(), **settings)
    try:
        yield kept
    finally:
        await kept.sessions.close()
