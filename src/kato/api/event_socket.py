"""The event socket: what happens on any instance, as it happens."""

from __future__ import annotations

import asyncio
import time

from kato.api import health
from kato.api.sockets import Gone, Socket, admitted
from kato.errors import ValidationError
from kato.ops import process
from kato.ops.events import EVENT_TYPES, Subscription

EVENTS_PER_SECOND = 100
NORMAL = 1000


class Listener:
    """One client that listens."""

    def __init__(self, socket: Socket, subscription: Subscription) -> None:
        self.socket = socket
        self.kato = socket.kato
        self.timing = socket.instance.timing
        self.subscription = subscription

    async def run(self) -> None:
        """Tell what happens until the client leaves or falls silent."""
        await self._snapshot()
        jobs = [self._listen(), self._tell(), self._beat(), self._measure()]
        tasks = [asyncio.create_task(job) for job in jobs]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _snapshot(self) -> None:
        stores = await health.dependencies(self.kato)
        healthy = all(store.error is None for store in stores.values())
        data = {
            "active_sessions": (await health.live_sessions(self.kato)).active,
            "system_status": "healthy" if healthy else "unhealthy",
        }
        await self.socket.send(self.kato.events.make("state.snapshot", data))

    async def _listen(self) -> None:
        """Answer pings; a client that sends none for long is taken for gone."""
        while True:
            try:
                async with asyncio.timeout(self.timing.idle):
                    message = await self.socket.receive()
            except TimeoutError:
                await self.socket.close(NORMAL, f"no ping for {self.timing.idle:g} s")
                return
            if message in ("ping", b"ping"):
                await self.socket.send_text("pong")

    async def _tell(self) -> None:
        began, told = time.monotonic(), 0
        while True:
            await self.socket.send(await self.subscription.next())
            told += 1
            if told >= EVENTS_PER_SECOND:
                await asyncio.sleep(max(0.0, began + 1 - time.monotonic()))
                began, told = time.monotonic(), 0

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.timing.heartbeat)
            if self.subscription.wants("heartbeat"):
                await self.socket.send(self.kato.events.make("heartbeat", {}))

    async def _measure(self) -> None:
        """Figures of the process, for those who asked for them."""
        requests, cpu = self.kato.counters.requests, time.process_time()
        while True:
            await asyncio.sleep(self.timing.metrics)
            if not self.subscription.wants("metrics.update"):
                continue
            now, busy = self.kato.counters.requests, time.process_time()
            data = {
                "active_sessions": (await health.live_sessions(self.kato)).active,
                "requests_per_second": (now - requests) / self.timing.metrics,
                "cpu_percent": 100 * (busy - cpu) / self.timing.metrics,
                "memory_percent": 100 * process.memory_bytes() / process.physical_memory(),
            }
            requests, cpu = now, busy
            await self.socket.send(self.kato.events.make("metrics.update", data))


def _wanted(socket: Socket) -> list[str] | None:
    """The types of `?types=a,b`."""
    asked = socket.query.get("types")
    if not asked:
        return None
    types = [name.strip() for name in asked.split(",")]
    for name in types:
        if name not in EVENT_TYPES:
            raise ValidationError(
                f"No event is called {name}; known: {', '.join(EVENT_TYPES)}", field="types"
            )
    return types


async def converse(socket: Socket, _fixed: str | None) -> None:
    """Hold one event socket from handshake to close."""
    try:
        types = _wanted(socket)
    except ValidationError as error:
        await socket.refuse(error)
        return
    places, events = socket.instance.event_sockets, socket.kato.events
    if not await admitted(socket, places):
        return
    # Listening begins before the snapshot is taken, so that nothing can fall between the two.
    subscription = events.subscribe(types, socket.query.get("since"))
    try:
        await Listener(socket, subscription).run()
    except Gone:
        return
    finally:
        events.unsubscribe(subscription)
        places.discard(socket)
