"""A TCP proxy between KATO and a server that fails in every way in which a network does.

    with redis() as server, proxied("127.0.0.1", server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        ...
        proxy.cut()

It lives in a thread and an event loop of its own, so any thread, a test that blocks and another process may use it.
A call has its effect when it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, TypeAlias, TypeVar

T = TypeVar("T")
_UnderWay: TypeAlias = asyncio.Queue[tuple[float, bytes | None]]
"""Chunks and when they are due; b"" is the sender's end, None its failure."""

_PATIENCE: Final = 30.0
_CHUNK: Final = 65_536
_CHUNKS_UNDER_WAY: Final = 256
"""Beyond these, the sender has to wait as it does when a receiver is slow."""
_AT_ONCE: Final = struct.pack("ii", 1, 0)
"""Linger no time: what is closed so sends RST."""


class Proxy:
    """A proxy to one server, listening on `port`, which it keeps for all its life.

    `latency` is the delay in seconds of all that travels from now on, in either direction. `accepted` counts the
    connections since the beginning, `connections` those that are open now.
    """

    def __init__(self, host: str, port: int) -> None:
        self.latency = 0.0
        self.accepted = 0
        self._server = (host, port)
        self._requests = _Losses()
        self._replies = _Losses()
        # Bound and never listening: while nothing listens, the port is refused, but nobody else can have it.
        self._reservation = _bound(0)
        self.port: int = self._reservation.getsockname()[1]
        self._listener: socket.socket | None = None
        self._open: dict[asyncio.Task[None], _Connection] = {}
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.mend()

    # What a test does --------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def cut(self) -> None:
        """Close all connections (FIN) and refuse new ones until `mend`."""
        self._run(self._cut())

    def mend(self) -> None:
        """Accept connections again."""
        self._run(self._listen())

    def reset(self) -> None:
        """Break all present connections (RST); new ones are accepted."""
        self._run(self._reset())

    def freeze(self) -> None:
        """Let nothing pass any more, in either direction, while connections stay open and new ones are accepted."""
        self._run(_do(self._thawed.clear))

    def thaw(self) -> None:
        """Undo `freeze`; what was sent meanwhile arrives."""
        self._run(_do(self._thawed.set))

    def drop_next(self, number: int, after: int = 0) -> None:
        """Swallow the next chunks from clients and reset their connections: the requests are never made.

        The first `after` of them still pass.
        """
        self._run(_do(lambda: self._requests.lose(number, after)))

    def swallow_replies(self, number: int, after: int = 0) -> None:
        """Swallow the next chunks from the server and reset their connections: requests are done, unacknowledged.

        The first `after` of them still pass.
        """
        self._run(_do(lambda: self._replies.lose(number, after)))

    def close(self) -> None:
        """Break what is open and end the thread."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()
        self._reservation.close()

    # What happens in the thread ------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = _bound(self.port)
            self._listener.listen(1024)
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Take all who wait."""
        assert self._listener is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                self._adopt(client)

    def _adopt(self, client: socket.socket) -> None:
        connection = _Connection(client)
        task = self._loop.create_task(self._serve(connection))
        self._open[task] = connection

        def ended(task: asyncio.Task[None]) -> None:
            self._open.pop(task).close()

        task.add_done_callback(ended)

    async def _cut(self) -> None:
        if self._listener is not None:
            self._accept()
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        await self._end(abruptly=False)

    async def _reset(self) -> None:
        if self._listener is not None:
            # A client that has connected is present, even if we have not looked yet.
            self._accept()
        await self._end(abruptly=True)

    async def _end(self, abruptly: bool) -> None:
        for task, connection in self._open.items():
            connection.abruptly = abruptly
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, connection: _Connection) -> None:
        """Carry everything there and back until both sides have ended."""
        try:
            await self._thawed.wait()
            await connection.reach(self._server)
            client, server = connection.client, connection.server
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(client, server, self._requests))
                both.create_task(self._carry(server, client, self._replies))
        except* OSError:
            connection.abruptly = True

    async def _carry(self, source: socket.socket, sink: socket.socket, losses: _Losses) -> None:
        under_way: _UnderWay = asyncio.Queue(_CHUNKS_UNDER_WAY)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._receive(source, under_way, losses))
            both.create_task(self._deliver(under_way, sink))

    async def _receive(self, source: socket.socket, under_way: _UnderWay, losses: _Losses) -> None:
        """Note what `source` sends and when it is due."""
        while True:
            chunk: bytes | None
            try:
                chunk = await self._loop.sock_recv(source, _CHUNK)
            except OSError:
                chunk = None
            if chunk and losses.strike():
                raise ConnectionResetError
            await under_way.put((self._loop.time() + self.latency, chunk))
            if not chunk:
                return

    async def _deliver(self, under_way: _UnderWay, sink: socket.socket) -> None:
        """Send to `sink` what is due, an end and a failure too."""
        while True:
            due, chunk = await under_way.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            await self._thawed.wait()
            if chunk is None:
                raise ConnectionResetError
            if not chunk:
                sink.shutdown(socket.SHUT_WR)
                return
            await self._loop.sock_sendall(sink, chunk)


class _Losses:
    """How many of the next chunks are lost, and how many before them are not."""

    def __init__(self) -> None:
        self.lose(0, 0)

    def lose(self, number: int, after: int) -> None:
        self._spared, self._left = after, number

    def strike(self) -> bool:
        """Whether the chunk that has just come is lost."""
        if self._spared:
            self._spared -= 1
            return False
        struck = self._left > 0
        self._left -= struck
        return struck


class _Connection:
    """A client's connection and ours to the server in its place."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server = socket.socket()
        self.abruptly = False
        for each in (self.client, self.server):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def reach(self, address: tuple[str, int]) -> None:
        await asyncio.get_running_loop().sock_connect(self.server, address)

    def close(self) -> None:
        for each in (self.client, self.server):
            if self.abruptly:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            else:
                _empty(each)
            each.close()


async def _do(action: Callable[[], None]) -> None:
    action()


def _empty(connection: socket.socket) -> None:
    """Take what has arrived: closed with something unread, a connection would send RST instead of FIN."""
    with contextlib.suppress(OSError):
        while connection.recv(_CHUNK):
            pass


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setblocking(False)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


@contextlib.contextmanager
def proxied(host: str, port: int) -> Iterator[Proxy]:
    """A running proxy to a server; it is gone afterwards, whatever happened."""
    proxy = Proxy(host, port)
    try:
        yield proxy
    finally:
        proxy.close()
