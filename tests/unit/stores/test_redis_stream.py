from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from kato.errors import DataCorrupted, StorageError, ValidationError
from kato.stores.redis import RedisClient, RedisSessionStore, RedisStream
from tests.contract.values import NODES, session
from tests.support import redis as support
from tests.support.redis import RedisServer

from .test_redis_client import pipelines

__all__ = ["pipelines"]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with support.redis(durable=True) as running:
        yield running


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[RedisClient]:
    made = RedisClient(server.url).use()
    yield made
    await made.close()


@pytest.fixture
async def stream(client: RedisClient) -> AsyncIterator[RedisStream]:
    made = RedisStream(client)
    yield made
    await made.close()


async def test_what_is_appended_is_read_in_order_once(stream: RedisStream) -> None:
    start = await stream.position("node")
    await stream.append("node", [("a", "1"), ("b", "1")])
    end = await stream.append("node", [("naïve 🧠", "")])
    assert await stream.tail("node", start) == ([("a", "1"), ("b", "1"), ("naïve 🧠", "")], True, end)
    assert await stream.tail("node", end) == ([], True, end)
    newer = await stream.append("node", [("c", "2")])
    assert await stream.tail("node", end) == ([("c", "2")], True, newer)


async def test_a_position_lies_before_what_may_still_be_written(client: RedisClient) -> None:
    stream = RedisStream(client, lookback_seconds=60.0)
    await stream.append("node", [("a", "1")])
    await stream.append("node", [("b", "2")])
    # All of it is younger than the look back, so all of it is to be read, the very first entry too.
    start = await stream.position("node")
    tail = await stream.tail("node", start)
    assert (tail.entries, tail.complete) == ([("a", "1"), ("b", "2")], True)
    assert await stream.tail("node", tail.position) == ([], True, tail.position)
    await client.execute("XADD", "kato:node:old:changes", "1000000-0", "x", "1")
    await client.execute("XADD", "kato:node:old:changes", "1059000-0", "y", "1")
    await client.execute("XADD", "kato:node:old:changes", "1060000-5", "z", "1")
    tail = await stream.tail("old", await stream.position("old"))
    assert tail.entries == [("y", "1"), ("z", "1")]
    await client.execute("XADD", "kato:node:young:changes", "5-1", "x", "1")
    assert (await stream.tail("young", await stream.position("young"))).entries == [("x", "1")]
    await stream.close()


async def test_an_empty_stream_has_a_position(stream: RedisStream) -> None:
    start = await stream.position("node")
    assert await stream.position("node") in (start, start.replace("@", "*@"))
    tail = await stream.tail("node", await stream.position("node"))
    assert (tail.entries, tail.complete) == ([], True)


async def test_many_entries_at_once(stream: RedisStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kato.stores.redis.stream._READ_AT_ONCE", 7)
    start = await stream.position("node")
    entries = [(f"p{number}", f"o{number}") for number in range(2500)]
    await stream.append("node", entries)
    for entry in entries[:50]:
        await stream.append("node", [entry])
    tail = await stream.tail("node", start)
    assert tail.entries == entries + entries[:50]
    assert tail.complete


async def test_appends_of_many_at_once_are_all_seen_by_every_reader(
    server: RedisServer, stream: RedisStream
) -> None:
    clients = [RedisClient(server.url) for _ in range(3)]
    streams = [RedisStream(client) for client in clients]
    start = await stream.position("node")

    async def learn(number: int) -> None:
        name = f"p{number}"
        await streams[number % 3].append("node", [(name, "o")])
        # Acknowledged: every reader that asks from now on sees it.
        for reader in streams:
            assert (name, "o") in (await reader.tail("node", start)).entries

    await asyncio.gather(*(learn(number) for number in range(90)))
    tails = [await reader.tail("node", start) for reader in streams]
    assert tails[0] == tails[1] == tails[2]
    assert sorted(tails[0].entries) == sorted((f"p{number}", "o") for number in range(90))
    for each in streams:
        await each.close()


async def test_a_reader_that_was_left_behind_is_told(client: RedisClient) -> None:
    stream = RedisStream(client, max_length=50)
    start = await stream.position("node")
    for number in range(500):
        await stream.append("node", [(f"p{number}", "o")])
    assert await client.execute("XLEN", "kato:node:node:changes") < 300
    tail = await stream.tail("node", start)
    assert (tail.entries, tail.complete) == ([], False)
    # From the new position it goes on; what is still there and may be in doubt is delivered.
    caught_up = await stream.tail("node", tail.position)
    assert caught_up.complete
    assert caught_up.entries[-1] == ("p499", "o")
    await stream.close()


async def flush(client: RedisClient) -> None:
    """Lose everything, and let a millisecond pass: ids begin with the server's time."""
    await client.execute("FLUSHALL")
    before = await client.execute("TIME")
    while int((await client.execute("TIME"))[1]) // 1000 == int(before[1]) // 1000:
        pass


async def test_a_lost_stream_is_noticed_also_when_it_has_begun_again(
    stream: RedisStream, client: RedisClient
) -> None:
    start = await stream.position("node")
    end = await stream.append("node", [("a", "1")])
    await flush(client)
    for position in (start, end):
        tail = await stream.tail("node", position)
        assert (tail.entries, tail.complete) == ([], False)
    assert (await stream.tail("node", tail.position)).complete
    await flush(client)
    await stream.append("node", [("b", "2")])
    again = await stream.tail("node", end)
    assert not again.complete
    assert (await stream.tail("node", again.position)).entries == [("b", "2")]


async def test_another_server_may_lack_the_latest_entries(server: RedisServer, stream: RedisStream) -> None:
    position = await stream.append("node", [("a", "1")])
    server.kill9()
    with pytest.raises(StorageError):
        await stream.tail("node", position)
    server.start()
    tail = await stream.tail("node", position)
    assert not tail.complete
    assert (await stream.tail("node", tail.position)).entries == [("a", "1")]


async def test_a_tail_shares_the_round_trip_of_a_session(
    stream: RedisStream, client: RedisClient, pipelines: list[bytes]
) -> None:
    sessions = RedisSessionStore(client)
    state = session("s")
    await sessions.create(state, 0, 0)
    position = await stream.append("node", [("a", "1")])
    await sessions.load("s", state)
    pipelines.clear()
    held, tail = await asyncio.gather(sessions.load("s", state), stream.tail("node", position))
    assert held is state
    assert tail.complete
    assert len(pipelines) == 1
    await sessions.close()


async def test_nodes_are_kept_apart_and_streams_go_by_themselves(
    stream: RedisStream, client: RedisClient
) -> None:
    starts = [await stream.position(node) for node in NODES]
    for number, node in enumerate(NODES):
        await stream.append(node, [(f"p{number}", "o")])
    for number, (node, start) in enumerate(zip(NODES, starts, strict=True)):
        assert (await stream.tail(node, start)).entries == [(f"p{number}", "o")]
    for key in await client.execute("KEYS", "*"):
        assert await client.execute("PTTL", key) > 6 * 86_400_000


async def test_what_makes_no_sense_is_refused(stream: RedisStream, client: RedisClient) -> None:
    for entries in ([], [("", "o")], [("\ud800", "o")]):
        with pytest.raises(ValidationError):
            await stream.append("node", entries)
    with pytest.raises(ValidationError):
        await stream.position("\ud800")
    position = await stream.append("node", [("a", "1")])
    await client.execute("XADD", "kato:node:node:changes", "*", b"\xff", "x")
    with pytest.raises(DataCorrupted):
        await stream.tail("node", position)


async def test_a_closed_feed_leaves_the_client_to_others(stream: RedisStream, client: RedisClient) -> None:
    await stream.close()
    await stream.close()
    with pytest.raises(StorageError):
        await stream.position("node")
    await client.ping()
