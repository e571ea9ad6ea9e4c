"""One of several worker processes: serves what its supervisor hands over to it.

`python -m kato.api.worker CHANNEL LISTENER...`: the numbers of open sockets. The supervisor sends the settings over the
channel; the worker answers `READY` once it accepts connections, or one sentence saying why it cannot. When the channel
ends, the worker is replaced or the supervisor is gone: either way it finishes what it has begun and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys

from kato.api import server
from kato.api.workers import READY
from kato.errors import KatoError
from kato.settings import SettingsError, load


def work(channel: socket.socket, listeners: list[socket.socket]) -> int:
    """Serve until told to stop; returns the exit status of the process."""
    with channel.makefile("rb") as told:
        settings = told.readline()
    if not settings:
        return 1

    def listening(running: server.Server) -> None:
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(channel)
            running.hand_over()

        loop.add_reader(channel, ended)
        # A supervisor that is gone already is noticed by the reader.
        with contextlib.suppress(BrokenPipeError):
            channel.sendall(READY)

    try:
        server.run(load(**json.loads(settings)), listeners, listening)
    except (KatoError, SettingsError) as error:
        channel.sendall(str(error).encode())
        return 1
    return 0


def main() -> int:
    """Serve from the sockets that the command line names."""
    with contextlib.ExitStack() as stack:
        given = [stack.enter_context(socket.socket(fileno=int(number))) for number in sys.argv[1:]]
        return work(given[0], given[1:])


if __name__ == "__main__":
    sys.exit(main())
