"""Changes of one name happen one after another; an exclusive turn is alone; giving up blocks nobody."""

from __future__ import annotations

import asyncio
import random
from contextlib import AbstractAsyncContextManager

from kato.memory.turns import Turns
from tests.support.waiting import idle


class Visitors:
    """Tasks that take turns and write down when they began and ended."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.log: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.gates: dict[str, asyncio.Event] = {}

    async def _visit(self, who: str, turn: AbstractAsyncContextManager[None]) -> None:
        async with turn:
            self.log.append(f"+{who}")
            await self.gates[who].wait()
            self.log.append(f"-{who}")

    async def ask(self, who: str, names: str | None) -> None:
        """Ask for a turn: for each character of `names`, for everything when it is None."""
        self.gates[who] = asyncio.Event()
        turn = self.turns.alone() if names is None else self.turns.of(list(names))
        self.tasks[who] = asyncio.create_task(self._visit(who, turn))
        await idle()

    async def leave(self, who: str) -> None:
        self.gates[who].set()
        await self.tasks[who]
        await idle()

    async def give_up(self, who: str) -> None:
        self.tasks[who].cancel()
        await asyncio.gather(self.tasks[who], return_exceptions=True)
        await idle()


async def test_turns_for_one_name_come_in_the_order_of_asking() -> None:
    visitors = Visitors()
    for who in ("1", "2", "3"):
        await visitors.ask(who, "x")
    for who in ("1", "2", "3"):
        await visitors.leave(who)
    assert visitors.log == ["+1", "-1", "+2", "-2", "+3", "-3"]


async def test_turns_for_different_names_run_side_by_side() -> None:
    visitors = Visitors()
    await visitors.ask("1", "x")
    await visitors.ask("2", "y")
    assert visitors.log == ["+1", "+2"]
    await visitors.leave("2")
    await visitors.leave("1")


async def test_a_turn_for_several_names_waits_for_each_of_them() -> None:
    visitors = Visitors()
    await visitors.ask("1", "x")
    await visitors.ask("2", "y")
    await visitors.ask("3", "xy")
    await visitors.leave("1")
    assert "+3" not in visitors.log
    await visitors.leave("2")
    assert visitors.log[-1] == "+3"
    await visitors.leave("3")


async def test_an_exclusive_turn_waits_for_all_and_makes_all_wait() -> None:
    visitors = Visitors()
    await visitors.ask("1", "x")
    await visitors.ask("all", None)
    await visitors.ask("2", "y")
    assert visitors.log == ["+1"]
    await visitors.leave("1")
    assert visitors.log == ["+1", "-1", "+all"]
    await visitors.leave("all")
    assert visitors.log[-1] == "+2"
    await visitors.leave("2")


async def test_exclusive_turns_follow_each_other() -> None:
    visitors = Visitors()
    await visitors.ask("1", None)
    await visitors.ask("2", None)
    await visitors.ask("3", "x")
    assert visitors.log == ["+1"]
    await visitors.leave("1")
    assert visitors.log[-1] == "+2"
    await visitors.leave("2")
    assert visitors.log[-1] == "+3"
    await visitors.leave("3")


async def test_who_gives_up_does_not_let_those_behind_pass_those_before() -> None:
    visitors = Visitors()
    await visitors.ask("1", "x")
    await visitors.ask("2", "x")
    await visitors.ask("3", "x")
    await visitors.give_up("2")
    assert visitors.log == ["+1"]
    await visitors.leave("1")
    assert visitors.log == ["+1", "-1", "+3"]
    await visitors.leave("3")


async def test_giving_up_an_exclusive_turn_frees_the_way_once_the_others_are_done() -> None:
    visitors = Visitors()
    await visitors.ask("1", "x")
    await visitors.ask("all", None)
    await visitors.ask("2", "x")
    await visitors.give_up("all")
    assert visitors.log == ["+1"]
    await visitors.leave("1")
    assert visitors.log[-1] == "+2"
    await visitors.leave("2")


async def test_giving_up_inside_a_turn_ends_it() -> None:
    visitors = Visitors()
    await visitors.ask("1", "x")
    await visitors.ask("2", "x")
    await visitors.give_up("1")
    assert visitors.log == ["+1", "+2"]
    await visitors.leave("2")


async def test_an_error_inside_a_turn_ends_it() -> None:
    turns = Turns()
    for turn in (lambda: turns.of(["x"]), turns.alone):
        try:
            async with turn():
                raise RuntimeError
        except RuntimeError:
            pass
    async with asyncio.timeout(5), turns.of(["x"]):
        pass


async def test_finished_turns_leave_nothing_behind() -> None:
    turns = Turns()
    async with turns.of(["x", "y"]):
        pass
    async with turns.alone():
        pass
    first = turns.of(["z"])
    await first.__aenter__()
    waiting = asyncio.create_task(turns.of(["z"]).__aenter__())
    await idle()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await first.__aexit__(None, None, None)
    await idle()
    assert vars(turns) == vars(Turns())


async def test_random_overlapping_turns_never_deadlock_and_never_meet() -> None:
    turns, inside, random_ = Turns(), set[str](), random.Random(7)

    async def visit(names: list[str]) -> None:
        async with turns.of(names) if names else turns.alone():
            mine = set(names) or {"all"}
            assert not mine & inside
            assert not inside or (names and "all" not in inside)
            inside.update(mine)
            for _ in range(random_.randrange(4)):
                await asyncio.sleep(0)
            inside.difference_update(mine)

    wanted = [random_.sample("abcdef", random_.randrange(5)) for _ in range(400)]
    tasks = [asyncio.create_task(visit(names)) for names in wanted]
    await idle(3)
    for task in tasks[::7]:
        if not inside:
            task.cancel()
    async with asyncio.timeout(30):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [o for o in outcomes if isinstance(o, AssertionError)]
