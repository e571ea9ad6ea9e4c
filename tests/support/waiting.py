"""Waiting for conditions instead of for time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Let the event loop run until `condition` holds; AssertionError after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0)


async def idle(turns: int = 20) -> None:
    """Give every task that can go on the chance to do so."""
    for _ in range(turns):
        await asyncio.sleep(0)
