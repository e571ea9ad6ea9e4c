"""Sessions in SQLite, written by the event loop itself: one commit for all saves of one turn of the loop.

A commit with `synchronous=NORMAL` is a few writes into the page cache, cheaper than handing the work to a
thread and back. It survives kill -9; a power cut may cost the last instants. What would make the loop wait
for the disk, moving the log into the file, happens in a thread (`LogKeeper`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from kato.errors import KatoError, ResourceExhausted, SessionLimitExceeded, SessionNotFound, StorageError
from kato.model import SessionState
from kato.stores.codec import decode_session, encode_session, utf8
from kato.stores.ports import SessionIds, SessionPage
from kato.stores.sqlite.connection import connect_first, damaged, explain, translated
from kato.stores.sqlite.log import LogKeeper
from kato.stores.sqlite.roster import Entry, Roster
from kato.stores.sqlite.schema import SESSIONS

TOMBSTONE_SECONDS: Final = 3600.0
_EXPIRED_AT_ONCE: Final = 200
"""Sessions removed in one turn of the loop, so that sweeping thousands stalls nobody."""
_LONGEST_RETRY: Final = 60.0
_PAGE: Final = 4096

_UPDATE: Final = "UPDATE sessions SET expires_at = ?, revision = ?, state = ? WHERE number = ?"
_MOVE: Final = "UPDATE sessions SET node = ?, user = ? WHERE number = ?"
_INSERT: Final = (
    "INSERT INTO sessions (id, node, user, created_at, expires_at, revision, state)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)

_Work = Callable[[], Any]
_Turn = list[tuple[_Work, "asyncio.Future[Any]"]]


class SqliteSessionStore:
    """A `SessionStore` in a SQLite file (or `:memory:`) that no other process changes.

    `max_bytes` limits the stored size of one session; `log_bytes` is the length at which the log is moved
    into the file. All methods must be called on one event loop at a time. Raises `DataCorrupted` when the
    file is damaged.

    >>> async def remember() -> int:
    ...     store = SqliteSessionStore(":memory:")
    ...     times = {"created_at": 0.0, "last_accessed": 0.0, "expires_at": 60.0, "ttl_seconds": 60}
    ...     await store.create(SessionState(session_id="s", node_id="n", **times), limit=0, limit_per_user=0)
    ...     alive = await store.count(now=1.0)
    ...     await store.close()
    ...     return alive
    >>> asyncio.run(remember())
    1
    """

    exclusive: bool = True

    def __init__(
        self, path: str | Path, max_bytes: int = 10 * 1024 * 1024, log_bytes: int = 32 * 1024 * 1024
    ) -> None:
        self.path = str(path)
        self._max_bytes = max_bytes
        self._connection = connect_first(self.path, SESSIONS, "NORMAL")
        self._cursor = self._connection.cursor()
        self._pending: _Turn = []
        self._scheduled = False
        self._closed = False
        self._unsettled = False
        self._roster = Roster()
        self._tombstones: dict[str, float] = {}
        try:
            with translated(self.path):
                self._read_roster()
        except BaseException:
            self._connection.close()
            raise
        self._log = LogKeeper(self.path, log_bytes, self._resume)

    def _read_roster(self) -> None:
        self._roster = Roster()
        statement = "SELECT id, number, node, user, created_at, expires_at, revision FROM sessions"
        for session_id, *figures in self._connection.execute(statement).fetchall():
            self._roster.add(session_id, Entry(*figures))
        self._tombstones = dict(self._connection.execute("SELECT id, until FROM tombstones").fetchall())

    async def create(self, state: SessionState, limit: int, limit_per_user: int) -> bool:
        """Add a session unless one of that id exists; `SessionLimitExceeded` when a limit is reached."""
        content = self._encode(state)
        created: bool = await self._change(lambda: self._create(state, content, limit, limit_per_user))
        return created

    def _create(
        self, state: SessionState, content: bytes, limit: int, limit_per_user: int
    ) -> bool | KatoError:
        if state.session_id in self._roster.entries:
            return False
        # The moment of creation is the only "now" that this call knows.
        now = state.created_at
        if limit and (living := self._roster.living(now)) >= limit:
            return self._limit_reached("sessions", living, limit, now)
        if limit_per_user and (living := self._roster.living_of(state.user_id, now)) >= limit_per_user:
            return self._limit_reached("sessions_per_user", living, limit_per_user, now)
        columns = (state.node_id, state.user_id, state.created_at, state.expires_at, state.revision)
        number = self._cursor.execute(_INSERT, (state.session_id, *columns, content)).lastrowid
        assert number is not None
        if self._tombstones.pop(state.session_id, None) is not None:
            self._cursor.execute("DELETE FROM tombstones WHERE id = ?", (state.session_id,))
        self._roster.add(state.session_id, Entry(number, *columns))
        self._log.grown(4 * _PAGE + len(content))
        return True

    def _limit_reached(self, kind: str, living: int, limit: int, now: float) -> SessionLimitExceeded:
        whose = "of this user " if kind == "sessions_per_user" else ""
        return SessionLimitExceeded(
            f"{living} sessions {whose}are alive and the limit is {limit}",
            retry_after=min(_LONGEST_RETRY, max(1.0, self._roster.next_expiry(now) - now)),
            limit_type=kind,
            current_value=living,
            limit_value=limit,
        )

    async def load(self, session_id: str, held: SessionState | None = None) -> SessionState | None:
        """The stored state, expired or not; None when unknown; `held` itself when that is still current."""
        self._require_open()
        entry = self._roster.entries.get(session_id)
        if entry is None:
            return None
        if held is not None and held.revision == entry.revision and held.created_at == entry.created_at:
            return held
        with translated(self.path):
            return self._read(entry.number)

    def _read(self, number: int) -> SessionState:
        rows = self._cursor.execute("SELECT state FROM sessions WHERE number = ?", (number,)).fetchall()
        if not rows:
            raise damaged(self.path, f"session {number} has vanished")
        return self._decode(rows[0][0])

    def _decode(self, content: bytes) -> SessionState:
        try:
            return decode_session(content)
        except KatoError as error:
            raise damaged(self.path, error.message) from error

    async def save(self, state: SessionState) -> SessionState | None:
        """Store `state` if the stored revision is one less; otherwise the stored state is returned."""
        content = self._encode(state)
        current: SessionState | None = await self._change(lambda: self._save(state, content))
        return current

    def _save(self, state: SessionState, content: bytes) -> SessionState | KatoError | None:
        entry = self._roster.entries.get(state.session_id)
        if entry is None:
            return SessionNotFound(f"Session {state.session_id} not found", session_id=state.session_id)
        if entry.revision != state.revision - 1:
            return self._read(entry.number)
        self._cursor.execute(_UPDATE, (state.expires_at, state.revision, content, entry.number))
        if entry.node != state.node_id or entry.user != state.user_id:
            self._cursor.execute(_MOVE, (state.node_id, state.user_id, entry.number))
            self._roster.move(state.session_id, state.node_id, state.user_id)
        self._roster.change(entry, state.revision, state.expires_at)
        self._log.grown(_PAGE + len(content))
        return None

    async def delete(self, session_id: str) -> bool:
        """Remove a session; False when there was none. It is then unknown, not expired."""
        deleted: bool = await self._change(lambda: self._delete(session_id))
        return deleted

    def _delete(self, session_id: str) -> bool:
        entry = self._roster.remove(session_id)
        if entry is None:
            return False
        self._cursor.execute("DELETE FROM sessions WHERE number = ?", (entry.number,))
        self._log.grown(4 * _PAGE)
        return True

    async def count(self, now: float) -> int:
        """How many sessions have not expired at `now`."""
        self._require_open()
        return self._roster.living(now)

    async def page(
        self, limit: int, cursor: str | None, node: str | None, now: float, include_expired: bool
    ) -> SessionPage:
        """Sessions in ascending order of id after `cursor`, those of one node if given."""
        self._require_open()
        conditions = {"node = ?": node, "id > ?": cursor, "expires_at > ?": None if include_expired else now}
        for text in (node, cursor):
            utf8(text or "", "cursor")
        given = {condition: value for condition, value in conditions.items() if value is not None}
        where = f" WHERE {' AND '.join(given)}" if given else ""
        statement = f"SELECT id, state FROM sessions{where} ORDER BY id LIMIT ?"
        with translated(self.path):
            rows = self._cursor.execute(statement, (*given.values(), limit + 1)).fetchall()
        page = [self._decode(content) for _, content in rows[:limit]]
        after = rows[limit - 1][0] if len(rows) > limit else None
        return SessionPage(page, after, self._total(node, now, include_expired))

    def _total(self, node: str | None, now: float, include_expired: bool) -> int:
        if node is None:
            return len(self._roster.entries) if include_expired else self._roster.living(now)
        entries = self._roster.entries.values()
        return sum(entry.node == node and (include_expired or entry.expires_at > now) for entry in entries)

    async def expire(self, now: float) -> SessionIds:
        """Remove sessions whose time is over, leaving a tombstone for an hour; returns their ids."""
        await self._change(lambda: self._forget_tombstones(now))
        over = self._roster.over(now)
        removed: SessionIds = []
        for start in range(0, len(over), _EXPIRED_AT_ONCE):
            part = over[start : start + _EXPIRED_AT_ONCE]
            removed += await self._change(lambda part=part: self._bury(part, now))  # type: ignore[misc]
        return removed

    def _forget_tombstones(self, now: float) -> None:
        self._cursor.execute("DELETE FROM tombstones WHERE until <= ?", (now,))
        self._tombstones = {name: until for name, until in self._tombstones.items() if until > now}

    def _bury(self, names: SessionIds, now: float) -> SessionIds:
        buried = []
        for name in names:
            entry = self._roster.entries.get(name)
            # Between choosing and removing it, the session may have been prolonged or deleted.
            if entry is None or entry.expires_at > now:
                continue
            self._roster.remove(name)
            self._cursor.execute("DELETE FROM sessions WHERE number = ?", (entry.number,))
            self._cursor.execute("REPLACE INTO tombstones VALUES (?, ?)", (name, now + TOMBSTONE_SECONDS))
            self._tombstones[name] = now + TOMBSTONE_SECONDS
            buried.append(name)
        self._log.grown(5 * _PAGE * len(buried))
        return buried

    async def expired(self, session_id: str) -> bool:
        """Whether this id is known to have existed and expired."""
        self._require_open()
        return session_id in self._tombstones

    async def close(self) -> None:
        """Finish what was accepted and release every resource."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._log.close)
        self._flush()
        # Closing moves the log into the file, which waits for the disk.
        await asyncio.to_thread(self._connection.close)

    def _require_open(self) -> None:
        if self._closed:
            raise StorageError(f"{self.path} is closed")
        self._recover()

    def _encode(self, state: SessionState) -> bytes:
        content = encode_session(state)
        if len(content) > self._max_bytes:
            raise ResourceExhausted(
                f"session {state.session_id} would take {len(content)} bytes; the limit is {self._max_bytes}",
                size=len(content),
                limit=self._max_bytes,
            )
        return content

    def _change(self, work: _Work) -> asyncio.Future[Any]:
        """Queue `work` for the commit at the end of this turn of the loop.

        `work` returns its result; a `KatoError` that it returns is raised to the caller without undoing the
        others.
        """
        self._require_open()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._pending.append((work, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._turn)
        return future

    def _turn(self) -> None:
        self._scheduled = False
        if self._log.pausing:
            return
        self._flush()
        self._log.tend()

    def _resume(self) -> None:
        """The log is short again: write what has waited."""
        if self._pending and not self._closed:
            self._turn()

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if pending:
            self._commit(pending)

    def _commit(self, pending: _Turn) -> None:
        execute = self._cursor.execute
        try:
            self._recover()
            self._unsettled = True
            execute("BEGIN")
            outcomes = [work() for work, _ in pending]
            execute("COMMIT")
            self._unsettled = False
        except Exception as error:  # noqa: BLE001 - it belongs to those who asked, not to the loop
            if len(pending) == 1:
                _settle(pending[0][1], explain(error, self.path))
            else:
                # One of them may be at fault; the others shall not suffer for it.
                for request in pending:
                    self._commit([request])
            return
        for (_, future), outcome in zip(pending, outcomes, strict=True):
            _settle(future, outcome)

    def _recover(self) -> None:
        """After a transaction that failed: back to what is stored, in the file and in memory."""
        if not self._unsettled:
            return
        with translated(self.path):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._read_roster()
        self._unsettled = False


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
