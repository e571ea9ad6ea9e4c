"""Sessions that two instances share: whoever acts, both see one history, and what it teaches is delivered."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from kato import errors
from kato.model import SessionState
from kato.sessions.shared import ATTEMPTS
from tests.support.clock import Clock
from tests.support.sharing import create, instances
from tests.support.waiting import until

# One history


async def test_each_sees_at_once_what_the_other_did() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        for number in range(6):
            await (a, b)[number % 2].observe(session_id, str(number))
            assert await a.stm(session_id) == await b.stm(session_id) == "012345"[: number + 1]
        state = await b.sessions.get(session_id)
        assert (state.time, state.revision, state.changes) == (6, 6, 6)


async def test_parallel_changes_on_both_are_all_kept_each_at_a_time_of_its_own() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        times = await asyncio.gather(*((a, b)[n % 2].observe(session_id, str(n)) for n in range(100)))
        assert sorted(times) == list(range(1, 101))
        state = await a.sessions.get(session_id)
        assert sorted(event[0] for event in state.stm) == sorted(map(str, range(100)))
        assert [int(state.stm[time - 1][0]) for time in times] == list(range(100))


async def test_a_change_and_a_read_take_one_round_trip_while_the_state_is_held() -> None:
    clock = Clock()
    async with instances(clock) as (a, _):
        session_id = await create(a)
        for _ in range(3):
            clock.advance(1)
            before = a.round_trips
            await a.observe(session_id)
            assert a.round_trips == before + 1
            clock.advance(1)
            await a.sessions.get(session_id)
            assert a.round_trips == before + 2
            assert (await a.stored(session_id)).expires_at == clock() + 60


async def test_a_stale_change_takes_one_round_trip_more() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        await b.observe(session_id, "b")
        before = a.round_trips
        await a.observe(session_id, "a")
        assert a.round_trips == before + 2
        assert await b.stm(session_id) == "ba"


async def test_what_a_change_raises_on_a_stale_state_does_not_count() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        await b.observe(session_id)
        assert await a.teach(session_id) == "taught"
        with pytest.raises(errors.EmptySTM):
            await b.teach(session_id)
        with pytest.raises(errors.EmptySTM):
            await a.teach(session_id)


async def test_what_a_change_raises_on_the_fresh_state_counts() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        await b.observe(session_id)
        runs = 0

        async def refuse(state: SessionState) -> tuple[SessionState, None]:
            nonlocal runs
            runs += 1
            if runs == 1:
                return state, None
            raise errors.EmptySTM("no")

        with pytest.raises(errors.EmptySTM):
            await a.sessions.change(session_id, refuse)
        assert runs == 2


async def test_a_failing_store_is_told_at_once() -> None:
    async with instances() as (a, _):
        session_id = await create(a)

        async def fail(state: SessionState) -> tuple[SessionState, None]:
            raise errors.StorageError("down")

        before = a.round_trips
        with pytest.raises(errors.StorageError, match="down"):
            await a.sessions.change(session_id, fail)
        assert a.round_trips == before


async def test_who_never_gets_through_gives_up_without_effect() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        runs = 0

        async def slow(state: SessionState) -> tuple[SessionState, None]:
            nonlocal runs
            runs += 1
            await b.observe(session_id, "b")
            return msgspec.structs.replace(state, stm=(("mine",),)), None

        with pytest.raises(errors.ConcurrencyError) as caught:
            await a.sessions.change(session_id, slow)
        assert caught.value.retry_after == 1
        assert runs == ATTEMPTS
        assert await b.stm(session_id) == "b" * ATTEMPTS


async def test_accesses_are_counted_and_written_with_the_next_change() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        for _ in range(3):
            await a.sessions.get(session_id)
        assert (await b.sessions.get(session_id)).access_count == 1
        await a.observe(session_id)
        assert (await a.stored(session_id)).access_count == 4
        assert (await b.sessions.get(session_id)).access_count == 6
        await b.observe(session_id)
        assert (await a.sessions.get(session_id)).access_count == 8


# The end


async def test_a_session_deleted_on_the_other_is_gone_here_too() -> None:
    async with instances() as (a, b):
        for use in (a.sessions.get, a.observe, a.sessions.delete, a.sessions.peek):
            session_id = await create(a)
            await b.sessions.delete(session_id)
            if use == a.sessions.peek:
                assert await a.sessions.peek(session_id) is None
            else:
                with pytest.raises(errors.SessionNotFound):
                    await use(session_id)
            found = await a.sessions.exists(session_id)
            assert (found.exists, found.expired) == (False, False)
            assert session_id not in a.sessions._held


async def test_a_session_deleted_while_it_is_changed_is_not_revived() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        runs = 0

        async def change(state: SessionState) -> tuple[SessionState, None]:
            nonlocal runs
            runs += 1
            await (b.observe(session_id) if runs == 1 else b.sessions.delete(session_id))
            return state, None

        with pytest.raises(errors.SessionNotFound):
            await a.sessions.change(session_id, change)
        assert runs == 2
        assert session_id not in a.sessions._held


async def test_a_session_swept_by_the_other_is_expired_here_too() -> None:
    clock = Clock()
    async with instances(clock) as (a, b):
        session_id = await create(a, ttl_seconds=10)
        await b.sessions.extend(session_id, 5)
        clock.advance(5)
        assert await b.sessions.sweep() == [session_id]
        for use in (a.sessions.get, a.observe):
            with pytest.raises(errors.SessionExpired):
                await use(session_id)


async def test_a_session_that_the_other_shortened_is_expired_though_it_is_still_stored() -> None:
    clock = Clock()
    async with instances(clock) as (a, b):
        session_id = await create(a, ttl_seconds=100)
        await b.sessions.extend(session_id, 5)
        clock.advance(5)
        with pytest.raises(errors.SessionExpired):
            await a.observe(session_id)
        with pytest.raises(errors.SessionExpired):
            await a.sessions.get(session_id)


async def test_use_on_one_prolongs_for_the_other() -> None:
    clock = Clock()
    async with instances(clock) as (a, b):
        session_id = await create(a, ttl_seconds=10)
        for _ in range(3):
            clock.advance(9)
            await b.sessions.get(session_id)
        assert (await a.sessions.exists(session_id)).exists
        clock.advance(9)
        await a.observe(session_id)
        clock.advance(9)
        assert await b.sessions.sweep() == []
        assert (await b.sessions.get(session_id)).expires_at == clock() + 10


async def test_without_automatic_extension_reading_writes_nothing() -> None:
    clock = Clock()
    async with instances(clock, SESSION_AUTO_EXTEND=False) as (a, _):
        session_id = await create(a, ttl_seconds=10)
        clock.advance(1)
        before = (await a.stored(session_id)).expires_at
        await a.sessions.get(session_id)
        assert (await a.stored(session_id)).expires_at == before


async def test_the_default_session_is_one_for_all_instances() -> None:
    clock = Clock()
    async with instances(clock, PROCESSOR_ID="us") as (a, b):
        for _ in range(2):
            ids = await asyncio.gather(
                *((a, b)[n % 2].sessions.default({"persistence": 3}) for n in range(10))
            )
            assert set(ids) == {"default-us"}
            before = a.round_trips
            assert await a.sessions.default({}) == "default-us"
            assert a.round_trips == before
            await asyncio.gather(a.observe(ids[0], "a"), b.observe(ids[0], "b"))
            assert sorted(await a.stm(ids[0])) == ["a", "b"]
            clock.advance(86_400)
        assert a.kept.counters.sessions_created + b.kept.counters.sessions_created == 2


async def test_a_session_created_anew_is_not_mixed_with_the_former() -> None:
    clock = Clock()
    async with instances(clock, PROCESSOR_ID="us") as (a, b):
        session_id = await a.sessions.default({})
        await a.observe(session_id, "old")
        await b.sessions.delete(session_id)
        clock.advance(1)
        assert await b.sessions.default({}) == session_id
        await a.observe(session_id, "n")
        assert await b.stm(session_id) == "n"


async def test_pages_and_counts_are_those_of_all_instances() -> None:
    async with instances() as (a, b):
        ids = sorted([await create((a, b)[n % 2]) for n in range(5)])
        for instance in (a, b):
            page = await instance.sessions.page(10, None, None, include_expired=False)
            assert [state.session_id for state in page.sessions] == ids
            assert await instance.sessions.count() == 5


# What is held


async def test_held_states_are_bounded_but_those_in_use_stay() -> None:
    async with instances(number=1, kept=3) as (a,):
        busy = await create(a)
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def slow(state: SessionState) -> tuple[SessionState, None]:
            entered.set()
            await go_on.wait()
            return state, None

        running = asyncio.create_task(a.sessions.change(busy, slow))
        await entered.wait()
        ids = [await create(a) for _ in range(10)]
        assert list(a.sessions._held) == [busy, *ids[-2:]]
        await a.observe(ids[-2])
        await a.observe(ids[0])
        assert list(a.sessions._held) == [busy, ids[-2], ids[0]]
        go_on.set()
        await running
        assert await a.stm(ids[-1]) == ""
        assert busy not in a.sessions._held
        a.sessions._kept = 0
        held = [await a.sessions._look(each) for each in ids[:2]]
        assert [each.state.session_id for each in held] == ids[:2]


async def test_when_all_are_in_use_more_are_held() -> None:
    async with instances(number=1, kept=1) as (a,):
        ids = [await create(a) for _ in range(3)]
        assert await asyncio.gather(*(a.observe(session_id) for session_id in ids * 5))
        assert [await a.stm(session_id) for session_id in ids] == ["x" * 5] * 3
        assert len(a.sessions._held) == 1


async def test_new_sessions_are_held_though_all_others_are_in_use() -> None:
    async with instances(number=1, kept=1) as (a,):
        first, second = await create(a), await create(a)
        go_on = asyncio.Event()

        async def slow(state: SessionState) -> tuple[SessionState, None]:
            await go_on.wait()
            return state, None

        running = [asyncio.create_task(a.sessions.change(each, slow)) for each in (first, second)]
        await until(lambda: [held.users for held in a.sessions._held.values()] == [1, 1])
        third = await create(a)
        assert list(a.sessions._held)[-1] == third
        go_on.set()
        await asyncio.gather(*running)


async def test_an_answer_that_comes_late_does_not_replace_what_is_held() -> None:
    async with instances(number=1) as (a,):
        state = await a.kept.create()
        await a.observe(state.session_id)
        assert a.sessions._hold(state.session_id, state).state.time == 1


async def test_whoever_gives_up_while_saving_leaves_the_truth_to_the_store() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        first = asyncio.create_task(a.observe(session_id, "1"))
        await until(lambda: bool(a.store.client._batches) or first.done())
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await a.observe(session_id, "2")
        assert await b.stm(session_id) == await a.stm(session_id)
        assert (await b.stm(session_id)).removeprefix("1") == "2"
