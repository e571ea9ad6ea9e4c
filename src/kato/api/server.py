"""Runs the HTTP server of one process."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import uvicorn

from kato import bootstrap
from kato.api import listeners
from kato.api.app import Application, create_app
from kato.ops import logging
from kato.settings import Settings, SettingsError

STOPPING = (signal.SIGINT, signal.SIGTERM)
LAST_ARRIVALS = 0.1
"""Seconds for those who are connecting while the door closes."""
LAST_REQUESTS = 1.0
"""Seconds for clients with an open connection to send another request, and be told that it is the last one."""


class Server(uvicorn.Server):
    """Uvicorn that tells when it listens, and stops without cutting anybody off.

    `listening` is called with the server once it accepts connections.
    """

    def __init__(
        self, config: uvicorn.Config, app: Application, listening: Callable[[Server], None] | None = None
    ) -> None:
        super().__init__(config)
        self._application = app
        self._listening = listening
        self._succeeded = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started and self._listening is not None:
            self._listening(self)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask the server to stop, and nothing more; what was opened around it is closed then.

        Uvicorn's own version raises the signal again as soon as the server has stopped.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def port(self) -> int:
        """The port it listens on."""
        found: int = self.servers[0].sockets[0].getsockname()[1]
        return found

    def hand_over(self) -> None:
        """Stop; another process goes on to accept from the same sockets."""
        self._succeeded = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: first the door, then the conversations, then the connections, then the service."""
        loop = asyncio.get_running_loop()
        allowed = self.config.timeout_graceful_shutdown or 0
        end = loop.time() + allowed
        farewell = asyncio.create_task(self._application.instance.drain(allowed))
        await self._close_door(sockets or ())
        await self._wait(lambda: not self.server_state.connections, min(end, loop.time() + LAST_REQUESTS))
        await self._wait(farewell.done, end)
        farewell.cancel()
        self.config.timeout_graceful_shutdown = max(0, math.ceil(end - loop.time()))
        await super().shutdown(sockets)
        if self.force_exit:
            # Uvicorn leaves this out.
            await self.lifespan.shutdown()

    async def _close_door(self, sockets: Iterable[socket.socket]) -> None:
        """Accept who has connected so far, and nobody else."""
        if not self._succeeded:
            for each in sockets:
                listeners.refuse(each)
        await asyncio.sleep(LAST_ARRIVALS)
        for server in self.servers:
            server.close()
        listeners.close(sockets)

    async def _wait(self, condition: Callable[[], bool], end: float) -> None:
        """Until `condition` holds, the time is up, or somebody presses Ctrl+C again."""
        loop = asyncio.get_running_loop()
        while not condition() and loop.time() < end and not self.force_exit:
            await asyncio.sleep(0.02)


def configured(app: Application, listening: Callable[[Server], None] | None = None) -> Server:
    """A server for the application, as its settings say."""
    settings = app.instance.settings
    return Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            proxy_headers=False,
            ws="websockets-sansio",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            ws_max_size=settings.websocket_max_message_size,
            ws_ping_interval=settings.websocket_ping_interval,
            ws_ping_timeout=settings.websocket_ping_timeout,
            timeout_graceful_shutdown=settings.graceful_shutdown_timeout,
        ),
        app,
        listening,
    )


def serve(settings: Settings) -> None:
    """Serve until told to stop (SIGINT, SIGTERM): in this process, or in as many as the settings say.

    Raises `SettingsError` for settings that contradict each other or an address that cannot be used, and
    `DataDirectoryError` when the data directory cannot be used.
    """
    if settings.workers == 1:
        with listeners.bound(settings.host, settings.port) as sockets:
            run(settings, sockets, lambda server: listeners.announce(settings, server.port))
    elif settings.kato_store == "embedded":
        raise SettingsError(
            f"WORKERS: the embedded store serves one process, {settings.workers} need the production stores"
        )
    else:
        from kato.api import workers

        workers.supervise(settings)


def run(settings: Settings, sockets: list[socket.socket], listening: Callable[[Server], None]) -> None:
    """Serve in this process from bound sockets until it is told to stop."""
    logging.configure(settings.log_level, settings.log_format)

    app = create_app(settings)
    server = configured(app, listening)

    async def running() -> None:
        async with bootstrap.running(settings) as kato:
            app.instance.kato = kato
            if not server.should_exit:
                await server.serve(sockets)

    import uvloop

    # Signals are heeded from here to the very end: nothing that has been opened is left unclosed.
    with server.capture_signals(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(running())
