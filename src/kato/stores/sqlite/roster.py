"""Who is there: the ids and key figures of all stored sessions, and exact counts of those still alive."""

from __future__ import annotations

import heapq
from collections import Counter
from itertools import count
from typing import Final

_FOREVER: Final = float("inf")


class Entry:
    """What is known of a stored session without reading it."""

    __slots__ = ("alive", "created_at", "due", "expires_at", "node", "number", "revision", "user")

    def __init__(
        self, number: int, node: str, user: str | None, created_at: float, expires_at: float, revision: int
    ) -> None:
        self.number = number
        self.node = node
        self.user = user
        self.created_at = created_at
        self.expires_at = expires_at
        self.revision = revision
        self.alive = False
        self.due = _FOREVER


class Roster:
    """Sessions by id. A session is alive at `now` while `expires_at > now`.

    Counting is cheap as long as `now` does not go backwards: a session is looked at again when the expiry it
    had at that time is over, not with each save that prolongs it.

    >>> roster = Roster()
    >>> roster.add("a", Entry(1, "node", None, 0.0, 10.0, 0))
    >>> roster.living(9.0), roster.living(10.0)
    (1, 0)
    """

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._moment = -_FOREVER
        self._living = 0
        self._by_user: Counter[str | None] = Counter()
        self._queue: list[tuple[float, int, Entry]] = []
        self._serial = count()

    def add(self, session_id: str, entry: Entry) -> None:
        """Enter a session that is not there yet."""
        self.entries[session_id] = entry
        self._place(entry)

    def change(self, entry: Entry, revision: int, expires_at: float) -> None:
        """Note the figures of a new state of a session."""
        entry.revision = revision
        entry.expires_at = expires_at
        if not entry.alive or expires_at < entry.due:
            self._retire(entry)
            self._place(entry)

    def move(self, session_id: str, node: str, user: str | None) -> None:
        """Note that a session now belongs to another node or user."""
        entry = self.entries[session_id]
        self._retire(entry)
        entry.node = node
        entry.user = user
        self._place(entry)

    def remove(self, session_id: str) -> Entry | None:
        """Take a session out, None when it is not there."""
        entry = self.entries.pop(session_id, None)
        if entry is not None:
            self._retire(entry)
        return entry

    def living(self, now: float) -> int:
        """How many sessions are alive at `now`."""
        self._advance(now)
        return self._living

    def living_of(self, user: str | None, now: float) -> int:
        """How many sessions of `user` are alive at `now`."""
        self._advance(now)
        return self._by_user[user]

    def next_expiry(self, now: float) -> float:
        """A time before which no session that is alive at `now` expires; infinite when none is alive."""
        self._advance(now)
        return self._queue[0][0] if self._queue else _FOREVER

    def over(self, now: float) -> list[str]:
        """The ids of the sessions whose time is over at `now`, ascending."""
        self._advance(now)
        if self._living == len(self.entries):
            return []
        return sorted(name for name, entry in self.entries.items() if not entry.alive)

    def _place(self, entry: Entry) -> None:
        if entry.expires_at <= self._moment:
            return
        entry.alive = True
        entry.due = entry.expires_at
        self._living += 1
        self._by_user[entry.user] += 1
        heapq.heappush(self._queue, (entry.due, next(self._serial), entry))
        if len(self._queue) > 2 * len(self.entries) + 1000:
            # Mostly visits to sessions that are gone or were moved forward.
            self._rebuild()

    def _retire(self, entry: Entry) -> None:
        if entry.alive:
            entry.alive = False
            entry.due = _FOREVER
            self._living -= 1
            self._by_user[entry.user] -= 1
            if not self._by_user[entry.user]:
                del self._by_user[entry.user]

    def _advance(self, now: float) -> None:
        if now < self._moment:
            self._moment = now
            self._rebuild()
            return
        self._moment = now
        queue = self._queue
        while queue and queue[0][0] <= now:
            due, _, entry = heapq.heappop(queue)
            if entry.due == due:
                self._retire(entry)
                self._place(entry)

    def _rebuild(self) -> None:
        self._living = 0
        self._by_user.clear()
        self._queue = []
        for entry in self.entries.values():
            entry.alive = entry.expires_at > self._moment
            entry.due = entry.expires_at if entry.alive else _FOREVER
            if entry.alive:
                self._living += 1
                self._by_user[entry.user] += 1
                self._queue.append((entry.due, next(self._serial), entry))
        heapq.heapify(self._queue)
