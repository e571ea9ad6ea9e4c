"""Sessions: strict order, limits, sliding expiry, sweeping, deletion, failures and restarts."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kato import errors
from kato.model import SessionState
from kato.stores.sqlite import SqliteSessionStore
from tests.support.changing import BOTH, Change, FailingStore, Gate
from tests.support.clock import Clock
from tests.support.sessions import keeping
from tests.support.waiting import idle

# Creation


@BOTH
async def test_a_new_session_is_empty_and_carries_what_was_given(shared: bool) -> None:
    async with keeping(shared=shared) as kept:
        state = await kept.create(ttl_seconds=30, metadata={"k": [1]}, config={"persistence": 3})
        now = kept.clock()
        assert state == SessionState(
            session_id=state.session_id,
            node_id="user",
            user_id="user",
            created_at=now,
            last_accessed=now,
            expires_at=now + 30,
            ttl_seconds=30,
            metadata={"k": [1]},
            config={"persistence": 3},
        )
        assert re.fullmatch(r"session-[0-9a-f]{32}-[0-9a-f]{16}", state.session_id)
        assert kept.counters.sessions_created == 1
        assert await kept.told() == [
            (
                "session.created",
                {"session_id": state.session_id, "user_id": "user", "node_id": "user", "created_at": now},
            )
        ]


@BOTH
async def test_ids_are_unique(shared: bool) -> None:
    async with keeping(shared=shared, MAX_SESSIONS=0) as kept:
        states = await asyncio.gather(*(kept.create() for _ in range(500)))
        assert len({state.session_id for state in states}) == 500


@BOTH
async def test_the_limit_on_all_sessions_is_exact_under_parallel_creation(shared: bool) -> None:
    async with keeping(shared=shared, MAX_SESSIONS=50) as kept:
        outcomes = await asyncio.gather(*(kept.create() for _ in range(60)), return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, errors.SessionLimitExceeded)]
        assert len(refused) == 10
        assert refused[0].details == {"limit_type": "sessions", "current_value": 50, "limit_value": 50}
        assert refused[0].retry_after is not None
        assert await kept.sessions.count() == 50


@BOTH
async def test_the_limit_per_user_counts_only_living_sessions_of_that_user(shared: bool) -> None:
    async with keeping(shared=shared, MAX_SESSIONS_PER_USER=2) as kept:
        first = await kept.create(ttl_seconds=10, user_id="ann")
        await kept.create(user_id="ann")
        with pytest.raises(errors.SessionLimitExceeded) as caught:
            await kept.create(user_id="ann")
        assert caught.value.details["limit_type"] == "sessions_per_user"
        await kept.create(user_id="bob")
        kept.clock.advance(10)
        await kept.create(user_id="ann")
        assert not (await kept.sessions.exists(first.session_id)).exists


@BOTH
async def test_a_session_kept_alive_by_reading_counts_for_the_limit(shared: bool) -> None:
    async with keeping(shared=shared, MAX_SESSIONS=1) as kept:
        state = await kept.create(ttl_seconds=10)
        kept.clock.advance(9)
        await kept.sessions.get(state.session_id)
        kept.clock.advance(9)
        with pytest.raises(errors.SessionLimitExceeded):
            await kept.create()


# Order


@BOTH
async def test_200_parallel_changes_of_one_session_are_200_changes_in_the_order_of_asking(
    shared: bool,
) -> None:
    async with keeping(shared=shared) as kept:
        session_id = (await kept.create()).session_id
        times = await asyncio.gather(*(kept.observe(session_id, str(n)) for n in range(200)))
        state = await kept.sessions.get(session_id)
        assert times == list(range(1, 201))
        assert state.stm == tuple((str(n),) for n in range(200))
        assert (state.time, state.revision, state.access_count) == (200, 200, 201)


@BOTH
async def test_sessions_do_not_wait_for_each_other(shared: bool) -> None:
    async with keeping(shared=shared) as kept:
        slow, quick = (await kept.create()).session_id, (await kept.create()).session_id
        gate = Gate()
        waiting = asyncio.create_task(kept.sessions.change(slow, gate))
        await gate.entered.wait()
        assert await kept.observe(quick) == 1
        gate.open.set()
        await waiting


@BOTH
async def test_every_access_counts_also_beside_a_change(shared: bool) -> None:
    async with keeping(shared=shared) as kept:
        session_id = (await kept.create()).session_id
        gate = Gate()
        change = asyncio.create_task(kept.sessions.change(session_id, gate))
        await gate.entered.wait()
        for _ in range(3):
            await kept.sessions.get(session_id)
        gate.open.set()
        await change
        assert (await kept.sessions.get(session_id)).access_count == 5


async def test_an_access_during_a_save_counts() -> None:
    store = FailingStore()
    async with keeping(store=store) as kept:
        session_id = (await kept.create()).session_id
        store.blocked = asyncio.Event()
        change = asyncio.create_task(kept.observe(session_id))
        await idle()
        await kept.sessions.get(session_id)
        store.blocked.set()
        await change
        assert (await kept.sessions.get(session_id)).access_count == 3


async def test_what_a_change_raises_leaves_the_session_as_it_was() -> None:
    async with keeping() as kept:
        before = await kept.create()

        async def change(state: SessionState) -> Change:
            raise errors.EmptySTM("nothing to learn")

        with pytest.raises(errors.EmptySTM):
            await kept.sessions.change(before.session_id, change)
        page = await kept.sessions.page(10, None, None, include_expired=False)
        assert page.sessions == [msgspec.structs.replace(before, access_count=1)]
        assert await kept.observe(before.session_id) == 1


async def test_a_change_runs_again_on_what_another_writer_has_stored() -> None:
    store = FailingStore()
    async with keeping(store=store) as kept:
        session_id = (await kept.create()).session_id
        store.ahead = 2
        await kept.observe(session_id, "mine")
        assert (await kept.sessions.get(session_id)).stm == (("other",), ("other",), ("mine",))


async def test_a_change_that_never_gets_through_is_given_up_without_effect() -> None:
    store = FailingStore()
    async with keeping(store=store) as kept:
        session_id = (await kept.create()).session_id
        store.ahead = 1000
        with pytest.raises(errors.ConcurrencyError) as caught:
            await kept.observe(session_id, "mine")
        store.ahead = 0
        assert caught.value.retry_after == 1
        assert ("mine",) not in (await kept.sessions.get(session_id)).stm


# Failures


async def test_a_failing_store_leaves_the_state_and_works_again_afterwards() -> None:
    store = FailingStore()
    async with keeping(store=store) as kept:
        session_id = (await kept.create()).session_id
        await kept.observe(session_id, "a")
        store.full = True
        with pytest.raises(errors.StorageError):
            await kept.observe(session_id, "b")
        assert (await kept.sessions.get(session_id)).stm == (("a",),)
        store.full = False
        await kept.observe(session_id, "c")
        assert (await kept.sessions.get(session_id)).stm == (("a",), ("c",))


@BOTH
async def test_a_session_that_grows_too_large_stays_as_it_was(shared: bool) -> None:
    async with keeping(shared=shared, MAX_SESSION_MEMORY_BYTES=2000) as kept:
        session_id = (await kept.create()).session_id
        await kept.observe(session_id, "a")
        with pytest.raises(errors.ResourceExhausted):
            await kept.observe(session_id, "b" * 2000)
        assert (await kept.sessions.get(session_id)).stm == (("a",),)
        assert await kept.observe(session_id, "c") == 2


async def test_whoever_gives_up_while_saving_leaves_the_truth_to_the_store() -> None:
    store = FailingStore()
    async with keeping(store=store) as kept:
        session_id = (await kept.create()).session_id
        store.blocked = asyncio.Event()
        first = asyncio.create_task(kept.observe(session_id, "1"))
        queued = [asyncio.create_task(kept.observe(session_id, str(n))) for n in (2, 3)]
        await idle()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        later = asyncio.create_task(kept.observe(session_id, "4"))
        store.blocked.set()
        await asyncio.gather(*queued, later)
        state = await kept.sessions.get(session_id)
        assert state.stm == (("2",), ("3",), ("4",))
        stored = await store.load(session_id)
        assert stored is not None
        assert stored.stm == state.stm


@BOTH
async def test_whoever_gives_up_while_waiting_disturbs_nobody(shared: bool) -> None:
    async with keeping(shared=shared) as kept:
        session_id = (await kept.create()).session_id
        gate = Gate()
        first = asyncio.create_task(kept.sessions.change(session_id, gate))
        await gate.entered.wait()
        second = asyncio.create_task(kept.observe(session_id, "2"))
        third = asyncio.create_task(kept.observe(session_id, "3"))
        await idle()
        second.cancel()
        gate.open.set()
        await first
        await third
        assert (await kept.sessions.get(session_id)).stm == (("3",),)


# Deletion


@BOTH
async def test_a_deleted_session_is_unknown_and_not_expired(shared: bool) -> None:
    async with keeping(shared=shared) as kept:
        session_id = (await kept.create()).session_id
        await kept.told()
        await kept.sessions.delete(session_id)
        with pytest.raises(errors.SessionNotFound, match=f"{session_id} not found or expired"):
            await kept.sessions.get(session_id)
        with pytest.raises(errors.SessionNotFound):
            await kept.sessions.delete(session_id)
        assert await kept.told() == [
            (
                "session.destroyed",
                {"session_id": session_id, "destroyed_at": kept.clock(), "reason": "explicit_delete"},
            )
        ]
        assert kept.counters.sessions_deleted == 1
        assert await kept.sessions.count() == 0


@BOTH
async def test_a_change_queued_behind_a_deletion_never_runs(shared: bool) -> None:
    async with keeping(shared=shared) as kept:
        session_id = (await kept.create()).session_id
        first, queued = Gate(), Gate()
        queued.open.set()
        running = asyncio.create_task(kept.sessions.change(session_id, first))
        await first.entered.wait()
        deletion = asyncio.create_task(kept.sessions.delete(session_id))
        await idle()
        behind = asyncio.create_task(kept.sessions.change(session_id, queued))
        again = asyncio.create_task(kept.sessions.delete(session_id))
        await idle()
        first.open.set()
        await running
        await deletion
        for task in (behind, again):
            with pytest.raises(errors.SessionNotFound):
                await task
        assert queued.runs == 0


async def test_a_session_deleted_in_the_store_is_not_deleted_twice() -> None:
    store = FailingStore()
    async with keeping(store=store) as kept:
        session_id = (await kept.create()).session_id
        await store.delete(session_id)
        with pytest.raises(errors.SessionNotFound):
            await kept.sessions.delete(session_id)


# Default session


@BOTH
async def test_the_default_session_is_one_for_all(shared: bool) -> None:
    async with keeping(shared=shared, PROCESSOR_ID="my node/1") as kept:
        ids = await asyncio.gather(*(kept.sessions.default({}) for _ in range(20)))
        assert set(ids) == {"default-my_node_1"}
        state = await kept.sessions.get(ids[0])
        assert (state.node_id, state.user_id, state.ttl_seconds) == ("my node/1", None, 86_400)
        assert kept.counters.sessions_created == 1


@pytest.mark.parametrize("swept", [True, False])
@BOTH
async def test_an_expired_default_session_is_created_anew(swept: bool, shared: bool) -> None:
    async with keeping(shared=shared) as kept:
        session_id = await kept.sessions.default({})
        await kept.observe(session_id)
        kept.clock.advance(86_400)
        if swept:
            await kept.sessions.sweep()
        assert await kept.sessions.default({}) == session_id
        assert (await kept.sessions.get(session_id)).stm == ()


@BOTH
async def test_the_default_session_does_not_count_against_the_limit_when_it_is_created(shared: bool) -> None:
    async with keeping(shared=shared, MAX_SESSIONS=1) as kept:
        await kept.create()
        await kept.observe(await kept.sessions.default({}))


async def test_the_default_session_survives_a_restart(tmp_path: Path) -> None:
    async with keeping(tmp_path / "s.db") as kept:
        await kept.observe(await kept.sessions.default({}), "a")
    async with keeping(tmp_path / "s.db", Clock()) as kept:
        assert (await kept.sessions.get(await kept.sessions.default({}))).stm == (("a",),)
        assert kept.counters.sessions_created == 0


# Restart


async def test_a_restart_keeps_every_state_and_what_was_only_read(tmp_path: Path) -> None:
    clock = Clock()
    async with keeping(tmp_path / "s.db", clock) as kept:
        session_id = (await kept.create(ttl_seconds=10, metadata={"k": 1})).session_id
        await kept.observe(session_id, "a")
        clock.advance(9)
        before = await kept.sessions.get(session_id)
    clock.advance(9)
    async with keeping(tmp_path / "s.db", clock) as kept:
        page = await kept.sessions.page(10, None, None, include_expired=False)
        assert page.sessions == [msgspec.structs.replace(before, revision=before.revision + 1)]
        assert (await kept.sessions.get(session_id)).access_count == before.access_count + 1


async def test_closing_does_not_revive_what_expired(tmp_path: Path) -> None:
    clock = Clock()
    async with keeping(tmp_path / "s.db", clock) as kept:
        session_id = (await kept.create(ttl_seconds=10)).session_id
        await kept.sessions.get(session_id)
        clock.advance(10)
    async with keeping(tmp_path / "s.db", clock) as kept:
        assert await kept.sessions.count() == 0
        assert await kept.sessions.sweep() == [session_id]


# Looking


async def test_pages_show_each_session_once_with_its_current_state() -> None:
    async with keeping() as kept:
        ids = sorted([(await kept.create()).session_id for _ in range(25)])
        await kept.create(user_id="another")
        kept.clock.advance(1)
        await kept.sessions.get(ids[0])
        seen, cursor = list[SessionState](), None
        while True:
            page = await kept.sessions.page(10, cursor, "user", include_expired=False)
            assert page.total == 25
            seen += page.sessions
            cursor = page.cursor
            if cursor is None:
                break
        assert [state.session_id for state in seen] == ids
        assert (seen[0].access_count, seen[0].last_accessed) == (1, kept.clock())


@pytest.mark.parametrize("session_id", ["", "a b", "ä", "x" * 129, "session-unknown"])
@BOTH
async def test_an_id_that_nobody_has_is_not_found(session_id: str, shared: bool) -> None:
    async with keeping(shared=shared) as kept:
        with pytest.raises(errors.SessionNotFound):
            await kept.sessions.get(session_id)
        found = await kept.sessions.exists(session_id)
        assert (found.exists, found.expired) == (False, False)


@BOTH
async def test_updates_are_told_at_most_once_a_second_and_only_to_those_who_asked(shared: bool) -> None:
    async with keeping(shared=shared) as kept:
        session_id = (await kept.create()).session_id
        await kept.told()
        await kept.observe(session_id)
        assert await kept.told() == []
        asked = kept.events.subscribe(["session.updated"])

        async def observed(after: float) -> None:
            kept.clock.advance(after)
            await kept.observe(session_id)

        for pause in (0, 0.5, 0.5):
            await observed(pause)
        told: list[Any] = [(await asked.next()).data for _ in range(2)]
        assert [data["stm_size"] for data in told] == [2, 4]
        assert told[0] == {"session_id": session_id, "updated_fields": ["stm", "time"], "stm_size": 2}


async def test_loading_one_session_twice_at_once_gives_it_one_order(tmp_path: Path) -> None:
    async with keeping(tmp_path / "s.db") as kept:
        session_id = (await kept.create()).session_id

    class SlowStore(SqliteSessionStore):
        async def load(self, session_id: str, held: SessionState | None = None) -> SessionState | None:
            await idle()
            return await super().load(session_id, held)

    async with keeping(store=SlowStore(tmp_path / "s.db")) as kept:
        await asyncio.gather(*(kept.observe(session_id) for _ in range(10)))
        state = await kept.sessions.get(session_id)
        assert (state.time, state.revision) == (10, 10)
