"""Health: what is looked at, how often, and what is told of it."""

from __future__ import annotations

import asyncio

import pytest

from kato.errors import ConfigurationError, StorageError
from kato.ops.breaker import Breaker
from kato.ops.events import EventBus
from kato.ops.guard import Guard
from kato.ops.health import Dependency, Health
from tests.support.clock import Clock
from tests.support.waiting import until


class Server:
    """Answers, or fails as told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.pings = 0
        self.opens = 0

    async def ping(self) -> None:
        self.pings += 1
        if self.error is not None:
            raise self.error

    async def open(self) -> None:
        self.opens += 1
        if self.error is not None:
            raise self.error

    def behind(self, guard: Guard | None = None, name: str = "redis", vital: bool = True) -> Dependency:
        return Dependency(name, self.ping, open=self.open, guard=guard, vital=vital)


def watching(
    interval: float | None, clock: Clock | None = None, **dependencies: Dependency
) -> tuple[Health, EventBus]:
    clock = clock or Clock()
    events = EventBus(clock)
    return Health(dependencies, events, clock, interval), events


def a_guard(threshold: int = 3, open_seconds: float = 30) -> Guard:
    return Guard("redis", Breaker("redis", threshold, open_seconds), {}, {})


def away() -> StorageError:
    return StorageError("away")


async def test_at_the_start_everything_is_opened_and_asked_once() -> None:
    one, other = Server(), Server()
    health, _ = watching(60, sessions=one.behind(), patterns=other.behind(a_guard()))
    assert not health.started
    await health.start()
    assert health.started
    assert [(each.opens, each.pings) for each in (one, other)] == [(1, 1), (1, 1)]
    assert {each.status for each in (await health.latest()).values()} == {"healthy"}
    await health.close()


async def test_who_does_not_answer_is_waited_for() -> None:
    server = Server(away())
    health, _ = watching(0.001, sessions=server.behind())
    await health.start()
    assert not health.started
    await until(lambda: server.opens > 3)
    assert server.pings == 0
    server.error = None
    await until(lambda: health.started)
    opens = server.opens
    await until(lambda: server.pings > 3)
    assert server.opens == opens
    await health.close()


async def test_what_is_not_vital_may_be_missing_at_the_start() -> None:
    health, _ = watching(60, sessions=Server().behind(), vectors=Server(away()).behind(vital=False))
    await health.start()
    assert health.started
    await health.close()


async def test_what_would_still_be_wrong_later_stops_the_start() -> None:
    health, _ = watching(60, patterns=Server(ConfigurationError("a newer schema")).behind())
    with pytest.raises(ConfigurationError, match="a newer schema"):
        await health.start()
    assert health.dependencies["patterns"].status == "unhealthy"


async def test_later_it_is_only_told() -> None:
    server = Server()
    health, _ = watching(0.001, patterns=server.behind())
    await health.start()
    server.error = ConfigurationError("another database")
    await until(lambda: health.dependencies["patterns"].status == "unhealthy")
    server.error = None
    await until(lambda: health.dependencies["patterns"].status == "healthy")
    await health.close()


async def test_losses_are_told_once_each_and_counted() -> None:
    server, clock = Server(), Clock()
    dependency = server.behind()
    health, events = watching(60, clock, sessions=dependency)
    subscription = events.subscribe()
    await health.look(dependency)
    server.error = away()
    clock.advance(5)
    for _ in range(3):
        await health.look(dependency)
    check = dependency.check
    assert check is not None
    assert (check.at, check.error, check.error_count) == (clock.now, "away", 3)
    assert check.latency_ms >= 0
    told = await subscription.next()
    assert (told.event_type, told.data) == (
        "system.error",
        {
            "error_type": "DEPENDENCY_LOST",
            "severity": "critical",
            "message": "away",
            "affected_component": "redis",
        },
    )
    server.error = None
    await health.look(dependency)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await subscription.next()


async def test_an_open_breaker_is_degraded_and_lets_nobody_through() -> None:
    server, clock = Server(), Clock()
    guard = Guard("redis", Breaker("redis", 2, 30, clock=clock), {}, {})
    dependency = server.behind(guard)
    health, _ = watching(60, patterns=dependency)
    assert not health.available("patterns")
    await health.look(dependency)
    assert (dependency.status, health.available("patterns")) == ("healthy", True)
    assert dependency.reachable
    server.error = away()
    await health.look(dependency)
    assert (dependency.status, health.available("patterns")) == ("unhealthy", False)
    assert not dependency.reachable
    await health.look(dependency)
    assert guard.breaker.state == "open"
    server.error = None
    await health.look(dependency)
    assert (dependency.status, health.available("patterns")) == ("degraded", False)
    assert not dependency.reachable
    # The next call is the probe: it may come.
    clock.now += 30
    assert (dependency.status, dependency.reachable) == ("degraded", True)


async def test_without_an_interval_every_question_looks() -> None:
    server = Server()
    file = Dependency("patterns", server.ping)
    health, _ = watching(None, patterns=file)
    await health.start()
    assert (server.pings, health.started, health.available("patterns")) == (0, True, True)
    assert (await health.latest())["patterns"].status == "healthy"
    server.error = away()
    assert (await health.latest())["patterns"].status == "unhealthy"
    server.error = ConfigurationError("broken")
    assert (await health.latest())["patterns"].status == "unhealthy"
    assert server.pings == 3
    await health.close()


async def test_a_look_that_is_cancelled_finds_nothing() -> None:
    dependency = Dependency("redis", asyncio.Event().wait)
    health, _ = watching(60, sessions=dependency)
    task = asyncio.create_task(health.look(dependency))
    await until(dependency.looking.locked)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert dependency.check is None
