"""Clients that share one session, and write down what they were told and when."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from kato.model import Event
from tests.chaos.histories import NOTHING, UNKNOWN, Kind, Operation
from tests.support.http import Answer

SHARES: Mapping[Kind, float] = {"observe": 60, "stm": 20, "learn": 8, "clear": 3, "predictions": 9}
"""How often a client does what."""


class Send(Protocol):
    """Brings a request to some worker and gives its answer; under a key it may be sent again and again."""

    async def __call__(self, method: str, path: str, body: Any = None, key: str = "") -> Answer: ...


class Recorder:
    """The clients of one session on a node of its own. Of every `cut`th request they do not await the answer."""

    def __init__(
        self,
        send: Send,
        mark: str,
        sessions: tuple[str, str],
        shares: Mapping[Kind, float] = SHARES,
        cut: float = 0.0,
    ) -> None:
        self.history: list[Operation] = []
        self._send = send
        self._mark = mark
        self._session, self._reader = sessions
        self._shares = shares
        self._cut = cut
        self._moments = itertools.count()
        self._events = itertools.count()

    @classmethod
    async def open(cls, send: Send, mark: str, **more: Any) -> Recorder:
        """With a session to use, and one whose predictions show everything that the node has learned."""
        everything = {"recall_threshold": 0.0, "max_predictions": 10_000}
        opened = [
            await send("POST", "/sessions", {"node_id": mark, "config": config})
            for config in ({}, everything)
        ]
        session, reader = (answer.body["session_id"] for answer in opened)
        body = {"observations": [{"strings": [mark]}, {"strings": ["reader"]}]}
        shown = await send("POST", f"/sessions/{reader}/observe-sequence", body)
        assert shown.status == 200, shown
        return cls(send, mark, (session, reader), **more)

    async def client(self, number: int, goes_on: Callable[[], bool], pause: float = 0.0) -> None:
        """One client: one request after another, with a pause of up to so many seconds before each."""
        random_ = random.Random(f"{self._mark} {number}")
        kinds, weights = list(self._shares), list(self._shares.values())
        while goes_on():
            await asyncio.sleep(random_.random() * pause)
            kind = random_.choices(kinds, weights)[0]
            # What a client does not wait for has an unknown outcome.
            await self._do(kind, number, random_.random() / 100 if random_.random() < self._cut else None)

    async def _do(self, kind: Kind, client: int, patience: float | None) -> None:
        event = (self._mark, f"{self._mark}:{next(self._events)}")
        invoked, returned, result = next(self._moments), UNKNOWN, None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                result = await getattr(self, f"_{kind}")(event)
                returned = next(self._moments)
        self.history.append(Operation(kind, invoked, returned, event, result, client))

    async def _body(self, method: str, path: str, body: Any = None, key: str = "") -> Any:
        answer = await self._send(method, path, body, key)
        assert answer.status == 200, answer
        return answer.body

    async def _observe(self, event: Event) -> tuple[int, int]:
        path = f"/sessions/{self._session}/observe"
        body = await self._body("POST", path, {"strings": event}, key=event[1])
        return body["time"], body["stm_length"]

    async def _stm(self, _: Event) -> tuple[Event, ...]:
        return tuple(map(tuple, (await self._body("GET", f"/sessions/{self._session}/stm"))["stm"]))

    async def _learn(self, event: Event) -> str:
        answer = await self._send("POST", f"/sessions/{self._session}/learn", key=event[1])
        if answer.status == 400:
            assert answer.body["error"]["code"] == "EMPTY_STM"
            return NOTHING
        assert answer.status == 200, answer
        name: str = answer.body["pattern_name"]
        return name.removeprefix("PTRN|")

    async def _clear(self, _: Event) -> None:
        await self._body("POST", f"/sessions/{self._session}/clear-stm")

    async def _predictions(self, _: Event) -> dict[str, int]:
        body = await self._body("GET", f"/sessions/{self._reader}/predictions")
        assert "stale" not in body
        return {each["name"]: each["frequency"] for each in body["predictions"]}
