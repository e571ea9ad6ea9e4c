"""A KATO server in a thread of the process that runs the tests: it is there in an instant."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from kato import bootstrap, settings
from kato.api.app import create_app
from kato.api.server import Server, configured


@contextmanager
def served(**chosen: Any) -> Iterator[str]:
    """The address of a server of its own, on a free port; settings by field name, else it keeps nothing."""
    wanted = settings.load(**{"kato_data": ":memory:", "host": "127.0.0.1", "port": 0, **chosen})
    listening: Future[Server] = Future()

    async def serve() -> None:
        async with bootstrap.running(wanted) as service:
            await configured(create_app(wanted, service), listening.set_result).serve()

    def live() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if listening.done():
                raise
            listening.set_exception(error)

    thread = threading.Thread(target=live, name="kato-server")
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.result().port}"
    finally:
        if listening.done() and listening.exception() is None:
            listening.result().should_exit = True
        thread.join()
