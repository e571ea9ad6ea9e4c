"""What sessions teach: the same with an outbox as without, and exactly once whatever happens between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from kato.errors import StorageError
from kato.memory.registry import Memory
from kato.model import Observation, Pending, SessionState
from kato.ops.counters import Counters
from kato.ops.events import EventBus
from kato.results import Batch
from kato.service import Kato
from kato.sessions.shared import SharedSessions
from kato.settings import Settings
from kato.stores.redis import RedisSessionStore
from kato.stores.sqlite import SqlitePatternStore, SqliteVectorStore
from tests.support import redis
from tests.support.clock import Clock
from tests.support.kato import batch, kato_running, opened, seen, show, stm, taught
from tests.support.waiting import until


@asynccontextmanager
async def sharing(**settings: object) -> AsyncIterator[Kato]:
    """A service with its sessions in Redis and an outbox."""
    clock = Clock()
    chosen = Settings(KATO_DATA=":memory:", **settings)  # type: ignore[arg-type]
    store = RedisSessionStore(redis.shared().url, prefix=redis.fresh_prefix())
    events, counters = EventBus(clock), Counters()
    memory = Memory(SqlitePatternStore(":memory:"), SqliteVectorStore(":memory:"))
    sessions = SharedSessions(store, chosen, events, counters, clock)
    kato = Kato(chosen, sessions, memory, events, counters, clock)
    try:
        yield kato
    finally:
        await kato.close()


def story() -> list[Batch]:
    """Batches that learn between vectors, so that later vectors find earlier ones."""
    near = [seen("a", [[0, 0]]), seen("b", [[0, 1]]), seen("", [[5, 5], [1, 1]]), seen("c", [[0.5, 0.5]])]
    other = [seen("x", [[1, 2, 3]]), seen("y", [[0, 1]]), seen("z", [[1, 2, 4]])]
    return [
        Batch(observations=tuple(near), learn_after_each=True),
        Batch(observations=tuple(other), learn_after_each=True),
        Batch(observations=tuple(reversed(near)), learn_at_end=True),
        Batch(observations=tuple(near * 2), learn_after_each=True, clear_stm_between=True),
        batch("a b c", learn_after_each=True),
    ]


async def told(kato: Kato, batches: list[Batch]) -> list[object]:
    """Everything that the story leads to."""
    session = await opened(kato)
    found: list[object] = []
    for each in batches:
        answer = await kato.observe_sequence(session, each)
        found.append((answer.patterns, answer.final_learned_pattern, answer.final_stm_length))
        found.append((await kato.session(session)).vectors)
        found.append(await stm(kato, session))
    await kato.observe(session, seen("q", [[0.2, 0.2]]))
    found.append(await stm(kato, session))
    found.append((await kato.learn(session)).pattern_name)
    page = await kato.list_patterns("node")
    found.append([(p.name, p.events, p.frequency) for p in page.patterns])
    found.append((kato.counters.observations, kato.counters.patterns_learned))
    return found


@pytest.mark.parametrize("first", [0, 1, 2])
async def test_the_outbox_changes_no_answer(first: int) -> None:
    batches = story()[first:] + story()[:first]
    async with kato_running() as plain, sharing() as outbox:
        assert await told(plain, batches) == await told(outbox, batches)


async def test_vectors_of_a_length_that_the_node_does_not_accept_are_not_found_while_pending() -> None:
    async with kato_running() as plain, sharing() as outbox:
        answers = []
        for kato in (plain, outbox):
            session = await opened(kato)
            await taught(kato, session, "a b")
            await kato.observe(session, seen("a", [[1]]))
            await kato.learn(session)
            answers.append(await told(kato, story()[1:2]))
        assert answers[0] == answers[1]


async def test_automatic_learning_goes_through_the_outbox() -> None:
    async with sharing() as kato:
        session = await opened(kato, max_pattern_length=2)
        heard = kato.events.subscribe(["pattern.learned"])
        await show(kato, session, "a b")
        told = (await heard.next()).data
        assert told["session_id"] == session
        assert (await kato.get_pattern("node", told["pattern_name"])).frequency == 1
        assert await stm(kato, session) == ()
        assert (await kato.sessions.get(session)).pending is None


async def test_a_learn_that_teaches_nothing_leaves_nothing_pending() -> None:
    async with sharing() as kato:
        session = await opened(kato)
        assert await taught(kato, session, "a") == ""
        assert (await kato.session(session)).revision == 2


async def test_many_deliveries_count_once() -> None:
    async with sharing() as kato:
        session = await opened(kato)
        deliver = kato.teaching.deliver
        states = []

        async def twice(state):  # type: ignore[no-untyped-def]
            states.append(state)
            await asyncio.gather(deliver(state), deliver(state))
            await deliver(state)

        assert isinstance(kato.sessions, SharedSessions)
        kato.sessions.deliver = twice
        for _ in range(3):
            name = await taught(kato, session, "a b")
        assert (await kato.get_pattern("node", name)).frequency == 3
        assert [state.pending.lessons[0].operation for state in states] == [
            f"{session}:{changes}:0" for changes in (2, 5, 8)
        ]


async def test_nothing_pending_delivers_nothing() -> None:
    async with sharing() as kato:
        state = await kato.create_session("node")
        await kato.teaching.deliver(state)
        await kato.teaching.deliver(msgspec.structs.replace(state, pending=Pending()))
        assert (await kato.totals("node")).unique_patterns == 0


async def test_without_the_pattern_store_a_learn_keeps_the_stm(monkeypatch: pytest.MonkeyPatch) -> None:
    async with sharing() as kato:
        session = await opened(kato)
        name = await taught(kato, session, "a b")
        await show(kato, session, "a b")

        async def down(*_: object) -> None:
            raise StorageError("the pattern store is down")

        with monkeypatch.context() as patch:
            for verb in ("insert", "fetch", "replace"):
                patch.setattr(kato.memory.patterns, verb, down)
            with pytest.raises(StorageError):
                await kato.learn(session)
            assert await stm(kato, session) == (("a",), ("b",))
            await show(kato, session, "c")
        assert (await kato.learn(session)).pattern_name != name
        assert (await kato.get_pattern("node", name)).frequency == 1


async def test_a_repeated_key_gets_the_first_answer_and_teaches_once() -> None:
    async with sharing() as kato:
        session = await opened(kato)
        await show(kato, session, "a b")
        first = await kato.learn(session, "key")
        assert await kato.learn(session, "key") == first
        assert (await kato.get_pattern("node", first.pattern_name)).frequency == 1
        assert await kato.observe(session, Observation(strings=("a",)), "o") == await kato.observe(
            session, Observation(strings=("a",)), "o"
        )
        assert kato.counters.observations == 3


async def test_a_default_session_created_anew_teaches_anew() -> None:
    async with sharing() as kato:
        for _ in range(3):
            session = await kato.default_session()
            name = await taught(kato, session, "a b")
            await kato.delete_session(session)
            assert isinstance(kato.clock, Clock)
            kato.clock.advance(1)
        assert (await kato.get_pattern(None, name)).frequency == 3


async def test_a_read_that_waits_for_a_delivery_never_sees_a_learn_that_is_taken_back() -> None:
    async with sharing() as kato:
        assert isinstance(kato.sessions, SharedSessions)
        session = await opened(kato)
        await show(kato, session, "a b")
        waiting: list[asyncio.Future[None]] = []

        async def die(state: SessionState) -> None:
            raise asyncio.CancelledError

        async def fail(state: SessionState) -> None:
            raise StorageError("the pattern store is down")

        async def fail_later(state: SessionState) -> None:
            waiting.append(asyncio.get_running_loop().create_future())
            await waiting[-1]
            raise StorageError("the pattern store is down")

        kato.sessions.deliver = die
        with pytest.raises(asyncio.CancelledError):
            await kato.learn(session)
        # From here on something is pending that cannot be delivered.
        kato.sessions.deliver = fail
        await show(kato, session, "c d")
        kato.sessions.deliver = fail_later
        reader = asyncio.create_task(stm(kato, session))
        await until(lambda: len(waiting) == 1)
        learner = asyncio.create_task(kato.learn(session))
        await until(lambda: len(waiting) == 2)
        waiting[1].set_result(None)
        await until(lambda: len(waiting) == 3)
        # The learn is stored, and will be taken back.
        waiting[0].set_result(None)
        assert await reader == (("c",), ("d",))
        waiting[2].set_result(None)
        with pytest.raises(StorageError):
            await learner
        kato.sessions.deliver = fail
        assert await stm(kato, session) == (("c",), ("d",))
