"""Events between instances over a real Redis: what arrives, what does not, and what happens when Redis is away."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio.connection import AbstractConnection

from kato.ops.events import EventBus, Happening, Subscription
from kato.stores.redis import RedisClient, RedisEvents
from kato.stores.redis.events import ASKED_AGAIN
from tests.support import redis as support
from tests.support.clock import Clock
from tests.support.redis import RedisServer, fresh_prefix
from tests.support.waiting import idle, until

LOG = "kato.stores.redis.events"


class Instance:
    """A bus and its relay."""

    def __init__(self, url: str, prefix: str, **options: Any) -> None:
        self.clock = Clock()
        self.client = RedisClient(url, connect_timeout=2.0, timeout=2.0)
        self.relay = RedisEvents(self.client, prefix=prefix, clock=self.clock, **options)
        self.bus = EventBus(Clock())

    def publish(self, number: int, event_type: str = "pattern.learned") -> None:
        self.bus.publish(event_type, {"n": number})


@asynccontextmanager
async def running(url: str, prefix: str, listening: bool = True, **options: Any) -> AsyncIterator[Instance]:
    instance = Instance(url, prefix, **options)
    instance.bus.join(instance.relay)
    try:
        if listening:
            await until(lambda: instance.relay.listening)
        yield instance
    finally:
        await instance.bus.close()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with support.redis() as started:
        yield started


@pytest.fixture
def prefix() -> str:
    return fresh_prefix()


@pytest.fixture
async def pair(prefix: str) -> AsyncIterator[list[Instance]]:
    """Two instances on the Redis that tests share."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(support.shared().url, prefix)) for _ in range(2)]


async def heard(subscription: Subscription) -> Happening:
    return await asyncio.wait_for(subscription.next(), 10)


async def number(subscription: Subscription) -> int:
    found: int = (await heard(subscription)).data["n"]
    return found


async def send(instance: Instance, channel: str, message: bytes) -> None:
    """Put something on a channel, as anyone can who reaches Redis."""
    await instance.client.execute("PUBLISH", channel, message)


async def test_what_one_publishes_all_hear_once(pair: list[Instance]) -> None:
    a, b = pair
    here, there = a.bus.subscribe(), b.bus.subscribe()
    for n in range(3):
        a.publish(n)
    b.publish(3)
    told = [await heard(here) for _ in range(4)]
    assert [await heard(there) for _ in range(4)] == sorted(
        told, key=lambda h: (h.data["n"] != 3, h.data["n"])
    )
    a.publish(4)
    assert (await number(here), await number(there)) == (4, 4)
    assert (a.relay.lost, a.relay.ignored) == (0, 0)


async def test_the_channel_carries_the_envelope_that_clients_see(pair: list[Instance], prefix: str) -> None:
    a, b = pair
    listener = b.bus.subscribe()
    envelope = {
        "event_id": "from-elsewhere",
        "event_type": "session.created",
        "timestamp": "2026-01-01T00:00:00+00:00",
        "data": {"session_id": "s", "user_id": None},
    }
    await send(a, f"{prefix}:events", msgspec.json.encode(envelope | {"what a newer version adds": 1}))
    assert msgspec.to_builtins(await heard(listener)) == envelope


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xfe",
        b"nonsense",
        b"[]",
        b"{}",
        b'{"event_id":"\xff","event_type":"pattern.learned","timestamp":"t","data":{}}',
        b'{"event_id":1,"event_type":"pattern.learned","timestamp":"t","data":{}}',
        b'{"event_id":"i","event_type":"pattern.learned","timestamp":"t","data":[]}',
        b'{"event_id":"i","event_type":"heartbeat","timestamp":"t","data":{}}',
        b'{"event_id":"i","event_type":"nonsense","timestamp":"t","data":{}}',
        b'{"event_id":"i","event_type":"pattern.learned","timestamp":"t","data":{"a":' + b"[" * 100_000,
    ],
)
async def test_what_makes_no_sense_is_ignored(
    pair: list[Instance], prefix: str, message: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = pair
    listener = b.bus.subscribe()
    with caplog.at_level(logging.WARNING, LOG):
        for _ in range(3):
            await send(a, f"{prefix}:events", message)
        a.publish(1)
        assert await number(listener) == 1
        await until(lambda: a.relay.ignored == 3)
    assert b.relay.ignored == 3
    # Once by each instance.
    assert [record.message for record in caplog.records] == [
        "something else than events is on the channel of events; it is ignored"
    ] * 2


async def test_databases_of_one_server_do_not_hear_each_other(prefix: str) -> None:
    url = support.shared().url.removesuffix("0")
    async with running(f"{url}0", prefix) as zero, running(f"{url}1", prefix) as one:
        listener = one.bus.subscribe()
        zero.publish(0)
        await zero.client.execute("PUBLISH", "somewhere else", "")
        one.publish(1)
        assert await number(listener) == 1


async def test_opt_in_events_are_offered_once_a_second_until_somebody_wants_them(
    pair: list[Instance],
) -> None:
    a, b = pair

    def publish(number: int) -> None:
        a.publish(number, "session.updated")

    assert a.bus.wanted("session.updated")
    publish(0)
    # Until the answer is there nobody waits for it.
    assert not a.bus.wanted("session.updated")
    await until(lambda: sent(a))
    assert not a.bus.wanted("session.updated")
    listener = b.bus.subscribe(["session.updated"])
    await asyncio.to_thread(
        support.until, lambda: "opt-in" in support.shared().command("PUBSUB", "CHANNELS", f"{prefix_of(a)}*")
    )
    a.clock.advance(ASKED_AGAIN)
    publish(1)
    await until(lambda: a.bus.wanted("session.updated"))
    publish(2)
    assert [await number(listener) for _ in range(2)] == [1, 2]
    b.bus.unsubscribe(listener)
    await asyncio.to_thread(
        support.until,
        lambda: "opt-in" not in support.shared().command("PUBSUB", "CHANNELS", f"{prefix_of(a)}*"),
    )
    publish(3)
    await until(lambda: not a.bus.wanted("session.updated"))
    a.clock.advance(ASKED_AGAIN)
    assert a.bus.wanted("session.updated")


def sent(instance: Instance) -> bool:
    """Whether Redis has answered to everything."""
    return instance.relay._sending is None or instance.relay._sending.done()


def prefix_of(instance: Instance) -> str:
    return instance.relay._channel.decode()


async def test_an_event_shares_the_pipeline_of_what_its_cause_asks_next(
    pair: list[Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    original = AbstractConnection.send_packed_command

    async def record(self: AbstractConnection, command: bytes, check_health: bool = True) -> None:
        if isinstance(command, bytes):
            sent.append(command)
        await original(self, command, check_health)

    a = pair[0]
    monkeypatch.setattr(AbstractConnection, "send_packed_command", record)

    async def save() -> None:
        await a.client.execute("SET", f"{prefix_of(a)}:key", "value")

    a.publish(1)
    a.publish(2)
    await asyncio.create_task(save())
    assert [(each.count(b"PUBLISH"), each.count(b"SET")) for each in sent] == [(2, 1)]


async def test_it_never_queues_without_bound(pair: list[Instance], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair
    monkeypatch.setattr("kato.stores.redis.events.MOST_WAITING", 3)
    listener = b.bus.subscribe()
    for n in range(5):
        a.publish(n)
    assert a.relay.lost == 2
    assert [await number(listener) for _ in range(3)] == [0, 1, 2]
    await until(lambda: sent(a))
    a.publish(5)
    assert await number(listener) == 5


async def test_events_arrive_in_their_order(pair: list[Instance]) -> None:
    a, b = pair
    listener = b.bus.subscribe()

    async def publish() -> None:
        for n in range(500):
            a.publish(n)
            # Other commands keep further connections busy.
            a.client.ask("PING")
            await asyncio.sleep(0)

    await publish()
    assert [await number(listener) for _ in range(500)] == list(range(500))


async def test_a_restarted_server_is_found_again(
    server: RedisServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(server.url, prefix) as a, running(server.url, prefix) as b:
        here, there, updates = a.bus.subscribe(), b.bus.subscribe(), b.bus.subscribe(["session.updated"])
        with caplog.at_level(logging.INFO, LOG):
            for cycle in range(2):
                await asyncio.to_thread(server.kill9)
                await until(lambda: not (a.relay.listening or b.relay.listening))
                a.publish(1)
                a.publish(2, "session.updated")
                assert await number(here) == 1
                await until(lambda: a.relay.lost == 2 * (cycle + 1))  # noqa: B023
                await asyncio.to_thread(server.start)
                await until(lambda: a.relay.listening and b.relay.listening)
                a.publish(3)
                assert (await number(here), await number(there)) == (3, 3)
                # What was asked for before is asked for again.
                await offered_until_heard(a, updates, 10 + cycle)
        messages = [record.message for record in caplog.records]
    assert messages.count("events of other instances are not heard") == 4
    assert messages.count("events of other instances are heard again") == 4


async def offered_until_heard(sender: Instance, listener: Subscription, n: int) -> None:
    async def listen() -> None:
        while await number(listener) != n:
            pass

    arrived = asyncio.create_task(listen())
    while not arrived.done():
        sender.clock.advance(ASKED_AGAIN)
        sender.publish(n, "session.updated")
        await until(lambda: sent(sender))
    await arrived


async def test_it_begins_as_soon_as_there_is_a_server(
    server: RedisServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.stop()
    with caplog.at_level(logging.WARNING, LOG):
        async with running(server.url, prefix, listening=False) as instance:
            await until(lambda: bool(caplog.records))
            assert caplog.records[0].__dict__["reason"] == "Redis: the server cannot be reached"
            await asyncio.to_thread(server.start)
            await until(lambda: instance.relay.listening)
    assert len(caplog.records) == 1


async def test_a_silent_server_is_given_up(server: RedisServer, prefix: str) -> None:
    async with running(server.url, prefix, silence=0.3) as instance:
        # Its answers to pings keep the connection.
        before = server.command("CLIENT", "LIST", "TYPE", "pubsub").split()[0]
        await asyncio.to_thread(support.until, lambda: pings(server) >= 7)
        assert server.command("CLIENT", "LIST", "TYPE", "pubsub").split()[0] == before
        server.pause()
        await until(lambda: not instance.relay.listening)
        server.resume()
        await until(lambda: instance.relay.listening)


def pings(server: RedisServer) -> int:
    """How many it has been sent so far."""
    counted = re.search(r"cmdstat_ping:calls=(\d+)", server.command("INFO", "commandstats"))
    return int(counted[1]) if counted else 0


async def test_a_user_without_the_right_to_the_channel(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    with (
        support.redis(settings=["user kato on >secret ~* +@all resetchannels"]) as server,
        caplog.at_level(logging.WARNING, LOG),
    ):
        url = server.url.replace("redis://", "redis://kato:secret@")
        async with running(url, prefix, listening=False) as instance:
            await until(lambda: bool(caplog.records))
            assert caplog.records[0].__dict__["reason"] == "Redis: the user lacks a permission"
            instance.publish(1)
            await until(lambda: instance.relay.lost == 1)
            # The rest of the client is not harmed.
            await instance.client.execute("SET", "key", "value")
            server.command("ACL", "SETUSER", "kato", "allchannels")
            await until(lambda: instance.relay.listening)


async def test_tls(tmp_path: Path, prefix: str) -> None:
    certificate, key = support.certificate(tmp_path)
    port = support.free_port()
    settings = [
        f"tls-port {port}",
        f"tls-cert-file {certificate}",
        f"tls-key-file {key}",
        f"tls-ca-cert-file {certificate}",
        "tls-auth-clients no",
    ]
    with support.redis(settings=settings):
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}"
        async with running(url, prefix) as a, running(url, prefix) as b:
            listener = b.bus.subscribe()
            a.publish(1)
            assert await number(listener) == 1


async def test_after_a_failover_events_flow_over_the_new_master(server: RedisServer, prefix: str) -> None:
    follower = server.replica()
    sentinel = server.sentinel(down_after=0.3)
    try:
        sentinel.knows_replicas(1)
        async with running(sentinel.url, prefix) as a, running(sentinel.url, prefix) as b:
            listener = b.bus.subscribe()
            server.kill9()
            await until(lambda: not b.relay.listening)
            await asyncio.to_thread(support.until, lambda: sentinel.master_port() == follower.port)
            await until(lambda: a.relay.listening and b.relay.listening, 30)
            arrived = asyncio.create_task(heard(listener))
            while not arrived.done():
                # The client's own connections may still lead to the former master.
                a.publish(1)
                await until(lambda: sent(a))
            assert (await arrived).data == {"n": 1}
    finally:
        sentinel.remove()
        follower.remove()


async def test_what_was_accepted_is_sent_before_closing(pair: list[Instance], prefix: str) -> None:
    b = pair[1]
    listener = b.bus.subscribe()
    async with running(support.shared().url, prefix) as leaving:
        leaving.publish(1)
        await leaving.relay.close()
        leaving.publish(2)
        await leaving.relay.close()
        assert leaving.relay.lost == 1
        assert not leaving.relay.listening
        assert leaving.client.connections == (0, 0)
    b.publish(3)
    assert [await number(listener) for _ in range(2)] == [1, 3]


async def test_closing_while_it_cannot_connect(server: RedisServer, prefix: str) -> None:
    server.stop()
    instance = Instance(server.url, prefix)
    await instance.relay.close()
    async with running(server.url, prefix, listening=False) as other:
        await idle()
        other.publish(1)
    assert other.relay.lost == 1


async def test_closing_while_the_server_is_silent(server: RedisServer, prefix: str) -> None:
    async with running(server.url, prefix) as instance:
        server.pause()
        instance.publish(1)
    assert instance.relay.lost == 1
