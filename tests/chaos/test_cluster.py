"""Two instances of several workers each, on one Redis and one PostgreSQL: to its clients they are one server.

`KATO_VISIBILITY_TRIALS` sets the number of trials, `KATO_HISTORIES` the number of recorded histories.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chaos.cluster import WORKERS, Cluster, Door, clustered
from tests.chaos.histories import UNKNOWN, Operation, serial_order
from tests.chaos.recording import Recorder
from tests.support.http import Answer
from tests.support.memory import events, name_of

TRIALS = int(os.environ.get("KATO_VISIBILITY_TRIALS", "200"))
HISTORIES = int(os.environ.get("KATO_HISTORIES", "6"))
TEACHERS = 12
NODES = ("one", "two", "three")
TEXTS = [f"{a}{b} {c}" for a in "ab" for b in "de" for c in "fgh"]
CONTENDED = ["ab c", "bc d"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with clustered(tmp_path_factory.mktemp("cluster")) as running:
        yield running


async def open_session(door: Door, node: str, **config: Any) -> str:
    opened = await door.post("/sessions", {"node_id": node, "config": config})
    session: str = opened["session_id"]
    return session


def observing(text: str) -> list[dict[str, Any]]:
    return [{"strings": list(event)} for event in events(text)]


# One session on all workers


async def test_200_parallel_observes_of_one_session_dealt_over_all_workers(cluster: Cluster) -> None:
    async with cluster.doors() as doors:
        session = await open_session(doors[0], "two-hundred")
        calls = (
            doors[n % len(doors)].post(f"/sessions/{session}/observe", {"strings": [f"s{n}"]})
            for n in range(200)
        )
        answers = await asyncio.gather(*calls)
        assert sorted(answer["time"] for answer in answers) == list(range(1, 201))
        assert all(answer["stm_length"] == answer["time"] for answer in answers)
        order = [[f"s{n}"] for n in sorted(range(200), key=lambda n: answers[n]["time"])]
        served = {
            worker
            for door in doors
            for instance in cluster.instances
            if instance.url == door.url
            for worker in instance.serving(door)
        }
        assert len(served) == len(doors), "not every worker took part"
    async with cluster.doors() as doors:
        for door in doors:
            assert (await door.get(f"/sessions/{session}/stm"))["stm"] == order
            assert (await door.get(f"/sessions/{session}"))["time"] == 200


# What is acknowledged is seen


class Taught:
    """A pattern of a node: how often it was learned, and a session that predicts it."""

    def __init__(self, node: str, text: str, reader: str) -> None:
        self.node = node
        self.text = text
        self.frequency = 0
        self.alone = asyncio.Lock()
        self._reader = reader

    @classmethod
    async def open(cls, door: Door, node: str, text: str) -> Taught:
        # A prediction then shows little more than this very pattern.
        reader = await open_session(door, node, recall_threshold=0.9)
        await door.post(f"/sessions/{reader}/observe-sequence", {"observations": observing(text)})
        return cls(node, text, reader)

    async def seen(self, door: Door) -> int:
        """Its frequency in the predictions that a worker gives; 0 when it is not among them."""
        answer = await door.get(f"/sessions/{self._reader}/predictions")
        assert "stale" not in answer
        found = {each["name"]: each["frequency"] for each in answer["predictions"]}
        frequency: int = found.get(name_of(self.text), 0)
        return frequency

    async def learn(self, teacher: Door, other: Door, session: str) -> None:
        """One request that shows and learns, or one that shows, and one of another worker that learns."""
        together = teacher is not other
        body = {"observations": observing(self.text), "learn_at_end": together}
        await teacher.post(f"/sessions/{session}/observe-sequence", body)
        if not together:
            await other.post(f"/sessions/{session}/learn", None)
        self.frequency += 1

    async def update(self, door: Door, frequency: int) -> None:
        path = f"/v2/patterns/{name_of(self.text)}?node_id={self.node}"
        answer = await door.call("PATCH", path, {"frequency": frequency})
        assert answer.status == 200, answer
        self.frequency = frequency

    async def delete(self, door: Door) -> None:
        answer = await door.call("DELETE", f"/v2/patterns/{name_of(self.text)}?node_id={self.node}")
        assert answer.status == 200, answer
        self.frequency = 0


class Trials:
    """Changes of patterns through one worker, each followed by a prediction of another one."""

    def __init__(self, doors: list[Door], own: list[Taught], contended: list[Taught]) -> None:
        self.doors = doors
        self.made = Counter[str]()
        self._own = own
        self._contended = contended
        self._numbers = iter(range(TRIALS))

    async def work(self, teacher: int) -> None:
        sessions = {node: await open_session(self.doors[0], node) for node in NODES}
        for number in self._numbers:
            random_ = random.Random(number)
            if random_.random() < 0.3:
                await self._contend(random_, sessions)
            else:
                await self._change(random_, sessions)

    async def _contend(self, random_: random.Random, sessions: dict[str, str]) -> None:
        """Learn what others learn at the same time."""
        pattern = random_.choice(self._contended)
        door, reader = random_.sample(self.doors, 2)
        await pattern.learn(door, random_.choice((door, reader)), sessions[pattern.node])
        least = pattern.frequency
        assert await pattern.seen(reader) >= least
        self.made["contended learn"] += 1

    async def _change(self, random_: random.Random, sessions: dict[str, str]) -> None:
        """Change what nobody else changes meanwhile, so that exactly this must be seen."""
        pattern = random_.choice(self._own)
        door, reader = random_.sample(self.doors, 2)
        kind = random_.random()
        async with pattern.alone:
            if pattern.frequency and kind < 0.15:
                self.made["update"] += 1
                await pattern.update(door, random_.randint(1, 50))
            elif pattern.frequency and kind < 0.3:
                self.made["delete"] += 1
                await pattern.delete(door)
            else:
                self.made["relearn" if pattern.frequency else "learn"] += 1
                await pattern.learn(door, random_.choice((door, reader)), sessions[pattern.node])
            assert await pattern.seen(reader) == pattern.frequency


@pytest.mark.timeout(300 + TRIALS)
async def test_a_change_that_was_acknowledged_is_in_every_later_prediction_of_all(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    async with cluster.doors() as doors:
        own = [await Taught.open(doors[0], node, text) for node in NODES for text in TEXTS]
        contended = [await Taught.open(doors[0], node, text) for node in NODES for text in CONTENDED]
        trials = Trials(doors, own, contended)
        await asyncio.gather(*(trials.work(teacher) for teacher in range(TEACHERS)))
        for pattern in own + contended:
            assert [await pattern.seen(door) for door in doors] == [pattern.frequency] * len(doors)
        assert trials.made.total() == TRIALS
    with capsys.disabled():
        print(
            f"\nvisibility: {TRIALS} trials on {len(cluster.instances)} instances x {WORKERS} workers,"
            f" {dict(sorted(trials.made.items()))}: each was in the next prediction of another worker"
        )


# Histories


CLIENTS = 6
OPERATIONS = 25
CUT = 0.02


async def record(doors: list[Door], number: int) -> list[Operation]:
    """What many clients of one session were told, each request dealt to a worker at random."""
    random_ = random.Random(number)

    async def send(method: str, path: str, body: Any = None, key: str = "") -> Answer:
        # No key goes along: nothing is sent twice here.
        return await random_.choice(doors).call(method, path, body)

    recorder = await Recorder.open(send, f"h{number}", cut=CUT)
    remaining = iter(range(CLIENTS * OPERATIONS))
    clients = (recorder.client(n, lambda: next(remaining, None) is not None) for n in range(CLIENTS))
    await asyncio.gather(*clients)
    return recorder.history


@pytest.mark.timeout(300 + 10 * HISTORIES)
async def test_the_recorded_history_of_every_session_is_linearizable(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded, unknown, operations = 0, 0, Counter[str]()
    async with cluster.doors() as doors:
        while recorded < HISTORIES:
            numbers = range(recorded, min(HISTORIES, recorded + 4))
            for history in await asyncio.gather(*(record(doors, number) for number in numbers)):
                serial_order(history)
                operations.update(operation.kind for operation in history)
                unknown += sum(operation.returned == UNKNOWN for operation in history)
                recorded += 1
    with capsys.disabled():
        print(
            f"\nhistories: {recorded} of {CLIENTS} clients each on {len(cluster.instances)} instances x"
            f" {WORKERS} workers, {dict(sorted(operations.items()))}, {unknown} of unknown outcome: linearizable"
        )
