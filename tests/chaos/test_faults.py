"""kill -9 of an instance, a worker, Redis or the PostgreSQL primary under load, again and again.

What was acknowledged is there, once, in its own session; and everything works again soon, without a hand.

`KATO_FAULT_CYCLES` sets the number of cycles. With `KATO_FAULT_DEFAULTS` the circuit breakers stay open as long as they
do by default, else for a second.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.chaos import editors
from tests.chaos.cluster import PAUSE, WORKERS, Cluster, Door, Instance, clustered
from tests.chaos.editors import Editor
from tests.chaos.histories import serial_order
from tests.chaos.learners import THINKING_SECONDS, Crowd, Entrance, Learner, bounds
from tests.chaos.recording import SHARES, Recorder
from tests.chaos.workers import Patterns, patterns_of, showing
from tests.support.http import Gone

SEED = os.environ.get("KATO_FAULT_SEED", "kato")
LEARNERS = 8
RECORDED_CLIENTS = 4
EDITORS = 2
NODES = ("node-0", "node-1", "node-2")
RECOVERED_SECONDS = 60.0
BREAKERS = (
    {}
    if os.environ.get("KATO_FAULT_DEFAULTS")
    else {
        "KATO_DATABASE_RECOVERY_TIMEOUT": "1",
        "REDIS_RECOVERY_TIMEOUT": "1",
    }
)


# Faults


class Fault:
    """Something that breaks at once, by `strike`, and is repaired by `repair`; `struck` was broken itself."""

    def __init__(
        self, strike: Callable[[], None], repair: Callable[[], None], struck: Instance | None = None
    ) -> None:
        self.strike = strike
        self.repair = repair
        self.struck = struck


def _instance(cluster: Cluster, random_: random.Random) -> Fault:
    struck = random_.choice(cluster.instances)
    return Fault(struck.kill, struck.start, struck)


def _worker(cluster: Cluster, random_: random.Random) -> Fault:
    """The supervisor alone must replace it."""
    struck = random_.choice(cluster.instances)
    worker = random_.choice(struck.workers())
    return Fault(lambda: os.kill(worker, signal.SIGKILL), lambda: None, struck)


def _redis(cluster: Cluster, random_: random.Random) -> Fault:
    down = random_.random()

    def restart() -> None:
        time.sleep(down)
        cluster.redis.start()

    return Fault(cluster.redis.kill9, restart)


def _postgres(cluster: Cluster, random_: random.Random) -> Fault:
    down = random_.random()

    def fail_over() -> None:
        time.sleep(down)
        cluster.promote()
        cluster.replicate()

    return Fault(cluster.lose_primary, fail_over)


FAULTS = {"instance": _instance, "redis": _redis, "postgres": _postgres}
if WORKERS > 1:
    FAULTS["worker"] = _worker
CYCLES = int(os.environ.get("KATO_FAULT_CYCLES", str(len(FAULTS))))


def chosen(random_: random.Random) -> list[str]:
    """The fault of each cycle: every kind once, then at random."""
    kinds = sorted(FAULTS)
    return (random_.sample(kinds, len(kinds)) + random_.choices(kinds, k=max(0, CYCLES - len(kinds))))[
        :CYCLES
    ]


# Recovery


class Probe:
    """Asks one worker for one verb until it is served again."""

    def __init__(self, verb: str, session: str) -> None:
        self.verb = verb
        self._session = session

    async def recovered(self, door: Door, since: float) -> tuple[str, float]:
        """The verb, and how many seconds after `since` it was served."""
        while time.monotonic() - since < RECOVERED_SECONDS:
            sent = time.monotonic()
            if await self._served(door):
                return self.verb, time.monotonic() - since
            await asyncio.sleep(max(0.0, sent + 2 * PAUSE - time.monotonic()))
        raise AssertionError(f"{self.verb} is not served {RECOVERED_SECONDS:.0f} s after the fault")

    async def _served(self, door: Door) -> bool:
        method, path, body = {
            "create": ("POST", "/sessions", {"node_id": "probes"}),
            "observe": ("POST", f"/sessions/{self._session}/observe", {"strings": ["a"]}),
            "stm": ("GET", f"/sessions/{self._session}/stm", None),
            "learn": ("POST", f"/sessions/{self._session}/observe-sequence", showing([["a"], ["b"]])),
            "predictions": ("GET", f"/sessions/{self._session}/predictions", None),
        }[self.verb]
        try:
            answer = await door.call(method, path, body)
        except Gone:
            return False
        assert answer.status == 200 or answer.status >= 500, answer
        return answer.status == 200 and "stale" not in answer.body


VERBS = ("create", "observe", "stm", "learn", "predictions")


class Tally:
    """What the cycles found."""

    def __init__(self) -> None:
        self.lost = 0
        self.doubled = 0
        self.wrong: list[str] = []
        self.recoveries: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def recovered(self, kind: str, seconds: Sequence[tuple[str, float]]) -> None:
        """Note for each verb when the first worker served it again, and when the last one did."""
        for verb in VERBS:
            found = [each for name, each in seconds if name == verb]
            self.recoveries[kind, "first"][verb].append(min(found))
            self.recoveries[kind, "last"][verb].append(max(found))

    def table(self) -> list[str]:
        head = f"{'fault':<10}{'cycles':>7}  {'worker':<7}" + "".join(f"{verb:>17}" for verb in VERBS)
        return [head, *(self._row(*of, found) for of, found in sorted(self.recoveries.items()))]

    @staticmethod
    def _row(kind: str, worker: str, found: Mapping[str, list[float]]) -> str:
        cells = [f"{statistics.median(found[verb]):7.2f} /{max(found[verb]):6.2f} s" for verb in VERBS]
        return f"{kind:<10}{len(found[VERBS[0]]):>7}  {worker:<7}" + "".join(f"{cell:>17}" for cell in cells)


# Cycles


class Run:
    """A cluster under load that breaks again and again."""

    def __init__(self, cluster: Cluster, random_: random.Random, entrance: Entrance) -> None:
        self.tally = Tally()
        self.learners = [Learner(n, NODES[n % len(NODES)], SEED) for n in range(LEARNERS)]
        self.editors = [Editor(n, SEED) for n in range(EDITORS)]
        self.crowd_events = 0
        self.recorded = 0
        self.cycles = 0
        self._cluster = cluster
        self._random = random_
        self._entrance = entrance
        self._instances = [entrance.through(number) for number in range(len(cluster.instances))]
        self._probes: list[Probe] = []

    @property
    def acknowledged(self) -> Counter[str]:
        return sum((each.acknowledged for each in self.learners), Counter())

    @property
    def edited(self) -> Counter[str]:
        return sum((each.done for each in self.editors), Counter())

    @property
    def unanswered(self) -> Counter[str]:
        return sum((each.unanswered for each in self.learners), Counter())

    async def open(self) -> None:
        """One session for each probe."""
        for verb in VERBS * (WORKERS * len(self._cluster.instances)):
            opened = await self._entrance.insist("POST", "/sessions", {"node_id": "probes"})
            self._probes.append(Probe(verb, opened["session_id"]))

    async def cycle(self, kind: str) -> None:
        """Load, a fault in the midst of it, recovery, some more load, and then the reckoning."""
        opened = await self._entrance.insist("POST", "/sessions", {"node_id": "crowd"})
        crowd = Crowd(opened["session_id"])
        recorder = await self._recorder(kind)
        async with self._load(crowd, recorder):
            await self._progress(self._random.randint(1, 200))
            await self._break(kind, FAULTS[kind](self._cluster, self._random))
            await self._progress(50)
        for wrong in await asyncio.gather(*(self._settle(learner) for learner in self.learners)):
            self.tally.wrong += wrong
        for editor in self.editors:
            self.tally.wrong += await editor.settle(self._instances)
        for instance in self._instances:
            self.tally.wrong += await crowd.wrong(instance)
            for node in NODES:
                self._compare(node, await patterns_of(instance, node), *bounds(self.learners, node))
            least = sum((each.least for each in self.editors), Patterns())
            most = sum((each.most for each in self.editors), Patterns())
            self._compare(editors.NODE, await patterns_of(instance, editors.NODE), least, most)
        serial_order(recorder.history)
        self.crowd_events += len(crowd.acknowledged)
        self.recorded += len(recorder.history)
        self.cycles += 1
        assert self.tally.wrong == []

    async def _recorder(self, kind: str) -> Recorder:
        """Clients of one more session, who repeat each request under its key until it is answered."""
        # Clearing knows no keys. A learn that PostgreSQL did not acknowledge may be predicted though it is repeated.
        left_out = {"clear", "predictions"} if kind == "postgres" else {"clear"}
        shares = {each: share for each, share in SHARES.items() if each not in left_out}
        return await Recorder.open(self._entrance.repeat, f"recorded-{self.cycles}", shares=shares)

    @asynccontextmanager
    async def _load(self, crowd: Crowd, recorder: Recorder) -> AsyncIterator[None]:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as clients:
            for learner in self.learners:
                clients.create_task(learner.work(self._entrance, crowd, stop))
            for editor in self.editors:
                clients.create_task(editor.work(self._entrance, stop))
            for number in range(RECORDED_CLIENTS):
                clients.create_task(recorder.client(number, lambda: not stop.is_set(), THINKING_SECONDS))
            try:
                yield
            finally:
                stop.set()

    async def _progress(self, requests: int) -> None:
        """Wait until so many more requests have been acknowledged."""
        enough = self.acknowledged.total() + requests
        while self.acknowledged.total() < enough:
            await asyncio.sleep(PAUSE / 10)

    async def _break(self, kind: str, fault: Fault) -> None:
        others = [each for each in self._cluster.instances if each is not fault.struck]
        async with self._cluster.doors(len(VERBS), of=others) as doors:
            await asyncio.to_thread(fault.strike)
            since = time.monotonic()
            async with asyncio.TaskGroup() as under_way:
                repair = under_way.create_task(asyncio.to_thread(fault.repair))
                probing = under_way.create_task(self._probe(doors, since, 0))
                await repair
                found = await self._probe_restarted(fault, since, len(doors))
        self.tally.recovered(kind, [*probing.result(), *found])

    async def _probe_restarted(self, fault: Fault, since: float, first: int) -> list[tuple[str, float]]:
        if fault.struck is None:
            return []
        async with self._cluster.doors(len(VERBS), of=[fault.struck]) as doors:
            return await self._probe(doors, since, first)

    async def _probe(self, doors: list[Door], since: float, first: int) -> list[tuple[str, float]]:
        probes: list[Awaitable[tuple[str, float]]] = [
            self._probes[first + number].recovered(door, since) for number, door in enumerate(doors)
        ]
        return list(await asyncio.gather(*probes))

    async def _settle(self, learner: Learner) -> list[str]:
        unsettled = [
            each for each in learner.chronicles if each.pending is not None or each is learner.current
        ]
        found = [await each.settle(self._instances) for each in unsettled]
        return [*learner.wrong, *(line for lines in found for line in lines)]

    def _compare(self, node: str, found: Patterns, least: Patterns, most: Patterns) -> None:
        for text in least | most | found:
            if not least[text] <= found[text] <= most[text]:
                self.tally.lost += max(0, least[text] - found[text])
                self.tally.doubled += max(0, found[text] - most[text])
                self.tally.wrong.append(
                    f"{node} {text!r}: learned {least[text]} to {most[text]} times, found {found[text]}"
                )


@pytest.mark.timeout(300 + 120 * CYCLES)
async def test_faults_lose_nothing_double_nothing_mix_nothing_and_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random_, began = random.Random(SEED), time.perf_counter()
    with clustered(tmp_path, replicated=True, settings=BREAKERS) as cluster:
        entrance = Entrance(cluster, random_)
        run = Run(cluster, random_, entrance)
        try:
            await run.open()
            for kind in chosen(random_):
                await run.cycle(kind)
        finally:
            await entrance.close()
            with capsys.disabled():
                report(run, time.perf_counter() - began)


def report(run: Run, seconds: float) -> None:
    tally, sessions = run.tally, [each for learner in run.learners for each in learner.chronicles]
    learned = sum(each.learned.total() for each in sessions)
    doubtful = sum(each.doubtful.total() for each in sessions)
    lines = [
        f"\nfaults under load: {run.cycles} cycles in {seconds:.0f} s, 2 instances x {WORKERS} workers,"
        f" acknowledged {dict(sorted(run.acknowledged.items()))} and {run.crowd_events} observes of crowds,"
        f" unanswered {dict(sorted(run.unanswered.items()))}, {run.recorded} recorded in linearizable histories",
        f"{len(sessions)} sessions, {learned} learns that count, {doubtful} that may: lost {tally.lost},"
        f" doubled {tally.doubled}, wrong {len(tally.wrong)}; patterns edited {dict(sorted(run.edited.items()))}",
        "from the fault until the first and the last worker served a verb, median / max:",
        *tally.table(),
    ]
    print("\n".join(lines))
