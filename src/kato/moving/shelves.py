"""Three kinds of records, each as one ordered stream: a node's patterns, its vectors, the sessions of nodes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from itertools import compress
from typing import ClassVar, Final, Generic, NamedTuple, Protocol, TypeVar, cast

import msgspec

from kato.errors import BadRequest
from kato.model import FORGOTTEN, Pattern, SessionState
from kato.stores.codec import encode_session
from kato.stores.ports import PatternStore, SessionStore, VectorStore

T = TypeVar("T")
Vector = tuple[float, ...]

PATTERNS_AT_ONCE: Final = 4_000
SESSIONS_AT_ONCE: Final = 100
CHANGES_AT_ONCE: Final = 64
_encode: Final = msgspec.msgpack.Encoder().encode


class Record(NamedTuple, Generic[T]):
    """Something that is moved as a whole.

    `key` is what it is found by and its place in the order, `content` its canonical bytes: a MessagePack value, the
    same for the same record in every store, another one for every other record.
    """

    node: str
    key: str
    content: bytes
    value: T


Change = tuple[Record[T], Record[T]]
"""The record that is there, and the one that is to be there."""


class Shelf(Protocol[T]):
    """The records of one kind in one store."""

    kind: ClassVar[str]
    """What one record is called."""

    def read(self) -> AsyncGenerator[list[Record[T]], None]:
        """All records in batches, in ascending order of key."""
        ...

    async def add(self, records: Sequence[Record[T]]) -> list[Record[T]]:
        """Add records, durable on return, and return them; one whose key is taken is left out."""
        ...


def pattern_record(node: str, pattern: Pattern) -> Record[Pattern]:
    """A pattern, its revision included."""
    return Record(node, pattern.name, _encode(pattern), pattern)


def vector_record(node: str, name: str, values: Vector) -> Record[Vector]:
    """A vector by its name, every bit of its elements."""
    return Record(node, name, _encode((name, struct.pack(f"<{len(values)}d", *values))), values)


def session_record(state: SessionState) -> Record[SessionState]:
    """A session with all of its state."""
    return Record(state.node_id, state.session_id, encode_session(state), state)


async def whole_patterns(
    patterns: PatternStore, node: str, at_once: int = PATTERNS_AT_ONCE
) -> AsyncGenerator[list[Pattern], None]:
    """The patterns of a node with their revisions, which a scan leaves out, in ascending order of name.

    At most `at_once` in a batch. One that is removed meanwhile may be left out. What is forgotten is no pattern.
    """
    async with aclosing(_generator(patterns.scan(node))) as batches:
        async for batch in batches:
            names = [record.name.hex() for record in batch if record.frequency != FORGOTTEN]
            for start in range(0, len(names), at_once):
                part = names[start : start + at_once]
                found = await patterns.fetch(node, part)
                yield [found[name] for name in part if name in found and not found[name].forgotten]


class PatternShelf:
    """The patterns of a node."""

    kind: ClassVar[str] = "pattern"

    def __init__(self, patterns: PatternStore, node: str) -> None:
        self._patterns = patterns
        self._node = node

    async def read(self) -> AsyncGenerator[list[Record[Pattern]], None]:
        """All patterns in batches, in ascending order of name."""
        async with aclosing(whole_patterns(self._patterns, self._node)) as batches:
            async for batch in batches:
                yield [pattern_record(self._node, pattern) for pattern in batch]

    async def add(self, records: Sequence[Record[Pattern]]) -> list[Record[Pattern]]:
        """Add patterns and return them; one whose name is taken is left out."""
        taken = await self._patterns.insert(self._node, [record.value for record in records])
        if taken:
            there = await self._patterns.fetch(self._node, sorted(taken))
            for record in records:
                old = there.get(record.key)
                if old is not None and old.forgotten and await self._put_over(old, record):
                    taken.discard(record.key)
        return [record for record in records if record.key not in taken]

    async def _put_over(self, old: Pattern, new: Record[Pattern]) -> bool:
        return await self._patterns.replace(self._node, new.value, old.revision)

    async def change(self, changes: Sequence[Change[Pattern]]) -> list[Record[Pattern]]:
        """Put each new pattern in place of the old one if that still has its revision; returns those."""
        return await _changed(changes, self._put_in_place)

    async def _put_in_place(self, old: Record[Pattern], new: Record[Pattern]) -> bool:
        return await self._put_over(old.value, new)


class VectorShelf:
    """The vectors of a node. What a name stands for never changes."""

    kind: ClassVar[str] = "vector"

    def __init__(self, vectors: VectorStore, node: str) -> None:
        self._vectors = vectors
        self._node = node

    async def read(self) -> AsyncGenerator[list[Record[Vector]], None]:
        """All vectors in batches, in ascending order of name."""
        async with aclosing(_generator(self._vectors.scan(self._node))) as batches:
            async for batch in batches:
                yield [vector_record(self._node, name, values) for name, values in batch]

    async def add(self, records: Sequence[Record[Vector]]) -> list[Record[Vector]]:
        """Add vectors and return them; `BadRequest` when the node keeps those of another dimension."""
        if await self._vectors.put(self._node, {record.key: record.value for record in records}):
            raise BadRequest(f"node {self._node}: the target keeps vectors of another dimension")
        return list(records)


class SessionShelf:
    """The sessions of some nodes (none given: of all) that are alive at `now`."""

    kind: ClassVar[str] = "session"

    def __init__(self, sessions: SessionStore, nodes: Collection[str], now: float) -> None:
        self._sessions = sessions
        self._nodes = frozenset(nodes)
        self._now = now

    async def read(self) -> AsyncGenerator[list[Record[SessionState]], None]:
        """The sessions in batches, in ascending order of id."""
        cursor = None
        while True:
            page = await self._sessions.page(SESSIONS_AT_ONCE, cursor, None, self._now, False)
            yield [
                session_record(state)
                for state in page.sessions
                if not self._nodes or state.node_id in self._nodes
            ]
            cursor = page.cursor
            if cursor is None:
                return

    async def add(self, records: Sequence[Record[SessionState]]) -> list[Record[SessionState]]:
        """Add sessions and return them; one whose id belongs to a living session is left out."""
        added = await asyncio.gather(*(self._add(record.value) for record in records))
        return list(compress(records, added))

    async def _add(self, state: SessionState) -> bool:
        if await self._sessions.create(state, 0, 0):
            return True
        former = await self._sessions.load(state.session_id)
        if former is None or former.expires_at > self._now:
            return False
        # Here it has expired, there it lived on.
        return await self._renew(state)

    async def change(self, changes: Sequence[Change[SessionState]]) -> list[Record[SessionState]]:
        """Put each new session in place of the old one; returns those."""
        return await _changed(changes, lambda _, new: self._renew(new.value))

    async def _renew(self, state: SessionState) -> bool:
        await self._sessions.delete(state.session_id)
        return await self._sessions.create(state, 0, 0)


async def _changed(
    changes: Sequence[Change[T]], change: Callable[[Record[T], Record[T]], Awaitable[bool]]
) -> list[Record[T]]:
    """The new records whose `change` was done, some at once."""
    done: list[Record[T]] = []
    for start in range(0, len(changes), CHANGES_AT_ONCE):
        part = changes[start : start + CHANGES_AT_ONCE]
        outcomes = await asyncio.gather(*(change(old, new) for old, new in part))
        done += compress((new for _, new in part), outcomes)
    return done


def _generator(batches: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    # Every adapter writes its scans as generators.
    return cast("AsyncGenerator[T, None]", batches)
