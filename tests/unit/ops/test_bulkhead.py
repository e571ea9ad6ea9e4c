"""Bulkheads: first come, first served, bounded in number and time."""

from __future__ import annotations

import asyncio

import pytest

from kato.errors import ServiceUnavailable
from kato.ops.bulkhead import Bulkhead
from tests.support.waiting import idle, until


class Visitors:
    """Tasks that stay in a bulkhead until they are told to leave, and the order in which they came in."""

    def __init__(self, bulkhead: Bulkhead) -> None:
        self.bulkhead = bulkhead
        self.order: list[int] = []
        self.leaving: dict[int, asyncio.Event] = {}

    def send(self, number: int) -> asyncio.Task[None]:
        self.leaving[number] = asyncio.Event()

        async def visit() -> None:
            async with self.bulkhead:
                self.order.append(number)
                await self.leaving[number].wait()

        return asyncio.create_task(visit())


async def test_so_many_at_once_and_the_others_in_their_order() -> None:
    visitors = Visitors(Bulkhead("x", limit=2, queue=10))
    tasks = [visitors.send(number) for number in range(5)]
    await idle()
    assert (visitors.order, visitors.bulkhead.used) == ([0, 1], 2)
    for number in (1, 0, 2, 3, 4):
        visitors.leaving[number].set()
        await idle()
    assert visitors.order == [0, 1, 2, 3, 4]
    assert visitors.bulkhead.used == 0
    await asyncio.gather(*tasks)


async def test_nobody_overtakes_those_who_wait() -> None:
    visitors = Visitors(Bulkhead("x", limit=1, queue=10))
    first, second = visitors.send(0), visitors.send(1)
    await idle()
    visitors.leaving[0].set()
    third = visitors.send(2)
    await idle()
    assert visitors.order == [0, 1]
    for number in (1, 2):
        visitors.leaving[number].set()
    await asyncio.gather(first, second, third)
    assert visitors.order == [0, 1, 2]


async def test_beyond_the_queue_it_refuses_at_once() -> None:
    visitors = Visitors(Bulkhead("searches", limit=1, queue=1))
    tasks = [visitors.send(number) for number in range(2)]
    await idle()
    with pytest.raises(ServiceUnavailable, match="searches: too much is under way") as refusal:
        async with visitors.bulkhead:
            pass
    assert (refusal.value.retry_after, visitors.bulkhead.refused) == (1.0, 1)
    for leaving in visitors.leaving.values():
        leaving.set()
    await asyncio.gather(*tasks)


async def test_who_waits_too_long_is_refused_and_gives_up_the_place() -> None:
    visitors = Visitors(Bulkhead("x", limit=1, queue=1, seconds=0.01))
    first = visitors.send(0)
    await idle()
    for _ in range(2):
        with pytest.raises(ServiceUnavailable):
            async with visitors.bulkhead:
                pass
    visitors.leaving[0].set()
    await first
    async with visitors.bulkhead:
        assert visitors.bulkhead.used == 1


async def test_who_is_cancelled_while_waiting_gives_up_the_place() -> None:
    visitors = Visitors(Bulkhead("x", limit=1, queue=2))
    tasks = [visitors.send(number) for number in range(3)]
    await idle()
    tasks[1].cancel()
    await until(tasks[1].done)
    visitors.leaving[0].set()
    await idle()
    assert visitors.order == [0, 2]
    visitors.leaving[2].set()
    await asyncio.gather(tasks[0], tasks[2])
    assert visitors.bulkhead.used == 0


async def test_who_is_cancelled_as_the_turn_comes_passes_it_on() -> None:
    visitors = Visitors(Bulkhead("x", limit=1, queue=2))
    tasks = [visitors.send(number) for number in range(3)]
    await idle()
    visitors.leaving[0].set()
    await asyncio.sleep(0)
    # The place is given to the second, which has not run since.
    tasks[1].cancel()
    await until(tasks[1].done)
    await idle()
    assert visitors.order == [0, 2]
    visitors.leaving[2].set()
    await asyncio.gather(tasks[0], tasks[2])
    assert visitors.bulkhead.used == 0
