from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis.asyncio.connection import AbstractConnection

from kato.errors import ConfigurationError, DataCorrupted, StorageError
from kato.stores.redis import RedisClient
from kato.stores.redis.script import Script
from tests.support import redis as support
from tests.support.redis import RedisServer, until
from tests.support.waiting import idle


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with support.redis() as running:
        yield running


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[RedisClient]:
    made = RedisClient(server.url, timeout=1.0, connect_timeout=1.0)
    yield made
    await made.close()


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was sent, one element for each pipeline."""
    sent: list[bytes] = []
    send = AbstractConnection.send_packed_command

    async def record(self: AbstractConnection, command: bytes, check_health: bool = True) -> None:
        if isinstance(command, bytes):
            sent.append(command)
        await send(self, command, check_health)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", record)
    return sent


async def test_commands_of_one_turn_share_a_pipeline_in_their_order(
    client: RedisClient, pipelines: list[bytes]
) -> None:
    asked = [client.ask("RPUSH", "list", number) for number in range(50)]
    assert [(await each).value for each in asked] == list(range(1, 51))
    assert await client.execute("LRANGE", "list", 0, -1) == [b"%d" % number for number in range(50)]
    assert len(pipelines) == 2
    assert client.connections == (1, 1)


async def test_what_one_command_does_wrong_is_its_own_affair(client: RedisClient) -> None:
    await client.execute("SET", "text", "value")
    outcomes = await asyncio.gather(
        client.execute("GET", "text"),
        client.execute("LPUSH", "text", 1),
        client.execute("NONSENSE"),
        client.execute("GET", "text"),
        return_exceptions=True,
    )
    assert outcomes[0] == outcomes[3] == b"value"
    assert isinstance(outcomes[1], DataCorrupted)
    assert isinstance(outcomes[2], StorageError)
    assert str(outcomes[2]) == "Redis: the operation failed"
    assert outcomes[2].retry_after
    assert client.connections == (1, 1)


async def test_a_cancelled_caller_harms_nobody(client: RedisClient) -> None:
    asked = [asyncio.ensure_future(client.execute("INCR", "counter")) for _ in range(5)]
    await asyncio.sleep(0)
    asked[1].cancel()
    await asyncio.sleep(0)
    asked[2].cancel()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in outcomes] == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert await client.execute("GET", "counter") in (b"3", b"4", b"5")
    wrong = asyncio.ensure_future(client.execute("NONSENSE"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    wrong.cancel()
    await client.ping()
    alone = asyncio.ensure_future(client.execute("INCR", "counter"))
    await asyncio.sleep(0)
    alone.cancel()
    await idle()
    await client.ping()


async def test_a_script_travels_once_and_again_when_the_server_has_forgotten_it(
    client: RedisClient, pipelines: list[bytes]
) -> None:
    script = Script("return redis.call('RPUSH', KEYS[1], ARGV[1]) -- a comment to be looked for")

    async def push(*numbers: int) -> list[int]:
        return await asyncio.gather(*(client.run(script, ("list",), number) for number in numbers))

    assert await push(1, 2) == [1, 2]
    assert await push(3) == [3]
    await client.execute("SCRIPT", "FLUSH")
    assert await push(4) == [4]
    assert await client.execute("LRANGE", "list", 0, -1) == [b"1", b"2", b"3", b"4"]
    assert sum(b"looked for" in sent for sent in pipelines) == 2
    with pytest.raises(StorageError):
        await client.execute("EVALSHA", "0" * 40, 0)


async def test_while_all_connections_are_busy_commands_gather(
    server: RedisServer, pipelines: list[bytes]
) -> None:
    client = RedisClient(server.url, max_connections=1)
    await client.open()
    before = len(pipelines)
    first = client.ask("INCR", "counter")
    await asyncio.sleep(0)
    later = []
    for _ in range(5):
        later.append(client.ask("INCR", "counter"))
        await asyncio.sleep(0)
    assert [(await each).value for each in [first, *later]] == [1, 2, 3, 4, 5, 6]
    assert len(pipelines) - before <= 3
    assert client.connections == (1, 1)
    await client.close()


async def test_open_connects_and_says_when_it_cannot(server: RedisServer) -> None:
    client = RedisClient(server.url, min_connections=3, client_name="kato-tester")
    await client.open()
    assert client.connections == (3, 3)
    await client.open()
    assert server.command("CLIENT", "LIST").count("name=kato-tester") >= 3
    await client.close()
    with pytest.raises(StorageError):
        await client.open()
    server.stop()
    absent = RedisClient(server.url)
    with pytest.raises(StorageError, match="cannot be reached"):
        await absent.open()
    await absent.close()


async def test_a_silent_server_costs_no_more_than_the_timeout(server: RedisServer) -> None:
    client = RedisClient(server.url, timeout=0.5, connect_timeout=0.5, max_connections=1, min_connections=1)
    await client.open()
    server.pause()
    began = time.monotonic()
    under_way = client.ask("PING")
    await idle()
    waiting = client.ask("PING")
    outcomes = await asyncio.gather(under_way, waiting, return_exceptions=True)
    # The one that waited for the connection does not wait for its own timeout too.
    assert time.monotonic() - began < 0.95
    assert [str(each) for each in outcomes] == ["Redis: the server did not answer in time"] * 2
    with pytest.raises(StorageError):
        await client.ping()
    with pytest.raises(StorageError):
        await client.open()
    server.resume()
    await client.ping()
    await client.close()


async def test_it_finds_a_restarted_server_by_itself(server: RedisServer, client: RedisClient) -> None:
    first = await client.ask("PING")
    server.kill9()
    with pytest.raises(StorageError) as refusal:
        await client.ping()
    assert str(refusal.value) == "Redis: the server cannot be reached"
    assert refusal.value.retry_after
    server.start()
    second = await client.ask("PING")
    assert first.server != second.server


async def test_connections_that_the_server_has_cut_are_replaced_unnoticed(
    server: RedisServer, client: RedisClient
) -> None:
    await client.open()
    assert int(server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")) >= 5
    await idle()
    await client.ping()


async def test_a_connection_cut_in_the_middle(server: RedisServer, client: RedisClient) -> None:
    await client.ping()
    blocked = client.ask("BLPOP", "nothing", 0)
    await idle()
    await asyncio.to_thread(until, lambda: "cmd=blpop" in server.command("CLIENT", "LIST"))
    await asyncio.to_thread(server.command, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(StorageError):
        await blocked
    await client.ping()


async def test_a_demoted_master_is_left(server: RedisServer, client: RedisClient) -> None:
    with support.redis() as other:
        await client.open()
        server.demote(other)
        with pytest.raises(StorageError, match="replica"):
            await client.execute("SET", "key", "value")
        assert client.connections == (0, 0)
        with pytest.raises(StorageError, match="replica"):
            await client.run(Script("return redis.call('SET', KEYS[1], 1)"), ("key",))
        server.promote()
        await client.execute("SET", "key", "value")


async def test_lines_to_a_former_master_are_dropped_when_another_server_is_met(
    server: RedisServer, client: RedisClient
) -> None:
    await client.open()
    lines = client._idle[:]
    for line in lines[1:]:
        line.server = "former"
    await lines[0].connection.disconnect()
    client._idle.append(client._idle.pop(0))
    await client.ping()
    assert {line.server for line in client._idle} == {(await client.ask("PING")).server}


async def test_commands_that_were_accepted_are_finished_before_closing(server: RedisServer) -> None:
    client = RedisClient(server.url).use().use()
    asked = client.ask("SET", "key", "value")
    await client.close()
    assert asked.done()
    assert await client.execute("GET", "key") == b"value"
    last = client.ask("PING")
    await client.close()
    assert (await last).value == b"PONG"
    assert client.connections == (0, 0)
    with pytest.raises(StorageError):
        await client.execute("PING")
    await client.close()


async def test_closing_while_a_pipeline_is_under_way(server: RedisServer) -> None:
    client = RedisClient(server.url)
    await client.open()
    asked = client.ask("PING")
    await asyncio.sleep(0)
    await client.close()
    assert (await asked).value == b"PONG"
    assert client.connections == (0, 0)


async def test_the_loop_may_end_while_a_pipeline_is_under_way(server: RedisServer) -> None:
    client = RedisClient(server.url)
    await client.ping()
    asked = client.ask("BLPOP", "nothing", 0)
    await idle()
    for task in client._batches:
        task.cancel()
    with pytest.raises(StorageError):
        await asked
    await client.close()


@pytest.mark.parametrize("password", ["pässword of:the@user/role", "wrong"])
async def test_credentials_are_used_and_never_shown(password: str) -> None:
    with support.redis(settings=['requirepass "p\\xc3\\xa4ssword of:the@user/role"']) as server:
        client = RedisClient(f"redis://:{quote(password, safe='')}@127.0.0.1:{server.port}/3")
        if password == "wrong":
            with pytest.raises(StorageError) as refusal:
                await client.ping()
            assert str(refusal.value) == "Redis: the server refuses the credentials"
            with pytest.raises(StorageError):
                await client.open()
        else:
            await client.ping()
        await client.close()


async def test_a_server_that_wants_a_password() -> None:
    with support.redis(settings=["requirepass secret"]) as server:
        client = RedisClient(server.url)
        with pytest.raises(StorageError, match="credentials"):
            await client.ping()
        await client.close()


async def test_tls(tmp_path: Path) -> None:
    certificate, key = support.certificate(tmp_path)
    settings = [f"tls-cert-file {certificate}", f"tls-key-file {key}", f"tls-ca-cert-file {certificate}"]
    port = support.free_port()
    with support.redis(settings=[*settings, f"tls-port {port}", "tls-auth-clients no"]):
        client = RedisClient(f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}")
        await client.ping()
        await client.close()
        distrusting = RedisClient(f"rediss://localhost:{port}/0")
        with pytest.raises(StorageError, match="cannot be reached"):
            await distrusting.ping()
        await distrusting.close()


async def test_a_socket_in_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with support.redis(settings=[f"unixsocket {path}"]):
        client = RedisClient(f"unix://{path}?db=1")
        await client.ping()
        await client.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://:secret@localhost",
        "redis://:secret@localhost:port",
        "redis://:secret@localhost?decode_responses=true",
        "redis+sentinel://:secret@localhost",
        "redis+sentinel://:secret@localhost/master/zero",
        "redis+sentinel://:secret@,b:1/master",
        "redis+sentinel://:secret@a/master?max_connections=3",
        "unix+sentinel://:secret@a/master",
        "",
    ],
)
def test_a_url_that_makes_no_sense_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        RedisClient(url)
    assert str(refusal.value) == "Redis: the URL is not valid"
    assert refusal.value.__cause__ is None


async def sooner_or_later(client: RedisClient, *command: str) -> Any:
    """What a client gets that tries again, as KATO's callers do."""
    deadline = time.monotonic() + 20.0
    while True:
        try:
            return await client.execute(*command)
        except StorageError:
            assert time.monotonic() < deadline


async def test_sentinels_lead_to_the_new_master_after_a_failover(server: RedisServer) -> None:
    follower = server.replica()
    sentinel = server.sentinel(down_after=0.3)
    try:
        sentinel.knows_replicas(1)
        # The first Sentinel is not there; the second one answers.
        url = sentinel.url.replace("sentinel://", f"sentinel://127.0.0.1:{support.free_port()},")
        client = RedisClient(url, connect_timeout=2.0, timeout=2.0)
        await client.execute("SET", "key", "value")
        await client.execute("WAIT", 1, 0)
        server.kill9()
        with pytest.raises(StorageError):
            await client.ping()
        assert await sooner_or_later(client, "GET", "key") == b"value"
        await sooner_or_later(client, "SET", "key", "newer")
        assert sentinel.master_port() == follower.port
        await client.close()
        unknown = RedisClient(sentinel.url.replace(support.MASTER, "unknown"))
        with pytest.raises(StorageError, match="cannot be reached"):
            await unknown.ping()
        await unknown.close()
    finally:
        sentinel.remove()
        follower.remove()


async def test_a_master_that_was_demoted_behind_the_sentinels_back(server: RedisServer) -> None:
    follower = server.replica()
    sentinel = server.sentinel(down_after=60.0)
    try:
        client = RedisClient(sentinel.url)
        await client.ping()
        server.demote(follower)
        with pytest.raises(StorageError):
            await client.execute("SET", "key", "value")
        await client.close()
    finally:
        sentinel.remove()
        follower.remove()


async def test_sentinels_behind_tls_with_credentials_of_their_own(tmp_path: Path) -> None:
    certificate, key = support.certificate(tmp_path)
    port = support.free_port()
    settings = [
        f"tls-cert-file {certificate}",
        f"tls-key-file {key}",
        f"tls-ca-cert-file {certificate}",
        "tls-auth-clients no",
    ]
    with support.redis(settings=[*settings, f"tls-port {port}", "requirepass secret"]) as server:
        sentinel = support.RedisSentinel(
            server,
            60.0,
            [*settings, f"tls-port {(guarded := support.free_port())}", "requirepass watcher"],
            master_port=port,
        )
        sentinel.start()
        try:
            client = RedisClient(
                f"rediss+sentinel://:secret@127.0.0.1:{guarded}/{support.MASTER}/0"
                f"?sentinel_password=watcher&ssl_ca_certs={certificate}"
            )
            await client.execute("SET", "key", "value")
            await client.close()
        finally:
            sentinel.remove()
