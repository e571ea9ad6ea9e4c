"""Idempotency keys: a request repeated under its key gets its first answer and does nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

import msgspec

from kato.errors import ValidationError
from kato.model import Answer, SessionState

T = TypeVar("T", bound=msgspec.Struct)
Change: TypeAlias = Callable[[SessionState], Awaitable[tuple[SessionState, T]]]

ANSWERS_KEPT = 64
ANSWER_LIFETIME = 86_400.0


def once(
    key: str, request: msgspec.Struct | None, result: type[T], change: Change[T], clock: Callable[[], float]
) -> Change[T]:
    """`change`, run at most once per key within a day: its answer is saved with the state it belongs to.

    A session remembers its latest 64 keys. A key that was used for another request raises `ValidationError`.
    """
    digest = hashlib.sha256(result.__name__.encode() + msgspec.msgpack.encode(request)).digest()

    async def keyed(state: SessionState) -> tuple[SessionState, T]:
        now = clock()
        kept = [answer for answer in state.answers if answer.at > now - ANSWER_LIFETIME]
        for answer in kept:
            if answer.key == key:
                if answer.request != digest:
                    raise ValidationError(
                        "this key was used for another request", field="Idempotency-Key", kind="key_reused"
                    )
                return state, msgspec.msgpack.decode(answer.body, type=result)
        after, value = await change(state)
        new = Answer(key, digest, msgspec.msgpack.encode(value), now)
        return msgspec.structs.replace(after, answers=(*kept[1 - ANSWERS_KEPT :], new)), value

    return keyed
