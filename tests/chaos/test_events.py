"""Two instances on one Redis and one PostgreSQL: listeners on either hear what happens on both."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio.connection import AbstractConnection
from websockets.asyncio.client import ClientConnection, connect

from kato import bootstrap
from kato.api.app import create_app
from kato.api.instance import Timing
from kato.ops.events import EventBus, Subscription
from kato.service import Kato
from kato.sessions.shared import SharedSessions
from kato.settings import Settings
from kato.stores.redis import RedisEvents
from tests.api.driving import serving
from tests.support import postgres, redis
from tests.support.kato import opened, seen, show, taught
from tests.support.redis import RedisServer
from tests.support.waiting import until

RATE = 1000
LISTENERS = 10


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis.redis(durable=True) as started:
        yield started


def settings(server: RedisServer, **more: Any) -> Settings:
    return Settings(
        KATO_STORE="postgres",
        DATABASE_URL=postgres.shared().url,
        KATO_DATABASE_POOL_SIZE=5,
        REDIS_URL=server.url,
        KATO_VECTORS=False,
        MAX_SESSIONS=0,
        PORT=0,
        PROCESSOR_ID=uuid.uuid4().hex,
        **more,
    )


def relay(bus: EventBus) -> RedisEvents:
    assert isinstance(bus._relay, RedisEvents)
    return bus._relay


def sent(kato: Kato) -> bool:
    """Whether no event is on its way to Redis."""
    if kato.events._relay is None:
        return True
    sending = relay(kato.events)._sending
    return sending is None or sending.done()


@asynccontextmanager
async def instances(chosen: Settings) -> AsyncIterator[list[Kato]]:
    """Two instances that hear each other."""
    async with AsyncExitStack() as stack:
        pair = [await stack.enter_async_context(bootstrap.running(chosen)) for _ in range(2)]
        await until(lambda: all(relay(kato.events).listening for kato in pair))
        yield pair


@pytest_asyncio.fixture
async def pair(server: RedisServer) -> AsyncIterator[list[Kato]]:
    async with instances(settings(server)) as running:
        yield running


async def heard(subscription: Subscription) -> tuple[str, dict[str, Any]]:
    happening = await asyncio.wait_for(subscription.next(), 20)
    return happening.event_type, happening.data


def node() -> str:
    return f"node-{uuid.uuid4().hex}"


async def test_a_session_on_one_instance_is_heard_from_birth_to_death_on_the_other(pair: list[Kato]) -> None:
    a, b = pair
    listeners = [kato.events.subscribe() for kato in pair]
    node_id = node()
    session = await opened(a, node_id)
    name = await taught(a, session, "a b")
    await a.delete_session(session)
    for listener in listeners:
        event_type, created = await heard(listener)
        assert event_type == "session.created"
        assert (created["session_id"], created["node_id"], created["user_id"]) == (session, node_id, node_id)
        learned = {"pattern_name": name, "session_id": session, "frequency": 1}
        assert await heard(listener) == ("pattern.learned", learned)
        event_type, destroyed = await heard(listener)
        assert event_type == "session.destroyed"
        assert (destroyed["session_id"], destroyed["reason"]) == (session, "explicit_delete")
    await b.default_session()
    for listener in listeners:
        event_type, created = await heard(listener)
        assert (event_type, created["session_id"]) == ("session.created", b.sessions.default_id)


async def test_an_expiry_is_told_once_whoever_notices_it(server: RedisServer) -> None:
    async with instances(settings(server, SESSION_CLEANUP_INTERVAL=0.02)) as pair:
        listeners = [kato.events.subscribe(["session.destroyed"]) for kato in pair]
        created = [await pair[n % 2].create_session(node(), ttl_seconds=1) for n in range(40)]
        wanted = {state.session_id for state in created}
        for listener in listeners:
            told = [await heard(listener) for _ in wanted]
            assert {data["session_id"] for _, data in told} == wanted
            assert {data["reason"] for _, data in told} == {"expired"}
        # A marker arrives after whatever else was under way.
        for kato in pair:
            kato.events.publish("session.destroyed", {"marker": True})
        for listener in listeners:
            assert [await heard(listener) for _ in pair] == [("session.destroyed", {"marker": True})] * 2
        assert sum(kato.counters.sessions_expired for kato in pair) == len(wanted)


async def test_changes_are_told_to_those_who_ask_for_them(pair: list[Kato]) -> None:
    a, b = pair
    everything, updates = b.events.subscribe(), b.events.subscribe(["session.updated"])
    session = await opened(a, node())
    assert (await heard(everything))[0] == "session.created"

    async def observed_until_heard() -> tuple[str, dict[str, Any]]:
        arrived = asyncio.create_task(heard(updates))
        while not arrived.done():
            await show(a, session, "a")
        return await arrived

    event_type, data = await observed_until_heard()
    assert (event_type, data["session_id"]) == ("session.updated", session)
    name = await taught(a, session, "b c")
    event_type, data = await heard(everything)
    assert (event_type, data["pattern_name"]) == ("pattern.learned", name)


def published(server: RedisServer) -> int:
    """How many events Redis was given."""
    found = re.search(r"cmdstat_publish:calls=(\d+)", server.command("INFO", "commandstats"))
    return int(found[1]) if found else 0


async def test_while_nobody_asks_observing_tells_redis_nothing(pair: list[Kato], server: RedisServer) -> None:
    a = pair[0]
    session = await opened(a, node())
    before = await asyncio.to_thread(published, server)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(200):
        await a.observe(session, seen("a"))
    # One question a second at most, and the creation may not have been counted yet.
    assert await asyncio.to_thread(published, server) - before <= loop.time() - began + 2


async def pipelines(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Awaitable[Any]]) -> Counter[str]:
    """How many times something was sent to Redis for `work`, and how often that held an event."""
    sent: list[bytes] = []
    original = AbstractConnection.send_packed_command

    async def record(self: AbstractConnection, command: bytes, check_health: bool = True) -> None:
        if isinstance(command, bytes):
            sent.append(command)
        await original(self, command, check_health)

    with monkeypatch.context() as patched:
        patched.setattr(AbstractConnection, "send_packed_command", record)
        await work()
    return Counter({"sent": len(sent), "with an event": sum(b"PUBLISH" in each for each in sent)})


async def test_a_learn_sends_nothing_to_redis_that_it_would_not_send_without_events(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def learned(kato: Kato) -> Counter[str]:
        session = await opened(kato, node())
        await show(kato, session, "a b")
        await until(lambda: sent(kato))

        async def learn() -> None:
            await kato.learn(session)
            assert isinstance(kato.sessions, SharedSessions)
            await asyncio.gather(*kato.sessions._clearing)

        return await pipelines(monkeypatch, learn)

    # Nobody looks at the servers meanwhile.
    async with bootstrap.running(settings(server, HEALTH_CHECK_INTERVAL=60)) as kato:
        await until(lambda: relay(kato.events).listening)
        with_events = await learned(kato)
        await kato.events.close()
        without = await learned(kato)
    assert (with_events["with an event"], without["with an event"]) == (1, 0)
    assert with_events["sent"] == without["sent"] > 0


async def hear(connection: ClientConnection) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await asyncio.wait_for(connection.recv(), 20))
    return found


async def test_clients_hear_everything_on_whichever_socket_they_are(
    pair: list[Kato], server: RedisServer
) -> None:
    async with AsyncExitStack() as stack:
        addresses = [
            (await stack.enter_async_context(serving(create_app(settings(server), kato))))[1] for kato in pair
        ]
        sockets = [await stack.enter_async_context(connect(f"ws://{each}/ws/events")) for each in addresses]
        commands = await stack.enter_async_context(connect(f"ws://{addresses[1]}/ws"))
        snapshots = [await hear(socket) for socket in sockets]
        assert [each["event_type"] for each in snapshots] == ["state.snapshot"] * 2
        assert snapshots[0]["data"]["active_sessions"] == snapshots[1]["data"]["active_sessions"]
        await commands.send(json.dumps({"type": "subscribe", "payload": {"events": ["pattern.learned"]}}))
        assert (await hear(commands))["type"] == "subscribed"
        session = await opened(pair[0], node())
        created = [await hear(socket) for socket in sockets]
        assert created[0] == created[1]
        assert (created[0]["event_type"], created[0]["data"]["session_id"]) == ("session.created", session)
        name = await taught(pair[0], session, "a b")
        learned = [await hear(socket) for socket in sockets]
        assert learned[0] == learned[1]
        assert await hear(commands) == {"type": "event", "data": learned[0]}
        assert learned[0]["data"]["pattern_name"] == name
        # A client that loses one instance goes on with the other one where it was.
        again = f"ws://{addresses[1]}/ws/events?since={created[0]['event_id']}"
        moved = await stack.enter_async_context(connect(again))
        assert (await hear(moved))["event_type"] == "state.snapshot"
        assert await hear(moved) == learned[0]


async def test_a_thousand_events_a_second(pair: list[Kato], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = pair
    loop = asyncio.get_running_loop()
    listeners = [b.events.subscribe(["pattern.learned"]) for _ in range(LISTENERS)]

    async def listen(listener: Subscription) -> list[float]:
        delays = []
        for n in range(RATE):
            data = (await listener.next()).data
            assert data["n"] == n
            delays.append(loop.time() - data["at"])
        return delays

    listening = [asyncio.create_task(listen(listener)) for listener in listeners]
    began = loop.time()
    for n in range(RATE):
        await asyncio.sleep(began + n / RATE - loop.time())
        a.events.publish("pattern.learned", {"n": n, "at": loop.time()})
    seconds = loop.time() - began
    async with asyncio.timeout(20):
        delays = sorted(delay for each in await asyncio.gather(*listening) for delay in each)
    median, late = statistics.median(delays), delays[int(0.99 * len(delays))]
    with capsys.disabled():
        print(
            f"\n{RATE / seconds:.0f} events/s to {LISTENERS} listeners on another instance:"
            f" median {1000 * median:.2f} ms, 99 % within {1000 * late:.1f} ms"
        )
    assert median < 0.1
    assert relay(a.events).lost == relay(b.events).ignored == 0
    assert not any(listener.dropped for listener in listeners)


async def test_a_killed_redis_costs_the_events_of_its_absence_and_nothing_else(
    pair: list[Kato], server: RedisServer
) -> None:
    a, b = pair
    here, there = [kato.events.subscribe(["pattern.learned"]) for kato in pair]
    for number in range(3):
        await asyncio.to_thread(server.kill9)
        await until(lambda: not any(relay(kato.events).listening for kato in pair))
        a.events.publish("pattern.learned", {"absent": number})
        assert await heard(here) == ("pattern.learned", {"absent": number})
        await asyncio.to_thread(server.start)
        await until(lambda: all(relay(kato.events).listening for kato in pair), 30)
        a.events.publish("pattern.learned", {"back": number})
        b.events.publish("pattern.learned", {"back too": number})
        told = [await heard(listener) for listener in (here, here, there, there)]
        expected = [("pattern.learned", {word: number}) for word in ("back too", "back")]
        assert sorted(told[:2], key=str) == sorted(told[2:], key=str) == expected


async def test_sockets_stay_open_while_redis_is_away(pair: list[Kato], server: RedisServer) -> None:
    a, b = pair
    app = create_app(settings(server), b)
    app.instance.timing = Timing(metrics=0.05)
    async with serving(app) as (_, address):
        query = "types=metrics.update,pattern.learned"
        async with connect(f"ws://{address}/ws/events?{query}") as socket:
            assert (await hear(socket))["event_type"] == "state.snapshot"
            await asyncio.to_thread(server.kill9)
            await until(lambda: not any(relay(kato.events).listening for kato in pair))
            for _ in range(3):
                assert (await hear(socket))["event_type"] == "metrics.update"
            await asyncio.to_thread(server.start)
            await until(lambda: all(relay(kato.events).listening for kato in pair), 30)
            a.events.publish("pattern.learned", {"back": True})
            while (event := await hear(socket))["event_type"] == "metrics.update":
                pass
            assert event["data"] == {"back": True}
