"""What other instances changed: who is going to change a pattern announces its name, who reads looks it up.

A feed carries one line of (name, mark) entries per node. A mark says what is going to happen, who does it, and how a
reader recognises that it has happened:

| mark                 | announces                        | has happened when                             |
|----------------------|----------------------------------|-----------------------------------------------|
| `+writer/n:operation`| a learn                          | the record carries the operation              |
| `=writer/n:revision` | an update, a finalize            | the record has that revision or a later one   |
| `-writer/n:`         | a removal; of everything: `*`    | `.writer/n:` follows for the same name        |
| `.writer/n:`         | nothing: announcement n is over  |                                               |

A writer is an open node of some instance; `n` counts its announcements. A learn of many patterns begins with `&`
in place of `+`: nobody looks at their names before it is over, as nothing of it is acknowledged earlier.

The announcement comes before the write, so a writer may die at any moment: a name stays under observation until its
change has been seen, or for longer than any request may last. The feed never carries truth. Whoever lost the line
reads the node's patterns anew; a writer looks after its write whether its announcement still stands, and repeats it
if not.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextvars import Context
from typing import Final, Protocol, TypeAlias

from kato.errors import KatoError, ServiceUnavailable, StorageError
from kato.model import Pattern
from kato.ops.deadline import deadline

Entry: TypeAlias = tuple[str, str]

PENDING_SECONDS: Final = 60.0
"""Longer than a request may last; a feed's positions must lie at least as far back."""
EVERYTHING: Final = "*"
"""Stands for all patterns of the node; no pattern is called so."""
LEARNED: Final = "+"
TAUGHT: Final = "&"
CHANGED: Final = "="
REMOVED: Final = "-"
DONE: Final = "."
UNAVAILABLE: Final = (StorageError, ServiceUnavailable)
"""What feed and store raise when they do not answer."""
MANY: Final = 20
"""A learn of more patterns tells its end."""
FETCHED_AT_ONCE: Final = 500
_NO_LONGER: Final = -math.inf


class Tail(Protocol):
    """What came after a position, in order; not `complete`: something may be missing, go on from `position`."""

    @property
    def entries(self) -> Sequence[Entry]: ...

    @property
    def complete(self) -> bool: ...

    @property
    def position(self) -> str: ...


class Feed(Protocol):
    """One line of entries per node, shared by all instances. Failures are `StorageError`."""

    async def append(self, node: str, entries: Sequence[Entry]) -> str:
        """Add entries; on return every `tail` that is asked for later has them."""
        ...

    async def position(self, node: str) -> str:
        """A place in the line such that whoever appended before it has written, or never will."""
        ...

    async def tail(self, node: str, after: str) -> Tail:
        """What was appended after a position. It may be read one turn of the event loop later, never earlier."""
        ...

    async def close(self) -> None:
        """Release every resource."""
        ...


class Index(Protocol):
    """What is kept in step."""

    async def renew(self, names: Sequence[str]) -> Mapping[str, Pattern]:
        """Look names up in the store, make the index agree, return the records that exist."""
        ...

    async def reread(self) -> None:
        """Build the index anew from the store."""
        ...


class Follower:
    """One node's place in its feed: announces what this instance changes, finds out what others changed.

    `pending_seconds` is how long an announced change is waited for, `clock` tells seconds that never go back.
    """

    def __init__(
        self,
        node_id: str,
        feed: Feed,
        pending_seconds: float = PENDING_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node_id = node_id
        self._feed = feed
        self._pending_seconds = pending_seconds
        self._clock = clock
        self._writer = secrets.token_hex(8)
        self._announced = 0
        self._position: str | None = None
        self._epoch = 0
        self._asked: asyncio.Future[bool] | None = None
        self._pending: dict[str, dict[str, float]] = {}
        self._withheld: dict[str, tuple[float, dict[str, str]]] = {}
        self._removals: dict[str, float] = {}
        self._losses = 0
        self._repaired = 0
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pending(self) -> int:
        """How many names are under observation."""
        return len(self._pending) + sum(len(names) for _, names in self._withheld.values())

    # Writing --------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def announcing(self, kind: str, changes: Sequence[Entry]) -> AsyncIterator[None]:
        """Around the write of changes (name, operation or revision).

        `StorageError` when nobody can be told; also after the write, which then must not be acknowledged. A write
        that raises may still have happened: its names come under observation here too.
        """
        kind = TAUGHT if kind == LEARNED and len(changes) > MANY else kind
        entries, position = await self._announce(kind, changes)
        with self._doubting(entries):
            yield
        # If the line was lost meanwhile, others may have read the patterns anew before they were written.
        if not (await self._feed.tail(self._node_id, position)).complete:
            await self._feed.append(self._node_id, entries)
        if kind == TAUGHT:
            await self._tell_end(*entries[0])

    @contextlib.asynccontextmanager
    async def removing(self, name: str) -> AsyncIterator[None]:
        """Around the removal of a pattern, or of `EVERYTHING`; `StorageError` as with `announcing`."""
        entries, _ = await self._announce(REMOVED, [(name, "")])
        with self._doubting(entries):
            yield
        await self._tell_end(*entries[0])

    async def _announce(self, kind: str, changes: Sequence[Entry]) -> tuple[list[Entry], str]:
        self._announced += 1
        start = f"{kind}{self._writer}/{self._announced}:"
        entries = [(name, start + text) for name, text in changes]
        return entries, await self._feed.append(self._node_id, entries)

    @contextlib.contextmanager
    def _doubting(self, entries: Sequence[Entry]) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for name, mark in entries:
                self._observe(name, mark)
                # What was to be removed as a whole may be there in part.
                self._losses += name == EVERYTHING
            raise

    async def _tell_end(self, name: str, mark: str) -> None:
        await self._feed.append(self._node_id, [(name, f"{DONE}{_announcement(mark)}:")])

    # Reading --------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Take a position, before the patterns are read; without a feed the first `refresh` will."""
        with contextlib.suppress(*UNAVAILABLE):
            self._position = await self._feed.position(self._node_id)

    async def refresh(self, index: Index, *, complete: bool = True) -> None:
        """See every change that was acknowledged anywhere before this call.

        Not `complete`: do not wait where the index has to be built anew. `StorageError` when feed or store do not
        answer: the index is as it was, or further.
        """
        await self._listen()
        self._release_overdue()
        if not complete and self._must_reread():
            return
        if self._pending or self._must_reread():
            # Who comes while one catches up cannot join it: its look at the store may be too early.
            if self._next is None:
                # In a context of its own: it is done for all, whenever the first of them must be answered.
                self._next = asyncio.create_task(self._catch_up(index), context=Context())
                self._tasks.add(self._next)
                self._next.add_done_callback(self._tasks.discard)
                # If all who wait give up, nobody is left to take the error.
                self._next.add_done_callback(lambda done: done.cancelled() or done.exception())
            try:
                async with asyncio.timeout_at(deadline()):
                    await asyncio.shield(self._next)
            except TimeoutError:
                raise StorageError("No time is left to look up what others changed", retry_after=1) from None

    async def _listen(self) -> None:
        """Take in what was appended until now; all who ask in one turn of the loop share one question."""
        while True:
            asked = self._asked
            if asked is not None:
                if await asyncio.shield(asked):
                    return
                continue
            loop = asyncio.get_running_loop()
            asked = self._asked = loop.create_future()
            loop.call_soon(self._close_question, asked)
            heard = False
            try:
                heard = await self._ask()
            except KatoError as error:
                asked.set_exception(error)
                # Perhaps nobody shares the question.
                asked.exception()
                raise
            finally:
                self._close_question(asked)
                if not asked.done():
                    asked.set_result(heard)
            if heard:
                return

    def _close_question(self, asked: asyncio.Future[bool]) -> None:
        if self._asked is asked:
            self._asked = None

    async def _ask(self) -> bool:
        """One question to the feed; False when the answer came too late and another one is to be asked."""
        epoch, after = self._epoch, self._position
        if after is None:
            position = await self._feed.position(self._node_id)
        else:
            tail = await self._feed.tail(self._node_id, after)
            position = tail.position
            if tail.complete:
                self._take_in(tail.entries)
                if epoch == self._epoch:
                    self._position = position
                return True
        if epoch != self._epoch:
            # Another question found the line lost; what this one missed is after the position that it took.
            return False
        self._epoch += 1
        self._losses += 1
        self._position = position
        return True

    def _take_in(self, entries: Sequence[Entry]) -> None:
        for name, mark in entries:
            kind, writer = mark[:1], _writer(mark)
            if writer == self._writer:
                continue
            if kind != DONE:
                self._observe(name, mark)
            elif name == EVERYTHING:
                self._removals.pop(REMOVED + mark[1:], None)
                self._losses += 1
                self._end_all(writer)
            else:
                self._release(_announcement(mark))
                marks = self._pending.setdefault(name, {})
                marks[REMOVED + mark[1:]] = _NO_LONGER
                _end(marks, writer)

    def _observe(self, name: str, mark: str) -> None:
        until = self._clock() + self._pending_seconds
        if name == EVERYTHING:
            self._removals[mark] = until
        elif mark.startswith(TAUGHT):
            self._withheld.setdefault(_announcement(mark), (until, {}))[1][name] = mark
        else:
            self._pending.setdefault(name, {})[mark] = until

    def _release(self, announcement: str) -> None:
        """The names of a learn that is over are looked at once more."""
        _, names = self._withheld.pop(announcement, (0.0, {}))
        for name, mark in names.items():
            self._pending.setdefault(name, {})[mark] = _NO_LONGER

    def _release_overdue(self) -> None:
        now = self._clock()
        for announcement in [each for each, (until, _) in self._withheld.items() if until <= now]:
            self._release(announcement)

    def _end_all(self, writer: str) -> None:
        for announcement in [each for each in self._withheld if each.partition("/")[0] == writer]:
            self._release(announcement)
        for marks in self._pending.values():
            _end(marks, writer)

    def _must_reread(self) -> bool:
        """Whether the line was lost and that is not yet repaired, or a removal of everything never ended."""
        overdue = bool(self._removals) and min(self._removals.values()) <= self._clock()
        return self._losses > self._repaired or overdue

    async def _catch_up(self, index: Index) -> None:
        async with self._lock:
            self._next = None
            if self._must_reread():
                await self._start_anew(index)
            now = self._clock()
            looked_at = {name: dict(marks) for name, marks in self._pending.items()}
            names = list(looked_at)
            for start in range(0, len(names), FETCHED_AT_ONCE):
                part = names[start : start + FETCHED_AT_ONCE]
                records = await index.renew(part)
                for name in part:
                    self._settle(name, looked_at[name], records.get(name), now)

    async def _start_anew(self, index: Index) -> None:
        # Whoever comes meanwhile must not think that nothing is wrong.
        now, losses = self._clock(), self._losses
        await index.reread()
        self._repaired = losses
        self._removals = {mark: until for mark, until in self._removals.items() if until > now}

    def _settle(self, name: str, looked_at: Mapping[str, float], record: Pattern | None, now: float) -> None:
        marks = self._pending[name]
        for mark, until in looked_at.items():
            # A deadline that changed meanwhile belongs to an entry that came after the look.
            if marks[mark] == until and (until <= now or _happened(mark, record)):
                del marks[mark]
        if not marks:
            del self._pending[name]

    async def finish(self) -> None:
        """Wait until nobody catches up any more."""
        if self._tasks:
            await asyncio.wait(self._tasks)


def _announcement(mark: str) -> str:
    return mark[1:].partition(":")[0]


def _writer(mark: str) -> str:
    return _announcement(mark).partition("/")[0]


def _end(marks: dict[str, float], writer: str) -> None:
    """A removal has its turn alone: what its writer announced before is over, and may be gone by now."""
    for mark in marks:
        if _writer(mark) == writer:
            marks[mark] = _NO_LONGER


def _happened(mark: str, record: Pattern | None) -> bool:
    kind, (_, _, text) = mark[:1], mark[1:].partition(":")
    if record is None:
        return False
    if kind == LEARNED:
        return text in record.operations
    return kind == CHANGED and text.isdecimal() and record.revision >= int(text)
