"""Several processes on one port: a supervisor that starts them, replaces those that die, and ends them.

Each worker accepts from sockets of its own. All are bound to one port, and the system deals new connections over them.
The supervisor has bound them and keeps them: a worker's successor goes on with the same sockets, so that nobody is
refused while one hands over to the other. The workers share nothing but the stores.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from typing import Final

from pydantic import SecretStr

from kato.api import listeners
from kato.errors import KatoError
from kato.ops import logging
from kato.settings import Settings

log = logging.logger("kato.api.workers")

READY: Final = b"ready\n"
"""What a worker says once it accepts connections."""
STOPPING: Final = (signal.SIGINT, signal.SIGTERM)
SHORT_LIFE = 10.0
"""Seconds; a worker that died younger is replaced after a pause, which doubles with each such death in a row."""
LONGEST_PAUSE = 30.0
CLOSING_SECONDS = 5.0
"""How long a worker may take beyond GRACEFUL_SHUTDOWN_TIMEOUT to close its stores."""


class StartFailed(KatoError):
    """A worker could not start; the message is the worker's own."""


class Worker:
    """One worker process, and the channel to it."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer
        self._since = 0.0

    @classmethod
    async def start(cls, settings: Settings, sockets: list[socket.socket]) -> Worker:
        """Start a process that will accept from these sockets."""
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        passed = [each.fileno() for each in (theirs, *sockets)]
        try:
            # A process group of its own: Ctrl+C in a terminal is for the supervisor alone.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "kato.api.worker", *map(str, passed)),
                stdin=DEVNULL,
                pass_fds=passed,
                process_group=0,
            )
        except BaseException:
            writer.close()
            raise
        finally:
            theirs.close()
        writer.write(_told(settings))
        return cls(process, reader, writer)

    async def accepting(self) -> None:
        """Wait until it accepts connections; raises `StartFailed` when it ends instead."""
        try:
            said = await self._reader.readline()
            if said == READY:
                self._since = asyncio.get_running_loop().time()
                return
            said += await self._reader.read()
        except ConnectionError:
            said = b""
        await self.process.wait()
        raise StartFailed(said.decode() or f"A worker ended with {self.status} while it was starting")

    @property
    def status(self) -> str:
        """How the process ended."""
        code = self.process.returncode
        return f"status {code}" if code is None or code >= 0 else signal.Signals(-code).name

    @property
    def age(self) -> float:
        """Seconds since it began to accept."""
        return asyncio.get_running_loop().time() - self._since

    def hand_over(self) -> None:
        """Let it end once its connections are done; the successor accepts already."""
        self._writer.close()

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.process.returncode is None:
            self.process.send_signal(number)


class Place:
    """What one worker after the other fills: the sockets, and who accepts from them now."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self.sockets = sockets
        self.worker: Worker | None = None
        self.changing = asyncio.Lock()
        self._pause = 0.0

    def pause(self, age: float) -> float:
        """Seconds to wait before the next worker is started; the last one lived for `age` seconds."""
        if age >= SHORT_LIFE:
            self._pause = 0.0
        now, self._pause = self._pause, min(LONGEST_PAUSE, max(1.0, 2 * self._pause))
        return now


class Supervisor:
    """Keeps as many workers as the settings say.

    SIGTERM and SIGINT end them all, SIGHUP replaces one after the other.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        sockets = _bound(settings)
        self.port = sockets[0][0].getsockname()[1]
        self.places = [Place(each) for each in sockets]
        self._alive: set[Worker] = set()
        self._tasks = asyncio.TaskGroup()
        self.stopping = asyncio.Event()
        self._renewing = asyncio.Event()

    async def run(self) -> None:
        """Supervise until told to stop; raises `StartFailed` when the first workers cannot start."""
        loop = asyncio.get_running_loop()
        for number in STOPPING:
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._renewing.set)
        serving, stopping = asyncio.create_task(self._serve()), asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
        finally:
            serving.cancel()
            stopping.cancel()
            await asyncio.gather(serving, stopping, return_exceptions=True)
            await self._end()
            for number in (*STOPPING, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _stop(self, number: int) -> None:
        if self.stopping.is_set() and number == signal.SIGINT:
            # Ctrl+C once more: whoever presses it does not want to wait.
            self._signal(signal.SIGKILL)
        self.stopping.set()

    def _signal(self, number: int) -> None:
        for worker in self._alive:
            worker.send(number)

    async def _serve(self) -> None:
        workers = await asyncio.gather(*map(self._started, self.places))
        listeners.announce(self._settings, self.port)
        async with self._tasks:
            for place, worker in zip(self.places, workers, strict=True):
                self._install(place, worker)
            while True:
                await self._renewing.wait()
                self._renewing.clear()
                await self._renew()

    async def _started(self, place: Place) -> Worker:
        worker = await Worker.start(self._settings, place.sockets)
        self._alive.add(worker)
        try:
            await worker.accepting()
        except StartFailed:
            self._alive.discard(worker)
            worker.hand_over()
            raise
        return worker

    def _install(self, place: Place, worker: Worker) -> None:
        place.worker = worker
        self._tasks.create_task(self._watch(place, worker))

    async def _watch(self, place: Place, worker: Worker) -> None:
        """Replace the worker if it ends while it is the one who accepts."""
        await worker.process.wait()
        worker.hand_over()
        self._alive.discard(worker)
        if place.worker is not worker:
            return
        log.warning("a worker has ended and will be replaced", pid=worker.process.pid, ended=worker.status)
        async with place.changing:
            if place.worker is worker:
                await self._replace(place, worker.age)

    async def _replace(self, place: Place, age: float) -> None:
        # While nobody accepts from them, the system shall deal no connections to these sockets.
        listeners.close(place.sockets)
        place.sockets = listeners.bind(self._settings.host, self.port, beside=True)
        while True:
            await asyncio.sleep(place.pause(age))
            try:
                self._install(place, await self._started(place))
            except StartFailed as error:
                log.error("a worker cannot start", reason=error.message)
                age = 0.0
            else:
                return

    async def _renew(self) -> None:
        """Replace all workers, one after the other; each accepts before its predecessor stops to."""
        for place in self.places:
            async with place.changing:
                former = place.worker
                try:
                    self._install(place, await self._started(place))
                except StartFailed as error:
                    log.error("a worker cannot start, the former ones go on", reason=error.message)
                    return
            assert former is not None
            former.hand_over()
            await former.process.wait()
        log.info("all workers have been replaced")

    async def _end(self) -> None:
        """End all workers, kill those that take too long."""
        self._signal(signal.SIGTERM)
        for place in self.places:
            listeners.close(place.sockets)
        ends = [asyncio.create_task(worker.process.wait()) for worker in self._alive]
        if ends:
            allowed = self._settings.graceful_shutdown_timeout + CLOSING_SECONDS
            _, late = await asyncio.wait(ends, timeout=allowed)
            if late:
                log.warning("workers that did not end in time are killed", workers=len(late))
                self._signal(signal.SIGKILL)
                await asyncio.wait(late)
        for worker in self._alive:
            worker.hand_over()


def supervise(settings: Settings) -> None:
    """Serve with several worker processes until told to stop (SIGTERM, SIGINT).

    Raises `SettingsError` when the port cannot be used, `StartFailed` when the workers cannot start.
    """
    logging.configure(settings.log_level, settings.log_format)

    async def run() -> None:
        await Supervisor(settings).run()

    asyncio.run(run())


def _bound(settings: Settings) -> list[list[socket.socket]]:
    """Sockets for each worker, all on one port."""
    first = listeners.bind(settings.host, settings.port)
    for each in first:
        listeners.share(each)
    port = first[0].getsockname()[1]
    return [first, *(listeners.bind(settings.host, port, beside=True) for _ in range(1, settings.workers))]


def _told(settings: Settings) -> bytes:
    """The settings as a worker reads them: they hold secrets, which the list of processes would show."""
    values = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in settings
    }
    return json.dumps(values).encode() + b"\n"
