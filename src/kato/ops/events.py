"""What happens on any instance, told to whoever listens (the event socket of service.md 2.2)."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

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
SHARED: Final = frozenset(EVENT_TYPES) - {"state.snapshot", "metrics.update", "heartbeat"}
"""What listeners on other instances hear too; the rest is about one instance or one socket."""


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """One event in the envelope clients see; its id is the same on all instances."""

    event_id: str
    event_type: str
    timestamp: str
    data: dict[str, Any]


class Relay(Protocol):
    """What carries events to other instances and from them."""

    def start(self, receive: Callable[[Happening], None]) -> None:
        """From now on hand to `receive` what other instances send; the own events may be among it."""

    def asked(self) -> bool:
        """Whether a listener elsewhere may want opt-in events."""

    def ask(self, wanted: bool) -> None:
        """Say whether a listener here wants opt-in events of other instances."""

    def send(self, happening: Happening) -> None:
        """Pass on an event, or lose it; never waits, never raises."""

    async def close(self) -> None:
        """Send what was accepted, and stop."""


class _Made(NamedTuple):
    """An event of this process that nobody has read yet."""

    number: int
    at: float
    event_type: str
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
    """Publishes to all subscriptions and remembers the last 100 events (60 seconds) for replay.

    With a relay the subscriptions of all instances are meant: those of this process get its own events at once, and
    those of the other instances as soon as they arrive.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Most events are never read: of the own ones only what they are made of is kept, with the time of hearing.
        self._recent: deque[tuple[float, _Made | Happening]] = deque(maxlen=REPLAYED)
        self._subscriptions: set[Subscription] = set()
        self._run = uuid.uuid4().hex[:16]
        self._made = 0
        self._relay: Relay | None = None

    @property
    def listeners(self) -> int:
        """How many subscriptions are open."""
        return len(self._subscriptions)

    def join(self, relay: Relay) -> None:
        """Share events with other instances until `close`."""
        self._relay = relay
        relay.start(self.receive)
        self._ask()

    async def close(self) -> None:
        """Stop sharing; what is published now stays here."""
        relay, self._relay = self._relay, None
        if relay is not None:
            await relay.close()

    def make(self, event_type: str, data: dict[str, Any]) -> Happening:
        """An event of now that is not published (snapshots and heartbeats of one socket)."""
        return self._read(self._new(event_type, data))

    def _new(self, event_type: str, data: dict[str, Any]) -> _Made:
        self._made += 1
        return _Made(self._made, self._clock(), event_type, data)

    def _read(self, event: _Made | Happening) -> Happening:
        if isinstance(event, Happening):
            return event
        return Happening(
            event_id=f"{self._run}{event.number:016x}",
            event_type=event.event_type,
            timestamp=datetime.fromtimestamp(event.at, UTC).isoformat(),
            data=event.data,
        )

    def wanted(self, event_type: str) -> bool:
        """Whether any listener would get an event of this type; opt-in events need not be made otherwise."""
        return self._wanted_here(event_type) or self._wanting(event_type) is not None

    def _wanted_here(self, event_type: str) -> bool:
        return event_type not in OPT_IN or any(s.wants(event_type) for s in self._subscriptions)

    def _wanting(self, event_type: str) -> Relay | None:
        """The relay, if other instances may have listeners for events of this type."""
        relay = self._relay
        if relay is None or event_type not in SHARED or (event_type in OPT_IN and not relay.asked()):
            return None
        return relay

    def publish(self, event_type: str, data: dict[str, Any]) -> None:
        """Tell every listener."""
        here, relay = self._wanted_here(event_type), self._wanting(event_type)
        if not here and relay is None:
            return
        event: _Made | Happening = self._new(event_type, data)
        if relay is not None:
            event = self._read(event)
            relay.send(event)
        if here:
            self._tell(event)

    def receive(self, happening: Happening) -> None:
        """Tell the listeners here what another instance has published; one's own is known already."""
        if not happening.event_id.startswith(self._run) and self._wanted_here(happening.event_type):
            self._tell(happening)

    def _tell(self, event: _Made | Happening) -> None:
        self._recent.append((self._clock(), event))
        if self._subscriptions:
            happening = self._read(event)
            for subscription in self._subscriptions:
                subscription.offer(happening)

    def subscribe(self, types: Iterable[str] | None = None, since: str | None = None) -> Subscription:
        """Listen; with `since`, events after that id that are still remembered come first (all, if it is unknown).

        Their order is the one in which this instance has heard of them.
        """
        subscription = Subscription(None if types is None else frozenset(types))
        if since is not None:
            oldest = self._clock() - REPLAY_SECONDS
            fresh = [self._read(event) for heard, event in self._recent if heard > oldest]
            known = next((i for i, h in enumerate(fresh) if h.event_id == since), -1)
            for happening in fresh[known + 1 :]:
                subscription.offer(happening)
        self._subscriptions.add(subscription)
        self._ask()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop listening."""
        self._subscriptions.discard(subscription)
        self._ask()

    def _ask(self) -> None:
        if self._relay is not None:
            self._relay.ask(any(self._wanted_here(event_type) for event_type in OPT_IN & SHARED))
