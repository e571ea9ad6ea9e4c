"""The three protocols through which KATO reaches storage.

All methods are coroutines, take and return `kato.model` values, and raise only `kato.errors` (a store that
cannot acknowledge raises `StorageError`). A write that returned is durable to the degree its adapter
promises. `node` is the raw node id: adapters must keep nodes apart byte for byte.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from kato.model import Pattern, PatternRecord, SessionState


class PatternStore(Protocol):
    """Long-term memory: one record per (node, pattern name), changed by compare-and-swap on `revision`.

    A record that is `forgotten` is one like any other, except that it does not `count`.
    """

    async def insert(self, node: str, patterns: Sequence[Pattern]) -> set[str]:
        """Add patterns that are not there yet, all durable on return; names must be distinct.

        Returns the names that were already there: those records are untouched.
        """
        ...

    async def replace(self, node: str, pattern: Pattern, revision: int) -> bool:
        """Put `pattern` in place of the record of its name if that record still has `revision`.

        Returns False, changing nothing, when the record has another revision or is gone.
        """
        ...

    async def fetch(self, node: str, names: Sequence[str]) -> dict[str, Pattern]:
        """The records of those names that exist."""
        ...

    async def delete(self, node: str, name: str, revision: int | None = None) -> bool:
        """Remove a record, with a `revision` only if it still has that; False when there was none to remove."""
        ...

    def scan(self, node: str) -> AsyncIterator[list[PatternRecord]]:
        """All records of a node in batches, in ascending order of name, consistent as of the first batch."""
        ...

    async def drop(self, node: str) -> int:
        """Remove all records of a node; returns how many there were."""
        ...

    async def nodes(self) -> list[str]:
        """The ids of all nodes that hold at least one record, ascending."""
        ...

    async def count(self, node: str) -> int:
        """How many patterns the node holds."""
        ...

    async def close(self) -> None:
        """Finish what was accepted and release every resource."""
        ...


class VectorStore(Protocol):
    """The percept vectors of each node, by Euclidean distance. One dimension per node, fixed by the first."""

    async def put(self, node: str, vectors: Mapping[str, Sequence[float]]) -> list[str]:
        """Store vectors by name, known names are left as they are; returns those of another dimension."""
        ...

    async def nearest(self, node: str, vector: Sequence[float], k: int) -> list[tuple[str, float]]:
        """The k nearest vectors as (name, distance), nearest first, equal distances by name.

        Empty when the node holds none, or vectors of another dimension.
        """
        ...

    def scan(self, node: str) -> AsyncIterator[list[tuple[str, tuple[float, ...]]]]:
        """All vectors of a node as (name, elements) in batches, in ascending order of name."""
        ...

    async def drop(self, node: str) -> None:
        """Remove all vectors of a node."""
        ...

    async def nodes(self) -> list[str]:
        """The ids of all nodes that hold vectors, ascending; one whose first was not acknowledged may be there."""
        ...

    async def close(self) -> None:
        """Release every resource."""
        ...


SessionIds: TypeAlias = list[str]


class SessionPage(NamedTuple):
    """A page of sessions in ascending order of id; `cursor` continues after it, None at the end."""

    sessions: list[SessionState]
    cursor: str | None
    total: int


class SessionStore(Protocol):
    """Session states by id, changed by compare-and-swap on `revision`.

    `exclusive` is True when no other process can change these sessions, so that a state held in memory is
    current.
    """

    exclusive: bool

    async def create(self, state: SessionState, limit: int, limit_per_user: int) -> bool:
        """Add a session unless one of that id exists (False). `state.revision` is stored as it is.

        Limits count live sessions in total and of `state.user_id`; 0 means no limit. A limit that is reached
        raises `SessionLimitExceeded` with `limit_type`, `current_value`, `limit_value` and a `retry_after`.
        """
        ...

    async def load(self, session_id: str, held: SessionState | None = None) -> SessionState | None:
        """The stored state, expired or not; None when unknown. `held` itself when that is still current."""
        ...

    async def save(self, state: SessionState) -> SessionState | None:
        """Store `state` if the stored revision is `state.revision - 1`; None on success.

        Otherwise nothing is changed and the stored state is returned. A deleted or unknown session raises
        `SessionNotFound`. A state larger than the adapter's limit raises `ResourceExhausted`.
        """
        ...

    async def delete(self, session_id: str) -> bool:
        """Remove a session; False when there was none. A deleted id is not reported as expired later."""
        ...

    async def count(self, now: float) -> int:
        """How many sessions have not expired at `now`."""
        ...

    async def page(
        self, limit: int, cursor: str | None, node: str | None, now: float, include_expired: bool
    ) -> SessionPage:
        """Sessions (of one node if given) in ascending order of id after `cursor`; `total` counts all."""
        ...

    async def expire(self, now: float) -> SessionIds:
        """Remove sessions whose time is over, leaving a tombstone for an hour; returns their ids."""
        ...

    async def expired(self, session_id: str) -> bool:
        """Whether this id is known to have existed and expired."""
        ...

    async def close(self) -> None:
        """Finish what was accepted and release every resource."""
        ...
