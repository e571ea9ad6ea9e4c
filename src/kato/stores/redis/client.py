"""A Redis client that sends the commands of one turn of the event loop together."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, cast

import hiredis
from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from kato.errors import StorageError
from kato.stores.redis.address import locate
from kato.stores.redis.failures import elsewhere, translate
from kato.stores.redis.script import Script

Argument: TypeAlias = str | bytes | int | float
# The stub speaks of a tuple of one.
_pack: Final[Callable[[tuple[Argument, ...]], bytes]] = cast(Any, hiredis.pack_command)
_RUN_ID: Final = re.compile(rb"run_id:(\w+)")


class Reply(NamedTuple):
    """What a command gave, and the run id of the server that gave it: another one after a restart or failover."""

    value: Any
    server: str


class _Command:
    """A command on its way, packed for the wire; `again` is what to send when the server lacks the script."""

    __slots__ = ("again", "future", "packed")

    def __init__(
        self, packed: bytes, future: asyncio.Future[Reply], again: tuple[Argument, ...] | None = None
    ) -> None:
        self.packed = packed
        self.future = future
        self.again = again


class _Line:
    """A connection and the run id of the server behind it."""

    __slots__ = ("connection", "server")

    def __init__(self, connection: AbstractConnection, server: str) -> None:
        self.connection = connection
        self.server = server


class RedisClient:
    """Commands given in one turn of the loop travel in one pipeline, in their order, over one connection.

    Up to `max_connections` pipelines are under way at once; commands that find all of them busy travel together
    with the next free one. `open` connects `min_connections`; a connection that fails is replaced when it is needed
    again, and all are replaced when the server says that it is not the master any more. Times are in seconds:
    `connect_timeout` bounds finding and greeting the server, `timeout` a pipeline from its first byte to its last
    reply. A caller that is cancelled leaves its command to be done or not; the others do not notice.

    Every failure is a `StorageError`; whether the server has done what it did not acknowledge is unknown.
    Stores that share a client each `use` it; the last one that closes disconnects. All methods must be called on one
    event loop.

    >>> RedisClient("redis://localhost:6379/0").connections
    (0, 0)
    """

    def __init__(
        self,
        url: str,
        *,
        max_connections: int = 30,
        min_connections: int = 5,
        connect_timeout: float = 5.0,
        timeout: float = 5.0,
        client_name: str = "kato",
    ) -> None:
        self._address = locate(url, client_name, connect_timeout)
        self._max_connections = max_connections
        self._min_connections = min(min_connections, max_connections)
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._waiting: list[_Command] = []
        self._scheduled = False
        self._batches: set[asyncio.Task[None]] = set()
        self._busy = 0
        self._idle: list[_Line] = []
        self._users = 0
        self._closed = False
        self._closing: asyncio.Task[None] | None = None

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are open or being opened, and how many of them nobody uses."""
        return len(self._idle) + self._busy, len(self._idle)

    def dedicated(self) -> AbstractConnection:
        """A connection of its own for one user, not connected yet; whoever takes it disconnects it."""
        return self._address.connection()

    def use(self) -> RedisClient:
        """Count one more user, each of which calls `close` once."""
        self._users += 1
        return self

    async def open(self) -> None:
        """Connect now; `StorageError` when the server cannot be reached or refuses the credentials."""
        self._require_open()
        missing = self._min_connections - len(self._idle)
        try:
            async with asyncio.timeout(self._connect_timeout):
                found = await asyncio.gather(
                    *(self._connect() for _ in range(max(1, missing))), return_exceptions=True
                )
        except TimeoutError as error:
            raise translate(error) from error
        self._idle += [line for line in found if isinstance(line, _Line)]
        for failed in found:
            if isinstance(failed, BaseException):
                raise translate(failed) from failed

    async def ping(self) -> None:
        """Ask for a sign of life; `StorageError` when there is none."""
        await self.execute("PING")

    async def execute(self, *arguments: Argument) -> Any:
        """The reply to a command."""
        return (await self.ask(*arguments)).value

    def ask(self, *arguments: Argument) -> asyncio.Future[Reply]:
        """The reply to a command and who gave it; the command is on its way when this returns."""
        return self._send(arguments, None)

    async def run(self, script: Script, keys: Sequence[Argument], *arguments: Argument) -> Any:
        """The reply of `script`."""
        return (await self.call(script, keys, *arguments)).value

    def call(self, script: Script, keys: Sequence[Argument], *arguments: Argument) -> asyncio.Future[Reply]:
        """The reply of `script` and who gave it."""
        rest = (len(keys), *keys, *arguments)
        return self._send(("EVALSHA", script.digest, *rest), ("EVAL", script.text, *rest))

    def _send(
        self, arguments: tuple[Argument, ...], again: tuple[Argument, ...] | None
    ) -> asyncio.Future[Reply]:
        self._require_open()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append(_Command(_pack(arguments), future, again))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._turn)
        return future

    def _turn(self) -> None:
        self._scheduled = False
        if self._waiting and self._busy < self._max_connections:
            batch, self._waiting = self._waiting, []
            self._busy += 1
            task = asyncio.get_running_loop().create_task(self._run_batch(batch))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    async def _run_batch(self, batch: list[_Command]) -> None:
        try:
            await self._deliver(batch)
        finally:
            self._busy -= 1
            self._turn()

    async def _deliver(self, batch: list[_Command]) -> None:
        batch = [command for command in batch if not command.future.done()]
        if not batch:
            return
        line = None
        try:
            line = await self._take() or await self._reach()
            async with asyncio.timeout(self._timeout):
                stale = await self._exchange(line, batch)
        except BaseException as error:
            if line is not None:
                await self._drop_all(line)
            _fail(batch, error)
            if isinstance(error, TimeoutError | exceptions.TimeoutError) or line is None:
                # Those that wait for a free connection would only wait for the same silence.
                waiting, self._waiting = self._waiting, []
                _fail(waiting, error)
            if not isinstance(error, Exception):
                raise
            return
        if stale or self._closed:
            await self._drop_all(line)
        else:
            self._idle.append(line)

    async def _exchange(self, line: _Line, batch: list[_Command]) -> bool:
        """Send the commands and hand out the replies; True when the server is not the master any more."""
        connection = line.connection
        await connection.send_packed_command(
            b"".join([command.packed for command in batch]), check_health=False
        )
        stale = False
        unknown: list[_Command] = []
        for command in batch:
            try:
                value = await connection.read_response()
            except exceptions.NoScriptError as error:
                if command.again is None:
                    _settle(command, error)
                    continue
                command.packed = _pack(command.again)
                command.again = None
                unknown.append(command)
            except exceptions.ResponseError as error:
                stale = stale or elsewhere(error)
                _settle(command, error)
            else:
                if not command.future.done():
                    command.future.set_result(Reply(value, line.server))
        if unknown:
            stale = await self._exchange(line, unknown) or stale
        return stale

    async def _take(self) -> _Line | None:
        while self._idle:
            line = self._idle.pop()
            with contextlib.suppress(OSError, exceptions.RedisError):
                # Readable while nothing was asked: the server has hung up, or is out of step with us.
                if line.connection.is_connected and not await line.connection.can_read():
                    return line
            await _hang_up([line])
        return None

    async def _reach(self) -> _Line:
        async with asyncio.timeout(self._connect_timeout):
            line = await self._connect()
        # After a failover a server that is no longer the master must not be asked any more.
        others = [each for each in self._idle if each.server != line.server]
        self._idle = [each for each in self._idle if each.server == line.server]
        await _hang_up(others)
        return line

    async def _connect(self) -> _Line:
        connection = self._address.connection()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("INFO", "server")
            found = _RUN_ID.search(await connection.read_response())
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return _Line(connection, found[1].decode() if found else "")

    async def _drop_all(self, line: _Line) -> None:
        lines, self._idle = [line, *self._idle], []
        await _hang_up(lines)

    def _require_open(self) -> None:
        if self._closed:
            raise StorageError("Redis: the client is closed")

    async def close(self) -> None:
        """Finish what was accepted; the last user's call disconnects. Later commands raise `StorageError`."""
        self._users -= 1
        if self._users > 0:
            await self._finish()
            return
        self._closed = True
        if self._closing is None:
            self._closing = asyncio.create_task(self._disconnect())
        # Shielded: a caller that is cancelled must not leave connections behind.
        await asyncio.shield(self._closing)

    async def _finish(self) -> None:
        under_way = [command.future for command in self._waiting] + list(self._batches)
        if under_way:
            await asyncio.wait(under_way)

    async def _disconnect(self) -> None:
        while self._waiting or self._batches:
            await self._finish()
        lines, self._idle = self._idle, []
        await _hang_up(lines, nowait=False)
        await self._address.close()


async def _hang_up(lines: list[_Line], nowait: bool = True) -> None:
    for line in lines:
        # It was of no use before; how it ends does not matter.
        with contextlib.suppress(OSError, exceptions.RedisError):
            await line.connection.disconnect(nowait=nowait)


def _fail(commands: list[_Command], error: BaseException) -> None:
    for command in commands:
        _settle(command, error)


def _settle(command: _Command, error: BaseException) -> None:
    if not command.future.done():
        told = translate(error)
        told.__cause__ = error
        command.future.set_exception(told)
