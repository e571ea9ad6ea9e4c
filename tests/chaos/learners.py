"""Clients of a cluster whose parts fail under them: they go on, and know exactly what must be remembered afterwards.

A request that got no answer, or 5xx, may have been done or not. Half of the clients send it again under its key until
it is acknowledged; it must then count once. The others cannot know: they leave the session as it is, to be looked at
later, and go on in a new one.

The symbols of a session carry its mark, so nothing of one session can be taken for something of another one.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from typing import Any

from tests.chaos.cluster import PAUSE, Cluster, Door
from tests.chaos.workers import Events, Patterns, Step, next_step, showing
from tests.support.http import Answer, Gone, Refused

COMMON: list[Events] = [[["x"], ["y"]], [["y"], ["z"]], [["x", "z"], ["y"]]]
"""What is taught by all who send requests again: many instances change one record."""
THINKING_SECONDS = 0.02
"""So that the clients leave processors to those they ask."""
CROWDED = 900
"""A crowd's STM keeps no more events."""


class Entrance:
    """Deals requests at random over the instances that are there, or leads them to one of them."""

    def __init__(self, cluster: Cluster, random_: random.Random) -> None:
        self._cluster = cluster
        self._random = random_
        self._doors: dict[str, Door] = {}

    async def send(
        self, method: str, path: str, body: Any = None, key: str = "", instance: int | None = None
    ) -> Answer | None:
        """The answer; None when nobody knows what became of the request."""
        while True:
            chosen = self._random.randrange(len(self._cluster.instances)) if instance is None else instance
            url = self._cluster.instances[chosen].url
            door = self._doors.setdefault(url, Door(url))
            try:
                answer = await door.call(method, path, body, {"Idempotency-Key": key} if key else {})
            except Refused:
                # It was never sent.
                await asyncio.sleep(PAUSE)
            except Gone:
                return None
            else:
                degraded = answer.status == 200 and "stale" in answer.body
                return None if answer.status >= 500 or degraded else answer

    async def repeat(
        self, method: str, path: str, body: Any = None, key: str = "", instance: int | None = None
    ) -> Answer:
        """The first answer that comes to a request that is sent again and again."""
        while (answer := await self.send(method, path, body, key, instance)) is None:
            await asyncio.sleep(PAUSE)
        return answer

    async def insist(
        self, method: str, path: str, body: Any = None, key: str = "", instance: int | None = None
    ) -> Any:
        """The body of that answer, which must be a good one."""
        answer = await self.repeat(method, path, body, key, instance)
        assert answer.status == 200, answer
        return answer.body

    def through(self, instance: int) -> Through:
        """The way to one instance."""
        return Through(self, instance)

    async def close(self) -> None:
        for door in self._doors.values():
            await door.close()


class Through:
    """One instance, asked until it answers."""

    def __init__(self, entrance: Entrance, instance: int) -> None:
        self._entrance = entrance
        self._instance = instance

    async def get(self, path: str) -> Any:
        return await self._entrance.insist("GET", path, instance=self._instance)


class Chronicle:
    """One session: what was acknowledged in it, and the last request if nobody knows what became of it."""

    def __init__(self, session: str, mark: str) -> None:
        self.session = session
        self.mark = mark
        self.stm: Events = []
        self.time = 0
        self.learned: Patterns = Counter()
        self.doubtful: Patterns = Counter()
        self.pending: Step | None = None

    def acknowledge(self, step: Step) -> None:
        self.stm, self.time, learned = step.applied(self.stm, self.time)
        if learned is not None:
            self.learned[learned] += 1

    async def found(self, instance: Through) -> tuple[Events, int]:
        stm = (await instance.get(f"/sessions/{self.session}/stm"))["stm"]
        return stm, (await instance.get(f"/sessions/{self.session}"))["time"]

    async def settle(self, instances: list[Through]) -> list[str]:
        """Compare with what the instances show and decide, as far as that tells, what became of the last request."""
        before = self.stm, self.time
        outcomes, learned = [before], None
        if self.pending is not None:
            stm, time, learned = self.pending.applied(self.stm, self.time)
            outcomes.append((stm, time))
        found = [await self.found(each) for each in instances]
        if found[0] not in outcomes or any(other != found[0] for other in found):
            return [f"{self.session}: found {found}, expected one of {outcomes}"]
        if self.pending is not None and found[0] != before:
            self.acknowledge(self.pending)
        elif learned is not None:
            # The session was put back; the pattern may have been stored though that was not acknowledged.
            self.doubtful[learned] += 1
        self.pending = None
        return []


class Crowd:
    """A session that all clients use at once, each event once."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.acknowledged: dict[str, int] = {}
        self.doubtful: set[str] = set()
        self._numbers = itertools.count()

    async def show(self, entrance: Entrance, keyed: bool) -> None:
        event = f"event-{next(self._numbers)}"
        request = ("POST", f"/sessions/{self.session}/observe", {"strings": [event]})
        # Noted before anything can go wrong.
        self.doubtful.add(event)
        if keyed:
            self.acknowledged[event] = (await entrance.insist(*request, key=event))["time"]
        else:
            answer = await entrance.send(*request)
            if answer is None:
                return
            assert answer.status == 200, answer
            self.acknowledged[event] = answer.body["time"]
        self.doubtful.discard(event)

    @property
    def full(self) -> bool:
        return len(self.acknowledged) + len(self.doubtful) >= CROWDED

    async def wrong(self, instance: Through) -> list[str]:
        """What is lost, doubled or in another place than its client was told."""
        stm = [symbol for (symbol,) in (await instance.get(f"/sessions/{self.session}/stm"))["stm"]]
        places = {event: place + 1 for place, event in enumerate(stm)}
        found = [f"{event} is there twice" for event, count in Counter(stm).items() if count > 1]
        found += [
            f"{event}: acknowledged at {time}, found at {places.get(event)}"
            for event, time in self.acknowledged.items()
            if places.get(event) != time
        ]
        return found + [
            f"{event}: nobody sent it" for event in places.keys() - self.acknowledged - self.doubtful
        ]


class Learner:
    """One client: one request after another, in a session of its own and in the crowd's."""

    def __init__(self, number: int, node: str, seed: str) -> None:
        self.node = node
        self.keyed = number % 2 == 1
        self.chronicles: list[Chronicle] = []
        self.acknowledged = Counter[str]()
        self.unanswered = Counter[str]()
        self.wrong: list[str] = []
        self._name = f"{number}"
        self.current: Chronicle | None = None
        self._random = random.Random(f"{seed} {number}")
        self._requests = itertools.count()

    async def work(self, entrance: Entrance, crowd: Crowd, stop: asyncio.Event) -> None:
        """Go on until told to stop; a request that carries a key is brought to its end."""
        while not stop.is_set():
            await asyncio.sleep(self._random.random() * THINKING_SECONDS)
            if self.current is None:
                await self._open(entrance)
            elif self._random.random() < 0.1 and not crowd.full:
                await crowd.show(entrance, self.keyed)
            elif self._random.random() < 0.1:
                await self._read(entrance, self.current)
            else:
                await self._change(entrance, self.current)

    async def _open(self, entrance: Entrance) -> None:
        answer = await entrance.send("POST", "/sessions", {"node_id": self.node, "ttl_seconds": 86_400})
        if answer is None:
            await asyncio.sleep(PAUSE)
            return
        assert answer.status == 200, answer
        self.current = Chronicle(answer.body["session_id"], f"{self._name}.{len(self.chronicles)}:")
        self.chronicles.append(self.current)

    async def _read(self, entrance: Entrance, chronicle: Chronicle) -> None:
        answer = await entrance.send("GET", f"/sessions/{chronicle.session}/stm")
        if answer is not None and (answer.status != 200 or answer.body["stm"] != chronicle.stm):
            self.wrong.append(f"{chronicle.session}: read {answer}, expected {chronicle.stm}")

    async def _change(self, entrance: Entrance, chronicle: Chronicle) -> None:
        step = next_step(self._random, chronicle.stm, chronicle.mark)
        common = self.keyed and not chronicle.stm and self._random.random() < 0.2
        if common:
            events = self._random.choice(COMMON)
            step = Step("observe-sequence", showing(events), events, learns=True)
        path = f"/sessions/{chronicle.session}/{step.verb}"
        if self.keyed:
            await entrance.insist("POST", path, step.body, key=f"key-{next(self._requests)}")
        else:
            answer = await entrance.send("POST", path, step.body)
            if answer is None:
                self.unanswered[step.verb] += 1
                chronicle.pending, self.current = step, None
                await asyncio.sleep(10 * PAUSE)
                return
            assert answer.status == 200, answer
        self.acknowledged[step.verb] += 1
        chronicle.acknowledge(step)


def bounds(learners: list[Learner], node: str) -> tuple[Patterns, Patterns]:
    """How often each pattern of a node must have been learned at least, and how often at most."""
    least, doubtful = Patterns(), Patterns()
    for learner in learners:
        for chronicle in learner.chronicles if learner.node == node else ():
            least.update(chronicle.learned)
            doubtful.update(chronicle.doubtful)
    return least, least + doubtful
