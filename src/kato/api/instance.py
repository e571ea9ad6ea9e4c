"""What the surfaces of one process share: the service, the open sockets, and whether it is about to stop."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from kato.service import Kato
from kato.settings import Settings


class Closable(Protocol):
    """An open socket."""

    async def close(self, code: int, reason: str) -> None:
        """Tell the client that it is over."""


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

    async def drain(self) -> None:
        """Begin to stop: not ready any more, sockets are closed with 1001."""
        self.draining = True
        for socket in [*self.command_sockets, *self.event_sockets]:
            await socket.close(1001, "KATO is stopping")


def release() -> str:
    """The version of the installed package."""
    try:
        return version("kato")
    except PackageNotFoundError:
        return "1.0.0"
