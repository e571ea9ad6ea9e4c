"""How long sessions live: time, access, sweeping."""

from __future__ import annotations

import asyncio

import pytest

from kato import errors
from kato.model import SessionState
from kato.stores.sqlite import SqliteSessionStore
from tests.support.changing import BOTH, FailingStore, Gate
from tests.support.clock import Clock
from tests.support.sessions import keeping
from tests.support.waiting import idle, until

# Time


@BOTH
async def test_every_access_prolongs_by_the_sessions_own_time_to_live(shared: bool) -> None:
    async with keeping(shared=shared) as kept:
        session_id = (await kept.create(ttl_seconds=10)).session_id
        for _ in range(5):
            kept.clock.advance(9)
            state = await kept.sessions.get(session_id)
            assert (state.last_accessed, state.expires_at) == (kept.clock(), kept.clock() + 10)
        kept.clock.advance(9)
        await kept.observe(session_id)
        kept.clock.advance(9)
        assert (await kept.sessions.exists(session_id)).exists


@BOTH
async def test_looking_whether_it_exists_does_not_prolong(shared: bool) -> None:
    async with keeping(shared=shared) as kept:
        session_id = (await kept.create(ttl_seconds=10)).session_id
        kept.clock.advance(9)
        assert (await kept.sessions.exists(session_id)).exists
        kept.clock.advance(1)
        found = await kept.sessions.exists(session_id)
        assert (found.exists, found.expired) == (False, True)


@BOTH
async def test_without_automatic_extension_the_end_is_fixed(shared: bool) -> None:
    async with keeping(shared=shared, SESSION_AUTO_EXTEND=False) as kept:
        session_id = (await kept.create(ttl_seconds=10)).session_id
        kept.clock.advance(9)
        await kept.sessions.get(session_id)
        await kept.observe(session_id)
        kept.clock.advance(1)
        with pytest.raises(errors.SessionExpired):
            await kept.sessions.get(session_id)


@pytest.mark.parametrize("automatic", [True, False])
@BOTH
async def test_extending_counts_from_now(automatic: bool, shared: bool) -> None:
    async with keeping(shared=shared, SESSION_AUTO_EXTEND=automatic) as kept:
        session_id = (await kept.create(ttl_seconds=10)).session_id
        kept.clock.advance(5)
        state = await kept.sessions.extend(session_id, 100)
        assert (state.ttl_seconds, state.expires_at) == (100, kept.clock() + 100)
        kept.clock.advance(99)
        await kept.sessions.get(session_id)


@BOTH
async def test_an_expired_session_is_refused_by_every_verb(shared: bool) -> None:
    async with keeping(shared=shared) as kept:
        session_id = (await kept.create(ttl_seconds=10)).session_id
        kept.clock.advance(10)
        for call in (
            kept.sessions.get(session_id),
            kept.observe(session_id),
            kept.sessions.extend(session_id, 5),
            kept.sessions.delete(session_id),
        ):
            with pytest.raises(errors.SessionExpired, match="not found or expired"):
                await call
        assert await kept.sessions.count() == 0


@BOTH
async def test_a_session_that_expires_while_a_change_waits_is_not_changed(shared: bool) -> None:
    async with keeping(shared=shared, SESSION_AUTO_EXTEND=False) as kept:
        session_id = (await kept.create(ttl_seconds=10)).session_id
        first, queued = Gate(), Gate()
        running = asyncio.create_task(kept.sessions.change(session_id, first))
        await first.entered.wait()
        behind = asyncio.create_task(kept.sessions.change(session_id, queued))
        await idle()
        kept.clock.advance(10)
        first.open.set()
        await running
        with pytest.raises(errors.SessionExpired):
            await behind
        assert queued.runs == 0


@BOTH
async def test_sweeping_removes_what_has_expired_and_says_so(shared: bool) -> None:
    async with keeping(shared=shared) as kept:
        old = (await kept.create(ttl_seconds=10)).session_id
        young = (await kept.create(ttl_seconds=100)).session_id
        await kept.told()
        kept.clock.advance(10)
        assert await kept.sessions.sweep() == [old]
        assert await kept.told() == [
            ("session.destroyed", {"session_id": old, "destroyed_at": kept.clock(), "reason": "expired"})
        ]
        assert kept.counters.sessions_expired == 1
        with pytest.raises(errors.SessionExpired):
            await kept.sessions.get(old)
        page = await kept.sessions.page(10, None, None, include_expired=True)
        assert [state.session_id for state in page.sessions] == [young]
        kept.clock.advance(3601)
        await kept.sessions.sweep()
        with pytest.raises(errors.SessionNotFound):
            await kept.sessions.get(old)


@BOTH
async def test_sweeping_spares_a_session_that_was_only_read(shared: bool) -> None:
    async with keeping(shared=shared) as kept:
        session_id = (await kept.create(ttl_seconds=10)).session_id
        kept.clock.advance(9)
        await kept.sessions.get(session_id)
        kept.clock.advance(9)
        assert await kept.sessions.sweep() == []
        assert await kept.sessions.count() == 1
        kept.clock.advance(1)
        assert await kept.sessions.sweep() == [session_id]


async def test_time_that_passes_during_a_sweep_ends_no_session_in_use() -> None:
    clock = Clock()

    class SlowStore(SqliteSessionStore):
        async def save(self, state: SessionState) -> SessionState | None:
            newer = await super().save(state)
            clock.advance(1)
            return newer

    async with keeping(store=SlowStore(":memory:"), clock=clock) as kept:
        first = (await kept.create(ttl_seconds=10)).session_id
        second = (await kept.create(ttl_seconds=11)).session_id
        clock.advance(9)
        await kept.sessions.get(first)
        await kept.sessions.get(second)
        clock.advance(1)
        assert await kept.sessions.sweep() == []


async def test_a_session_that_is_being_changed_is_in_use_however_long_it_takes() -> None:
    async with keeping() as kept:
        session_id = (await kept.create(ttl_seconds=10)).session_id
        kept.clock.advance(9)
        gate = Gate()
        change = asyncio.create_task(kept.sessions.change(session_id, gate))
        await gate.entered.wait()
        kept.clock.advance(2)
        sweep = asyncio.create_task(kept.sessions.sweep())
        await idle()
        gate.open.set()
        await change
        assert await sweep == []
        assert (await kept.sessions.get(session_id)).time == 1


async def test_the_sweeper_runs_by_itself_and_reports_a_failing_store() -> None:
    store = FailingStore()
    async with keeping(store=store, SESSION_CLEANUP_INTERVAL=0.001) as kept:
        session_id = (await kept.create(ttl_seconds=10)).session_id
        kept.clock.advance(10)
        store.full = True
        kept.sessions.start()
        await kept.heard.next()
        trouble = await asyncio.wait_for(kept.heard.next(), 10)
        assert (trouble.event_type, trouble.data["error_type"]) == ("system.error", "STORAGE_ERROR")
        assert trouble.data["affected_component"] == "sessions"
        store.full = False
        await until(lambda: kept.counters.sessions_expired == 1)
        assert (await kept.sessions.exists(session_id)).expired
