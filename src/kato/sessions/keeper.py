"""The life of sessions: created, used in strict order, prolonged by use, expired."""

from __future__ import annotations

import asyncio
import re
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, TypeVar

import msgspec

from kato import errors
from kato.model import SessionState
from kato.ops.counters import Counters
from kato.ops.events import EventBus
from kato.results import Existence
from kato.sessions.operations import parsed
from kato.settings import Settings
from kato.stores.ports import SessionPage, SessionStore

T = TypeVar("T")
SESSION_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
DEFAULT_SESSION_TTL = 86_400
SAVE_ATTEMPTS = 5
UPDATES_PER_SECOND = 1.0


class Held:
    """A session this process has in memory: its latest known state and the order of those who change it."""

    __slots__ = (
        "accesses",
        "delivered",
        "delivering",
        "lock",
        "state",
        "stored_expiry",
        "updated_at",
        "users",
        "wins",
    )

    def __init__(self, state: SessionState) -> None:
        self.state = state
        self.accesses = state.access_count
        self.lock = asyncio.Lock()
        self.stored_expiry = state.expires_at
        self.updated_at = 0.0
        # What follows matters where other processes change the sessions too; see `kato.sessions.shared`.
        self.users = 0
        self.wins = 0
        self.delivered: tuple[float, int] | None = None
        self.delivering: tuple[float, int] | None = None


class Sessions:
    """All sessions, each a chain of immutable states.

    A change runs alone on its session: it gets the current state, returns the next one, and the next one is stored
    by compare-and-swap before anyone sees it. An access that changes nothing prolongs the session in memory and is
    written with the next change, or when the sessions are counted, listed or swept.

    This is for a store that no other process changes; `kato.sessions.shared` is for the others.
    """

    exclusive: ClassVar[bool] = True

    def __init__(
        self,
        store: SessionStore,
        settings: Settings,
        events: EventBus,
        counters: Counters,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._settings = settings
        self._events = events
        self._counters = counters
        self._clock = clock
        self._held: dict[str, Held] = {}
        self._touched: set[str] = set()
        self._default_lock = asyncio.Lock()
        self._sweeper: asyncio.Task[None] | None = None
        self.default_id = f"default-{re.sub('[^A-Za-z0-9_.-]', '_', settings.base)}"[:128]

    # Life --------------------------------------------------------------------------------

    async def create(
        self,
        *,
        node_id: str,
        user_id: str | None,
        metadata: dict[str, Any],
        ttl_seconds: int,
        config: dict[str, Any],
    ) -> SessionState:
        """A new session with an id nobody can guess."""
        session_id = f"session-{uuid.uuid4().hex}-{secrets.token_hex(8)}"
        state = self._fresh(session_id, node_id, user_id, ttl_seconds, metadata=metadata, config=config)
        await self._settle()
        await self._store.create(state, self._settings.max_sessions, self._settings.max_sessions_per_user)
        self._announce_created(state)
        return state

    async def default(self, config: dict[str, Any]) -> str:
        """The id of the one session of v1 clients that name none; created empty when there is none."""
        held = self._held.get(self.default_id)
        if held is not None and held.state.expires_at > self._clock():
            return self.default_id
        async with self._default_lock:
            if not (await self.exists(self.default_id)).exists:
                await self._forget(self.default_id)
                state = self._fresh(
                    self.default_id,
                    self._settings.base,
                    None,
                    DEFAULT_SESSION_TTL,
                    config=dict(config),
                    # Its id was used before: what it teaches must not be taken for what a former one taught.
                    changes=int(self._clock() * 1000),
                )
                if await self._store.create(state, 0, 0):
                    self._announce_created(state)
        return self.default_id

    def _fresh(
        self, session_id: str, node_id: str, user_id: str | None, ttl: int, **more: Any
    ) -> SessionState:
        now = self._clock()
        return SessionState(
            session_id=session_id,
            node_id=node_id,
            user_id=user_id,
            created_at=now,
            last_accessed=now,
            expires_at=now + ttl,
            ttl_seconds=ttl,
            **more,
        )

    def _announce_created(self, state: SessionState) -> None:
        self._held[state.session_id] = Held(state)
        self._counters.sessions_created += 1
        self._events.publish(
            "session.created",
            {
                "session_id": state.session_id,
                "user_id": state.user_id,
                "node_id": state.node_id,
                "created_at": state.created_at,
            },
        )

    def _announce_destroyed(self, session_id: str, reason: str) -> None:
        self._events.publish(
            "session.destroyed", {"session_id": session_id, "destroyed_at": self._clock(), "reason": reason}
        )

    async def _forget(self, session_id: str) -> None:
        self._held.pop(session_id, None)
        self._touched.discard(session_id)
        await self._store.delete(session_id)

    async def delete(self, session_id: str) -> None:
        """End a session; `SessionNotFound` when there is none."""
        async with self._alone(session_id):
            self._held.pop(session_id, None)
            self._touched.discard(session_id)
            if not await self._store.delete(session_id):
                raise unknown(session_id)
        self._counters.sessions_deleted += 1
        self._announce_destroyed(session_id, "explicit_delete")

    # Use --------------------------------------------------------------------------------

    async def get(self, session_id: str) -> SessionState:
        """The current state; prolongs the session."""
        held = await self._current(session_id)
        self._access(session_id, held)
        return held.state

    async def change(
        self, session_id: str, change: Callable[[SessionState], Awaitable[tuple[SessionState, T]]]
    ) -> T:
        """Run `change` alone on the session and store the state it returns; it runs again if the store was ahead.

        Whatever `change` or the store raises leaves the session as it was; only the access counts.
        """
        async with self._alone(session_id) as held:
            self._access(session_id, held)
            for _ in range(SAVE_ATTEMPTS):
                before = held.state
                after, result = await change(before)
                after = self._prolonged(after, held.accesses, before.revision + 1, before.changes + 1)
                newer = await self._save(session_id, held, after)
                if newer is None:
                    self._tell_updated(held, after)
                    return result
                self._replace(held, newer)
        raise errors.ConcurrencyError(
            "The session kept changing; nothing was done", retry_after=1, session_id=session_id
        )

    async def _save(self, session_id: str, held: Held, state: SessionState) -> SessionState | None:
        try:
            newer = await self._store.save(state)
        except asyncio.CancelledError:
            # Stored or not, nobody knows yet: the next one asks the store.
            self._held.pop(session_id, None)
            raise
        if newer is None:
            held.stored_expiry = state.expires_at
            # Accesses that came while it was saved are in memory only, as they would be after it.
            later = held.accesses != state.access_count
            held.state = (
                self._prolonged(state, held.accesses, state.revision, state.changes) if later else state
            )
            if not later:
                self._touched.discard(session_id)
        return newer

    async def deliver_pending(self, session_id: str) -> None:
        """Nothing is pending where one process holds the sessions: what they teach is stored before they are."""

    async def repeatable(self, operations: Sequence[str]) -> dict[str, bool]:
        """Whether learns may yet be done once more, or their session has gone on from them for good.

        Learns of sessions that do not exist (any more) are left out.
        """
        known = list(filter(None, map(parsed, operations)))
        ids = list(dict.fromkeys(each.session_id for each in known if SESSION_ID.fullmatch(each.session_id)))
        states = dict(zip(ids, await asyncio.gather(*map(self._latest, ids)), strict=True))
        return {
            each.id: each.repeatable(state)
            for each in known
            if (state := states.get(each.session_id)) is not None
        }

    async def _latest(self, session_id: str) -> SessionState | None:
        held = self._held.get(session_id)
        return await self._store.load(session_id) if held is None else held.state

    async def extend(self, session_id: str, ttl_seconds: int) -> SessionState:
        """Set time to live and expiry from now."""

        async def change(state: SessionState) -> tuple[SessionState, None]:
            return msgspec.structs.replace(
                state, ttl_seconds=ttl_seconds, expires_at=self._clock() + ttl_seconds
            ), None

        await self.change(session_id, change)
        return (await self._current(session_id)).state

    async def peek(self, session_id: str) -> SessionState | None:
        """The current state if the session is alive; does not prolong it."""
        try:
            return (await self._current(session_id)).state
        except errors.NotFound:
            return None

    async def exists(self, session_id: str) -> Existence:
        """Whether it is alive, and if not whether it expired; does not prolong."""
        try:
            await self._current(session_id)
        except errors.SessionExpired:
            return Existence(exists=False, expired=True)
        except errors.SessionNotFound:
            return Existence(exists=False, expired=False)
        return Existence(exists=True, expired=False)

    async def page(
        self, limit: int, cursor: str | None, node_id: str | None, include_expired: bool
    ) -> SessionPage:
        """A page of sessions in ascending order of id."""
        page = await self._store.page(limit, cursor, node_id, await self._settle(), include_expired)
        current = [self._held[s.session_id].state if s.session_id in self._held else s for s in page.sessions]
        return SessionPage(current, page.cursor, page.total)

    async def count(self) -> int:
        """How many sessions are alive."""
        return await self._store.count(await self._settle())

    async def _current(self, session_id: str) -> Held:
        held = self._held.get(session_id)
        if held is None:
            if not SESSION_ID.fullmatch(session_id):
                raise unknown(session_id)
            state = await self._store.load(session_id)
            # Another task may have loaded it meanwhile: everyone must share one lock.
            held = self._held.get(session_id)
            if held is None:
                if state is None:
                    raise (
                        expired(session_id) if await self._store.expired(session_id) else unknown(session_id)
                    )
                held = self._held[session_id] = Held(state)
        self._check_alive(session_id, held.state)
        return held

    @asynccontextmanager
    async def _alone(self, session_id: str) -> AsyncIterator[Held]:
        """The session for one at a time, in the order of asking."""
        while True:
            held = await self._current(session_id)
            async with held.lock:
                # Deleted, swept or in doubt while this one waited: then it must look again.
                if self._held.get(session_id) is held:
                    self._check_alive(session_id, held.state)
                    yield held
                    return

    def _check_alive(self, session_id: str, state: SessionState) -> None:
        if state.expires_at <= self._clock():
            raise expired(session_id)

    def _access(self, session_id: str, held: Held) -> None:
        """Count an access and prolong the session in memory."""
        held.accesses += 1
        held.state = self._prolonged(held.state, held.accesses, held.state.revision, held.state.changes)
        self._touched.add(session_id)

    def _prolonged(self, state: SessionState, accesses: int, revision: int, changes: int) -> SessionState:
        now = self._clock()
        return msgspec.structs.replace(
            state,
            last_accessed=now,
            expires_at=now + state.ttl_seconds if self._settings.session_auto_extend else state.expires_at,
            access_count=accesses,
            changes=changes,
            revision=revision,
        )

    @staticmethod
    def _replace(held: Held, newer: SessionState) -> None:
        """Go on from what another writer has stored."""
        held.state = newer
        held.accesses = newer.access_count
        held.stored_expiry = newer.expires_at

    def _tell_updated(self, held: Held, state: SessionState) -> None:
        if (
            self._events.wanted("session.updated")
            and state.last_accessed - held.updated_at >= UPDATES_PER_SECOND
        ):
            held.updated_at = state.last_accessed
            self._events.publish(
                "session.updated",
                {
                    "session_id": state.session_id,
                    "updated_fields": ["stm", "time"],
                    "stm_size": len(state.stm),
                },
            )

    # Housekeeping --------------------------------------------------------------------------------

    async def _settle(self) -> float:
        """Write the accesses of sessions that the store would take for expired; returns as of when."""
        now = self._clock()
        for session_id in [
            s for s in self._touched if s in self._held and self._held[s].stored_expiry <= now
        ]:
            await self._write_access(session_id)
        return now

    async def _write_access(self, session_id: str) -> None:
        held = self._held.get(session_id)
        if held is None:
            return
        async with held.lock:
            state = held.state
            if session_id not in self._touched or state.expires_at <= self._clock():
                self._touched.discard(session_id)
                return
            newer = await self._save(
                session_id, held, msgspec.structs.replace(state, revision=state.revision + 1)
            )
            if newer is not None:
                self._replace(held, newer)

    async def sweep(self) -> list[str]:
        """Remove what has expired and say so; returns the ids."""
        gone = await self._store.expire(await self._settle())
        for session_id in gone:
            self._held.pop(session_id, None)
            self._touched.discard(session_id)
            self._counters.sessions_expired += 1
            self._announce_destroyed(session_id, "expired")
        return gone

    def start(self) -> None:
        """Begin to sweep regularly."""
        self._sweeper = asyncio.create_task(self._sweep_forever())

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.session_cleanup_interval)
            try:
                await self.sweep()
            except errors.StorageError as error:
                self._events.publish(
                    "system.error",
                    {
                        "error_type": error.code,
                        "severity": "warning",
                        "message": error.message,
                        "affected_component": "sessions",
                    },
                )

    async def close(self) -> None:
        """Write pending accesses and close the store."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        try:
            for session_id in list(self._touched):
                await self._write_access(session_id)
        finally:
            await self._store.close()


def unknown(session_id: str) -> errors.SessionNotFound:
    """What to raise for an id that no session has."""
    return errors.SessionNotFound(
        f"Session {session_id[:128]} not found or expired", session_id=session_id[:128]
    )


def expired(session_id: str) -> errors.SessionExpired:
    """What to raise for a session whose time is over."""
    return errors.SessionExpired(f"Session {session_id} not found or expired", session_id=session_id)
