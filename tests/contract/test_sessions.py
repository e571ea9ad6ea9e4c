"""The contract of `SessionStore`."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from kato.errors import (
    ResourceExhausted,
    SessionLimitExceeded,
    SessionNotFound,
    StorageError,
    ValidationError,
)
from kato.model import Answer, Lesson, Observation, Pending, SessionState
from kato.stores.ports import SessionStore

from .adapters import Adapters
from .values import NODES, NOW, session

FULL = session(
    "full",
    user_id="user",
    metadata={"text": "naïve 🧠", "deep": [{"a": None}, [True, -1, 0.5]], "big": 10**40, "small": -(10**30)},
    config={"recall_threshold": 0.5, "filter_pipeline": ["length"]},
    stm=(("a", "b"), (), ("c",)),
    stm_ids=("1", "", "2"),
    observed=(("x",),),
    emotives=({"joy": 0.5}, {}),
    observed_metadata=({"page": 3},),
    time=4,
    percept=Observation(
        strings=("a",), vectors=((0.1, 2.0),), emotives={"joy": 1.0}, metadata={"k": [1]}, unique_id="u"
    ),
    vectors=(("VCTR|0", (0.1, 2.0)),),
    pending=Pending(
        lessons=(Lesson(name="0f" * 20, events=(("a",), ("b",)), emotives=({"joy": 0.5},), operation="o"),),
        vectors=(("VCTR|0", (0.1, 2.0)),),
        claimed=True,
    ),
    answers=(Answer("key", b"\0request", b"\xffbody", NOW),),
    access_count=3,
    revision=5,
)


def after(state: SessionState, **fields: Any) -> SessionState:
    return msgspec.structs.replace(state, revision=state.revision + 1, **fields)


async def test_a_created_session_is_loaded_as_it_was(sessions: SessionStore) -> None:
    for state in (FULL, session("plain")):
        assert await sessions.create(state, 0, 0)
        assert await sessions.load(state.session_id) == state
    assert await sessions.load("unknown") is None
    assert not await sessions.expired("full")


async def test_an_id_is_created_once(sessions: SessionStore) -> None:
    assert await sessions.create(session("s", time=1), 0, 0)
    assert not await sessions.create(session("s", time=2), 0, 0)
    loaded = await sessions.load("s")
    assert loaded is not None
    assert loaded.time == 1


async def test_of_many_creators_one_wins(sessions: SessionStore) -> None:
    outcomes = await asyncio.gather(
        *(sessions.create(session("s", time=number), 0, 0) for number in range(20))
    )
    assert outcomes.count(True) == 1
    loaded = await sessions.load("s")
    assert loaded is not None
    assert loaded.time == outcomes.index(True)


async def test_the_held_state_is_returned_while_it_is_current(sessions: SessionStore) -> None:
    state = session("s")
    await sessions.create(state, 0, 0)
    assert await sessions.load("s", state) is state
    newer = after(state, time=1)
    await sessions.save(newer)
    assert await sessions.load("s", newer) is newer
    assert await sessions.load("s", state) == newer
    await sessions.delete("s")
    assert await sessions.load("s", newer) is None
    again = session("s", revision=newer.revision, created_at=NOW + 1.0)
    await sessions.create(again, 0, 0)
    assert await sessions.load("s", newer) == again


async def test_save_wants_the_revision_before(sessions: SessionStore) -> None:
    state = session("s", revision=3)
    await sessions.create(state, 0, 0)
    newer = after(state, time=1)
    assert await sessions.save(newer) is None
    assert await sessions.save(after(state, time=2)) == newer
    assert await sessions.save(after(after(newer))) == newer
    assert await sessions.load("s") == newer


async def test_saves_of_one_session_at_once_are_done_one_after_the_other(sessions: SessionStore) -> None:
    states = [session("s")]
    await sessions.create(states[0], 0, 0)
    for number in range(1, 6):
        states.append(after(states[-1], time=number))
    # The stores are told of them in this order; each finds the revision that the one before left.
    assert await asyncio.gather(*(sessions.save(state) for state in states[1:])) == [None] * 5
    assert await sessions.load("s") == states[-1]


async def test_no_update_is_lost_when_many_save_at_once(sessions: SessionStore) -> None:
    await sessions.create(session("s"), 0, 0)

    async def observe() -> None:
        state = await sessions.load("s")
        while state is not None:
            state = await sessions.save(after(state, time=state.time + 1))

    await asyncio.gather(*(observe() for _ in range(20)))
    loaded = await sessions.load("s")
    assert loaded is not None
    assert (loaded.time, loaded.revision) == (20, 20)


async def test_saving_what_is_gone(sessions: SessionStore) -> None:
    with pytest.raises(SessionNotFound):
        await sessions.save(session("never", revision=1))
    await sessions.create(session("s"), 0, 0)
    assert await sessions.delete("s")
    with pytest.raises(SessionNotFound):
        await sessions.save(session("s", revision=1))
    assert await sessions.load("s") is None


async def test_a_session_too_large_is_refused_and_stays_as_it_was(adapters: Adapters) -> None:
    sessions = await adapters.sessions(max_bytes=10_000)
    small = session("s")
    await sessions.create(small, 0, 0)
    with pytest.raises(ResourceExhausted):
        await sessions.save(after(small, stm=(("x" * 10_000,),)))
    with pytest.raises(ResourceExhausted):
        await sessions.create(session("t", stm=(("x" * 10_000,),)), 0, 0)
    assert await sessions.load("s") == small
    assert await sessions.save(after(small, stm=(("x" * 9_000,),))) is None
    assert await sessions.count(NOW) == 1
    await sessions.close()


async def test_what_cannot_be_stored_is_refused(sessions: SessionStore) -> None:
    for state in (
        session("\ud800"),
        session("s", metadata={"a": "\udc00"}),
        session("s", metadata={"a": object()}),
        session("s", metadata={"a": object(), "b": 10**30}),
    ):
        with pytest.raises(ValidationError):
            await sessions.create(state, 0, 0)
    assert await sessions.count(NOW) == 0
    assert await sessions.load("\ud800") is None
    assert not await sessions.expired("\ud800")
    assert not await sessions.delete("\ud800")


async def test_delete_leaves_nothing_behind(sessions: SessionStore) -> None:
    assert not await sessions.delete("s")
    await sessions.create(session("s"), 0, 0)
    assert await sessions.delete("s")
    assert not await sessions.delete("s")
    assert await sessions.count(NOW) == 0
    assert not await sessions.expired("s")
    assert await sessions.create(session("s"), 0, 0)


async def test_the_limit_of_all_sessions_is_exact(sessions: SessionStore) -> None:
    outcomes = await asyncio.gather(
        *(sessions.create(session(f"s{number}"), 5, 0) for number in range(9)), return_exceptions=True
    )
    assert outcomes.count(True) == 5
    refusals = [outcome for outcome in outcomes if isinstance(outcome, SessionLimitExceeded)]
    assert len(refusals) == 4
    for refusal in refusals:
        assert refusal.details["limit_value"] == refusal.details["current_value"] == 5
        assert refusal.details["limit_type"] == "sessions"
        assert refusal.retry_after is not None
        assert refusal.retry_after > 0
    # An id that exists already is no new session.
    taken = next(number for number, outcome in enumerate(outcomes) if outcome is True)
    assert not await sessions.create(session(f"s{taken}"), 5, 0)
    await sessions.delete(f"s{taken}")
    assert await sessions.create(session("next"), 5, 0)
    assert await sessions.count(NOW) == 5


async def test_the_limit_of_a_user_is_that_users_own(sessions: SessionStore) -> None:
    for number in range(2):
        assert await sessions.create(session(f"a{number}", user_id="a"), 0, 2)
    with pytest.raises(SessionLimitExceeded) as refusal:
        await sessions.create(session("a2", user_id="a"), 0, 2)
    assert refusal.value.details["limit_type"] == "sessions_per_user"
    assert refusal.value.details["current_value"] == refusal.value.details["limit_value"] == 2
    assert await sessions.create(session("b0", user_id="b"), 0, 2)
    assert await sessions.create(session("a2", user_id="a"), 0, 3)


async def test_expired_sessions_count_for_nothing(sessions: SessionStore) -> None:
    await sessions.create(session("over", user_id="a", expires_at=NOW + 10.0), 0, 0)
    await sessions.create(session("lives", user_id="a", expires_at=NOW + 60.0), 0, 0)
    assert [await sessions.count(NOW + later) for later in (0.0, 9.5, 10.0, 59.0, 60.0)] == [2, 2, 1, 1, 0]
    assert await sessions.count(NOW) == 2
    later = session("new", user_id="a", created_at=NOW + 20.0, expires_at=NOW + 60.0)
    assert await sessions.create(later, 2, 2)
    with pytest.raises(SessionLimitExceeded):
        await sessions.create(msgspec.structs.replace(later, session_id="more"), 2, 0)


async def test_a_save_moves_the_expiry_both_ways(sessions: SessionStore) -> None:
    state = session("s", expires_at=NOW + 10.0)
    await sessions.create(state, 0, 0)
    assert await sessions.count(NOW + 20.0) == 0
    prolonged = after(state, expires_at=NOW + 100.0)
    await sessions.save(prolonged)
    assert await sessions.count(NOW + 20.0) == 1
    assert await sessions.expire(NOW + 20.0) == []
    await sessions.save(after(prolonged, expires_at=NOW + 30.0))
    assert await sessions.count(NOW + 40.0) == 0
    assert await sessions.expire(NOW + 40.0) == ["s"]


async def test_a_saved_session_may_change_its_user(sessions: SessionStore) -> None:
    state = session("s", user_id="a")
    await sessions.create(state, 0, 0)
    await sessions.save(after(state, user_id="b", node_id="other"))
    assert await sessions.create(session("t", user_id="a"), 0, 1)
    with pytest.raises(SessionLimitExceeded):
        await sessions.create(session("u", user_id="b"), 0, 1)
    page = await sessions.page(10, None, "other", NOW, False)
    assert [each.session_id for each in page.sessions] == ["s"]


async def test_expire_removes_and_leaves_a_tombstone_for_an_hour(sessions: SessionStore) -> None:
    for number in range(450):
        await sessions.create(session(f"s{number:03}", expires_at=NOW + number), 0, 0)
    # Expired and not yet removed: still there for those who ask for it by id.
    assert await sessions.load("s000") is not None
    gone = await sessions.expire(NOW + 420.0)
    assert sorted(gone) == [f"s{number:03}" for number in range(421)]
    assert await sessions.expire(NOW + 420.0) == []
    assert await sessions.load("s000") is None
    assert await sessions.expired("s000")
    assert not await sessions.expired("s421")
    assert await sessions.count(NOW + 420.0) == 29
    assert (await sessions.page(1, None, None, NOW, True)).total == 29
    with pytest.raises(SessionNotFound):
        await sessions.save(session("s000", revision=1))
    await sessions.expire(NOW + 420.0 + 3599.0)
    assert await sessions.expired("s000")
    await sessions.expire(NOW + 420.0 + 3601.0)
    assert not await sessions.expired("s000")


async def test_an_expired_id_may_begin_again(sessions: SessionStore) -> None:
    await sessions.create(session("s", expires_at=NOW + 1.0), 0, 0)
    assert await sessions.expire(NOW + 2.0) == ["s"]
    assert await sessions.create(session("s"), 0, 0)
    assert not await sessions.expired("s")
    await sessions.delete("s")
    assert not await sessions.expired("s")


async def test_a_session_prolonged_during_the_sweep_stays(sessions: SessionStore) -> None:
    state = session("s", expires_at=NOW + 1.0)
    await sessions.create(state, 0, 0)
    saved, gone = await asyncio.gather(
        sessions.save(after(state, expires_at=NOW + 100.0)),
        sessions.expire(NOW + 2.0),
        return_exceptions=True,
    )
    # Whoever came first, the two must agree.
    assert (saved is None and gone == []) or (isinstance(saved, SessionNotFound) and gone == ["s"])


async def test_pages_in_order_of_id(sessions: SessionStore) -> None:
    ids = ["a", "B", "é", "🧠", "b", "a!", "Z"]
    for each in ids:
        await sessions.create(session(each), 0, 0)
    found: list[str] = []
    cursor = None
    while True:
        page = await sessions.page(2, cursor, None, NOW, False)
        assert page.total == 7
        found += [each.session_id for each in page.sessions]
        cursor = page.cursor
        if cursor is None:
            break
    assert found == sorted(ids)
    whole = await sessions.page(7, None, None, NOW, False)
    assert (len(whole.sessions), whole.cursor) == (7, None)


async def test_pages_of_a_node_and_with_the_expired(sessions: SessionStore) -> None:
    for number, node in enumerate(NODES):
        await sessions.create(session(f"a{number:02}", node_id=node), 0, 0)
        await sessions.create(session(f"b{number:02}", node_id=node, expires_at=NOW + 5.0), 0, 0)
    for number, node in enumerate(NODES):
        live = await sessions.page(10, None, node, NOW + 5.0, False)
        assert ([each.session_id for each in live.sessions], live.total) == ([f"a{number:02}"], 1)
        every = await sessions.page(1, f"a{number:02}", node, NOW + 5.0, True)
        assert ([each.session_id for each in every.sessions], every.total) == ([f"b{number:02}"], 2)
    assert (await sessions.page(100, None, None, NOW + 5.0, False)).total == len(NODES)
    assert (await sessions.page(100, None, None, NOW + 5.0, True)).total == 2 * len(NODES)
    assert (await sessions.page(100, None, "nobody", NOW, True)) == ([], None, 0)


async def test_a_cancelled_save_is_done_or_not_and_harms_nobody(sessions: SessionStore) -> None:
    states = [session(f"s{number}") for number in range(8)]
    for state in states:
        await sessions.create(state, 0, 0)
    saves = [asyncio.ensure_future(sessions.save(after(state, time=1))) for state in states]
    await asyncio.sleep(0)
    saves[3].cancel()
    outcomes = await asyncio.gather(*saves, return_exceptions=True)
    assert outcomes[:3] + outcomes[4:] == [None] * 7
    loaded = await sessions.load("s3")
    assert loaded in (states[3], after(states[3], time=1))


async def test_sessions_are_there_after_reopening(adapters: Adapters) -> None:
    sessions = await adapters.sessions()
    await sessions.create(FULL, 0, 0)
    await sessions.create(session("over", expires_at=NOW + 1.0), 0, 0)
    newer = after(FULL, time=9)
    await sessions.save(newer)
    await sessions.expire(NOW + 2.0)
    await sessions.close()
    if adapters.persistent:
        sessions = await adapters.sessions()
        assert await sessions.load("full") == newer
        assert await sessions.expired("over")
        assert await sessions.count(NOW) == 1
        with pytest.raises(SessionLimitExceeded):
            await sessions.create(session("more", user_id="user"), 0, 1)
        await sessions.close()


async def test_close_finishes_what_was_accepted(adapters: Adapters) -> None:
    sessions = await adapters.sessions()
    state = session("s")
    await sessions.create(state, 0, 0)
    saving = asyncio.ensure_future(sessions.save(after(state, time=1)))
    await asyncio.sleep(0)
    await sessions.close()
    assert await saving is None
    for call in (sessions.save(after(state)), sessions.load("s"), sessions.count(NOW)):
        with pytest.raises(StorageError):
            await call
    await sessions.close()
