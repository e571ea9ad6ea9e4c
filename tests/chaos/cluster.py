"""Two instances of KATO as processes of their own, on one Redis and one PostgreSQL that can be killed.

    with clustered(directory, workers=2) as cluster:
        async with cluster.doors() as doors:
            await doors[0].post("/sessions", {"node_id": "node"})

`KATO_CLUSTER_WORKERS` sets how many worker processes each instance has.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from tests.support.http import Answer, Gone, Pool
from tests.support.postgres import USER, PostgresServer
from tests.support.processes import family, kill_family
from tests.support.redis import RedisServer
from tests.support.server import START_SECONDS, Server

WORKERS = int(os.environ.get("KATO_CLUSTER_WORKERS", "2"))
INSTANCES = 2
PAUSE = 0.05
"""Seconds between a request that failed and the next one."""
IDLE_SECONDS = 3.0
"""The server closes a connection that nobody has used for 5 seconds; who sends just then gets no answer."""


class Door(Pool):
    """One client's way into an instance: a connection for each of its requests that are under way at once.

    A request that is not answered within `patience` seconds is `Gone`.
    """

    def __init__(self, url: str, patience: float = 60.0) -> None:
        super().__init__(url)
        self.url = url
        self._patience = patience
        self._used: dict[asyncio.StreamWriter, float] = {}

    async def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request; `Gone` when there is no answer."""
        now = time.monotonic()
        while self._idle and now - self._used.pop(self._idle[-1][1]) > IDLE_SECONDS:
            self._idle.pop()[1].close()
        try:
            async with asyncio.timeout(self._patience):
                answer = await super().call(method, path, body, headers)
        except TimeoutError as error:
            raise Gone from error
        if not answer.last:
            self._used[self._idle[-1][1]] = now
        return answer

    @property
    def ports(self) -> list[int]:
        """Our ends of the connections that are open and not in use."""
        return [writer.get_extra_info("sockname")[1] for _, writer in self._idle]


class Instance:
    """A `kato serve` that can be killed and started again; `url` is then another one."""

    def __init__(self, data: Path, environment: Mapping[str, str]) -> None:
        self._data = data
        self._environment = environment
        self.server = Server(data, environment)

    @property
    def url(self) -> str:
        return self.server.url

    def serving(self, door: Door) -> set[int]:
        """The ids of the processes that serve a door's connections."""
        ours, port = set(door.ports), int(self.url.rpartition(":")[2])
        sockets = {inode for theirs, inode in _accepted(port) if theirs in ours}
        return {each for each in family(self.server.process.pid) if sockets & _open_sockets(each)}

    def workers(self) -> list[int]:
        """The ids of its worker processes; the server itself when it has none."""
        return family(self.server.process.pid)[1:] or [self.server.process.pid]

    def kill(self) -> None:
        """SIGKILL for the server with all its workers."""
        kill_family(self.server.process.pid)
        self.server.kill()

    def start(self) -> None:
        """Start it again."""
        self.server = Server(self._data, self._environment)

    def remove(self) -> None:
        """End it, whatever state it is in."""
        if self.server.alive:
            self.kill()


class Cluster:
    """The instances and their servers. `standby` is the synchronous replica of `postgres` if there is one."""

    def __init__(self, directory: Path, workers: int, replicated: bool, settings: Mapping[str, str]) -> None:
        self.workers = workers
        self.instances: list[Instance] = []
        self.standby: PostgresServer | None = None
        self._reserved = _reserve(3)
        ports = [each.getsockname()[1] for each in self._reserved]
        # So that every acknowledged write survives, also what Redis would write in the next second only.
        self.redis = RedisServer(durable=True, settings=["appendfsync always"])
        self.redis.port = ports[0]
        self.postgres = PostgresServer()
        self.postgres.port = ports[1]
        self._standby_port = ports[2]
        try:
            self._start(directory, replicated, settings)
        except BaseException:
            self.remove()
            raise

    def _start(self, directory: Path, replicated: bool, settings: Mapping[str, str]) -> None:
        self.redis.start()
        self.postgres.start()
        hosts = [f"127.0.0.1:{self.postgres.port}"]
        if replicated:
            hosts.append(f"127.0.0.1:{self._standby_port}")
            self.standby = self.postgres.replica(port=self._standby_port)
        environment = {
            "KATO_STORE": "postgres",
            "DATABASE_URL": f"postgresql://{USER}@{','.join(hosts)}/postgres",
            "KATO_DATABASE_POOL_SIZE": "8",
            "REDIS_URL": self.redis.url,
            "KATO_VECTORS": "false",
            "MAX_SESSIONS": "0",
            "KATO_CLUSTER_ID": f"cluster-{uuid.uuid4().hex}",
            "WORKERS": str(self.workers),
            **settings,
        }
        with ThreadPoolExecutor(INSTANCES) as threads:
            started = [
                threads.submit(Instance, directory / f"instance-{number}", environment)
                for number in range(INSTANCES)
            ]
            self.instances = [each.result() for each in started]

    def lose_primary(self) -> None:
        """Kill the PostgreSQL that accepts writes; its synchronous standby has all that was acknowledged."""
        self.postgres.kill9()

    def promote(self) -> None:
        """Make the standby the primary; it accepts writes on return, and has no standby of its own yet."""
        assert self.standby is not None
        lost, self.postgres, self.standby = self.postgres, self.standby, None
        self._standby_port = lost.port
        self.postgres.promote()
        lost.remove()

    def replicate(self) -> None:
        """Give the primary a synchronous standby where the lost one was."""
        self.standby = self.postgres.replica(port=self._standby_port)

    @asynccontextmanager
    async def doors(self, each: int = 1, of: Sequence[Instance] | None = None) -> AsyncIterator[list[Door]]:
        """Doors to the workers of all instances (or those given): so many to each, side by side.

        Requests that a door has under way at the same time go to any worker of the instance.
        """
        async with AsyncExitStack() as stack:
            chosen = self.instances if of is None else of
            yield [door for one in chosen for door in await _found(one, self.workers, each, stack)]

    def remove(self) -> None:
        """End everything and delete its files."""
        for each in (*self.instances, self.redis, self.postgres, self.standby):
            if each is not None:
                each.remove()
        for reserved in self._reserved:
            reserved.close()


async def _found(instance: Instance, workers: int, each: int, stack: AsyncExitStack) -> list[Door]:
    """So many doors to each of so many workers; the system deals connections over them as it likes."""
    found: dict[int, list[Door]] = {}
    deadline = time.monotonic() + START_SECONDS
    while sum(len(doors) == each for doors in found.values()) < workers:
        assert time.monotonic() < deadline, f"of {workers} workers only {len(found)} take part"
        door = Door(instance.url)
        try:
            await door.get("/health/live")
        except Gone:
            # One of the workers has just died.
            await asyncio.sleep(PAUSE)
            continue
        doors = [found.setdefault(worker, []) for worker in instance.serving(door)]
        if doors and len(doors[0]) < each:
            doors[0].append(door)
            stack.push_async_callback(door.close)
        else:
            await door.close()
    return [door for doors in found.values() for door in doors]


@contextmanager
def clustered(
    directory: Path,
    workers: int = WORKERS,
    *,
    replicated: bool = False,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Cluster]:
    """A running cluster that is gone afterwards, whatever happened. `settings` are further variables."""
    cluster = Cluster(directory, workers, replicated, settings or {})
    try:
        yield cluster
    finally:
        cluster.remove()


def _reserve(count: int) -> list[socket.socket]:
    """Sockets that hold a port each: while they are bound, no connection of this machine begins there."""
    reserved = []
    for _ in range(count):
        each = socket.socket()
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.bind(("127.0.0.1", 0))
        reserved.append(each)
    return reserved


def _accepted(port: int) -> list[tuple[int, str]]:
    """The port at the other end and the inode of each socket on our port `port`."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = [
        (int(line[1].partition(":")[2], 16), int(line[2].partition(":")[2], 16), line[9]) for line in lines
    ]
    return [(theirs, inode) for ours, theirs, inode in ends if ours == port]


def _open_sockets(process: int) -> set[str]:
    """The inodes of the sockets that a process has open."""
    found = set()
    # Processes end and files are closed while one looks.
    with contextlib.suppress(OSError):
        for each in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(each.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found
