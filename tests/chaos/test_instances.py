"""Two instances on one Redis and one PostgreSQL: every session has one history, whoever serves it."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import pytest_asyncio

from kato import bootstrap
from kato.engine.naming import pattern_name
from kato.errors import EmptySTM, OutcomeUnknown, SessionNotFound, StorageError
from kato.model import Events, Observation, SessionState
from kato.service import Kato
from kato.sessions.shared import SharedSessions
from kato.settings import Settings
from tests.support import postgres, redis
from tests.support.kato import opened, show, stm, taught
from tests.support.proxy import proxied

Pair = list[Kato]


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    """Two instances, wired from settings as operators do."""
    async with running([redis.shared().port] * 2) as pair:
        yield pair


@asynccontextmanager
async def running(ports: list[int]) -> AsyncIterator[Pair]:
    """Instances that reach the one Redis by these ports."""
    cluster = uuid.uuid4().hex
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                bootstrap.running(
                    Settings(
                        KATO_STORE="postgres",
                        DATABASE_URL=postgres.shared().url,
                        KATO_DATABASE_POOL_SIZE=5,
                        REDIS_URL=f"redis://127.0.0.1:{port}/0",
                        KATO_VECTORS=False,
                        MAX_SESSIONS=0,
                        PROCESSOR_ID=cluster,
                    ),
                    time.time,
                )
            )
            for port in ports
        ]


def node() -> str:
    """A node that no other test uses."""
    return f"node-{uuid.uuid4().hex}"


def crash(kato: Kato) -> None:
    """From now on the instance dies between storing the session and delivering what it teaches."""

    async def die(state: SessionState) -> None:
        raise asyncio.CancelledError

    deliver_by(kato, die)


def deliver_by(kato: Kato, deliver: Callable[[SessionState], Awaitable[None]]) -> None:
    assert isinstance(kato.sessions, SharedSessions)
    kato.sessions.deliver = deliver


async def stored(kato: Kato, node_id: str) -> Counter[Events]:
    """How often each sequence was learned, read from the pattern store itself."""
    found = Counter[Events]()
    async for batch in kato.memory.patterns.scan(node_id):
        names = [record.name.hex() for record in batch]
        for pattern in (await kato.memory.patterns.fetch(node_id, names)).values():
            if not pattern.forgotten:
                found[pattern.events] = pattern.frequency
    return found


async def test_200_parallel_observes_of_one_session_dealt_over_both(pair: Pair) -> None:
    session = await opened(pair[0], node())
    calls = (pair[n % 2].observe(session, Observation(strings=(f"s{n}",))) for n in range(200))
    answers = await asyncio.gather(*calls)
    assert sorted(answer.time for answer in answers) == list(range(1, 201))
    for kato in pair:
        state = await kato.session(session)
        assert state.time == 200
        assert [state.stm[answer.time - 1] for answer in answers] == [(f"s{n}",) for n in range(200)]


async def test_an_observe_whose_acknowledgement_was_lost_and_that_was_overtaken_is_not_done_twice() -> None:
    with proxied("127.0.0.1", redis.shared().port) as proxy:
        async with running([proxy.port, redis.shared().port]) as (a, b):
            session = await opened(a, node())
            for kato in (a, b, a):
                await show(kato, session, "x")
            proxy.swallow_replies(1)
            ours = asyncio.create_task(show(a, session, "a"))
            while len(await stm(b, session)) < 4:
                await asyncio.sleep(0)
            await show(b, session, "b")
            with pytest.raises(OutcomeUnknown):
                await ours
            for kato in (a, b):
                assert await stm(kato, session) == (("x",), ("x",), ("x",), ("a",), ("b",))


async def test_each_step_on_another_instance(pair: Pair) -> None:
    a, b = pair
    session = await opened(a, node())
    await show(b, session, "a b")
    name = (await a.learn(session)).pattern_name
    assert await stm(b, session) == ()
    assert (await b.get_pattern((await b.session(session)).node_id, name)).frequency == 1
    await b.delete_session(session)
    with pytest.raises(SessionNotFound):
        await a.session(session)


async def test_what_one_instance_learned_every_later_prediction_of_the_other_knows(pair: Pair) -> None:
    node_id = node()
    ours, theirs = [await opened(kato, node_id, recall_threshold=0.1) for kato in pair]
    await show(pair[1], theirs, "a b")
    assert (await pair[1].predictions(theirs))[0].predictions == ()
    for number in range(25):
        name = await taught(pair[0], ours, f"a b {chr(0x100 + number)}")
        found = {prediction.pattern_name for prediction in (await pair[1].predictions(theirs))[0].predictions}
        assert name in found
        assert (await pair[1].totals(node_id)).unique_patterns == number + 1
    await pair[0].delete_pattern(node_id, name)
    assert (await pair[1].totals(node_id)).unique_patterns == 24
    await pair[0].clear_all(ours)
    assert (await pair[1].predictions(theirs))[0].predictions == ()


async def test_the_session_of_v1_clients_is_one(pair: Pair) -> None:
    ids = await asyncio.gather(*(pair[n % 2].default_session() for n in range(10)))
    assert len(set(ids)) == 1
    await asyncio.gather(*(show(pair[n % 2], ids[0], f"{n}") for n in range(10)))
    assert len(await stm(pair[0], ids[0])) == 10


class Race:
    """Observers and learners of one session on both instances, and what was acknowledged to them."""

    def __init__(self, pair: Pair, session: str, node_id: str) -> None:
        self.pair = pair
        self.session = session
        self.node_id = node_id
        self.shown: dict[int, tuple[str, ...]] = {}
        self.learned: list[Events] = []
        self.refused = Counter[str]()

    async def observe(self, client: int, steps: int) -> None:
        for step in range(steps):
            # Two symbols, so that already one event makes a pattern.
            event = (f"{client}-{step}", f"{client}-{step}+")
            answer = await self.pair[client % 2].observe(self.session, Observation(strings=event))
            assert answer.time not in self.shown
            self.shown[answer.time] = event

    async def learn(self, client: int, steps: int) -> None:
        for _ in range(steps):
            try:
                name = (await self.pair[client % 2].learn(self.session)).pattern_name
            except (EmptySTM, StorageError) as error:
                self.refused[error.code] += 1
                continue
            pattern = await self.pair[client % 2].get_pattern(self.node_id, name)
            self.learned.append(pattern.events)

    async def run(self) -> None:
        await asyncio.gather(
            *(self.observe(client, 25) for client in range(4)), *(self.learn(client, 15) for client in (4, 5))
        )

    async def check(self) -> None:
        """One serial order explains everything: the learned pieces and the STM, in order, are what was shown."""
        order = [self.shown[moment] for moment in range(1, len(self.shown) + 1)]
        place = {event: number for number, event in enumerate(order)}
        pieces = sorted(
            [*self.learned, await stm(self.pair[0], self.session)], key=lambda p: [place[e] for e in p]
        )
        assert [event for piece in pieces for event in piece] == order
        assert await stored(self.pair[1], self.node_id) == Counter(self.learned)


async def test_learning_while_others_observe_teaches_what_a_serial_order_explains(pair: Pair) -> None:
    for _ in range(3):
        node_id = node()
        race = Race(pair, await opened(pair[0], node_id), node_id)
        await race.run()
        assert len(race.shown) == 100
        assert race.learned
        await race.check()


async def test_so_it_is_when_the_pattern_store_fails_now_and_then(pair: Pair) -> None:
    chance = random.Random(3)
    for kato in pair:

        async def sometimes(state: SessionState, kato: Kato = kato) -> None:
            if chance.random() < 0.4:
                raise StorageError("the pattern store is down")
            await kato.teaching.deliver(state)

        deliver_by(kato, sometimes)
    for _ in range(3):
        node_id = node()
        race = Race(pair, await opened(pair[0], node_id), node_id)
        await race.run()
        assert race.refused["STORAGE_ERROR"]
        assert race.learned
        # What was claimed when its learner gave up is taught, though nobody was told so.
        deadline = time.monotonic() + 30
        while (await pair[0].session(race.session)).pending is not None:
            assert time.monotonic() < deadline
        found = await stored(pair[0], node_id)
        assert found >= Counter(race.learned)
        race.learned = list(found)
        await race.check()


async def test_what_many_sessions_learn_at_once_counts_once_each(pair: Pair) -> None:
    node_id = node()
    sessions = [await opened(pair[n % 2], node_id) for n in range(8)]

    async def teach(number: int) -> None:
        for step in range(5):
            await taught(pair[(number + step) % 2], sessions[number], "a b")

    await asyncio.gather(*map(teach, range(8)))
    assert await stored(pair[0], node_id) == {(("a",), ("b",)): 40}


@pytest.mark.parametrize("use", ["stm", "observe", "learn"])
async def test_what_a_crashed_instance_left_undelivered_is_completed_by_the_other(
    pair: Pair, use: str
) -> None:
    a, b = pair
    node_id = node()
    session = await opened(a, node_id)
    await show(a, session, "a b")
    crash(a)
    with pytest.raises(asyncio.CancelledError):
        await a.learn(session, "key")
    assert not await stored(b, node_id)
    if use == "stm":
        assert await stm(b, session) == ()
    elif use == "observe":
        await show(b, session, "c")
    else:
        # The client asks again, and gets the answer that it missed.
        answer = await b.learn(session, "key")
        assert (await b.get_pattern(node_id, answer.pattern_name)).frequency == 1
    for kato in (b, a, b):
        assert await stm(kato, session) == ((("c",),) if use == "observe" else ())
    assert await stored(b, node_id) == {(("a",), ("b",)): 1}


async def test_crashes_in_a_row_lose_nothing_and_count_nothing_twice(pair: Pair) -> None:
    a, b = pair
    node_id = node()
    session = await opened(a, node_id)
    for _ in range(10):
        deliver_by(a, a.teaching.deliver)
        await show(a, session, "a b")
        crash(a)
        with pytest.raises(asyncio.CancelledError):
            await a.learn(session)
        assert await stm(b, session) == ()
    assert await stored(b, node_id) == {(("a",), ("b",)): 10}


async def crash_learning(a: Kato, session: str, *, delivered: bool) -> None:
    """`a` dies right before or after delivering what the session learns, before the session says so."""

    async def die(state: SessionState) -> None:
        if delivered:
            await a.teaching.deliver(state)
        raise asyncio.CancelledError

    deliver_by(a, die)
    with pytest.raises(asyncio.CancelledError):
        await a.learn(session)
    deliver_by(a, a.teaching.deliver)


@pytest.mark.parametrize("relearned", [False, True])
async def test_what_a_crash_left_delivered_but_pending_does_not_undo_a_deletion(
    pair: Pair, relearned: bool
) -> None:
    a, b = pair
    node_id = node()
    session, other = [await opened(a, node_id, recall_threshold=0.1) for _ in "ab"]
    await show(a, session, "a b")
    await crash_learning(a, session, delivered=True)
    ((name, frequency),) = (await stored(b, node_id)).items()
    assert (name, frequency) == ((("a",), ("b",)), 1)
    await b.delete_pattern(node_id, pattern_name(name))
    if relearned:
        await taught(b, other, "a b")
    await show(b, other, "a")
    for kato in (b, a, b):
        assert await stm(kato, session) == ()
        found = [each.frequency for each in (await kato.predictions(other))[0].predictions]
        assert found == [1] * relearned
    assert await stored(b, node_id) == ({name: 1} if relearned else {})


@pytest.mark.parametrize("delivered", [False, True])
async def test_what_a_crash_left_pending_does_not_come_back_when_all_is_cleared(
    pair: Pair, delivered: bool
) -> None:
    a, b = pair
    node_id, elsewhere = node(), node()
    sessions = [await opened(a, node_id) for _ in range(3)]
    away = await opened(a, elsewhere)
    for session in (*sessions[:2], away):
        await show(a, session, "a b")
        await crash_learning(a, session, delivered=delivered)
    await b.clear_all(sessions[2])
    for kato in (b, a):
        for session in sessions:
            assert await stm(kato, session) == ()
        assert not await stored(kato, node_id)
    assert await stm(b, away) == ()
    assert await stored(b, elsewhere) == {(("a",), ("b",)): 1}


async def test_all_is_not_cleared_while_what_is_pending_cannot_be_delivered(pair: Pair) -> None:
    a, b = pair
    node_id = node()
    session, other = [await opened(a, node_id) for _ in "ab"]
    await taught(a, other, "c d")
    await show(a, session, "a b")
    await crash_learning(a, session, delivered=False)

    async def fail(state: SessionState) -> None:
        raise StorageError("the pattern store is down")

    deliver_by(b, fail)
    with pytest.raises(StorageError):
        await b.clear_all(other)
    assert await stored(b, node_id) == {(("c",), ("d",)): 1}
    deliver_by(b, b.teaching.deliver)
    await b.clear_all(other)
    assert await stm(b, session) == ()
    assert not await stored(b, node_id)


@pytest.mark.parametrize("delivered", [False, True])
async def test_what_a_crash_left_pending_counts_once_however_often_its_pattern_was_learned_since(
    pair: Pair, delivered: bool
) -> None:
    a, b = pair
    node_id = node()
    session, *others = [await opened(a, node_id) for _ in range(5)]
    await show(a, session, "a b")
    await crash_learning(a, session, delivered=delivered)
    for _ in range(25):
        await asyncio.gather(
            *(taught(kato, each, "a b") for kato, each in zip(pair * 2, others, strict=True))
        )
    for kato in (b, a):
        assert await stm(kato, session) == ()
        assert await stored(kato, node_id) == {(("a",), ("b",)): 101}


async def test_a_delivery_so_slow_that_its_learn_is_forgotten_does_not_count_again(pair: Pair) -> None:
    a, b = pair
    node_id = node()
    session, *others = [await opened(a, node_id) for _ in range(5)]
    gates = [asyncio.Event(), asyncio.Event()]
    waiting = [asyncio.Event(), asyncio.Event()]
    for kato, gate, arrived in zip(pair, gates, waiting, strict=True):

        async def slowly(
            state: SessionState,
            kato: Kato = kato,
            gate: asyncio.Event = gate,
            arrived: asyncio.Event = arrived,
        ) -> None:
            arrived.set()
            await gate.wait()
            await kato.teaching.deliver(state)

        deliver_by(kato, slowly)
    await show(a, session, "a b")
    learn = asyncio.create_task(a.learn(session))
    await waiting[0].wait()
    # It meets the session with the learn pending, claims that, and is slow.
    late = asyncio.create_task(stm(b, session))
    await waiting[1].wait()
    gates[0].set()
    await learn
    deliver_by(b, b.teaching.deliver)
    assert await stm(a, session) == ()
    for _ in range(20):
        await asyncio.gather(
            *(taught(kato, each, "a b") for kato, each in zip(pair * 2, others, strict=True))
        )
    gates[1].set()
    assert await late == ()
    for kato in pair:
        assert await stm(kato, session) == ()
        assert await stored(kato, node_id) == {(("a",), ("b",)): 81}
