"""The event bus: who hears what, in which order, and what is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from kato.ops.events import OPT_IN, QUEUED, REPLAY_SECONDS, REPLAYED, EventBus, Happening, Subscription
from tests.support.clock import Clock
from tests.support.waiting import idle


async def numbers(subscription: Subscription, count: int) -> list[int]:
    return [happening.data["n"] for happening in await happenings(subscription, count)]


async def happenings(subscription: Subscription, count: int) -> list[Happening]:
    return [await subscription.next() for _ in range(count)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bus(clock: Clock) -> EventBus:
    return EventBus(clock)


async def test_every_listener_hears_everything_in_order(bus: EventBus) -> None:
    listeners = [bus.subscribe() for _ in range(3)]
    for n in range(5):
        bus.publish("pattern.learned", {"n": n})
    for listener in listeners:
        assert await numbers(listener, 5) == [0, 1, 2, 3, 4]


async def test_a_listener_waits_for_the_next_event(bus: EventBus) -> None:
    listener = bus.subscribe()
    waiting = asyncio.create_task(numbers(listener, 2))
    for n in range(2):
        await idle()
        assert not waiting.done()
        bus.publish("pattern.learned", {"n": n})
    assert await waiting == [0, 1]


async def test_the_envelope_carries_id_type_and_time(bus: EventBus, clock: Clock) -> None:
    listener = bus.subscribe()
    bus.publish("session.created", {"n": 1})
    bus.publish("session.created", {"n": 2})
    first, second = await listener.next(), await listener.next()
    assert first.event_type == "session.created"
    assert first.timestamp == datetime.fromtimestamp(clock(), UTC).isoformat()
    assert first.event_id != second.event_id


@pytest.mark.parametrize("event_type", sorted(OPT_IN))
async def test_chatty_events_are_for_those_who_name_them(bus: EventBus, event_type: str) -> None:
    everything = bus.subscribe()
    assert not bus.wanted(event_type)
    chosen = bus.subscribe([event_type])
    assert bus.wanted(event_type)
    bus.publish(event_type, {"n": 1})
    bus.publish("pattern.learned", {"n": 2})
    assert await numbers(everything, 1) == [2]
    assert await numbers(chosen, 1) == [1]


async def test_a_filter_lets_only_the_named_types_through(bus: EventBus) -> None:
    listener = bus.subscribe(["session.destroyed"])
    bus.publish("pattern.learned", {"n": 1})
    bus.publish("session.destroyed", {"n": 2})
    assert await numbers(listener, 1) == [2]


async def test_a_slow_listener_loses_the_oldest_and_knows_how_many(bus: EventBus) -> None:
    listener = bus.subscribe()
    for n in range(QUEUED + 7):
        bus.publish("pattern.learned", {"n": n})
    assert listener.dropped == 7
    assert await numbers(listener, QUEUED) == list(range(7, QUEUED + 7))


async def test_after_unsubscribing_nothing_is_heard(bus: EventBus) -> None:
    listener = bus.subscribe(["session.updated"])
    assert bus.listeners == 1
    bus.unsubscribe(listener)
    bus.unsubscribe(listener)
    assert bus.listeners == 0
    assert not bus.wanted("session.updated")


async def test_a_returning_listener_gets_what_it_missed(bus: EventBus) -> None:
    first = bus.subscribe()
    for n in range(3):
        bus.publish("pattern.learned", {"n": n})
    seen = await first.next()
    bus.publish("session.created", {"n": 3})
    again = bus.subscribe(["pattern.learned"], since=seen.event_id)
    bus.publish("pattern.learned", {"n": 4})
    assert await numbers(again, 3) == [1, 2, 4]


async def test_an_unknown_id_brings_all_that_is_remembered(bus: EventBus, clock: Clock) -> None:
    for n in range(REPLAYED + 5):
        bus.publish("pattern.learned", {"n": n})
    assert await numbers(bus.subscribe(since="unknown"), REPLAYED) == list(range(5, REPLAYED + 5))
    clock.advance(REPLAY_SECONDS)
    bus.publish("pattern.learned", {"n": 1000})
    assert await numbers(bus.subscribe(since="unknown"), 1) == [1000]


def test_an_event_for_one_listener_is_not_published(bus: EventBus) -> None:
    listener = bus.subscribe()
    assert bus.make("heartbeat", {"n": 1}).data == {"n": 1}
    bus.publish("pattern.learned", {"n": 2})
    assert asyncio.run(numbers(listener, 1)) == [2]


class Wire:
    """A relay to the other buses of a test, which hear what is sent when it is delivered."""

    def __init__(self, *others: EventBus) -> None:
        self.others = others
        self.under_way: list[Happening] = []
        self.wanted_there = False
        self.wanted_here = False
        self.closed = False
        self.receive: Callable[[Happening], None]

    def start(self, receive: Callable[[Happening], None]) -> None:
        self.receive = receive

    def asked(self) -> bool:
        return self.wanted_there

    def ask(self, wanted: bool) -> None:
        self.wanted_here = wanted

    def send(self, happening: Happening) -> None:
        self.under_way.append(happening)

    def deliver(self) -> None:
        """As a channel does: everybody on it hears everything, the sender too."""
        for happening in self.under_way:
            for bus in self.others:
                bus.receive(happening)
            self.receive(happening)
        self.under_way.clear()

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def other(clock: Clock) -> EventBus:
    return EventBus(clock)


@pytest.fixture
def wire(bus: EventBus, other: EventBus) -> Wire:
    joined = Wire(other)
    bus.join(joined)
    return joined


async def test_listeners_here_hear_at_once_and_those_elsewhere_the_same_event(
    bus: EventBus, other: EventBus, wire: Wire
) -> None:
    here, elsewhere = bus.subscribe(), other.subscribe()
    bus.publish("pattern.learned", {"n": 1})
    told = await here.next()
    wire.deliver()
    assert await elsewhere.next() == told
    other.publish("pattern.learned", {"n": 2})
    bus.publish("pattern.learned", {"n": 3})
    wire.deliver()
    # Nothing twice: the own echo was not told again.
    assert await numbers(here, 1) == [3]
    assert await numbers(elsewhere, 2) == [2, 3]


async def test_events_of_other_instances_are_replayed_too(
    bus: EventBus, other: EventBus, wire: Wire, clock: Clock
) -> None:
    other.publish("pattern.learned", {"n": 0})
    clock.advance(REPLAY_SECONDS / 2)
    bus.publish("pattern.learned", {"n": 1})
    wire.deliver()
    other.publish("pattern.learned", {"n": 2})
    (mine,) = await happenings(bus.subscribe(since=""), 1)
    assert await numbers(other.subscribe(since=mine.event_id), 1) == [2]
    assert await numbers(other.subscribe(since="unknown"), 3) == [0, 1, 2]
    clock.advance(REPLAY_SECONDS / 2)
    assert await numbers(other.subscribe(since="unknown"), 2) == [1, 2]


async def test_opt_in_events_travel_only_while_somebody_elsewhere_may_want_them(
    bus: EventBus, other: EventBus, wire: Wire
) -> None:
    listener = other.subscribe(["session.updated"])
    assert not bus.wanted("session.updated")
    bus.publish("session.updated", {"n": 1})
    assert not wire.under_way
    wire.wanted_there = True
    assert bus.wanted("session.updated")
    bus.publish("session.updated", {"n": 2})
    wire.deliver()
    assert await numbers(listener, 1) == [2]
    # Nobody here wanted it, so it takes no place among what is remembered here.
    assert not bus._recent


async def test_what_nobody_here_wants_is_not_remembered(bus: EventBus, other: EventBus, wire: Wire) -> None:
    wire.wanted_there = True
    bus.publish("session.updated", {"n": 1})
    wire.deliver()
    assert not other._recent


@pytest.mark.parametrize("event_type", ["state.snapshot", "metrics.update", "heartbeat"])
async def test_what_is_about_one_instance_stays_there(bus: EventBus, wire: Wire, event_type: str) -> None:
    wire.wanted_there = True
    listener = bus.subscribe([event_type])
    bus.publish(event_type, {"n": 1})
    assert await numbers(listener, 1) == [1]
    assert not wire.under_way


async def test_the_relay_knows_whether_opt_in_events_are_wanted_here(bus: EventBus) -> None:
    before = bus.subscribe(["session.updated"])
    wire = Wire()
    bus.join(wire)
    assert wire.wanted_here
    bus.unsubscribe(before)
    assert not wire.wanted_here
    for types, wanted in [(None, False), (["metrics.update"], False), (["session.updated"], True)]:
        bus.subscribe(types)
        assert wire.wanted_here is wanted


async def test_after_closing_events_stay_here(bus: EventBus, wire: Wire) -> None:
    listener = bus.subscribe()
    await bus.close()
    await bus.close()
    assert wire.closed
    bus.publish("pattern.learned", {"n": 1})
    assert not wire.under_way
    assert await numbers(listener, 1) == [1]
