"""What happens in a process, told to whoever listens (the event socket of service.md 2.2)."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

REPLAYED = 100
REPLAY_SECONDS = 60.0
QUEUED = 1000
OPT_IN = frozenset({"session.updated", "metrics.update"})
EVENT_TYPES = (
    "state.snapshot",
    "session.created",
    "session.destroyed",
    "session.updated",
    "pattern.learned",
    "system.error",
    "metrics.update",
    "heartbeat",
)


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """One event in the envelope clients see."""

    event_id: str
    event_type: str
    timestamp: str
    data: dict[str, Any]


class Subscription:
    """The events one listener has yet to read; when 1,000 wait, the oldest is dropped and counted."""

    def __init__(self, types: frozenset[str] | None) -> None:
        self.types = types
        self.dropped = 0
        self._waiting: deque[Happening] = deque()
        self._ready = asyncio.Event()

    def wants(self, event_type: str) -> bool:
        """Without a filter everything that is not opt-in."""
        return event_type in self.types if self.types is not None else event_type not in OPT_IN

    def offer(self, happening: Happening) -> None:
        """Queue an event if it is wanted."""
        if not self.wants(happening.event_type):
            return
        if len(self._waiting) >= QUEUED:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(happening)
        self._ready.set()

    async def next(self) -> Happening:
        """The oldest unread event; waits for one."""
        while not self._waiting:
            self._ready.clear()
            await self._ready.wait()
        return self._waiting.popleft()


class EventBus:
    """Publishes to all subscriptions and remembers the last 100 events (60 seconds) for replay."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Most events are never read: only what they are made of is kept.
        self._recent: deque[tuple[int, float, str, dict[str, Any]]] = deque(maxlen=REPLAYED)
        self._subscriptions: set[Subscription] = set()
        self._run = uuid.uuid4().hex[:16]
        self._made = 0

    @property
    def listeners(self) -> int:
        """How many subscriptions are open."""
        return len(self._subscriptions)

    def make(self, event_type: str, data: dict[str, Any]) -> Happening:
        """An event of now that is not published (snapshots and heartbeats of one socket)."""
        self._made += 1
        return self._happening(self._made, self._clock(), event_type, data)

    def _happening(self, number: int, at: float, event_type: str, data: dict[str, Any]) -> Happening:
        stamp = datetime.fromtimestamp(at, UTC).isoformat()
        return Happening(
            event_id=f"{self._run}{number:016x}", event_type=event_type, timestamp=stamp, data=data
        )

    def wanted(self, event_type: str) -> bool:
        """Whether any listener would get an event of this type; opt-in events need not be made otherwise."""
        return event_type not in OPT_IN or any(s.wants(event_type) for s in self._subscriptions)

    def publish(self, event_type: str, data: dict[str, Any]) -> None:
        """Tell every listener."""
        if not self.wanted(event_type):
            return
        self._made += 1
        event = (self._made, self._clock(), event_type, data)
        self._recent.append(event)
        if self._subscriptions:
            happening = self._happening(*event)
            for subscription in self._subscriptions:
                subscription.offer(happening)

    def subscribe(self, types: Iterable[str] | None = None, since: str | None = None) -> Subscription:
        """Listen; with `since`, events after that id that are still remembered come first (all, if it is unknown)."""
        subscription = Subscription(None if types is None else frozenset(types))
        if since is not None:
            oldest = self._clock() - REPLAY_SECONDS
            fresh = [self._happening(*event) for event in self._recent if event[1] > oldest]
            known = next((i for i, h in enumerate(fresh) if h.event_id == since), -1)
            for happening in fresh[known + 1 :]:
                subscription.offer(happening)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop listening."""
        self._subscriptions.discard(subscription)
