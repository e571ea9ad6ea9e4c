"""The command socket: the v1 verbs as frames, answered in order, with the results and errors of HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec

from kato import answers, errors, validation
from kato.api import errors as envelope
from kato.api import v1
from kato.api.routing import within
from kato.api.sockets import POLICY_VIOLATION, Gone, Socket, admitted
from kato.ops.events import EVENT_TYPES, Subscription
from kato.ops.logging import logger
from kato.validation import BatchRequest, ObservationRequest, SessionRequest

log = logger("kato.api.websocket")

MALFORMED_IN_A_ROW = 10
EMPTY = msgspec.Raw(b"{}")


class InvalidMessage(errors.BadRequest):
    """The frame is not a JSON object with a type."""

    code = "INVALID_MESSAGE"


class UnknownMessageType(errors.BadRequest):
    """No command is called that."""

    code = "UNKNOWN_MESSAGE_TYPE"


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """What a client sends; `id` comes back as it was."""

    type: str
    payload: msgspec.Raw = EMPTY
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    session_id: str | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What the client gets."""

    type: str
    data: Any
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class ErrorData(msgspec.Struct, frozen=True, kw_only=True):
    """The error envelope of HTTP, its most read fields also on top."""

    code: str
    message: str
    details: dict[str, Any]
    trace_id: str
    error: envelope.ErrorBody
    status: int
    detail: str | dict[str, Any]


class Pong(msgspec.Struct, frozen=True, kw_only=True):
    """A sign of life; `timestamp` in seconds since the epoch."""

    processor_id: str
    timestamp: float


class Subscribed(msgspec.Struct, frozen=True, kw_only=True):
    """Which events this socket gets now."""

    events: tuple[str, ...]


class Nothing(msgspec.Struct, frozen=True, kw_only=True):
    """A payload nobody reads."""


class PredictionsPayload(msgspec.Struct, frozen=True, kw_only=True):
    """As the query of GET /predictions."""

    unique_id: str | None = None


class SessionPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Which session the socket uses from now on."""

    session_id: str


class SubscribePayload(msgspec.Struct, frozen=True, kw_only=True):
    """Which events the socket gets besides answers."""

    events: tuple[str, ...]


class Commands:
    """One client's conversation."""

    def __init__(self, socket: Socket, fixed: str | None) -> None:
        self.socket = socket
        self.kato = socket.kato
        self.fixed = fixed
        header = socket.headers.get(b"x-session-id")
        named = socket.query.get("session_id", None if header is None else header.decode("latin-1"))
        self.session_id: str | None = fixed if fixed is not None else named
        self.subscriptions: dict[str, Subscription] = {}
        self._tellers: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Answer frames until one side closes."""
        malformed = 0
        try:
            while True:
                try:
                    frame = self._frame(await self.socket.receive())
                except InvalidMessage as error:
                    malformed += 1
                    await self._refuse(error, msgspec.UNSET)
                    if malformed >= MALFORMED_IN_A_ROW:
                        await self.socket.close(POLICY_VIOLATION, "too many malformed frames")
                        return
                    continue
                malformed = 0
                async with self.socket.answering():
                    await self._answer(frame)
        finally:
            for subscription in self.subscriptions.values():
                self.kato.events.unsubscribe(subscription)
            for task in self._tellers:
                task.cancel()
            await asyncio.gather(*self._tellers, return_exceptions=True)

    def _frame(self, message: str | bytes) -> Frame:
        if isinstance(message, bytes):
            raise InvalidMessage("Frames are JSON text")
        try:
            return _decode_frame(message.encode())
        except errors.ValidationError as error:
            raise InvalidMessage(f"Not a frame: {error.message}", **error.details) from None

    async def _answer(self, frame: Frame) -> None:
        self.kato.counters.requests += 1
        try:
            command = COMMANDS.get(frame.type)
            if command is None:
                raise UnknownMessageType(f"Unknown message type: {frame.type}")
            decode, run, reply_type = command
            settings = self.kato.settings
            seconds = (
                settings.endpoint_batch_timeout if run is _observe_sequence else settings.request_timeout
            )
            raw = bytes(frame.payload)
            payload = decode(b"{}" if raw == b"null" else raw)
            data = await within(seconds, run(self, payload, frame.session_id))
            text = msgspec.json.encode(Reply(type=reply_type, data=data, id=frame.id)).decode()
        except errors.KatoError as error:
            await self._refuse(error, frame.id)
            return
        except Gone:
            raise
        except Exception as error:
            log.error("unexpected error", frame_type=frame.type[:100], exc_info=error)
            await self._refuse(envelope.InternalError("internal error"), frame.id)
            return
        await self.socket.send_text(text)

    async def _refuse(self, error: errors.KatoError, frame_id: msgspec.Raw | msgspec.UnsetType) -> None:
        self.kato.counters.error(error.code)
        answer = envelope.answer(error, self.socket.trace_id, self.socket.path)
        data = ErrorData(
            code=answer.error.code,
            message=answer.error.message,
            details=answer.error.details,
            trace_id=answer.error.trace_id,
            error=answer.error,
            status=answer.status,
            detail=answer.detail,
        )
        await self.socket.send(Reply(type="error", data=data, id=frame_id))

    async def session_of(self, named: str | None) -> str:
        """The session a frame is about: its own, the socket's, the default one."""
        if self.fixed is not None and named not in (None, self.fixed):
            raise errors.BadRequest("The path of this socket fixes its session", session_id=self.fixed)
        return named or self.session_id or await self.kato.default_session()

    def choose(self, session_id: str) -> None:
        """Make a session the socket's own."""
        if self.fixed is not None and session_id != self.fixed:
            raise errors.BadRequest("The path of this socket fixes its session", session_id=self.fixed)
        self.session_id = session_id

    def subscribe(self, types: tuple[str, ...]) -> None:
        """Add events to this socket."""
        for number, event_type in enumerate(types):
            if event_type not in EVENT_TYPES:
                raise errors.ValidationError(
                    "Must be one of: " + ", ".join(EVENT_TYPES), field=f"events[{number}]"
                )
        for event_type in types:
            if event_type not in self.subscriptions:
                subscription = self.subscriptions[event_type] = self.kato.events.subscribe([event_type])
                self._tellers.append(asyncio.create_task(self._tell(subscription)))

    async def _tell(self, subscription: Subscription) -> None:
        try:
            while True:
                await self.socket.send(Reply(type="event", data=await subscription.next()))
        except Gone:
            return


Command: TypeAlias = Callable[[Commands, Any, str | None], Awaitable[Any]]


async def _observe(commands: Commands, payload: ObservationRequest, named: str | None) -> v1.V1Observed:
    observation = validation.observation(payload)
    return await v1.observe(commands.kato, await commands.session_of(named), observation)


async def _observe_sequence(commands: Commands, payload: BatchRequest, named: str | None) -> v1.V1Sequence:
    batch = validation.batch(payload, commands.kato.settings.endpoint_batch_size_limit)
    return await v1.observe_sequence(commands.kato, await commands.session_of(named), batch)


async def _get_stm(commands: Commands, _payload: Nothing, named: str | None) -> v1.V1Stm:
    return await v1.stm(commands.kato, await commands.session_of(named))


async def _get_predictions(
    commands: Commands, payload: PredictionsPayload, named: str | None
) -> v1.V1Predictions:
    return await v1.predictions(commands.kato, await commands.session_of(named), payload.unique_id)


async def _learn(commands: Commands, _payload: Nothing, named: str | None) -> v1.V1Learned:
    return await v1.learn(commands.kato, await commands.session_of(named))


async def _clear_stm(commands: Commands, _payload: Nothing, named: str | None) -> v1.V1Done:
    return await v1.clear_stm(commands.kato, await commands.session_of(named))


async def _clear_all(commands: Commands, _payload: Nothing, named: str | None) -> v1.V1Done:
    return await v1.clear_all(commands.kato, await commands.session_of(named))


async def _ping(commands: Commands, _payload: Nothing, _named: str | None) -> Pong:
    kato = commands.kato
    return Pong(processor_id=kato.processor_id(kato.settings.base), timestamp=kato.clock())


async def _create_session(
    commands: Commands, payload: SessionRequest, _named: str | None
) -> answers.SessionAnswer:
    if commands.fixed is not None:
        commands.choose("")
    kato = commands.kato
    state = await kato.create_session(
        validation.owner(payload.user_id, "user_id"),
        metadata=validation.session_metadata(payload.metadata),
        ttl_seconds=payload.ttl_seconds,
        config=validation.unwrapped(payload.config or {}, "config"),
    )
    commands.choose(state.session_id)
    return answers.session(kato, state)


async def _use_session(
    commands: Commands, payload: SessionPayload, _named: str | None
) -> answers.SessionAnswer:
    state = await commands.kato.session(payload.session_id)
    commands.choose(payload.session_id)
    return answers.session(commands.kato, state)


async def _subscribe(commands: Commands, payload: SubscribePayload, _named: str | None) -> Subscribed:
    commands.subscribe(payload.events)
    return Subscribed(events=tuple(sorted(commands.subscriptions)))


def _command(
    payload: type[msgspec.Struct], run: Command, reply: str
) -> tuple[Callable[[bytes], Any], Command, str]:
    return validation.decoder(payload), run, reply


_decode_frame = validation.decoder(Frame)
COMMANDS = {
    "observe": _command(ObservationRequest, _observe, "observation_result"),
    "get_stm": _command(Nothing, _get_stm, "stm"),
    "get_predictions": _command(PredictionsPayload, _get_predictions, "predictions"),
    "learn": _command(Nothing, _learn, "learn_result"),
    "clear_stm": _command(Nothing, _clear_stm, "status"),
    "clear_all": _command(Nothing, _clear_all, "status"),
    "ping": _command(Nothing, _ping, "pong"),
    "observe_sequence": _command(BatchRequest, _observe_sequence, "sequence_result"),
    "create_session": _command(SessionRequest, _create_session, "session"),
    "use_session": _command(SessionPayload, _use_session, "session"),
    "subscribe": _command(SubscribePayload, _subscribe, "subscribed"),
}


async def converse(socket: Socket, fixed: str | None) -> None:
    """Hold one command socket from handshake to close."""
    if fixed is not None:
        found = await socket.kato.exists(fixed)
        if not found.exists:
            kind = errors.SessionExpired if found.expired else errors.SessionNotFound
            await socket.refuse(kind(f"Session {fixed} not found or expired", session_id=fixed))
            return
    places = socket.instance.command_sockets
    if not await admitted(socket, places):
        return
    try:
        await Commands(socket, fixed).run()
    finally:
        places.discard(socket)
