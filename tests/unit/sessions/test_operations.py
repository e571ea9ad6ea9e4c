"""Which acts of learning may yet be done once more."""

from __future__ import annotations

import msgspec
import pytest

from kato.model import Pending
from kato.sessions.operations import Operation, parsed
from tests.contract.values import session
from tests.support.sessions import keeping
from tests.support.sharing import LESSON, create, instances


def test_an_operation_is_over_when_its_session_has_gone_on_and_nothing_of_it_is_pending() -> None:
    learn = Operation("s", 3, 0)
    assert [learn.repeatable(session("s", changes=changes)) for changes in (2, 3, 4)] == [True, True, False]
    for operation, expected in ((learn.id, True), ("s:2:0", False), ("s:3:1", False)):
        pending = Pending((msgspec.structs.replace(LESSON, operation=operation),))
        assert learn.repeatable(session("s", changes=4, pending=pending)) is expected
    assert not learn.repeatable(session("s", changes=4, pending=Pending(vectors=(("v", (1.0,)),))))


@pytest.mark.parametrize("text", ["", "s", "s:1", "s:one:0", "s:1:", "0f" * 20])
def test_what_no_session_has_made(text: str) -> None:
    assert parsed(text) is None


@pytest.mark.parametrize("operation", [Operation("session-a-b", 0, 0), Operation("with:colons", 12, 3)])
def test_an_operation_is_read_as_it_was_written(operation: Operation) -> None:
    assert parsed(operation.id) == operation


async def test_a_session_that_one_process_holds_decides_by_its_next_change() -> None:
    async with keeping() as kept:
        session_id = (await kept.create()).session_id
        learns = [Operation(session_id, changes, 0).id for changes in range(3)]
        assert await kept.sessions.repeatable(learns) == dict.fromkeys(learns, True)
        await kept.observe(session_id)
        await kept.observe(session_id)
        expected = dict(zip(learns, (False, False, True), strict=True))
        assert await kept.sessions.repeatable(learns) == expected
        assert await kept.sessions.repeatable([*learns, "nobody:0:0", "not an id:0:0", "text"]) == expected
        assert await kept.sessions.repeatable([]) == {}
        await kept.sessions.delete(session_id)
        assert await kept.sessions.repeatable(learns) == {}


async def test_one_that_is_not_held_is_looked_up(tmp_path: object) -> None:
    async with keeping(f"{tmp_path}/s.db") as kept:
        session_id = (await kept.create()).session_id
        await kept.observe(session_id)
    async with keeping(f"{tmp_path}/s.db") as kept:
        learns = [Operation(session_id, changes, 0).id for changes in range(2)]
        assert await kept.sessions.repeatable(learns) == {learns[0]: False, learns[1]: True}


async def test_a_shared_session_is_looked_up_though_it_is_held() -> None:
    async with instances() as (a, b):
        session_id = await create(a)
        await b.observe(session_id)
        learns = [Operation(session_id, changes, 0).id for changes in range(3)]
        for one, other in ((a, b), (b, a)):
            before = await one.sessions.repeatable(learns)
            await other.observe(session_id)
            after = await one.sessions.repeatable(learns)
            assert sum(after.values()) == sum(before.values()) - 1
