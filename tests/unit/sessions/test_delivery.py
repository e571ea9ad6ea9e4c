"""What a change teaches: pending, claimed, delivered once."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from kato import errors
from kato.model import Pending, SessionState
from kato.sessions import shared
from kato.sessions.shared import SharedSessions
from kato.stores.ports import SessionPage
from tests.support.sessions import keeping
from tests.support.sharing import CLAIMED, LESSON, create, instances
from tests.support.waiting import idle

# What is pending


async def test_it_is_delivered_after_the_session_has_moved_on_and_before_the_answer() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        await a.observe(session_id)
        assert await a.teach(session_id) == "taught"
        assert a.delivered == [Pending((LESSON,))]
        state = await a.cleared(session_id)
        assert (state.stm, state.changes, state.revision) == ((), 2, 3)
        assert await b.stm(session_id) == ""
        assert b.delivered == []


async def test_a_change_that_lost_the_race_delivers_nothing() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        await a.observe(session_id, "1")
        await b.observe(session_id, "2")

        async def change(state: SessionState) -> tuple[SessionState, int]:
            lesson = msgspec.structs.replace(LESSON, events=state.stm)
            return msgspec.structs.replace(state, stm=(), pending=Pending((lesson,))), len(state.stm)

        assert await a.sessions.change(session_id, change) == 2
        assert [pending.lessons[0].events for pending in a.delivered] == [(("1",), ("2",))]


@pytest.mark.parametrize("verb", ["get", "observe", "teach"])
async def test_what_a_crash_left_pending_is_delivered_by_whoever_comes_next(verb: str) -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        await a.observe(session_id)
        a.failures = iter([asyncio.CancelledError()])
        with pytest.raises(asyncio.CancelledError):
            await a.teach(session_id)
        assert (await a.stored(session_id)).pending == Pending((LESSON,))
        if verb == "get":
            assert await b.stm(session_id) == ""
            assert await b.stm(session_id) == ""
        elif verb == "observe":
            assert await b.observe(session_id, "y") == 2
        else:
            with pytest.raises(errors.EmptySTM):
                await b.teach(session_id)
        assert b.delivered == [CLAIMED]
        await b.cleared(session_id)
        assert a.delivered == []


async def test_when_it_cannot_be_delivered_the_session_is_as_before() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        await a.observe(session_id)
        a.failures = iter([errors.StorageError("down"), errors.ConcurrencyError("busy")])
        for kind in (errors.StorageError, errors.ConcurrencyError):
            with pytest.raises(kind):
                await a.teach(session_id)
            state = await a.stored(session_id)
            assert (state.stm, state.pending, state.changes) == ((("x",),), None, 1)
        assert await b.stm(session_id) == "x"
        assert b.delivered == []
        assert await a.teach(session_id) == "taught"


async def test_when_it_cannot_be_delivered_but_another_has_done_it_the_answer_is_the_right_one() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        await a.observe(session_id)

        async def overtaken(state: SessionState) -> None:
            await b.observe(session_id, "y")
            raise errors.StorageError("down")

        a.sessions.deliver = overtaken
        assert await a.teach(session_id) == "taught"
        assert b.delivered == [CLAIMED]
        assert await a.stm(session_id) == "y"


async def test_when_it_cannot_be_delivered_and_the_session_is_gone_that_is_told() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        await a.observe(session_id)

        async def deleted(state: SessionState) -> None:
            await b.sessions.delete(session_id)
            raise errors.StorageError("down")

        a.sessions.deliver = deleted
        with pytest.raises(errors.StorageError, match="down"):
            await a.teach(session_id)
        assert not (await a.sessions.exists(session_id)).exists


async def test_who_cannot_deliver_for_another_goes_on_and_carries_it_along() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        await a.observe(session_id)
        a.failures = iter([asyncio.CancelledError()])
        with pytest.raises(asyncio.CancelledError):
            await a.teach(session_id)
        b.failures = iter([errors.StorageError("down")] * 4)
        assert await b.stm(session_id) == ""
        assert await b.observe(session_id, "y") == 2
        assert (await b.stored(session_id)).pending == CLAIMED
        with pytest.raises(errors.StorageError):
            await b.teach(session_id)
        state = await b.stored(session_id)
        assert (state.stm, state.pending) == ((("y",),), CLAIMED)
        assert await b.teach(session_id) == "taught"
        assert b.delivered == [CLAIMED, Pending((LESSON,))]
        await b.cleared(session_id)


async def test_what_is_taught_while_something_cannot_be_delivered_goes_with_it() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        await a.observe(session_id)
        a.failures = iter([asyncio.CancelledError()])
        with pytest.raises(asyncio.CancelledError):
            await a.teach(session_id)
        await b.observe(session_id, "y")
        b.delivered.clear()
        a.failures = iter([asyncio.CancelledError()])
        with pytest.raises(asyncio.CancelledError):
            await a.teach(session_id)
        b.failures = iter([errors.StorageError("down")])
        await b.observe(session_id, "z")
        b.failures = iter([errors.StorageError("down")])
        assert await b.teach(session_id) == "taught"
        assert b.delivered == [Pending((LESSON, LESSON))]


async def test_what_another_claimed_is_not_put_back_even_if_that_one_fails_too() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        await a.observe(session_id)
        b.failures = iter([errors.StorageError("down")])

        async def claimed(state: SessionState) -> None:
            assert await b.stm(session_id) == ""
            raise errors.StorageError("down")

        a.sessions.deliver = claimed
        with pytest.raises(errors.StorageError):
            await a.teach(session_id)
        assert (await a.stored(session_id)).pending == CLAIMED
        assert await b.stm(session_id) == await a.stm(session_id) == ""
        assert b.delivered == [CLAIMED]


async def test_what_may_still_be_taken_back_is_shown_to_nobody() -> None:
    async with instances(number=1) as (a,):
        session_id = await create(a)
        await a.observe(session_id)
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def slow(state: SessionState) -> None:
            entered.set()
            await go_on.wait()
            raise errors.StorageError("down")

        a.sessions.deliver = slow
        learn = asyncio.create_task(a.teach(session_id))
        await entered.wait()
        reading = asyncio.create_task(a.stm(session_id))
        await idle()
        assert not reading.done()
        go_on.set()
        with pytest.raises(errors.StorageError):
            await learn
        assert await reading == "x"


@pytest.mark.parametrize("recreated", [False, True])
async def test_a_session_that_ends_while_something_is_claimed_is_gone(recreated: bool) -> None:
    async with instances(PROCESSOR_ID="us") as (a, b):
        session_id = await a.sessions.default({})
        await a.observe(session_id)
        a.failures = iter([asyncio.CancelledError()])
        with pytest.raises(asyncio.CancelledError):
            await a.teach(session_id)
        await b.sessions._look(session_id)
        await a.sessions.delete(session_id)
        a.kept.clock.advance(1)
        if recreated:
            await a.sessions.default({})
            held = b.sessions._held[session_id]
            assert (await b.sessions._roll_forward(session_id, held)).stm == ()
        else:
            held = b.sessions._held[session_id]
            with pytest.raises(errors.SessionNotFound):
                await b.sessions._roll_forward(session_id, held)
        assert b.delivered == []


async def test_a_change_right_after_a_learn_clears_what_was_delivered_itself() -> None:
    async with instances() as (a, _):
        session_id = await create(a)
        await a.observe(session_id)
        learn = asyncio.create_task(a.teach(session_id))
        await idle(1)
        await asyncio.gather(learn, a.observe(session_id, "y"))
        state = await a.cleared(session_id)
        assert (state.stm, state.revision) == ((("y",),), 3)
        assert len(a.delivered) == 1


async def test_what_was_answered_is_pending_no_more() -> None:
    """Delivered again later, it would bring back what was deleted meanwhile."""
    async with instances() as (a, b):
        session_id = await create(a)
        await a.observe(session_id)
        await a.teach(session_id)
        assert (await a.stored(session_id)).pending is None
        await b.observe(session_id)
        assert (len(a.delivered), len(b.delivered)) == (1, 0)


async def test_what_cannot_be_cleared_is_delivered_once_more() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        await a.observe(session_id)
        save = a.store.save

        async def failing(state: SessionState) -> SessionState | None:
            if state.pending is None:
                raise errors.StorageError("down")
            return await save(state)

        a.store.save = failing  # type: ignore[method-assign]
        await a.teach(session_id)
        await asyncio.gather(*a.sessions._clearing)
        assert (await a.stored(session_id)).pending is not None
        assert await a.stm(session_id) == await b.stm(session_id) == ""
        assert (len(a.delivered), len(b.delivered)) == (1, 1)
        await b.cleared(session_id)


async def test_sessions_that_teach_nothing_need_no_delivery() -> None:
    async with keeping(shared=True) as kept:
        assert isinstance(kept.sessions, SharedSessions)
        await kept.sessions.deliver(await kept.create())


# Before a node is cleared


async def test_pending_of_all_sessions_of_a_node_is_delivered_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared, "PAGE", 2)
    async with instances() as (a, b):
        ids = [await create(a) for _ in range(5)]
        for session_id in ids[:4]:
            await a.observe(session_id)
            a.failures = iter([asyncio.CancelledError()])
            with pytest.raises(asyncio.CancelledError):
                await a.teach(session_id)
        await b.sessions.deliver_pending(ids[4])
        assert b.delivered == [CLAIMED] * 4
        for session_id in ids:
            assert (await b.stored(session_id)).pending is None
        await b.sessions.deliver_pending(ids[4])
        assert len(b.delivered) == 4
        with pytest.raises(errors.SessionNotFound):
            await b.sessions.deliver_pending("nobody's")


async def test_a_session_that_goes_meanwhile_has_nothing_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    async with instances() as (a, b):
        session_id, other = await create(a), await create(a)
        await a.observe(session_id)
        a.failures = iter([asyncio.CancelledError()])
        with pytest.raises(asyncio.CancelledError):
            await a.teach(session_id)
        page = await b.sessions.page(10, None, None, include_expired=False)

        async def stale(*_: object, **__: object) -> SessionPage:
            return page

        monkeypatch.setattr(b.sessions, "page", stale)
        await a.sessions.delete(session_id)
        await b.sessions.deliver_pending(other)
        assert b.delivered == []


async def test_what_was_delivered_but_could_not_be_cleared_is_cleared_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        await a.observe(session_id)
        save, down = a.store.save, [True]

        async def saving(state: SessionState) -> SessionState | None:
            if down[0] and a.delivered:
                raise errors.StorageError("down")
            return await save(state)

        monkeypatch.setattr(a.store, "save", saving)
        await a.teach(session_id)
        with pytest.raises(errors.StorageError):
            await a.sessions.deliver_pending(session_id)
        down[0] = False
        await a.sessions.deliver_pending(session_id)
        assert (await b.stored(session_id)).pending is None
        assert len(a.delivered) == 1
