"""What goes on without the server of the vectors, and what does not; in both kinds of sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from kato.engine.naming import pattern_name, vector_name
from kato.errors import DataCorrupted, ServiceUnavailable, StorageError
from kato.model import PATTERN_PREFIX, Observation, SessionState, Totals
from kato.ops.deadline import deadline, due
from kato.results import Batch
from kato.service import Kato
from kato.sessions.shared import SharedSessions
from tests.support.degrading import LEFT_OUT, Degrading, degrading
from tests.support.kato import opened, seen, show, stm
from tests.support.memory import events

VECTOR = (1.0, 2.0)
EVERYTHING = Observation(
    strings=("b", "a"), vectors=(VECTOR,), emotives={"joy": 1.0}, metadata={"k": 1}, unique_id="mine"
)


@pytest.fixture(params=[False, True], ids=["exclusive", "shared"])
async def parts(request: pytest.FixtureRequest) -> AsyncIterator[Degrading]:
    async with degrading(request.param) as made:
        yield made


@pytest.fixture
def kato(parts: Degrading) -> Kato:
    return parts.kato


async def content(kato: Kato, session: str) -> SessionState:
    """A session's state without what tells it from another one, and without its accesses."""
    return msgspec.structs.replace(
        await kato.session(session), session_id="", access_count=0, revision=0, answers=()
    )


async def vectors_of(kato: Kato, node: str = "node") -> list[str]:
    return [name async for batch in kato.memory.vectors.scan(node) for name, _ in batch]


# Observing without the vectors


async def test_an_observation_is_taken_as_if_it_had_had_no_vectors(parts: Degrading, kato: Kato) -> None:
    session, other = await opened(kato), await opened(kato)
    await kato.observe(session, seen("x", [[0, 0]]))
    await kato.observe(other, seen("x", [[0, 0]]))
    parts.vectors.down = True
    answer = await kato.observe(session, EVERYTHING)
    assert answer.warnings == (LEFT_OUT,)
    assert (answer.symbols, answer.stm_length, answer.time, answer.unique_id) == (("a", "b"), 2, 2, "mine")
    without = await kato.observe(other, msgspec.structs.replace(EVERYTHING, vectors=()))
    assert without.warnings == ()
    assert await content(kato, session) == await content(kato, other)
    assert (await kato.percept_data(session))[0]["vectors"] == []
    assert (await kato.cognition_data(session))[0]["symbols"][-2:] == ["a", "b"]
    parts.vectors.down = False
    answer = await kato.observe(session, EVERYTHING)
    assert answer.warnings == ()
    assert vector_name(VECTOR) in answer.symbols
    assert (await kato.percept_data(session))[0]["vectors"] == [[1.0, 2.0]]


async def test_an_observation_of_nothing_but_vectors_is_an_empty_one(parts: Degrading, kato: Kato) -> None:
    session = await opened(kato, max_pattern_length=1)
    parts.vectors.down = True
    answer = await kato.observe(session, seen("", [VECTOR], joy=1.0, unique_id="mine"))
    assert answer.warnings == (LEFT_OUT,)
    assert (answer.symbols, answer.stm_length, answer.time) == ((), 0, 1)
    assert answer.auto_learned_pattern is None
    state = await kato.session(session)
    assert (state.stm, state.stm_ids, state.vectors, state.emotives) == ((), (), (), ({"joy": 1.0},))


async def test_each_item_of_a_batch_tells_what_it_lost(parts: Degrading, kato: Kato) -> None:
    session = await opened(kato)
    parts.vectors.down = True
    shown = await kato.observe_sequence(
        session,
        Batch(
            observations=(seen("a"), seen("b", [VECTOR]), seen("", [VECTOR]), seen("c"), seen("d", [VECTOR]))
        ),
    )
    assert [item.warnings for item in shown.results] == [(), (LEFT_OUT,), (LEFT_OUT,), (), (LEFT_OUT,)]
    assert shown.warnings == (LEFT_OUT,)
    assert [item.time for item in shown.results] == [1, 2, 3, 4, 5]
    assert await stm(kato, session) == events("a b c d")
    assert parts.vectors.asked == 1
    parts.vectors.down = False
    shown = await kato.observe_sequence(session, Batch(observations=(seen("a"), seen("", [VECTOR]))))
    assert (shown.warnings, [item.warnings for item in shown.results]) == ((), [(), ()])


async def test_a_batch_that_learns_goes_on_without_vectors(parts: Degrading, kato: Kato) -> None:
    session = await opened(kato)
    parts.vectors.down = True
    items = (seen("ab", [VECTOR]), seen("cd", [VECTOR]), seen("ef"))
    shown = await kato.observe_sequence(session, Batch(observations=items, learn_after_each=True))
    assert shown.patterns == tuple(PATTERN_PREFIX + pattern_name(events(text)) for text in ("ab", "cd", "ef"))
    assert (await kato.totals("node")).unique_patterns == 3


async def test_a_repeated_key_gets_the_first_answer_with_its_warnings(parts: Degrading, kato: Kato) -> None:
    session = await opened(kato)
    items = Batch(observations=(seen("a", [VECTOR]), seen("b")))
    parts.vectors.down = True
    first = await kato.observe(session, EVERYTHING, "one")
    shown = await kato.observe_sequence(session, items, "batch")
    assert first.warnings == shown.warnings == (LEFT_OUT,)
    parts.vectors.down = False
    assert await kato.observe(session, EVERYTHING, "one") == first
    assert await kato.observe_sequence(session, items, "batch") == shown
    assert (await kato.session(session)).time == 3


async def test_a_server_that_hangs_costs_half_of_the_time(
    parts: Degrading, kato: Kato, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, session = asyncio.get_running_loop(), await opened(kato)
    gate, lookup = asyncio.Event(), parts.vectors.nearest

    async def guarded(*arguments: Any) -> Any:
        # As the guard of a server does.
        try:
            async with asyncio.timeout_at(deadline()):
                return await lookup(*arguments)
        except TimeoutError:
            raise StorageError("no time is left") from None

    monkeypatch.setattr(parts.vectors, "nearest", guarded)
    parts.vectors.gate = gate
    began = loop.time()
    with due(1):
        items = tuple(seen("a", [VECTOR]) for _ in range(20))
        shown = await kato.observe_sequence(session, Batch(observations=items))
    assert shown.warnings == (LEFT_OUT,)
    assert 0.5 <= loop.time() - began < 1
    gate.set()


async def test_too_many_before_a_server_that_hangs_are_taken_without_their_vectors_too(
    kato: Kato, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any) -> Any:
        raise ServiceUnavailable("Qdrant (observe): too much is under way", retry_after=1)

    session = await opened(kato)
    monkeypatch.setattr(kato.memory.vectors, "nearest", full)
    answer = await kato.observe(session, seen("a", [VECTOR]))
    assert (answer.warnings, answer.symbols) == ((LEFT_OUT,), ("a",))


# What does not go on


@pytest.mark.parametrize("way", ["manual", "automatic", "at the end", "after each"])
async def test_a_learn_whose_vectors_cannot_be_stored_is_refused_and_changes_nothing(
    parts: Degrading, kato: Kato, way: str
) -> None:
    session = await opened(kato, max_pattern_length=2 if way == "automatic" else 0)
    await kato.observe(session, seen("a", [VECTOR]))
    before = await content(kato, session)
    assert [name for name, _ in before.vectors] == [vector_name(VECTOR)]

    async def learn() -> Any:
        if way == "manual":
            return await kato.learn(session)
        if way == "automatic":
            return await kato.observe(session, seen("b"))
        options = {"learn_at_end": way == "at the end", "learn_after_each": way == "after each"}
        return await kato.observe_sequence(session, Batch(observations=(seen("b"),), **options))

    parts.vectors.down = True
    for _ in range(2):
        with pytest.raises(StorageError, match="Qdrant"):
            await learn()
        assert await content(kato, session) == before
    assert await kato.totals("node") == Totals(0, 0, 0, 0)
    parts.vectors.down = False
    await learn()
    assert await vectors_of(kato) == [vector_name(VECTOR)]
    assert (await kato.totals("node")).pattern_frequencies == 1
    assert await stm(kato, session) == ()


async def test_what_needs_no_vectors_is_learned_without_their_server(parts: Degrading, kato: Kato) -> None:
    session = await opened(kato, max_pattern_length=2)
    parts.vectors.down = True
    await kato.observe(session, seen("a", [VECTOR]))
    learned = await kato.observe(session, seen("b", [VECTOR]))
    assert learned.auto_learned_pattern == PATTERN_PREFIX + pattern_name(events("a b"))
    assert learned.warnings == (LEFT_OUT,)
    await show(kato, session, "a")
    assert len((await kato.predictions(session))[0].predictions) == 1


async def test_bulk_learning_leaves_nothing_out(parts: Degrading, kato: Kato) -> None:
    parts.vectors.down = True
    with pytest.raises(StorageError):
        await kato.teach("node", [[seen("a"), seen("b", [VECTOR])]], "op")
    assert await kato.totals("node") == Totals(0, 0, 0, 0)


@pytest.mark.parametrize("down", ["vectors", "patterns"])
async def test_clearing_all_deletes_everything_or_nothing(parts: Degrading, kato: Kato, down: str) -> None:
    session = await opened(kato)
    await kato.observe(session, seen("ab", [VECTOR]))
    name = (await kato.learn(session)).pattern_name
    await show(kato, session, "c")
    server: Any = getattr(parts, down)
    server.down = True
    with pytest.raises(StorageError):
        await kato.clear_all(session)
    server.down = False
    assert await stm(kato, session) == (("c",),)
    assert (await kato.get_pattern("node", name)).frequency == 1
    assert await vectors_of(kato) == [vector_name(VECTOR)]
    await kato.clear_all(session)
    assert await stm(kato, session) == ()
    assert (await kato.totals("node"), await vectors_of(kato)) == (Totals(0, 0, 0, 0), [])


async def test_clearing_all_of_a_node_that_takes_long_to_open_deletes_nothing_yet() -> None:
    async with degrading(opening_seconds=0.01) as parts:
        kato, session = parts.kato, await opened(parts.kato)
        await kato.memory.vectors.put("node", {"VCTR|a": VECTOR})
        gate = parts.patterns.scan_gate = asyncio.Event()
        with pytest.raises(ServiceUnavailable):
            await kato.clear_all(session)
        assert await vectors_of(kato) == ["VCTR|a"]
        gate.set()


# Nothing else is left out


async def test_damaged_vectors_are_told_not_left_out(
    parts: Degrading, kato: Kato, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await opened(kato)

    async def damaged(*_: object) -> None:
        raise DataCorrupted("Qdrant: the stored vectors are damaged")

    monkeypatch.setattr(parts.vectors, "nearest", damaged)
    with pytest.raises(DataCorrupted):
        await kato.observe(session, EVERYTHING)
    assert (await kato.session(session)).time == 0


async def test_vectors_that_live_with_the_patterns_are_never_left_out(parts: Degrading, kato: Kato) -> None:
    session = await opened(kato)
    kato.memory.vectors_server = None
    parts.vectors.down = True
    for call in (
        kato.observe(session, EVERYTHING),
        kato.observe_sequence(session, Batch(observations=(seen("a"), EVERYTHING))),
    ):
        with pytest.raises(StorageError):
            await call
    assert (await kato.session(session)).time == 0


# What is pending


async def test_a_session_goes_on_with_vectors_pending_that_cannot_be_stored() -> None:
    async with degrading(shared=True) as parts:
        kato, session = parts.kato, await opened(parts.kato)
        assert isinstance(kato.sessions, SharedSessions)
        deliver = kato.sessions.deliver

        async def die(state: SessionState) -> None:
            raise asyncio.CancelledError

        await kato.observe(session, seen("ab", [VECTOR]))
        kato.sessions.deliver = die
        with pytest.raises(asyncio.CancelledError):
            await kato.learn(session)
        kato.sessions.deliver = deliver
        parts.vectors.down = True
        answer = await kato.observe(session, seen("c", [(1.0, 2.5)]))
        assert (answer.symbols, answer.warnings) == (("c",), (LEFT_OUT,))
        assert (await kato.sessions.get(session)).pending is not None
        parts.vectors.down = False
        # Delivered now, and found.
        answer = await kato.observe(session, seen("", [(1.0, 2.5)]))
        assert set(answer.symbols) == {vector_name(VECTOR), vector_name((1.0, 2.5))}
        assert (await kato.totals("node")).pattern_frequencies == 1
