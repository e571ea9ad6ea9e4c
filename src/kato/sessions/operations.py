"""The id of an act of learning: repeated with the same id it counts once."""

from __future__ import annotations

from typing import NamedTuple

from kato.model import SessionState


class Operation(NamedTuple):
    """What a session teaches by its next change after `changes` others; `part` counts the writes of one request.

    >>> Operation("session-1", 7, 0).id
    'session-1:7:0'
    """

    session_id: str
    changes: int
    part: int

    @property
    def id(self) -> str:
        """The operation as a text."""
        return f"{self.session_id}:{self.changes}:{self.part}"

    def repeatable(self, state: SessionState) -> bool:
        """Whether it may be done once more: its session, now in `state`, has not gone on from there for good."""
        if state.changes <= self.changes:
            return True
        return state.pending is not None and any(
            lesson.operation == self.id for lesson in state.pending.lessons
        )


def parsed(operation: str) -> Operation | None:
    """The operation of that id, None when no session can have made it.

    >>> parsed("session-1:7:0"), parsed("d41d8cd98f00b204")
    (Operation(session_id='session-1', changes=7, part=0), None)
    """
    try:
        session_id, changes, part = operation.rsplit(":", 2)
        return Operation(session_id, int(changes), int(part))
    except ValueError:
        return None
