"""Several workers under one supervisor under load: who dies is replaced, who stops cuts nobody off."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kato.api import listeners
from tests.chaos.workers import Worker, expected_of, load, patterns_of
from tests.support.http import Gone, Pool, Refused, calling
from tests.support.server import Server, StartFailed, serving
from tests.support.workers import answering, broken, children, runs, until, variables

CLIENTS = 8


@pytest.fixture
def environment() -> dict[str, str]:
    return variables(workers=3)


@pytest.fixture
def server(environment: dict[str, str]) -> Iterator[Server]:
    """One that the test may end."""
    with serving(":memory:", environment) as running:
        yield running


@pytest.fixture(scope="module")
def lasting() -> Iterator[Server]:
    """One that outlives what tests do to its workers."""
    with serving(":memory:", variables(workers=3)) as running:
        yield running


def address_of(server: Server) -> str:
    return server.url.removeprefix("http://")


def workers_of(server: Server) -> set[int]:
    return children(server.process.pid)


def test_new_connections_are_dealt_over_all_workers(lasting: Server) -> None:
    assert len(workers_of(lasting)) == 3
    assert answering(address_of(lasting), connections=100) == workers_of(lasting)
    assert lasting.output.count("listens on") == 1


class Over(Exception):
    """The test has seen enough."""


class Load:
    """Clients that know what must be remembered, and go on with whoever answers after they were cut off."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.node = f"node-{uuid.uuid4().hex}"
        self.clients = [Worker(number, self.node, self.node) for number in range(CLIENTS)]
        self.acknowledged = 0
        self.cut = 0
        self.over = False

    async def run(self) -> None:
        async with calling(self.server.url) as pool:
            await asyncio.gather(*(self._work(pool, client) for client in self.clients))
            assert await patterns_of(pool, self.node) == expected_of(self.clients, self.node)

    async def _work(self, pool: Pool, client: Worker) -> None:
        await client.open(pool)
        while not self.over:
            try:
                await client.work(pool, self._count)
            except Over:
                return
            self.cut += 1
            await self._settle(pool, client)

    async def _settle(self, pool: Pool, client: Worker) -> None:
        """What was acknowledged is there; what was in flight counts once."""
        while True:
            try:
                assert await client.settle(pool) == []
            except Gone:
                continue
            return

    def _count(self) -> None:
        self.acknowledged += 1
        if self.over:
            raise Over

    async def goes_on(self) -> None:
        """Return after another 200 acknowledged requests."""
        enough = self.acknowledged + 200
        while self.acknowledged < enough:
            await asyncio.sleep(0.01)


async def test_kill_9_of_workers_under_load_loses_nothing(
    lasting: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = Load(lasting)
    seconds = []

    async def replaced() -> float:
        """Kill a worker; returns after how many seconds another one answers in its place."""
        before, began = workers_of(lasting), time.perf_counter()
        os.kill(min(before), signal.SIGKILL)
        # The others go on meanwhile.
        await busy.goes_on()
        await asyncio.to_thread(until, lambda: answering(address_of(lasting), 20) - before)
        return time.perf_counter() - began

    async def kill() -> None:
        for _ in range(3):
            await busy.goes_on()
            seconds.append(await replaced())
        busy.over = True

    await asyncio.gather(busy.run(), kill())
    assert len(workers_of(lasting)) == 3
    assert lasting.output.count("ended=SIGKILL") == 3
    verbs = sum((client.acknowledged for client in busy.clients), Counter[str]())
    with capsys.disabled():
        print(
            f"\nkill -9 of 3 workers: acknowledged {dict(sorted(verbs.items()))}, lost 0, cut off {busy.cut}, "
            f"replaced after {', '.join(f'{each:.1f}' for each in seconds)} s"
        )


async def test_new_workers_under_load_without_a_single_failure(
    lasting: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = Load(lasting)
    first = workers_of(lasting)

    async def renew() -> None:
        await busy.goes_on()
        lasting.process.send_signal(signal.SIGHUP)
        while workers_of(lasting) & first or len(workers_of(lasting)) != len(first):
            await asyncio.sleep(0.02)
        await busy.goes_on()
        busy.over = True

    async def connect() -> None:
        """Clients that open a connection for each request."""
        async with calling(lasting.url) as pool:
            while not busy.over:
                answer = await pool.call("GET", "/health/live", headers={"Connection": "close"})
                assert answer.status == 200

    await asyncio.gather(busy.run(), renew(), *(connect() for _ in range(4)))
    assert busy.cut == 0
    with capsys.disabled():
        print(
            f"\nSIGHUP: {busy.acknowledged} requests acknowledged while all 3 workers were replaced, 0 failed"
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_order_to_stop_under_load_cuts_nobody(server: Server, number: int) -> None:
    node = uuid.uuid4().hex
    clients = [Worker(each, node, node) for each in range(CLIENTS)]
    count = 0

    def acknowledged() -> None:
        nonlocal count
        count += 1
        if count == 500:
            server.process.send_signal(number)

    workers = workers_of(server)
    async with calling(server.url) as pool:
        await asyncio.gather(*(client.open(pool) for client in clients))
        gone = await asyncio.gather(*(client.work(pool, acknowledged) for client in clients))
    assert [type(each) for each in gone] == [Refused] * CLIENTS
    assert await asyncio.to_thread(server.process.wait, 30) == 0
    server.stop()
    assert not any(map(runs, workers))
    assert server.output.count("\n") == 1, server.output


async def test_workers_end_with_a_supervisor_that_is_killed(
    server: Server, environment: dict[str, str]
) -> None:
    node, workers = uuid.uuid4().hex, workers_of(server)
    clients = [Worker(each, node, node) for each in range(CLIENTS)]
    async with calling(server.url) as pool:
        await asyncio.gather(*(client.open(pool) for client in clients))
        await load(pool, clients, 200, server.process.kill)
    await asyncio.to_thread(until, lambda: not any(map(runs, workers)))
    listeners.close(listeners.bind("127.0.0.1", int(address_of(server).split(":")[1])))
    with serving(":memory:", environment) as again:
        async with calling(again.url) as pool:
            assert await asyncio.gather(*(client.settle(pool) for client in clients)) == [[]] * CLIENTS
            assert await patterns_of(pool, node) == expected_of(clients, node)


def test_workers_that_cannot_start_are_one_sentence(tmp_path: Path) -> None:
    broken(tmp_path, "raise ModuleNotFoundError('no driver', name='asyncpg')")
    with pytest.raises(StartFailed) as caught:
        Server(":memory:", {**variables(workers=3), "PYTHONPATH": str(tmp_path)})
    assert str(caught.value).startswith("kato: KATO_STORE=postgres: the driver 'asyncpg' is not installed")
    assert str(caught.value).count("\n") == 1
