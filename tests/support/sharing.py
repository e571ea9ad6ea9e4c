"""Instances that share their sessions over one Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from kato import errors
from kato.model import Lesson, Pending, SessionState
from kato.sessions.shared import SharedSessions
from kato.stores.redis import RedisClient, RedisSessionStore
from tests.support import redis
from tests.support.clock import Clock
from tests.support.sessions import Keeping, keeping

LESSON = Lesson(name="0f" * 20, events=(("a",), ("b",)), operation="o")
CLAIMED = Pending((LESSON,), claimed=True)


class Instance:
    """Sessions of one instance, a count of its round trips, and deliveries that a test can observe and disturb."""

    def __init__(self, kept: Keeping) -> None:
        assert isinstance(kept.sessions, SharedSessions)
        assert isinstance(kept.store, RedisSessionStore)
        self.kept = kept
        self.sessions: SharedSessions = kept.sessions
        self.store: RedisSessionStore = kept.store
        self.delivered: list[Pending] = []
        self.failures: Iterator[BaseException] = iter(())
        self.round_trips = 0
        self.sessions.deliver = self.deliver
        run = self.store.client._run_batch

        async def counted(batch: list[object]) -> None:
            self.round_trips += 1
            await run(batch)  # type: ignore[arg-type]

        self.store.client._run_batch = counted  # type: ignore[method-assign, assignment]

    async def deliver(self, state: SessionState) -> None:
        failure = next(self.failures, None)
        if failure is not None:
            raise failure
        stored = await self.store.load(state.session_id)
        assert stored is None or stored.revision >= state.revision
        assert state.pending is not None
        self.delivered.append(state.pending)

    async def teach(self, session_id: str) -> str:
        """Turn the STM into a pending lesson."""

        async def change(state: SessionState) -> tuple[SessionState, str]:
            if not state.stm:
                raise errors.EmptySTM("nothing to learn")
            return msgspec.structs.replace(state, stm=(), pending=Pending((LESSON,))), "taught"

        return await self.sessions.change(session_id, change)

    async def observe(self, session_id: str, symbol: str = "x") -> int:
        return await self.kept.observe(session_id, symbol)

    async def stm(self, session_id: str) -> str:
        return "".join(event[0] for event in (await self.sessions.get(session_id)).stm)

    async def stored(self, session_id: str) -> SessionState:
        state = await self.store.load(session_id)
        assert state is not None
        return state

    async def cleared(self, session_id: str) -> SessionState:
        """The stored state once nothing is pending any more and nothing runs in the background."""
        await asyncio.gather(*self.sessions._clearing)
        state = await self.stored(session_id)
        assert state.pending is None
        return state


@asynccontextmanager
async def instances(
    clock: Clock | None = None, number: int = 2, **settings: object
) -> AsyncIterator[list[Instance]]:
    clock = clock or Clock()
    prefix = redis.fresh_prefix()
    async with AsyncExitStack() as stack:
        yield [
            Instance(
                await stack.enter_async_context(
                    keeping(
                        clock=clock,
                        store=RedisSessionStore(RedisClient(redis.shared().url), prefix=prefix),
                        **settings,
                    )
                )
            )
            for _ in range(number)
        ]


async def create(instance: Instance, ttl_seconds: int = 60) -> str:
    return (await instance.kept.create(ttl_seconds)).session_id
