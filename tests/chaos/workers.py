"""Clients that put a server under load and know exactly what it must remember afterwards."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Protocol
from urllib.parse import urlencode

from tests.support.http import Gone, Pool

Events = list[list[str]]
Patterns = Counter[str]

SYMBOLS = "abcdefgh"


def text_of(events: Events) -> str:
    """The events of a pattern as a key."""
    return " ".join("".join(event) for event in events)


class Step:
    """One request: what is sent, and what it does to the session and to the node."""

    def __init__(self, verb: str, body: dict[str, Any], shown: Events, learns: bool) -> None:
        self.verb = verb
        self.body = body
        self.shown = shown
        self.learns = learns

    def applied(self, stm: Events, time: int) -> tuple[Events, int, str | None]:
        """The STM and time after it, and the pattern that it learns."""
        if self.verb == "clear-stm":
            return [], 0, None
        events = stm + self.shown
        learned = text_of(events) if self.learns and sum(map(len, events)) > 1 else None
        return [] if self.learns else events, time + len(self.shown), learned


def observing(symbols: Iterable[str]) -> dict[str, Any]:
    return {"strings": list(symbols)}


def next_step(random_: random.Random, stm: Events, mark: str = "") -> Step:
    """A random request that fits the STM; short patterns, so that many are learned again and again.

    All its symbols begin with `mark`.
    """
    event = [mark + symbol for symbol in sorted(random_.sample(SYMBOLS, random_.choice((1, 1, 2))))]
    if len(stm) >= 2 and random_.random() < 0.6:
        return Step("learn", {}, [], learns=True)
    kind = random_.random()
    if kind < 0.1:
        return Step("clear-stm", {}, [], learns=False)
    if kind < 0.25:
        pair = [event, [mark + random_.choice(SYMBOLS)]]
        return Step("observe-sequence", showing(pair), pair, learns=True)
    return Step("observe", observing(event), [event], learns=False)


def showing(events: Events) -> dict[str, Any]:
    """The body that shows events and learns them."""
    return {"observations": [observing(event) for event in events], "learn_at_end": True}


class Worker:
    """One client with one session. `stm` and `time` are what the server has acknowledged."""

    def __init__(self, number: int, node: str, seed: str) -> None:
        self.node = node
        self.session = ""
        self.stm: Events = []
        self.time = 0
        self.learned: Patterns = Counter()
        self.acknowledged = Counter[str]()
        self.flights = Counter[str]()
        self.pending: tuple[Step, dict[str, str]] | None = None
        self._keyed = number % 2 == 1
        self._requests = 0
        self._random = random.Random(f"{seed}-{number}")

    async def open(self, client: Pool) -> None:
        opened = await client.post("/sessions", {"node_id": self.node, "ttl_seconds": 86_400})
        self.session = opened["session_id"]

    async def work(self, client: Pool, acknowledged: Callable[[], None]) -> Gone:
        """Send requests until the server is gone; returns in which way."""
        while True:
            self._requests += 1
            headers = {"Idempotency-Key": f"key-{self._requests}"} if self._keyed else {}
            self.pending = (next_step(self._random, self.stm), headers)
            try:
                await self.send_pending(client)
            except Gone as gone:
                return gone
            acknowledged()

    async def send_pending(self, client: Pool) -> None:
        """Send the pending request; once it is acknowledged, what it does is certain."""
        assert self.pending is not None
        step, headers = self.pending
        answer = await client.call("POST", f"/sessions/{self.session}/{step.verb}", step.body, headers)
        assert answer.status == 200, answer
        self._acknowledge(step)

    def _acknowledge(self, step: Step) -> None:
        self.pending = None
        self.stm, self.time, learned = step.applied(self.stm, self.time)
        self.acknowledged[step.verb] += 1
        if learned is not None:
            self.learned[learned] += 1

    async def settle(self, client: Pool) -> list[str]:
        """Compare the session with what was acknowledged, then bring a request in flight to its end.

        Such a request has either been applied or not; when it was not (or carries a key), it is sent again, and must
        then count once. Returns what is wrong.
        """
        found = await self._found(client)
        outcomes = {"acknowledged": (self.stm, self.time)}
        if self.pending is not None:
            stm, time, _ = self.pending[0].applied(self.stm, self.time)
            outcomes["in flight"] = (stm, time)
        if found not in outcomes.values():
            return [f"{self.session}: found {found}, expected one of {outcomes}"]
        if self.pending is None:
            return []
        step, headers = self.pending
        applied = found != outcomes["acknowledged"]
        self.flights["applied" if applied else "not applied"] += 1
        if applied and not headers:
            self._acknowledge(step)
            return []
        if found == outcomes["in flight"] == outcomes["acknowledged"]:
            # Clearing what is clear already: whether it was applied makes no difference.
            self._acknowledge(step)
            return []
        await self.send_pending(client)
        found = await self._found(client)
        expected = (self.stm, self.time)
        return [] if found == expected else [f"{self.session}: repeated, found {found}, expected {expected}"]

    async def _found(self, client: Pool) -> tuple[Events, int]:
        stm = (await client.get(f"/sessions/{self.session}/stm"))["stm"]
        return stm, (await client.get(f"/sessions/{self.session}"))["time"]


class Getting(Protocol):
    """Who gives the body of a successful answer."""

    async def get(self, path: str) -> Any: ...


async def patterns_of(client: Getting, node: str) -> Patterns:
    """Frequencies of all patterns of a node."""
    found: Patterns = Counter()
    query = {"node_id": node, "limit": "1000"}
    while True:
        page = await client.get("/v2/patterns?" + urlencode(query))
        for pattern in page["patterns"]:
            found[text_of(pattern["pattern_data"])] = pattern["frequency"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


def expected_of(workers: list[Worker], node: str) -> Patterns:
    expected: Patterns = Counter()
    for worker in workers:
        if worker.node == node:
            expected.update(worker.learned)
    return expected


async def load(client: Pool, workers: list[Worker], enough: int, end: Callable[[], None]) -> None:
    """Let all work; after `enough` acknowledged requests call `end` while the others are in flight."""
    count = 0

    def acknowledged() -> None:
        nonlocal count
        count += 1
        if count == enough:
            end()

    await asyncio.gather(*(worker.work(client, acknowledged) for worker in workers))
