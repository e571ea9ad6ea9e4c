"""How long to wait for what a request can go on without."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from kato.ops.deadline import deadline, due


@contextmanager
def half() -> Iterator[None]:
    """What is done inside is due when half of the request's remaining time is over; the rest is for going on without.

    >>> async def example() -> float:
    ...     loop = asyncio.get_running_loop()
    ...     with due(10), half():
    ...         return round((deadline() or 0) - loop.time())
    >>> asyncio.run(example())
    5
    """
    until = deadline()
    if until is None:
        yield
        return
    with due((until - asyncio.get_running_loop().time()) / 2):
        yield
