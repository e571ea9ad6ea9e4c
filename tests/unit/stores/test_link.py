"""The life of a link to a server."""

from __future__ import annotations

import asyncio

import pytest

from kato.errors import StorageError
from kato.stores.link import Link
from tests.support.waiting import idle


class Maker:
    """Counts what is made and unmade; `gate` holds an attempt up, `failing` lets it fail."""

    def __init__(self) -> None:
        self.attempts = 0
        self.cut: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing = False
        self.link = Link("test", self.connect, self.disconnect)

    async def connect(self) -> int:
        self.attempts += 1
        await self.gate.wait()
        if self.failing:
            raise StorageError("down")
        return self.attempts

    async def disconnect(self, made: int) -> None:
        await asyncio.sleep(0)
        self.cut.append(made)


async def used(maker: Maker) -> int:
    async with maker.link.use() as made:
        return made


async def test_all_share_one_attempt() -> None:
    maker = Maker()
    assert maker.link.made is None
    assert await asyncio.gather(*(used(maker) for _ in range(5)), maker.link.get()) == [1] * 6
    assert (maker.attempts, maker.link.made) == (1, 1)
    await asyncio.gather(maker.link.close(), maker.link.close())
    assert maker.cut == [1]


async def test_after_a_failure_the_next_user_tries_again() -> None:
    maker = Maker()
    maker.failing = True
    outcomes = await asyncio.gather(used(maker), used(maker), return_exceptions=True)
    assert [type(each) for each in outcomes] == [StorageError] * 2
    maker.failing = False
    assert await used(maker) == 2
    await maker.link.close()


async def test_who_made_it_may_be_cancelled_without_harm_to_others() -> None:
    maker = Maker()
    maker.gate.clear()
    first, second = asyncio.ensure_future(used(maker)), asyncio.ensure_future(used(maker))
    await idle()
    first.cancel()
    await idle()
    maker.gate.set()
    assert await second == 1
    assert first.cancelled()
    await maker.link.close()


async def test_an_attempt_that_fails_when_nobody_waits_any_more() -> None:
    maker = Maker()
    maker.failing = True
    maker.gate.clear()
    only = asyncio.ensure_future(used(maker))
    await idle()
    only.cancel()
    await idle()
    closing = asyncio.ensure_future(maker.link.close())
    await idle()
    assert not closing.done()
    maker.gate.set()
    await closing
    assert maker.cut == []


async def test_close_waits_for_uses_and_refuses_new_ones() -> None:
    maker = Maker()
    leave = asyncio.Event()

    async def work(made: int) -> int:
        await leave.wait()
        return made

    async def use() -> int:
        async with maker.link.use() as made:
            return await work(made)

    accepted = [asyncio.ensure_future(use()), asyncio.ensure_future(maker.link.finish(work))]
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(maker.link.close())
    await idle()
    assert not closing.done()
    for refused in (used(maker), maker.link.get(), maker.link.finish(work)):
        with pytest.raises(StorageError, match="closed"):
            await refused
    leave.set()
    assert await asyncio.gather(*accepted) == [1, 1]
    await closing
    assert maker.cut == [1]


async def test_work_goes_on_when_its_caller_is_cancelled() -> None:
    maker = Maker()
    leave, done = asyncio.Event(), []

    async def work(made: int) -> None:
        await leave.wait()
        done.append(made)
        raise StorageError("nobody takes this")

    caller = asyncio.ensure_future(maker.link.finish(work))
    await idle()
    caller.cancel()
    await idle()
    assert caller.cancelled()
    leave.set()
    await maker.link.close()
    assert done == [1]


async def test_a_cancelled_close_goes_on() -> None:
    maker = Maker()
    await used(maker)
    closing = asyncio.ensure_future(maker.link.close())
    await asyncio.sleep(0)
    closing.cancel()
    await idle()
    assert closing.cancelled()
    assert maker.cut == [1]
    await maker.link.close()
    assert maker.cut == [1]
