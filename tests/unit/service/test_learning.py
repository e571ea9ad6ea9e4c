"""The service: events are observed, sequences are learned."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kato import errors
from kato.engine.naming import pattern_name, vector_name
from kato.model import PATTERN_PREFIX, Observation, Totals
from kato.results import Learned
from kato.service import Kato
from tests.support.clock import Clock
from tests.support.kato import kato_running, opened, seen, show, stm, taught
from tests.support.memory import events


def full(text: str) -> str:
    return PATTERN_PREFIX + pattern_name(events(text))


# Observing


async def test_an_observation_becomes_an_event(kato: Kato, session: str) -> None:
    first = await kato.observe(session, seen("ba", unique_id="mine"))
    assert (first.stm_length, first.time, first.symbols) == (1, 1, ("a", "b"))
    assert (first.unique_id, first.session_id, first.node_id) == ("mine", session, "node")
    empty = await kato.observe(session, seen(joy=1.0))
    assert (empty.stm_length, empty.time, empty.symbols) == (1, 2, ())
    assert empty.unique_id.startswith("obs-")
    assert await stm(kato, session) == (("a", "b"),)
    assert kato.counters.observations == 2


async def test_200_parallel_observations_are_200_events(kato: Kato, session: str) -> None:
    await asyncio.gather(*(kato.observe(session, Observation(strings=(str(n),))) for n in range(200)))
    state = await kato.session(session)
    assert {symbol for (symbol,) in state.stm} == {str(n) for n in range(200)}
    assert (len(state.stm), state.time) == (200, 200)


async def test_the_stm_keeps_its_latest_events() -> None:
    async with kato_running(MAX_STM_SIZE=3) as kato:
        session = await opened(kato)
        await show(kato, session, "a b c d e")
        assert await stm(kato, session) == events("c d e")


async def test_a_full_stm_is_learned_by_itself_with_its_emotives(kato: Kato) -> None:
    session = await opened(kato, max_pattern_length=2)
    await kato.observe(session, seen("a", joy=1.0))
    learned = await kato.observe(session, seen("b", joy=3.0))
    assert (learned.auto_learned_pattern, learned.stm_length) == (full("a b"), 0)
    pattern = await kato.get_pattern("node", full("a b"))
    assert pattern.emotives == ({"joy": 1.0}, {"joy": 3.0})
    assert (await kato.session(session)).emotives == ()


async def test_percept_and_cognition_are_of_the_latest_observation(kato: Kato) -> None:
    session = await opened(kato)
    assert (await kato.percept_data(session))[0] == {}
    await taught(kato, session, "a b c")
    await kato.observe(session, seen("a", joy=1.0))
    await kato.observe(session, seen("b", joy=3.0))
    percept, _ = await kato.percept_data(session)
    assert (percept["strings"], percept["emotives"]) == (["b"], {"joy": 2.0})
    cognition, state = await kato.cognition_data(session)
    assert [prediction.name for prediction in cognition["predictions"]] == [full("a b c")[5:]]
    assert (cognition["symbols"], cognition["time"]) == (["a", "b"], state.time)
    await kato.learn(session)
    cognition, _ = await kato.cognition_data(session)
    assert (len(cognition["predictions"]), cognition["short_term_memory"]) == (2, [])
    await kato.configure(session, {"process_predictions": False})
    assert (await kato.cognition_data(session))[0]["predictions"] == []
    await kato.clear_stm(session)
    assert (await kato.percept_data(session))[0] == {}


# Learning


async def test_learning_consumes_the_stm_and_the_accumulators(kato: Kato, session: str) -> None:
    await kato.observe(session, Observation(strings=("a",), emotives={"joy": 1.0}, metadata={"k": 1}))
    await show(kato, session, "b")
    learned = await kato.learn(session)
    assert learned == Learned(session_id=session, node_id="node", pattern_name=full("a b"))
    state = await kato.session(session)
    assert (state.stm, state.emotives, state.observed_metadata, state.time) == ((), (), (), 2)
    await taught(kato, session, "c d")
    assert (await kato.get_pattern("node", full("c d"))).emotives == ()
    assert (await kato.get_pattern("node", full("a b"))).metadata == {"k": ("1",)}
    assert kato.counters.patterns_learned == 2


async def test_an_empty_stm_is_refused_or_learned_as_nothing(kato: Kato, session: str) -> None:
    with pytest.raises(errors.EmptySTM, match="Cannot learn from empty STM"):
        await kato.learn(session)
    assert (await kato.learn(session, refuse_empty=False)).pattern_name == ""
    await show(kato, session, "a")
    assert (await kato.learn(session)).pattern_name == ""
    assert await stm(kato, session) == ()


async def test_a_learn_is_told_to_listeners(kato: Kato, session: str) -> None:
    heard = kato.events.subscribe(["pattern.learned"])
    for frequency in (1, 2):
        await taught(kato, session, "a b")
        told = (await heard.next()).data
        assert told == {"pattern_name": full("a b"), "session_id": session, "frequency": frequency}


async def test_a_learn_that_the_session_store_could_not_finish_counts_once(
    kato: Kato, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await show(kato, session, "a b")
    save = kato.sessions._store.save

    async def full_disk(state: object) -> None:
        raise errors.StorageError("the disk is full")

    monkeypatch.setattr(kato.sessions._store, "save", full_disk)
    with pytest.raises(errors.StorageError):
        await kato.learn(session)
    monkeypatch.setattr(kato.sessions._store, "save", save)
    assert await stm(kato, session) == events("a b")
    await kato.learn(session)
    assert (await kato.get_pattern("node", full("a b"))).frequency == 1


async def test_a_learn_repeated_after_a_restart_counts_once_although_the_session_was_read_in_between(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kato_running(tmp_path, clock) as kato:
        session = await opened(kato)
        await show(kato, session, "a b")

        async def full_disk(state: object) -> None:
            raise errors.StorageError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(kato.sessions._store, "save", full_disk)
            with pytest.raises(errors.StorageError):
                await kato.learn(session)
        assert await stm(kato, session) == events("a b")
    async with kato_running(tmp_path, clock) as kato:
        await kato.learn(session)
        assert (await kato.get_pattern("node", full("a b"))).frequency == 1


async def test_a_default_session_created_anew_learns_as_its_own(kato: Kato, clock: Clock) -> None:
    for frequency in (1, 2):
        session = await kato.default_session()
        await taught(kato, session, "a b")
        assert (await kato.get_pattern(None, full("a b"))).frequency == frequency
        clock.advance(100_000)
        await kato.sessions.sweep()


async def test_a_caller_who_gives_up_a_learn_can_repeat_it(kato: Kato, session: str) -> None:
    await show(kato, session, "a b")
    learner = asyncio.create_task(kato.learn(session))
    await asyncio.sleep(0)
    learner.cancel()
    await asyncio.gather(learner, return_exceptions=True)
    if await stm(kato, session):
        await kato.learn(session)
    assert (await kato.get_pattern("node", full("a b"))).frequency == 1


async def test_clearing_the_stm_leaves_the_patterns(kato: Kato, session: str) -> None:
    name = await taught(kato, session, "a b")
    await kato.observe(session, seen("c", joy=1.0))
    state = await kato.clear_stm(session)
    assert (state.stm, state.emotives, state.time) == ((), (), 0)
    assert (await kato.get_pattern("node", name)).frequency == 1


async def test_clearing_all_forgets_the_node_but_not_other_sessions(kato: Kato, session: str) -> None:
    other = await opened(kato)
    await kato.observe(session, seen("a", [[1, 2]]))
    name = (await kato.learn(session)).pattern_name
    await show(kato, other, "x")
    await kato.clear_all(session)
    with pytest.raises(errors.PatternNotFound):
        await kato.get_pattern("node", name)
    assert (await kato.observe(session, seen("", [[1, 3]]))).symbols == (vector_name((1.0, 3.0)),)
    assert await stm(kato, other) == (("x",),)
    assert await kato.totals("node") == Totals(0, 0, 0, 0)
