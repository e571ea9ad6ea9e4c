"""Runs the HTTP server of one process."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from kato import bootstrap
from kato.api.app import Application, create_app
from kato.api.instance import release
from kato.ops import logging
from kato.settings import Settings, SettingsError

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """Uvicorn that says where it listens, and closes WebSockets with 1001 before it stops."""

    def __init__(self, config: uvicorn.Config, app: Application) -> None:
        super().__init__(config)
        self._application = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            print(announcement(self._application.instance.settings, self.port), file=sys.stderr, flush=True)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask the server to stop, and nothing more: the service still has to be closed.

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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: first the conversations, then the connections, then the service."""
        await self._application.instance.drain()
        await super().shutdown(sockets)


def announcement(settings: Settings, port: int) -> str:
    """The one line a person sees at the start."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    kept = settings.kato_data if settings.kato_data == ":memory:" else str(Path(settings.kato_data).resolve())
    if settings.kato_store != "embedded":
        kept = f"{settings.kato_store} and redis"
    return f"KATO {release()} listens on http://{host}:{port}, data in {kept}"


def configured(app: Application) -> Server:
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
    )


def serve(settings: Settings) -> None:
    """Serve until the process is told to stop (SIGINT, SIGTERM).

    Raises `SettingsError` for settings that contradict each other and `DataDirectoryError` when the data
    directory cannot be used.
    """
    if settings.workers > 1:
        reason = (
            f"the embedded store serves one process, {settings.workers} need the production stores"
            if settings.kato_store == "embedded"
            else f"a server is one process; start {settings.workers} of them"
        )
        raise SettingsError(f"WORKERS: {reason}")
    logging.configure(settings.log_level, settings.log_format)

    async def run() -> None:
        async with bootstrap.running(settings) as kato:
            await configured(create_app(settings, kato)).serve()

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
