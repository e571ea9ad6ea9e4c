"""The service in this process, on real stores, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from kato import bootstrap
from kato.model import Events, Observation
from kato.results import Batch
from kato.service import Kato
from kato.settings import Settings
from tests.support.clock import Clock


@asynccontextmanager
async def kato_running(
    data: Path | str = ":memory:", clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Kato]:
    """A running service; settings by the names of their variables."""
    chosen = Settings(KATO_DATA=str(data), **settings)
    async with bootstrap.running(chosen, clock or Clock()) as kato:
        yield kato


def seen(
    text: str = "", vectors: Sequence[Sequence[float]] = (), unique_id: str | None = None, **emotives: float
) -> Observation:
    """An observation of the symbols (characters) of `text`."""
    return Observation(
        strings=tuple(text),
        vectors=tuple(tuple(map(float, vector)) for vector in vectors),
        emotives=emotives,
        unique_id=unique_id,
    )


def batch(text: str, **options: bool) -> Batch:
    """`"ab c"` shows a and b, then c."""
    return Batch(observations=tuple(seen(part) for part in text.split()), **options)


async def opened(kato: Kato, node_id: str | None = "node", **config: Any) -> str:
    """The id of a new session."""
    return (await kato.create_session(node_id, config=config)).session_id


async def show(kato: Kato, session_id: str, text: str) -> None:
    """Observe each event of `text` in turn."""
    for part in text.split():
        await kato.observe(session_id, seen(part))


async def taught(kato: Kato, session_id: str, text: str) -> str:
    """Observe the events of `text` and learn them; returns the full name."""
    await show(kato, session_id, text)
    return (await kato.learn(session_id)).pattern_name


async def stm(kato: Kato, session_id: str) -> Events:
    return (await kato.session(session_id)).stm


async def answer(kato: Kato, session_id: str) -> bytes:
    """The session's predictions as the bytes that a client gets."""
    found, _ = await kato.predictions(session_id)
    return msgspec.json.encode(found)
