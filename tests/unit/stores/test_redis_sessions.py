from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from kato.errors import DataCorrupted, OutcomeUnknown, SessionLimitExceeded, SessionNotFound, StorageError
from kato.model import SessionState
from kato.stores.redis import RedisClient, RedisSessionStore
from kato.stores.redis.record import decode, encode
from kato.stores.redis.sessions import GRACE_SECONDS
from tests.contract.values import NOW, session
from tests.support import redis as support
from tests.support.redis import RedisServer
from tests.support.waiting import idle

from .test_redis_client import pipelines

__all__ = ["pipelines"]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with support.redis(durable=True) as running:
        yield running


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[RedisClient]:
    made = RedisClient(server.url, timeout=1.0, connect_timeout=1.0).use()
    yield made
    await made.close()


@pytest.fixture
async def stores(server: RedisServer, client: RedisClient) -> AsyncIterator[list[RedisSessionStore]]:
    """Those of three instances, the first one's client being `client`."""
    made = [RedisSessionStore(client), RedisSessionStore(server.url), RedisSessionStore(server.url)]
    yield made
    for store in made:
        await store.close()


def after(state: SessionState, **fields: Any) -> SessionState:
    return msgspec.structs.replace(state, revision=state.revision + 1, **fields)


async def test_an_observe_takes_one_round_trip(
    stores: list[RedisSessionStore], pipelines: list[bytes]
) -> None:
    store = stores[0]
    states = [session(f"s{number}") for number in range(3)]
    for state in states:
        await store.create(state, 0, 0)
        await store.save(after(state))
        # From here on the server knows the scripts.
        await store.load(state.session_id, state)
    pipelines.clear()
    await asyncio.gather(*(store.save(after(after(state))) for state in states))
    assert len(pipelines) == 1
    assert await store.load("s0", after(after(states[0]))) is not None
    assert len(pipelines) == 2


async def test_a_stale_instance_gets_the_fresh_state_in_the_reply(stores: list[RedisSessionStore]) -> None:
    here, there, _ = stores
    state = session("s")
    await here.create(state, 0, 0)
    newer = after(state, stm=(("a",),))
    assert await there.save(newer) is None
    assert await here.save(after(state, stm=(("b",),))) == newer
    assert await here.load("s", state) == newer
    assert await here.load("s", newer) is newer


async def test_200_observes_over_three_instances_are_200_events(stores: list[RedisSessionStore]) -> None:
    await stores[0].create(session("s"), 0, 0)

    async def observe(store: RedisSessionStore, symbol: str) -> None:
        state = await store.load("s")
        while state is not None:
            state = await store.save(after(state, stm=(*state.stm, (symbol,))))

    await asyncio.gather(*(observe(stores[number % 3], str(number)) for number in range(200)))
    final = await stores[1].load("s")
    assert final is not None
    assert (final.revision, sorted(final.stm)) == (200, sorted((str(number),) for number in range(200)))


async def test_limits_are_exact_over_all_instances(stores: list[RedisSessionStore]) -> None:
    outcomes = await asyncio.gather(
        *(stores[number % 3].create(session(f"s{number}", user_id="u"), 20, 7) for number in range(60)),
        return_exceptions=True,
    )
    assert outcomes.count(True) == 7
    assert sum(isinstance(each, SessionLimitExceeded) for each in outcomes) == 53
    more = await asyncio.gather(
        *(stores[number % 3].create(session(f"t{number}"), 20, 0) for number in range(60)),
        return_exceptions=True,
    )
    assert more.count(True) == 13
    assert await stores[1].count(NOW) == 20


async def test_each_expired_id_is_reported_by_one_instance(stores: list[RedisSessionStore]) -> None:
    for number in range(500):
        await stores[0].create(session(f"s{number}", expires_at=NOW + 1.0), 0, 0)
    reports = await asyncio.gather(*(store.expire(NOW + 2.0) for store in stores))
    assert sorted(name for report in reports for name in report) == sorted(
        f"s{number}" for number in range(500)
    )
    assert all([await store.expired("s7") for store in stores])


async def test_nothing_is_left_of_sessions_that_are_gone(
    stores: list[RedisSessionStore], client: RedisClient
) -> None:
    store = stores[0]
    moved = session("moved", user_id="a", node_id="a")
    await store.create(moved, 0, 0)
    await store.save(after(moved, user_id="b", node_id="b:c"))
    await store.create(session("_odd:%id"), 0, 0)
    await store.create(session("over", expires_at=NOW + 1.0), 0, 0)
    await store.delete("moved")
    await store.delete("_odd:%id")
    await store.expire(NOW + 2.0)
    assert await client.execute("KEYS", "*") == [b"kato:session:_tombstones"]
    assert await client.execute("PTTL", "kato:session:_tombstones") > 3_590_000
    await store.expire(NOW + 4000.0)
    assert await client.execute("KEYS", "*") == []


@pytest.mark.parametrize(
    "name", ["_active_index", "_ids", "_nobody", "user:u", "node:n", "node-ids:n", "%5Factive_index", "a%3A"]
)
async def test_no_id_is_taken_for_an_index(stores: list[RedisSessionStore], name: str) -> None:
    store = stores[0]
    await store.create(session("other", user_id="u", node_id="n"), 0, 0)
    assert await store.load(name) is None
    state = session(name, user_id="u", node_id="n")
    assert await store.create(state, 0, 0)
    assert await store.save(after(state)) is None
    page = await store.page(9, None, "n", NOW, False)
    assert [each.session_id for each in page.sessions] == sorted(["other", name])
    assert await store.delete(name)
    assert await store.load("other") is not None


async def test_pages_look_past_many_expired_sessions(stores: list[RedisSessionStore]) -> None:
    store = stores[0]
    await asyncio.gather(
        *(store.create(session(f"a{number:04}", expires_at=NOW + 1.0), 0, 0) for number in range(1001)),
        *(store.create(session(f"b{number}"), 0, 0) for number in range(3)),
    )
    page = await store.page(2, None, None, NOW + 2.0, False)
    assert ([each.session_id for each in page.sessions], page.cursor, page.total) == (["b0", "b1"], "b1", 3)
    last = await store.page(2, page.cursor, None, NOW + 2.0, False)
    assert ([each.session_id for each in last.sessions], last.cursor) == (["b2"], None)


# Time --------------------------------------------------------------------------------


async def test_a_touch_prolongs_for_all_instances(
    stores: list[RedisSessionStore], client: RedisClient
) -> None:
    here, there, _ = stores
    state = session("s", expires_at=NOW + 10.0)
    await here.create(state, 0, 0)
    longer = msgspec.structs.replace(state, expires_at=NOW + 100.0)
    assert await here.touch(longer)
    assert await there.load("s") == longer
    assert await there.load("s", state) == longer
    assert await there.load("s", longer) is longer
    assert await there.count(NOW + 50.0) == 1
    assert await there.expire(NOW + 50.0) == []
    # Shorter than what is stored: nothing to do.
    assert await here.touch(msgspec.structs.replace(state, expires_at=NOW + 20.0))
    assert await there.load("s") == longer
    lifetime = await client.execute("PTTL", "kato:session:s")
    assert 0 <= (100.0 + GRACE_SECONDS) * 1000 - lifetime < 60_000
    # A change ends it: the time to live may have been made shorter.
    newer = after(state, expires_at=NOW + 30.0)
    assert await there.save(newer) is None
    assert not await here.touch(longer)
    assert await here.load("s") == newer
    await here.delete("s")
    assert not await here.touch(longer)


async def test_redis_lets_go_of_a_record_by_itself(
    stores: list[RedisSessionStore], client: RedisClient
) -> None:
    here, there, _ = stores
    state = session("s", expires_at=NOW + 10.0, user_id="u")
    await here.create(state, 0, 0)
    lifetime = await client.execute("PTTL", "kato:session:s")
    assert 0 <= (10.0 + GRACE_SECONDS) * 1000 - lifetime < 60_000
    await client.execute("PEXPIRE", "kato:session:s", -1)
    assert await there.load("s") is None
    assert await there.load("s", state) is None
    assert await there.expired("s")
    assert (await there.page(5, None, None, NOW, True)).sessions == []
    with pytest.raises(SessionNotFound):
        await here.save(after(state))
    assert await there.create(msgspec.structs.replace(state, node_id="other"), 0, 0)
    assert (await there.page(5, None, "node", NOW, True)).total == 0
    assert not await there.expired("s")
    await client.execute("PEXPIRE", "kato:session:s", -1)
    assert await there.expire(NOW + 20.0) == ["s"]
    assert await client.execute("KEYS", "*") == [b"kato:session:_tombstones"]


# Faults --------------------------------------------------------------------------------


async def test_a_save_whose_reply_was_lost_is_done_once(
    server: RedisServer, stores: list[RedisSessionStore]
) -> None:
    here, there, _ = stores
    state = session("s")
    await here.create(state, 0, 0)
    newer = after(state, time=1)
    server.pause()
    with pytest.raises(StorageError, match="in time"):
        await here.save(newer)
    server.resume()
    # Redis does what it had received; the same state again is the same save, an equal one is another's.
    current = await there.load("s")
    assert current in (state, newer)
    assert await here.save(newer) is None
    assert await here.save(msgspec.structs.replace(newer)) == newer
    assert await there.load("s") == newer


async def test_a_save_whose_reply_was_lost_and_that_was_overtaken_is_in_doubt(
    server: RedisServer, stores: list[RedisSessionStore]
) -> None:
    here, there, _ = stores
    state = session("s")
    await here.create(state, 0, 0)
    newer = after(state, time=1)
    server.pause()
    with pytest.raises(StorageError):
        await here.save(newer)
    server.resume()
    current = await there.load("s")
    assert current is not None
    newest = after(current, time=2)
    assert await there.save(newest) is None
    # Refused, it would be done on the newest state again, and it may have been done before.
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            await here.save(newer)
    assert await there.load("s") == newest


async def test_a_creation_whose_reply_was_lost_is_done_once(
    server: RedisServer, stores: list[RedisSessionStore]
) -> None:
    here, there, _ = stores
    state = session("s")
    await here.client.ping()
    server.pause()
    with pytest.raises(StorageError):
        await here.create(state, 1, 0)
    server.resume()
    assert await here.create(state, 1, 0)
    assert not await there.create(state, 1, 0)


async def test_doubts_do_not_pile_up(
    server: RedisServer, stores: list[RedisSessionStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kato.stores.redis.sessions._DOUBTS_KEPT", 2)
    server.stop()
    for number in range(4):
        with pytest.raises(StorageError):
            await stores[0].create(session(f"s{number}"), 0, 0)
    assert len(stores[0]._doubtful) == 2


async def test_a_session_created_anew_is_not_overwritten_by_who_held_the_former(
    stores: list[RedisSessionStore],
) -> None:
    here, there, _ = stores
    former = session("default", revision=3)
    await here.create(former, 0, 0)
    await there.delete("default")
    anew = session("default", revision=3, created_at=NOW + 1.0)
    await there.create(anew, 0, 0)
    assert await here.save(after(former)) == anew
    assert not await here.touch(msgspec.structs.replace(former, expires_at=NOW + 9999.0))


async def test_acknowledged_saves_survive_kill_9(
    server: RedisServer, stores: list[RedisSessionStore]
) -> None:
    here, there, _ = stores
    state = session("s")
    await here.create(state, 0, 0)
    for _ in range(5):
        for _ in range(20):
            state = after(state, time=state.time + 1)
            assert await here.save(state) is None
        server.kill9()
        with pytest.raises(StorageError):
            await here.save(after(state))
        server.start()
        assert await there.load("s") == state
        assert await there.count(NOW) == 1


async def test_without_the_server_everything_fails_soon_and_says_when_to_try_again(
    server: RedisServer, stores: list[RedisSessionStore]
) -> None:
    store = stores[0]
    state = session("s")
    await store.create(state, 0, 0)
    server.stop()
    for call in (
        store.create(session("t"), 0, 0),
        store.load("s"),
        store.load("s", state),
        store.save(after(state)),
        store.touch(state),
        store.delete("s"),
        store.count(NOW),
        store.page(5, None, None, NOW, False),
        store.expire(NOW),
        store.expired("s"),
    ):
        with pytest.raises(StorageError) as refusal:
            await call
        assert refusal.value.retry_after
        assert str(server.port) not in str(refusal.value)


async def test_damage_is_told(stores: list[RedisSessionStore], client: RedisClient) -> None:
    store = stores[0]
    await client.execute("SET", "kato:session:short", "abc")
    await client.execute("SET", "kato:session:foreign", b"x" * 48 + b"\xc1")
    await client.execute("RPUSH", "kato:session:list", 1)
    for name in ("short", "foreign", "list"):
        with pytest.raises(DataCorrupted):
            await store.load(name)


async def test_a_closed_store_leaves_the_client_to_others(
    stores: list[RedisSessionStore], client: RedisClient
) -> None:
    store = stores[0]
    await store.close()
    await store.close()
    for call in (store.touch(session("s")), store.delete("s"), store.expire(NOW), store.expired("s")):
        with pytest.raises(StorageError):
            await call
    await client.ping()


async def test_cancelled_saves_leave_no_trace_in_others(stores: list[RedisSessionStore]) -> None:
    store = stores[0]
    states = [session(f"s{number}") for number in range(30)]
    await asyncio.gather(*(store.create(state, 0, 0) for state in states))
    for turns in range(6):
        saves = [asyncio.ensure_future(store.save(after(state, time=turns))) for state in states]
        await idle(turns)
        for save in saves[::3]:
            save.cancel()
        outcomes = await asyncio.gather(*saves, return_exceptions=True)
        for number, outcome in enumerate(outcomes):
            stored = await store.load(f"s{number}")
            assert stored is not None
            assert stored.session_id == f"s{number}"
            if isinstance(outcome, asyncio.CancelledError):
                assert number % 3 == 0
            else:
                assert outcome is None
            states[number] = stored


def test_a_record_is_its_state_with_the_expiry_of_its_head() -> None:
    state = session("s", revision=7)
    record = encode(state, b"", b"owner", b"t" * 16)
    assert len(record) == 48
    with pytest.raises(DataCorrupted):
        decode(record)
