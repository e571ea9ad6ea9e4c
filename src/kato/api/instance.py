"""What the surfaces of one process share: the service, the open sockets, and whether it is about to stop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from kato.service import Kato
from kato.settings import Settings


class Closable(Protocol):
    """An open socket."""

    async def dismiss(self, seconds: float) -> None:
        """Say goodbye (1001) once the command in work is answered, after `seconds` at the latest."""


@dataclass(frozen=True)
class Timing:
    """Seconds between what event sockets send unasked, and how long they wait for a sign of life."""

    heartbeat: float = 30.0
    metrics: float = 5.0
    idle: float = 300.0


@dataclass
class Instance:
    """One process. `kato` is None before the service runs and after it stopped."""

    settings: Settings
    kato: Kato | None = None
    timing: Timing = Timing()
    draining: bool = False
    command_sockets: set[Closable] = field(default_factory=set)
    event_sockets: set[Closable] = field(default_factory=set)

    async def drain(self, seconds: float = 0.0) -> None:
        """Begin to stop: not ready any more; sockets are closed with 1001, `seconds` are left for their commands."""
        self.draining = True
        sockets = [*self.command_sockets, *self.event_sockets]
        await asyncio.gather(*(socket.dismiss(seconds) for socket in sockets))


def release() -> str:
    """The version of the installed package."""
    try:
        return version("kato")
    except PackageNotFoundError:
        return "1.0.0"
