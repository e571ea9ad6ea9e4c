"""Ending a process together with everything that it has started, as a power cut does."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

STOP_SECONDS = 30.0


def children(process: int) -> list[int]:
    """The ids of the processes that a process has started; none when it is gone."""
    try:
        return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def family(process: int) -> list[int]:
    """A process and all that it and its descendants have started, parents first."""
    return [process, *(each for child in children(process) for each in family(child))]


def kill_family(process: int) -> None:
    """SIGKILL for a process and all its descendants; on return none of them runs any more."""
    with contextlib.ExitStack() as stack:
        watched = [_watch(each, stack) for each in _stopped(process)]
        for descriptor in watched:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        for descriptor in watched:
            gone, _, _ = select.select([descriptor], [], [], STOP_SECONDS)
            assert gone, f"a process of the family of {process} does not end"


def _stopped(process: int) -> Iterator[int]:
    """The family, each stopped before its children are asked for, so that it starts no further ones meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)
        for child in children(process):
            yield from _stopped(child)
        yield process


def _watch(process: int, stack: contextlib.ExitStack) -> int:
    descriptor = os.pidfd_open(process)
    stack.callback(os.close, descriptor)
    return descriptor
