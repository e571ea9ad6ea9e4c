"""The life of sessions in a store that other instances change too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec

from kato import errors
from kato.model import Pending, SessionState
from kato.ops.counters import Counters
from kato.ops.events import EventBus
from kato.sessions.keeper import DEFAULT_SESSION_TTL, SESSION_ID, Held, Sessions, expired, unknown
from kato.settings import Settings
from kato.stores.ports import SessionPage, SessionStore

T = TypeVar("T")
ATTEMPTS = 100
"""More than an instance can need while the others let it pass."""
WINS = 16
"""Who was first so often, and has more to do, lets the others pass."""
PASSING_SECONDS = 0.001
"""Others that were refused and know the fresh state by now store theirs in less."""
HELD_KEPT = 10_000
PAGE = 100
"""Sessions looked at in one round trip."""


class SharedStore(SessionStore, Protocol):
    """A session store for several instances."""

    async def touch(self, state: SessionState) -> bool:
        """Prolong the stored session to `state.expires_at` if it still is in this state; never shortens."""
        ...


class SharedSessions(Sessions):
    """All sessions, where any instance may change any of them at any time.

    A state held in memory is only a guess. A read asks whether it still holds and prolongs the session in the same
    round trip. A change runs on the guess at once: its save is refused when the guess was wrong, hands back the fresh
    state, and the change runs again. What a change raises counts only when the state was right. So the order of all
    changes is the order of their saves, whoever made them, and nothing needs a lock or a lease.

    What a change teaches travels with it: the saved state says what is `pending`, and only then `deliver` makes that
    durable, so nothing is ever taught that is not in the session's history. The client is answered after both. When it
    cannot be delivered, the learner puts the former state back. Whoever else meets something pending claims it, by a
    save of its own, and delivers it before going on: of claiming and putting back only one succeeds, and what was
    claimed is delivered sooner or later, twice if need be, which changes nothing. While it cannot be, it stays pending
    and the session goes on.

    Accesses that change nothing are counted in this process until the next change writes them. At most `kept` states
    are held, beside those in use.
    """

    exclusive: ClassVar[bool] = False

    def __init__(
        self,
        store: SharedStore,
        settings: Settings,
        events: EventBus,
        counters: Counters,
        clock: Callable[[], float],
        kept: int = HELD_KEPT,
    ) -> None:
        super().__init__(store, settings, events, counters, clock)
        self._shared = store
        self._kept = kept
        self._clearing: set[asyncio.Task[None]] = set()
        self.deliver: Callable[[SessionState], Awaitable[None]] = _nothing_to_deliver

    # Use --------------------------------------------------------------------------------

    async def get(self, session_id: str) -> SessionState:
        """The current state; prolongs the session. What is pending is delivered before if that is possible."""
        held = await self._certain(session_id, prolong=True)
        held.accesses += 1
        # Not what is held then: that may be a learn of this process which is taken back.
        state = await self._roll_forward(session_id, held)
        return self._prolonged(state, state.access_count + held.accesses, state.revision, state.changes)

    async def _certain(self, session_id: str, *, prolong: bool) -> Held:
        """The current state, which no learn of this process may still take back."""
        held = await self._look(session_id, prolong=prolong)
        while held.delivering == _moment(held.state):
            held.users += 1
            try:
                async with held.lock:
                    pass
            finally:
                held.users -= 1
            held = await self._look(session_id, prolong=prolong)
        return held

    async def deliver_pending(self, session_id: str) -> None:
        """Deliver what any session of the node of this one has pending; `StorageError` when that is not possible."""
        node_id, cursor = (await self._look(session_id)).state.node_id, None
        while True:
            page = await self.page(PAGE, cursor, node_id, include_expired=False)
            for state in page.sessions:
                if state.pending is not None:
                    with contextlib.suppress(errors.NotFound):
                        await self._deliver_pending(state.session_id)
            if page.cursor is None:
                return
            cursor = page.cursor

    async def _deliver_pending(self, session_id: str) -> None:
        held = await self._certain(session_id, prolong=False)
        before = held.state
        await self._roll_forward(session_id, held)
        if held.delivered == _moment(held.state):
            # Perhaps it was delivered long ago, and only the session could not be told.
            await self._clear(session_id, held, _moment(held.state))
        if _shared_pending((await self._look(session_id)).state, before):
            raise errors.StorageError("What a session has taught cannot be stored now", retry_after=1)

    async def change(
        self, session_id: str, change: Callable[[SessionState], Awaitable[tuple[SessionState, T]]]
    ) -> T:
        """Run `change` on the session and store the state it returns; it runs again if another was first.

        Whatever `change`, the store or the delivery raises leaves the session as it was, unless a `StorageError`
        leaves open whether it was stored. Once it is answered, what it taught is pending no more, unless the store
        fails right then: what is delivered again after its node was cleared would come back.
        """
        result, clearing = await self._change(session_id, change)
        if clearing is not None:
            await asyncio.wait([clearing])
        return result

    async def _change(
        self, session_id: str, change: Callable[[SessionState], Awaitable[tuple[SessionState, T]]]
    ) -> tuple[T, asyncio.Task[None] | None]:
        """The result of `change` as stored, and what clears the state of what was taught."""
        async with self._alone(session_id) as held:
            held.accesses += 1
            certain = False
            for _ in range(ATTEMPTS):
                before = await self._roll_forward(session_id, held)
                accesses = held.accesses
                try:
                    after, result = await change(msgspec.structs.replace(before, pending=None))
                    taught = after.pending is not None
                    after = self._prolonged(
                        msgspec.structs.replace(after, pending=_joined(before.pending, after.pending)),
                        before.access_count + accesses,
                        before.revision + 1,
                        before.changes + 1,
                    )
                    newer = await self._store.save(after)
                except errors.StorageError:
                    raise
                except errors.KatoError as error:
                    known = certain and not isinstance(error, errors.SessionNotFound)
                    if known or not await self._outdated(session_id, held, before):
                        raise
                    certain = True
                    continue
                if newer is None:
                    held.state = after
                    held.accesses -= accesses
                    clearing = await self._complete(session_id, held, before, after) if taught else None
                    self._tell_updated(held, after)
                    await self._let_others_pass(held)
                    return result, clearing
                held.state = newer
                certain = True
                self._check_alive(session_id, newer)
        raise errors.ConcurrencyError(
            "The session kept changing; nothing was done", retry_after=1, session_id=session_id
        )

    async def _let_others_pass(self, held: Held) -> None:
        """Whoever was first knows the state first, and would be first again as long as its changes queue up."""
        held.wins += 1
        if held.users > 1 and not held.wins % WINS:
            await asyncio.sleep(PASSING_SECONDS)

    async def _outdated(self, session_id: str, held: Held, before: SessionState) -> bool:
        """Whether the session is no longer in the state `before`; then the fresh one is held."""
        await self._look(session_id)
        return _moment(held.state) != _moment(before)

    async def page(
        self, limit: int, cursor: str | None, node_id: str | None, include_expired: bool
    ) -> SessionPage:
        """A page of sessions in ascending order of id, as they are stored."""
        return await self._store.page(limit, cursor, node_id, self._clock(), include_expired)

    async def default(self, config: dict[str, Any]) -> str:
        """The id of the one session of v1 clients that name none, on all instances; created when there is none."""
        held = self._held.get(self.default_id)
        if held is not None and held.state.expires_at > self._clock():
            return self.default_id
        async with self._default_lock:
            if not (await self.exists(self.default_id)).exists:
                # Removes an expired one, but never one that another instance has just created.
                await self.sweep()
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

    # What is held --------------------------------------------------------------------------------

    async def _current(self, session_id: str) -> Held:
        return await self._look(session_id)

    async def _latest(self, session_id: str) -> SessionState | None:
        held = self._held.get(session_id)
        return await self._store.load(session_id, None if held is None else held.state)

    async def _look(self, session_id: str, *, prolong: bool = False) -> Held:
        """The session as it is stored now, alive; in one round trip when something is held already."""
        held = self._held.get(session_id)
        if held is None:
            if not SESSION_ID.fullmatch(session_id):
                raise unknown(session_id)
            return await self._found(session_id, await self._store.load(session_id), prolong)
        guess = held.state
        longer = self._longer(guess) if prolong and guess.expires_at > self._clock() else guess
        if longer is guess:
            return await self._found(session_id, await self._store.load(session_id, guess), prolong)
        state, prolonged = await asyncio.gather(
            self._store.load(session_id, guess), self._shared.touch(longer)
        )
        return await self._found(session_id, longer if prolonged else state, not prolonged)

    async def _found(self, session_id: str, state: SessionState | None, prolong: bool) -> Held:
        if state is None:
            self._held.pop(session_id, None)
            raise expired(session_id) if await self._store.expired(session_id) else unknown(session_id)
        held = self._hold(session_id, state)
        self._check_alive(session_id, held.state)
        longer = self._longer(held.state) if prolong else held.state
        if longer is not held.state and await self._shared.touch(longer):
            held = self._hold(session_id, longer)
        return held

    def _longer(self, state: SessionState) -> SessionState:
        """`state`, prolonged by an access now; itself when that changes nothing."""
        longer = self._prolonged(state, state.access_count, state.revision, state.changes)
        return longer if longer.expires_at > state.expires_at else state

    def _hold(self, session_id: str, state: SessionState) -> Held:
        """Hold `state` unless a later one of the same session is held."""
        held = self._held.pop(session_id, None)
        if held is None:
            held = Held(state)
            held.accesses = 0
        elif held.state.created_at != state.created_at or held.state.revision <= state.revision:
            held.state = state
        self._held[session_id] = held
        self._make_room(session_id)
        return held

    def _make_room(self, new: str) -> None:
        while len(self._held) > self._kept:
            # The one used longest ago comes first.
            unused = next((each for each, held in self._held.items() if not held.users and each != new), None)
            if unused is None:
                return
            del self._held[unused]

    def _announce_created(self, state: SessionState) -> None:
        super()._announce_created(state)
        self._make_room(state.session_id)

    @asynccontextmanager
    async def _alone(self, session_id: str) -> AsyncIterator[Held]:
        """The session for one of this process at a time, in the order of asking: fewer saves are refused."""
        while True:
            held = self._held.pop(session_id, None)
            if held is not None:
                self._held[session_id] = held
            if held is None or held.state.expires_at <= self._clock():
                held = await self._look(session_id)
            held.users += 1
            try:
                async with held.lock:
                    if self._held.get(session_id) is held and held.state.expires_at > self._clock():
                        yield held
                        return
            finally:
                held.users -= 1

    # Delivery --------------------------------------------------------------------------------

    async def _roll_forward(self, session_id: str, held: Held) -> SessionState:
        """Claim and deliver what is pending; the held state with that, and only that, which could not be delivered."""
        while True:
            state = held.state
            if state.pending is None:
                return state
            if held.delivered == _moment(state):
                return msgspec.structs.replace(state, pending=None)
            if state.pending.claimed:
                try:
                    await self._deliver(session_id, held, state)
                except errors.KatoError:
                    # Acknowledged to nobody, and the session can go on without it.
                    return state
            else:
                claim = msgspec.structs.replace(state.pending, claimed=True)
                claimed = self._following(msgspec.structs.replace(state, pending=claim))
                try:
                    held.state = await self._store.save(claimed) or claimed
                except (errors.SessionNotFound, errors.OutcomeUnknown):
                    held.state = (await self._look(session_id)).state
                self._check_alive(session_id, held.state)

    async def _deliver(self, session_id: str, held: Held, state: SessionState) -> asyncio.Task[None]:
        """Make durable what is pending in `state`; the task clears the state of it."""
        await self.deliver(state)
        held.delivered = _moment(state)
        task = asyncio.create_task(self._clear(session_id, held, _moment(state)))
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)
        return task

    async def _complete(
        self, session_id: str, held: Held, before: SessionState, after: SessionState
    ) -> asyncio.Task[None] | None:
        """Deliver what was just saved, or put the former state back; None when another has delivered it."""
        held.delivering = _moment(after)
        try:
            return await self._deliver(session_id, held, after)
        except errors.KatoError:
            if not await self._delivered_by_another(held, before, after):
                raise
            return None
        finally:
            held.delivering = None

    async def _delivered_by_another(self, held: Held, before: SessionState, after: SessionState) -> bool:
        """Put the state `before` back in place of `after`, unless another instance has gone on from there."""
        former = self._prolonged(before, after.access_count, after.revision + 1, before.changes)
        try:
            newer = await self._store.save(former)
        except errors.KatoError:
            return False
        held.state = newer or former
        if newer is None or newer.created_at != after.created_at:
            return False
        # It was claimed; who claimed it may not have succeeded either.
        return not _shared_pending(newer, after)

    def _following(self, state: SessionState) -> SessionState:
        """`state` as the next revision, though no client has changed it."""
        return self._prolonged(state, state.access_count, state.revision + 1, state.changes)

    async def _clear(self, session_id: str, held: Held, moment: tuple[float, int]) -> None:
        """Save the state without what was delivered, unless a change has done so meanwhile."""
        held.users += 1
        try:
            async with held.lock:
                state = held.state
                if _moment(state) != moment:
                    return
                cleared = self._following(msgspec.structs.replace(state, pending=None))
                # When it fails, someone delivers once more, which changes nothing.
                with contextlib.suppress(errors.StorageError, errors.NotFound):
                    held.state = await self._store.save(cleared) or cleared
        finally:
            held.users -= 1

    async def close(self) -> None:
        """Finish what runs in the background and close the store."""
        await asyncio.gather(*self._clearing, return_exceptions=True)
        await super().close()


async def _nothing_to_deliver(state: SessionState) -> None:
    """Sessions that teach nothing have nothing to deliver."""


def _joined(carried: Pending | None, new: Pending | None) -> Pending | None:
    """What is pending after a change that teaches `new`."""
    if carried is None or new is None:
        return new or carried
    return Pending((*carried.lessons, *new.lessons), (*carried.vectors, *new.vectors))


def _shared_pending(one: SessionState, other: SessionState) -> bool:
    """Whether something is pending in both."""
    first, second = one.pending or Pending(), other.pending or Pending()
    return any(lesson in second.lessons for lesson in first.lessons) or any(
        vector in second.vectors for vector in first.vectors
    )


def _moment(state: SessionState) -> tuple[float, int]:
    """What tells a state of a session from every other one."""
    return state.created_at, state.revision
