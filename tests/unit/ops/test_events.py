"""The event bus: who hears what, in which order, and what is remembered."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from kato.ops.events import OPT_IN, QUEUED, REPLAY_SECONDS, REPLAYED, EventBus, Subscription
from tests.support.clock import Clock
from tests.support.waiting import idle


async def numbers(subscription: Subscription, count: int) -> list[int]:
    return [(await subscription.next()).data["n"] for _ in range(count)]


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
