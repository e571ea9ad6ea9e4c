"""Clients that teach patterns and delete them while the parts of a cluster fail: what was deleted must not come back.

A learn that got no answer may be left pending in its session. The editor deletes its pattern, and only then uses the
session again, so that somebody delivers the learn once more.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from kato.engine.naming import pattern_name
from tests.chaos.cluster import PAUSE
from tests.chaos.learners import THINKING_SECONDS, Entrance, Through
from tests.chaos.workers import Events, Patterns, showing, text_of

NODE = "edited"


class Editor:
    """One client, one new pattern after another. `least` and `most`: how often each must be known in the end."""

    def __init__(self, number: int, seed: str) -> None:
        self.least = Patterns()
        self.most = Patterns()
        self.done = Counter[str]()
        self.wrong: list[str] = []
        self._number = number
        self._random = random.Random(f"{seed} editor {number}")
        self._sessions: list[str] = []

    async def work(self, entrance: Entrance, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.sleep(self._random.random() * THINKING_SECONDS)
            mark = f"{self._number}.{self.done.total()}:"
            await self._edit(entrance, [[mark + "a"], [mark + "b"]])

    async def _edit(self, entrance: Entrance, events: Events) -> None:
        text, session = text_of(events), await self._open(entrance)
        learned = await self._learn(entrance, session, events)
        removed, certain = await self._delete(entrance, pattern_name(tuple(map(tuple, events))))
        if learned and certain and not removed:
            self.wrong.append(f"{text!r} was learned, and could not be deleted")
        # Unless it was there it may still come.
        self.most[text] += not (learned or removed)
        if self._random.random() < 0.3:
            again = await self._open(entrance)
            await entrance.insist("POST", _teaching(again), showing(events), key="again")
            self.least[text] += 1
            self.most[text] += 1
            self.done["learned again"] += 1
        elif self._random.random() < 0.5:
            await entrance.insist("GET", f"/sessions/{session}/stm")

    async def _open(self, entrance: Entrance) -> str:
        opened = await entrance.insist("POST", "/sessions", {"node_id": NODE, "ttl_seconds": 86_400})
        session: str = opened["session_id"]
        self._sessions.append(session)
        return session

    async def _learn(self, entrance: Entrance, session: str, events: Events) -> bool:
        """Whether it was acknowledged. Others look at the session meanwhile, and may deliver what it teaches."""
        looks = [f"/sessions/{session}/stm"] * 2
        answer, *_ = await asyncio.gather(
            entrance.send("POST", _teaching(session), showing(events)),
            *(entrance.send("GET", look) for look in looks),
        )
        if answer is None:
            self.done["learn unanswered"] += 1
            return False
        assert answer.status == 200, answer
        self.done["learned"] += 1
        return True

    async def _delete(self, entrance: Entrance, name: str) -> tuple[bool, bool]:
        """Whether a deletion found the pattern, and whether that is certain: no earlier one got no answer."""
        certain = True
        path = f"/v2/patterns/{name}?node_id={NODE}"
        while (answer := await entrance.send("DELETE", path)) is None:
            certain = False
            await asyncio.sleep(PAUSE)
        assert answer.status in {200, 404}, answer
        removed = answer.status == 200
        self.done["deleted" if removed else "not found"] += 1
        return removed, certain

    async def settle(self, instances: list[Through]) -> list[str]:
        """Use every session once more."""
        for session in self._sessions:
            await self._random.choice(instances).get(f"/sessions/{session}/stm")
        self._sessions.clear()
        return self.wrong


def _teaching(session: str) -> str:
    return f"/sessions/{session}/observe-sequence"
