"""By when a request must be answered, known to everything that works for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_DEADLINE: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def due(seconds: float) -> Iterator[None]:
    """What is done inside, and in tasks begun inside, is due in `seconds`, or earlier if it was before."""
    until, earlier = asyncio.get_running_loop().time() + seconds, _DEADLINE.get()
    token = _DEADLINE.set(until if earlier is None else min(until, earlier))
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def deadline() -> float | None:
    """The moment by the event loop's clock; None when nobody waits."""
    return _DEADLINE.get()
