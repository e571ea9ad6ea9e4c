"""Sessions in Redis, shared by all instances: one record each, changed by one script in one round trip."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final

from kato.errors import (
    OutcomeUnknown,
    ResourceExhausted,
    SessionLimitExceeded,
    SessionNotFound,
    StorageError,
    ValidationError,
)
from kato.model import SessionState
from kato.stores.codec import encode_session, utf8
from kato.stores.ports import SessionIds, SessionPage
from kato.stores.redis import scripts
from kato.stores.redis.client import RedisClient
from kato.stores.redis.record import EXPIRY, TOKEN_BYTES, decode, encode, identity, owner_of, prolonged

TOMBSTONE_SECONDS: Final = 3600.0
GRACE_SECONDS: Final = 3600.0
"""How long a record outlives its session: until a sweep has reported it, at most this long."""
_EXPIRED_AT_ONCE: Final = 200
"""Sessions buried by one call of the script, so that sweeping thousands stalls nobody."""
_LOOKED_AT_ONCE: Final = 1000
_DOUBTS_KEPT: Final = 1024
_LONGEST_RETRY: Final = 60.0


class RedisSessionStore:
    """A `SessionStore` in Redis that any number of instances share.

    Give it a URL (see `kato.stores.redis.address`) or the `RedisClient` that others use too: what they ask for in
    the same turn of the event loop then travels together. All keys begin with `{prefix}:session:`. `max_bytes`
    limits the stored size of one session.

    An operation that raised `StorageError` may have been done. A `save` or `create` that is repeated with the very
    same state object is done once: if it was done the first time, that is recognized. When others have changed the
    session meanwhile nobody can tell any more, and the repeated `save` raises `OutcomeUnknown`.

    Redis removes a record an hour after its session's expiry, counted by its own clock from the last write, so the
    hosts' clocks need not agree. `expire` and `count` go by the caller's time.
    """

    exclusive: bool = False

    def __init__(
        self, client: RedisClient | str, *, prefix: str = "kato", max_bytes: int = 10 * 1024 * 1024
    ) -> None:
        self._client = (RedisClient(client) if isinstance(client, str) else client).use()
        self._prefix = f"{prefix}:session:".encode()
        self._active = self._prefix + b"_active_index"
        self._tombstones = self._prefix + b"_tombstones"
        self._max_bytes = max_bytes
        self._writer = os.urandom(8)
        self._writes = count()
        self._doubtful: OrderedDict[int, tuple[SessionState, bytes]] = OrderedDict()
        self._closed = False

    @property
    def client(self) -> RedisClient:
        """The connections, for health checks."""
        return self._client

    # Keys --------------------------------------------------------------------------------

    def _key(self, session_id: bytes) -> bytes:
        # The names of the indexes begin with "_" or hold ":"; `key_of` in the scripts does the same.
        if b":" in session_id or b"%" in session_id or session_id[:1] == b"_":
            session_id = session_id.replace(b"%", b"%25").replace(b":", b"%3A")
            if session_id[:1] == b"_":
                session_id = b"%5F" + session_id[1:]
        return self._prefix + session_id

    def _indexes(self, state: SessionState) -> tuple[bytes, bytes]:
        """The names of the indexes of the state's node and user."""
        user = b"_nobody" if state.user_id is None else b"user:" + utf8(state.user_id, "user_id")
        return utf8(state.node_id, "node_id"), user

    def _lifetime(self, state: SessionState) -> int:
        return max(1, int((state.expires_at - state.last_accessed + GRACE_SECONDS) * 1000))

    # Life --------------------------------------------------------------------------------

    async def create(self, state: SessionState, limit: int, limit_per_user: int) -> bool:
        """Add a session unless one of that id exists; `SessionLimitExceeded` when a limit is reached.

        Limits hold exactly over all instances. The session's `created_at` is taken for now.
        """
        async with self._written(state) as token:
            name, node, user, record = self._prepare(state, token)
            outcome, *figures = await self._client.run(
                scripts.CREATE,
                (
                    self._key(name),
                    self._active,
                    self._prefix + b"node:" + node,
                    self._prefix + user,
                    self._prefix + b"node-ids:" + node,
                ),
                repr(state.created_at),
                record,
                self._lifetime(state),
                repr(state.expires_at),
                name,
                self._prefix,
                owner_of(node, user),
                limit,
                limit_per_user,
            )
        if outcome > 1:
            raise _limit_reached(outcome == 2, figures, limit, limit_per_user, state.created_at)
        return bool(outcome)

    async def load(self, session_id: str, held: SessionState | None = None) -> SessionState | None:
        """The stored state, expired or not; None when unknown; `held` itself when that is still current.

        One round trip; while `held` is current only its expiry travels, and when that was moved forward by another
        instance, the answer is `held` with it. Prolongs nothing.
        """
        self._require_open()
        name = _encoded(session_id)
        if name is None:
            return None
        key = self._key(name)
        if held is None:
            record = await self._client.execute("GET", key)
        else:
            record = await self._client.run(scripts.LOAD, (key,), identity(held.revision, held.created_at))
            if record is not None and len(record) == EXPIRY.size:
                return prolonged(held, EXPIRY.unpack(record)[0])
        return None if record is None else decode(record)

    async def save(self, state: SessionState) -> SessionState | None:
        """Store `state` if the stored revision is one less; otherwise the stored state is returned.

        Of a session that was deleted and created anew, the new state is returned whatever its revision.
        """
        repeated = id(state) in self._doubtful
        async with self._written(state) as token:
            name, node, user, record = self._prepare(state, token)
            outcome = await self._client.run(
                scripts.SAVE,
                (self._key(name), self._active, self._prefix + b"node:" + node, self._prefix + user),
                identity(state.revision - 1, state.created_at),
                record,
                self._lifetime(state),
                repr(state.expires_at),
                name,
                self._prefix,
                owner_of(node, user),
            )
            if repeated and outcome not in (0, 1):
                raise OutcomeUnknown("Redis: whether the session was stored is not known")
        if outcome == 0:
            raise SessionNotFound(f"Session {state.session_id} not found", session_id=state.session_id)
        return None if outcome == 1 else decode(outcome)

    async def touch(self, state: SessionState) -> bool:
        """Prolong the stored session to `state.expires_at` if it still is in this state; never shortens.

        Changes no revision. False when the session was changed meanwhile or is gone.
        """
        self._require_open()
        name = utf8(state.session_id, "session_id")
        node, user = self._indexes(state)
        outcome = await self._client.run(
            scripts.TOUCH,
            (self._key(name), self._active, self._prefix + b"node:" + node, self._prefix + user),
            identity(state.revision, state.created_at),
            EXPIRY.pack(state.expires_at),
            self._lifetime(state),
            repr(state.expires_at),
            name,
        )
        return bool(outcome)

    async def delete(self, session_id: str) -> bool:
        """Remove a session; False when there was none. It is then unknown, not expired."""
        self._require_open()
        name = _encoded(session_id)
        if name is None:
            return False
        return bool(await self._client.run(scripts.DELETE, (self._key(name),), name, self._prefix))

    # Who is there --------------------------------------------------------------------------------

    async def count(self, now: float) -> int:
        """How many sessions have not expired at `now`."""
        self._require_open()
        return int(await self._client.execute("ZCOUNT", self._active, f"({now!r}", "+inf"))

    async def page(
        self, limit: int, cursor: str | None, node: str | None, now: float, include_expired: bool
    ) -> SessionPage:
        """Sessions in ascending order of id after `cursor`, those of one node if given; `total` counts all.

        Each is as of the moment it was read.
        """
        self._require_open()
        of_node = None if node is None else utf8(node, "cursor")
        index = self._active if of_node is None else self._prefix + b"node:" + of_node
        ids = self._prefix + (b"_ids" if of_node is None else b"node-ids:" + of_node)
        bound = b"-" if cursor is None else b"(" + utf8(cursor, "cursor")
        since = "-inf" if include_expired else f"({now!r}"
        total, found = await asyncio.gather(
            self._client.execute("ZCOUNT", index, since, "+inf"),
            self._find(ids, bound, limit + 1, "-inf" if include_expired else repr(now)),
        )
        page = found[:limit]
        return SessionPage(page, page[-1].session_id if len(found) > limit else None, int(total))

    async def _find(self, ids: bytes, bound: bytes, wanted: int, now: str) -> list[SessionState]:
        found: list[SessionState] = []
        while True:
            looked, seen, records = await self._client.run(
                scripts.PAGE,
                (ids, self._active),
                bound,
                wanted - len(found),
                now,
                _LOOKED_AT_ONCE,
                self._prefix,
            )
            found += map(decode, records)
            if len(found) >= wanted or seen < _LOOKED_AT_ONCE:
                return found
            bound = b"(" + looked

    async def expire(self, now: float) -> SessionIds:
        """Remove sessions whose time is over, leaving a tombstone for an hour; returns their ids.

        Each id is returned to one of all instances, once.
        """
        self._require_open()
        await self._client.execute("ZREMRANGEBYSCORE", self._tombstones, "-inf", repr(now))
        removed: SessionIds = []
        while True:
            gone = await self._client.run(
                scripts.EXPIRE,
                (self._active, self._tombstones),
                repr(now),
                repr(now + TOMBSTONE_SECONDS),
                int(TOMBSTONE_SECONDS * 1000),
                _EXPIRED_AT_ONCE,
                self._prefix,
            )
            removed += [name.decode() for name in gone]
            if len(gone) < _EXPIRED_AT_ONCE:
                return removed

    async def expired(self, session_id: str) -> bool:
        """Whether this id is known to have existed and expired.

        So it is also when Redis has removed its record and no sweep has reported it.
        """
        self._require_open()
        name = _encoded(session_id)
        if name is None:
            return False
        buried, indexed, stored = await asyncio.gather(
            self._client.execute("ZSCORE", self._tombstones, name),
            self._client.execute("ZSCORE", self._active, name),
            self._client.execute("EXISTS", self._key(name)),
        )
        return buried is not None or (indexed is not None and not stored)

    async def close(self) -> None:
        """Finish what was accepted and release every resource."""
        if not self._closed:
            self._closed = True
            await self._client.close()

    # Writing --------------------------------------------------------------------------------

    @asynccontextmanager
    async def _written(self, state: SessionState) -> AsyncIterator[bytes]:
        """A token for one write of `state`: the same one again when that write failed in doubt."""
        self._require_open()
        _, token = self._doubtful.pop(id(state), (state, b""))
        token = token or self._writer + next(self._writes).to_bytes(TOKEN_BYTES - len(self._writer))
        try:
            yield token
        except StorageError:
            # Holding the state keeps its id from being given to another object.
            self._doubtful[id(state)] = (state, token)
            if len(self._doubtful) > _DOUBTS_KEPT:
                self._doubtful.popitem(last=False)
            raise

    def _prepare(self, state: SessionState, token: bytes) -> tuple[bytes, bytes, bytes, bytes]:
        """Id, node, user's index and record of a state; `ResourceExhausted` when it is too large."""
        content = encode_session(state)
        if len(content) > self._max_bytes:
            raise ResourceExhausted(
                f"session {state.session_id} would take {len(content)} bytes; the limit is {self._max_bytes}",
                size=len(content),
                limit=self._max_bytes,
            )
        node, user = self._indexes(state)
        record = encode(state, content, owner_of(node, user), token)
        return utf8(state.session_id, "session_id"), node, user, record

    def _require_open(self) -> None:
        if self._closed:
            raise StorageError("Redis: the session store is closed")


def _encoded(session_id: str) -> bytes | None:
    """The bytes of an id, None when no session can have it."""
    try:
        return utf8(session_id, "session_id")
    except ValidationError:
        return None


def _limit_reached(
    total: bool, figures: list[Any], limit: int, limit_per_user: int, now: float
) -> SessionLimitExceeded:
    living, next_expiry = figures
    reached = limit if total else limit_per_user
    return SessionLimitExceeded(
        f"{living} sessions {'' if total else 'of this user '}are alive and the limit is {reached}",
        retry_after=min(_LONGEST_RETRY, max(1.0, float(next_expiry) - now)),
        limit_type="sessions" if total else "sessions_per_user",
        current_value=living,
        limit_value=reached,
    )
