"""Events between instances: published on a channel, heard from it over a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Final

import msgspec
from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from kato.ops.events import OPT_IN, SHARED, Happening
from kato.ops.logging import logger
from kato.stores.redis.client import RedisClient, Reply
from kato.stores.redis.failures import translate

MOST_WAITING: Final = 10_000
"""Events that wait until those before them are published; more are lost."""
ASKED_AGAIN: Final = 1.0
"""Seconds after which an opt-in event that nobody wanted is offered again."""
SILENCE: Final = 7.5
"""Seconds without a sign of life after which a connection is given up; it is asked for one three times as often."""
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_OPT_IN_CHANNEL: Final = b":opt-in"
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Happening).decode
log = logger("kato.stores.redis.events")


class RedisEvents:
    """A `Relay` over the channel `{prefix}:events`, as JSON in the envelope that clients see.

    Redis does not keep channels of its databases apart, so those of a database other than 0 end with its number.
    Publishing shares the client's pipelines and waits for nothing: while Redis is down, events between instances are
    lost (and counted in `lost`) and nothing else is. Events of one instance arrive in their order. Listening begins
    again by itself, after pauses that grow up to some seconds; `listening` says whether it works. What makes no sense
    is ignored and counted in `ignored`.

    Opt-in events travel on `{prefix}:events:opt-in`, on which only those are who want them. An event that is offered
    there tells by the number of its receivers whether the next ones are worth making; after a No the next one is
    offered `ASKED_AGAIN` seconds later.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        prefix: str = "kato",
        silence: float = SILENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client.use()
        database = client.dedicated().db
        self._channel = f"{prefix}:events{f':{database}' if database else ''}".encode()
        self._silence = silence
        self._clock = clock
        self.listening = False
        self.lost = 0
        self.ignored = 0
        self._told = False
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._wanted = False
        self._want_changed = asyncio.Event()
        self._heard_at = 0.0
        self._outgoing: list[Happening] = []
        self._sending: asyncio.Task[None] | None = None
        self._receivers = 0
        self._offered_at = -ASKED_AGAIN

    def start(self, receive: Callable[[Happening], None]) -> None:
        """Begin to listen, now or as soon as Redis is there."""
        self._task = asyncio.create_task(self._listen(receive))

    # Sending --------------------------------------------------------------------------------

    def asked(self) -> bool:
        """Whether a listener elsewhere may want opt-in events: then the next one should be sent."""
        return self._receivers > 0 or self._clock() - self._offered_at >= ASKED_AGAIN

    def send(self, happening: Happening) -> None:
        """Publish an event, or lose it; never waits, never raises."""
        if self._closed or len(self._outgoing) >= MOST_WAITING:
            self.lost += 1
            return
        self._outgoing.append(happening)
        if happening.event_type in OPT_IN:
            self._offered_at = self._clock()
        if self._sending is None or self._sending.done():
            # It begins a turn of the loop later, so it shares the pipeline of what comes after the event's cause.
            self._sending = asyncio.create_task(self._send_all())

    async def _send_all(self) -> None:
        """Publish what waits, one batch after the other: pipelines may overtake each other."""
        while self._outgoing:
            batch, self._outgoing = self._outgoing, []
            replies = [self._publish(happening) for happening in batch]
            await asyncio.wait(replies)
            for happening, reply in zip(batch, replies, strict=True):
                failed = reply.exception() is not None
                self.lost += failed
                if happening.event_type in OPT_IN:
                    self._receivers = 0 if failed else reply.result().value

    def _publish(self, happening: Happening) -> asyncio.Future[Reply]:
        channel = self._channel + _OPT_IN_CHANNEL if happening.event_type in OPT_IN else self._channel
        return self._client.ask("PUBLISH", channel, _encode(happening))

    # Listening --------------------------------------------------------------------------------

    def ask(self, wanted: bool) -> None:
        """Say whether a listener here wants opt-in events of other instances."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._want_changed.set()

    async def _listen(self, receive: Callable[[Happening], None]) -> None:
        pause = _FIRST_PAUSE
        while not self._closed:
            connection = self._client.dedicated()
            try:
                await self._hear(connection, receive)
            except* (OSError, exceptions.RedisError) as problems:
                if not self._told:
                    reason = translate(problems.exceptions[0]).message
                    log.warning("events of other instances are not heard", reason=reason)
                    self._told = True
            finally:
                # It was of no use before; how it ends does not matter.
                with contextlib.suppress(OSError, exceptions.RedisError):
                    await connection.disconnect(nowait=True)
            pause = _FIRST_PAUSE if self.listening else min(2 * pause, _LONGEST_PAUSE)
            self.listening = False
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))

    async def _hear(self, connection: AbstractConnection, receive: Callable[[Happening], None]) -> None:
        """Hand on what comes until the connection breaks."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._silence):
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("SUBSCRIBE", self._channel)
        self._heard_at = loop.time()
        async with asyncio.TaskGroup() as both:
            both.create_task(self._speak(connection))
            while True:
                kind, _, *rest = await connection.read_response()
                self._heard_at = loop.time()
                if kind == b"message":
                    self._take(rest[0], receive)
                elif kind == b"subscribe":
                    self._begin()

    def _begin(self) -> None:
        self.listening = True
        if self._told:
            log.info("events of other instances are heard again")
            self._told = False

    async def _speak(self, connection: AbstractConnection) -> None:
        """Ask for opt-in events while they are wanted here, and for signs of life; `TimeoutError` if none comes."""
        loop = asyncio.get_running_loop()
        subscribed = False
        while loop.time() - self._heard_at < self._silence:
            self._want_changed.clear()
            if self._wanted != subscribed:
                subscribed = self._wanted
                verb = "SUBSCRIBE" if subscribed else "UNSUBSCRIBE"
                await connection.send_command(verb, self._channel + _OPT_IN_CHANNEL)
            await connection.send_command("PING")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._silence / 3):
                    await self._want_changed.wait()
        raise TimeoutError

    def _take(self, message: bytes, receive: Callable[[Happening], None]) -> None:
        try:
            happening = _decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            happening = None
        if happening is not None and happening.event_type in SHARED:
            receive(happening)
            return
        self.ignored += 1
        if self.ignored == 1:
            log.warning("something else than events is on the channel of events; it is ignored")

    async def close(self) -> None:
        """Send what was accepted, stop listening, and release the client."""
        if self._closed:
            return
        self._closed = True
        if self._sending is not None:
            await self._sending
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.listening = False
        await self._client.close()
