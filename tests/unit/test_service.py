"""Every use case of the service, on real stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kato import errors
from kato.engine.naming import pattern_name, vector_name
from kato.model import PATTERN_PREFIX, Observation, SymbolStatistics, Totals
from kato.results import Batch, BatchItem, Existence, Learned
from kato.service import Kato
from kato.sessions.once import ANSWER_LIFETIME, ANSWERS_KEPT
from tests.support.clock import Clock
from tests.support.kato import answer, batch, kato_running, opened, seen, show, stm, taught
from tests.support.memory import events


def full(text: str) -> str:
    return PATTERN_PREFIX + pattern_name(events(text))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def kato(clock: Clock) -> AsyncIterator[Kato]:
    async with kato_running(clock=clock) as running:
        yield running


@pytest.fixture
async def session(kato: Kato) -> str:
    return await opened(kato)


# Sessions


async def test_a_session_lives_through_all_its_verbs(kato: Kato, clock: Clock) -> None:
    state = await kato.create_session("ann", metadata={"k": 1}, ttl_seconds=5, config={"persistence": 3})
    assert (state.node_id, state.user_id, state.ttl_seconds) == ("ann", "ann", 5)
    assert (state.metadata, state.config) == ({"k": 1}, {"persistence": 3})
    clock.advance(4)
    assert (await kato.session(state.session_id)).expires_at == clock() + 5
    assert (await kato.extend(state.session_id, 100)).expires_at == clock() + 100
    assert await kato.exists(state.session_id) == Existence(exists=True, expired=False)
    assert await kato.count_sessions() == 1
    page = await kato.list_sessions(10, None, "ann")
    assert [found.session_id for found in page.sessions] == [state.session_id]
    assert (await kato.list_sessions(node_id="bob")).total == 0
    await kato.delete_session(state.session_id)
    assert await kato.exists(state.session_id) == Existence(exists=False, expired=False)


async def test_without_an_owner_a_session_uses_the_instances_own_node() -> None:
    async with kato_running(PROCESSOR_ID="me", KATO_CLUSTER_ID="us", SESSION_TTL=77) as kato:
        state = await kato.create_session()
        assert (state.node_id, state.user_id, state.ttl_seconds) == ("us", None, 77)
        assert (await kato.session(await kato.default_session())).node_id == "us"
        assert [kato.processor_id(node) for node in ("us", "a b")] == ["us", "a_b_us"]


async def test_what_a_session_has_taught_stays_after_its_end(kato: Kato, session: str) -> None:
    name = await taught(kato, session, "a b")
    await kato.delete_session(session)
    assert (await kato.get_pattern("node", name)).frequency == 1


# Configuration


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"recall_threshold": 1.5, "persistence": 3}, "recall_threshold"),
        ({"fuzzy_token_threshold": 5.0}, "fuzzy_token_threshold"),
        ({"affinity_emotive": 1}, "affinity_emotive"),
        ({"filter_pipeline": ["unknown"]}, "filter_pipeline"),
        ({"jaccard_threshold": -1}, "jaccard_threshold"),
        ({"sort": "yes"}, "sort"),
    ],
)
async def test_a_wrong_configuration_is_refused_whole_in_both_places(
    kato: Kato, session: str, values: dict[str, Any], field: str
) -> None:
    before = (await kato.session(session)).config
    with pytest.raises(errors.ConfigurationInvalid) as caught:
        await kato.configure(session, values)
    assert list(caught.value.details["validation_errors"]) == [field]
    assert field in caught.value.message
    assert (await kato.session(session)).config == before
    count = await kato.count_sessions()
    with pytest.raises(errors.ConfigurationInvalid):
        await kato.create_session("node", config=values)
    assert await kato.count_sessions() == count


async def test_configuring_sets_resets_and_ignores_unknown_names(kato: Kato, session: str) -> None:
    state = await kato.configure(session, {"recall_threshold": 0.5, "sort": False, "colour": "red"})
    assert state.config == {"recall_threshold": 0.5, "sort_symbols": False}
    assert kato.configuration(state).recall_threshold == 0.5
    state = await kato.configure(session, {"recall_threshold": None})
    assert state.config == {"sort_symbols": False}
    assert kato.configuration(state).recall_threshold == kato.defaults.recall_threshold


async def test_sessions_of_a_node_do_not_share_their_configuration(kato: Kato, session: str) -> None:
    other = await opened(kato)
    await taught(kato, session, "a b c")
    await kato.configure(session, {"recall_threshold": 0.9})
    for each in (session, other):
        await show(kato, each, "a b")
    assert (await kato.predictions(session))[0].predictions == ()
    assert len((await kato.predictions(other))[0].predictions) == 1


async def test_persistence_of_the_learning_session_is_honoured(kato: Kato) -> None:
    session = await opened(kato, persistence=2)
    for joy in (1, 2, 3):
        await kato.observe(session, seen("ab", joy=joy))
        name = (await kato.learn(session)).pattern_name
    assert (await kato.get_pattern("node", name)).emotives == ({"joy": 2.0}, {"joy": 3.0})


async def test_an_explicit_sort_symbols_is_honoured(kato: Kato) -> None:
    session = await opened(kato, sort_symbols=False)
    assert (await kato.observe(session, seen("ba"))).symbols == ("b", "a")
    characters = await opened(kato, use_token_matching=False)
    assert (await kato.observe(characters, seen("ba"))).symbols == ("a", "b")


async def test_the_order_follows_the_sessions_rank_sort_algo(kato: Kato, session: str) -> None:
    for _ in range(3):
        await taught(kato, session, "a b c d e f g")
    await taught(kato, session, "a b")
    await show(kato, session, "a b")
    await kato.configure(session, {"rank_sort_algo": "frequency"})
    frequent = [p.frequency for p in (await kato.predictions(session))[0].predictions]
    await kato.configure(session, {"rank_sort_algo": "similarity"})
    similar = [p.frequency for p in (await kato.predictions(session))[0].predictions]
    assert (frequent, similar) == ([3, 1], [1, 3])


async def test_genes_change_one_session_or_the_default_and_all_new_ones(kato: Kato, session: str) -> None:
    await kato.update_genes(session, {"recall_threshold": 0.4, "smoothness": 5})
    assert (await kato.session(session)).config == {"recall_threshold": 0.4, "smoothness": 5}
    old = await opened(kato)
    state = await kato.update_genes(None, {"sort": False, "search_depth": 7})
    assert state.session_id == await kato.default_session()
    assert state.config == {"sort_symbols": False, "search_depth": 7}
    new = await kato.session(await opened(kato, persistence=9))
    assert not kato.configuration(new).sort_symbols
    assert kato.configuration(new).persistence == 9
    assert kato.configuration(await kato.session(old)).sort_symbols
    assert kato.configuration(await kato.session(session)).sort_symbols
    await kato.delete_session(state.session_id)
    again = await kato.session(await kato.default_session())
    assert not kato.configuration(again).sort_symbols


@pytest.mark.parametrize(
    ("genes", "kind"),
    [
        ({"recall_threshold": 0.4, "magic": 1}, errors.UnknownGene),
        ({"recall_threshold": 0.4, "persistence": 0}, errors.ConfigurationInvalid),
    ],
)
async def test_genes_apply_all_or_nothing(
    kato: Kato, session: str, genes: dict[str, Any], kind: type[errors.KatoError]
) -> None:
    for target in (session, None):
        with pytest.raises(kind):
            await kato.update_genes(target, genes)
    assert (await kato.session(session)).config == {}
    assert kato.configuration(await kato.session(await opened(kato))) == kato.defaults


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


# Batches


async def test_a_batch_is_shown_in_order(kato: Kato, session: str) -> None:
    await show(kato, session, "z")
    shown = await kato.observe_sequence(session, batch("ba c", learn_at_end=True))
    assert shown.final_learned_pattern == full("z ab c")
    assert shown.patterns == (full("z ab c"),)
    assert (shown.initial_stm_length, shown.final_stm_length, shown.isolated) == (1, 0, False)
    assert [(item.sequence_position, item.stm_length, item.time) for item in shown.results] == [
        (0, 2, 2),
        (1, 3, 3),
    ]
    assert kato.counters.observations == 3


async def test_a_batch_may_start_anew_with_every_item(kato: Kato, session: str) -> None:
    await show(kato, session, "z")
    shown = await kato.observe_sequence(session, batch("b cd", clear_stm_between=True))
    assert [item.stm_length for item in shown.results] == [2, 1]
    assert (await stm(kato, session), shown.isolated) == (events("cd"), True)
    assert shown.final_learned_pattern is None


async def test_a_batch_may_learn_after_each_item_and_names_no_empty_pattern(kato: Kato, session: str) -> None:
    shown = await kato.observe_sequence(session, batch("ab c de", learn_after_each=True, learn_at_end=True))
    assert shown.patterns == (full("ab"), full("de"))
    assert [item.stm_length for item in shown.results] == [0, 0, 0]
    assert shown.final_learned_pattern is None


async def test_a_batch_learns_by_itself_when_the_stm_is_full(kato: Kato) -> None:
    session = await opened(kato, max_pattern_length=2)
    shown = await kato.observe_sequence(session, batch("a b c d e", learn_at_end=True))
    assert [item.auto_learned_pattern for item in shown.results] == [
        None,
        full("a b"),
        None,
        full("c d"),
        None,
    ]
    assert (shown.patterns, shown.final_learned_pattern) == ((full("a b"), full("c d")), "")


async def test_a_rolling_batch_names_the_manual_learn_of_a_step_first(kato: Kato) -> None:
    session = await opened(kato, max_pattern_length=3, stm_mode="ROLLING")
    await show(kato, session, "a b")
    shown = await kato.observe_sequence(session, batch("c", learn_after_each=True))
    assert shown.patterns == (full("b c"), full("a b c"))


async def test_an_empty_batch_changes_nothing(kato: Kato, session: str) -> None:
    shown = await kato.observe_sequence(session, Batch(observations=(), learn_at_end=True))
    assert (shown.results, shown.patterns, shown.final_learned_pattern) == ((), (), None)


async def test_a_batch_with_a_wrong_item_changes_nothing(kato: Kato, session: str) -> None:
    wrong = Batch(observations=(seen("a"), seen("b"), seen("c", [[1], [1, 2]])), learn_after_each=True)
    with pytest.raises(errors.VectorDimensionError) as caught:
        await kato.observe_sequence(session, wrong)
    assert caught.value.details["observation_index"] == 2
    assert await stm(kato, session) == ()
    assert (await kato.session(session)).time == 0
    assert await kato.totals("node") == Totals(0, 0, 0, 0)


async def test_a_batch_whose_patterns_cannot_be_stored_changes_nothing(
    kato: Kato, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full_disk(*_: object) -> set[str]:
        raise errors.StorageError("the disk is full")

    monkeypatch.setattr(kato.memory.patterns, "insert", full_disk)
    with pytest.raises(errors.StorageError):
        await kato.observe_sequence(session, batch("ab cd", learn_after_each=True))
    monkeypatch.undo()
    assert ((await kato.session(session)).time, await stm(kato, session)) == (0, ())
    shown = await kato.observe_sequence(session, batch("ab cd", learn_after_each=True))
    assert shown.patterns == (full("ab"), full("cd"))
    assert (await kato.get_pattern("node", full("ab"))).frequency == 1


async def test_the_same_pattern_many_times_in_a_batch_counts_every_time(kato: Kato, session: str) -> None:
    await kato.observe_sequence(session, batch("ab " * 50, learn_after_each=True))
    assert (await kato.get_pattern("node", full("ab"))).frequency == 50


async def test_items_of_a_batch_keep_their_ids(kato: Kato, session: str) -> None:
    shown = await kato.observe_sequence(session, Batch(observations=(seen("a", unique_id="one"), seen("b"))))
    assert shown.results[0] == BatchItem(sequence_position=0, stm_length=1, time=1, unique_id="one")
    assert shown.results[1].unique_id.startswith("seq-obs-")


# Vectors


async def test_vectors_are_found_after_the_learn(kato: Kato, session: str) -> None:
    near, far, probe = (1.0, 0.0), (9.0, 9.0), (1.0, 0.1)
    assert (await kato.observe(session, seen("a", [near]))).symbols == (vector_name(near), "a")
    assert (await kato.observe(session, seen("", [probe]))).symbols == (vector_name(probe),)
    await kato.clear_stm(session)
    await kato.observe(session, seen("b", [far]))
    await kato.learn(session)
    found = await kato.observe(session, seen("", [probe]))
    assert found.symbols == tuple(sorted(map(vector_name, (near, far, probe))))


async def test_the_vectors_of_one_observation_are_added(kato: Kato, session: str) -> None:
    assert (await kato.observe(session, seen("", [[1, 2], [3, 4]]))).symbols == (vector_name((4.0, 6.0)),)


async def test_later_vectors_of_a_batch_see_what_the_batch_has_learned(kato: Kato, session: str) -> None:
    shown = await kato.observe_sequence(
        session, Batch(observations=(seen("a", [[1]]), seen("b", [[2]])), learn_after_each=True)
    )
    both = tuple(sorted((vector_name((1.0,)), vector_name((2.0,)))))
    assert shown.patterns[1] == PATTERN_PREFIX + pattern_name([(*both, "b")])


async def test_vectors_of_another_length_are_only_themselves(kato: Kato, session: str) -> None:
    await kato.observe(session, seen("a", [[1, 2]]))
    await kato.learn(session)
    assert (await kato.observe(session, seen("", [[1, 2, 3]]))).symbols == (vector_name((1.0, 2.0, 3.0)),)
    await show(kato, session, "b")
    await kato.learn(session)


@pytest.mark.parametrize(("vectors", "dimension"), [([[1, 2], [1]], None), ([[1, 2]], 3)])
async def test_vectors_of_the_wrong_length_are_refused(
    vectors: list[list[float]], dimension: int | None
) -> None:
    async with kato_running(QDRANT_VECTOR_SIZE=dimension) as kato:
        session = await opened(kato)
        with pytest.raises(errors.VectorDimensionError) as caught:
            await kato.observe(session, seen("a", vectors))
        assert set(caught.value.details) == {"expected_dimension", "actual_dimension", "vector_name"}
        with pytest.raises(errors.VectorDimensionError) as caught:
            await kato.teach("node", [[seen("a")], [seen("a"), seen("b", vectors)]], "op")
        assert caught.value.details["sequence_index"] == 1
        assert caught.value.details["observation_index"] == 1
        assert (await kato.session(session)).time == 0


# Idempotency


async def test_a_repeated_key_gets_the_first_answer(kato: Kato, session: str) -> None:
    first = await kato.observe(session, seen("a"), "k1")
    assert await kato.observe(session, seen("a"), "k1") == first
    assert await kato.observe(session, seen("a"), "k2") != first
    shown = await kato.observe_sequence(session, batch("b c", learn_at_end=True), "k3")
    assert await kato.observe_sequence(session, batch("b c", learn_at_end=True), "k3") == shown
    await show(kato, session, "x y")
    learned = await kato.learn(session, "k4")
    assert await kato.learn(session, "k4") == learned
    assert (await kato.session(session)).time == 6
    assert (await kato.get_pattern("node", full("x y"))).frequency == 1


async def test_parallel_requests_of_one_key_act_once(kato: Kato, session: str) -> None:
    answers = await asyncio.gather(*(kato.observe(session, seen("a"), "k") for _ in range(20)))
    assert all(each == answers[0] for each in answers)
    assert await stm(kato, session) == (("a",),)


async def test_a_key_is_refused_for_another_request(kato: Kato, session: str) -> None:
    await kato.observe(session, seen("a"), "k")
    for call in (
        kato.observe(session, seen("b"), "k"),
        kato.learn(session, "k"),
        kato.observe_sequence(session, batch("a"), "k"),
    ):
        with pytest.raises(errors.ValidationError, match="another request"):
            await call
    assert await stm(kato, session) == (("a",),)


async def test_a_failed_request_does_not_use_its_key_up(kato: Kato, session: str) -> None:
    with pytest.raises(errors.EmptySTM):
        await kato.learn(session, "k")
    await show(kato, session, "a b")
    assert (await kato.learn(session, "k")).pattern_name == full("a b")


async def test_a_key_belongs_to_its_session(kato: Kato, session: str) -> None:
    other = await opened(kato)
    await kato.observe(session, seen("a"), "k")
    assert (await kato.observe(other, seen("b"), "k")).symbols == ("b",)


async def test_a_key_is_forgotten_after_a_day(kato: Kato, clock: Clock) -> None:
    session = (await kato.create_session("node", ttl_seconds=86_400)).session_id
    await kato.observe(session, seen("a"), "k")
    clock.advance(ANSWER_LIFETIME - 1)
    await kato.observe(session, seen("a"), "k")
    assert (await kato.session(session)).time == 1
    clock.advance(1)
    await kato.observe(session, seen("b"), "k")
    state = await kato.session(session)
    assert (state.time, len(state.answers)) == (2, 1)


async def test_only_the_latest_keys_are_kept(kato: Kato, session: str) -> None:
    for n in range(ANSWERS_KEPT + 1):
        await kato.observe(session, seen("a"), str(n))
    await kato.observe(session, seen("a"), "1")
    assert (await kato.session(session)).time == ANSWERS_KEPT + 1
    await kato.observe(session, seen("a"), "0")
    assert (await kato.session(session)).time == ANSWERS_KEPT + 2


async def test_keys_survive_a_restart(tmp_path: Path, clock: Clock) -> None:
    async with kato_running(tmp_path, clock) as kato:
        session = await opened(kato)
        await show(kato, session, "a b")
        learned = await kato.learn(session, "k")
    async with kato_running(tmp_path, clock) as kato:
        assert await kato.learn(session, "k") == learned
        assert (await kato.get_pattern("node", full("a b"))).frequency == 1


# Predicting


async def test_predictions_follow_the_stm(kato: Kato, session: str) -> None:
    await taught(kato, session, "a b c")
    assert (await kato.predictions(session))[0].predictions == ()
    await show(kato, session, "a b")
    found, state = await kato.predictions(session)
    assert [prediction.future for prediction in found.predictions] == [events("c")]
    assert state.session_id == session
    assert kato.counters.predictions == 2


async def test_predictions_can_be_asked_for_an_earlier_observation(kato: Kato, session: str) -> None:
    await taught(kato, session, "a b c")
    await kato.observe(session, seen("a"))
    await kato.observe(session, seen("b", unique_id="after b"))
    then = await answer(kato, session)
    await kato.observe(session, seen("x", unique_id="after x"))
    assert msgspec.json.encode((await kato.predictions(session, "after b"))[0]) == then
    assert msgspec.json.encode((await kato.predictions(session, "after x"))[0]) == await answer(kato, session)
    assert await answer(kato, session) != then
    with pytest.raises(errors.NotFound) as caught:
        await kato.predictions(session, "never")
    assert caught.value.details == {"unique_id": "never"}
    await kato.clear_stm(session)
    with pytest.raises(errors.NotFound):
        await kato.predictions(session, "after b")


async def test_sessions_of_a_node_share_what_was_learned_at_once(kato: Kato, session: str) -> None:
    other, stranger = await opened(kato), await opened(kato, "another")
    await taught(kato, session, "a b c")
    for each in (other, stranger):
        await show(kato, each, "a b")
    assert len((await kato.predictions(other))[0].predictions) == 1
    assert (await kato.predictions(stranger))[0].predictions == ()


async def test_a_restarted_service_answers_the_same_bytes(tmp_path: Path, clock: Clock) -> None:
    async with kato_running(tmp_path, clock) as kato:
        session = await opened(kato, affinity_emotive="joy", recall_threshold=0.0)
        for n in range(30):
            await kato.observe(session, seen(f"{chr(97 + n % 7)}{chr(98 + n % 5)}", joy=n / 3))
            await taught(kato, session, f"{chr(97 + n % 3)} {chr(100 + n % 4)}")
        await kato.finalize_training(session)
        await show(kato, session, "ab d")
        before = await answer(kato, session)
        symbols = await kato.symbol_statistics("node")
    async with kato_running(tmp_path, clock) as kato:
        assert await answer(kato, session) == before
        assert await kato.symbol_statistics("node") == symbols


# Long-term memory


async def test_patterns_can_be_looked_at_and_edited(kato: Kato, session: str) -> None:
    for text in ("a b", "b c", "a b"):
        await taught(kato, session, text)
    assert (await kato.list_patterns("node", symbol="a")).total == 2
    listed = await kato.list_patterns("node", min_frequency=2)
    assert [pattern.frequency for pattern in listed.patterns] == [2]
    updated = await kato.update_pattern("node", full("a b"), frequency=7, emotives={"joy": [1.0]})
    assert (updated.frequency, updated.emotives) == (7, {"joy": (1.0,)})
    with pytest.raises(errors.ValidationError):
        await kato.update_pattern("node", full("a b"), emotives={"joy": [1.0] * 6})
    assert await kato.delete_pattern("node", full("a b")) == full("a b").removeprefix(PATTERN_PREFIX)
    statistics = [SymbolStatistics("b", 1, 1), SymbolStatistics("c", 1, 1)]
    assert await kato.symbol_statistics("node") == (statistics, False)
    assert await kato.totals("node") == Totals(1, 1, 2, 2)
    for call in (kato.get_pattern, kato.delete_pattern, kato.update_pattern):
        with pytest.raises(errors.PatternNotFound):
            await call("node", full("a b"))


async def test_affinities_are_those_of_the_patterns(kato: Kato, session: str) -> None:
    await kato.observe(session, seen("ab", joy=2.0))
    await kato.learn(session)
    assert await kato.affinities("node") == ({"a": {"joy": 2.0}, "b": {"joy": 2.0}}, False)
    assert await kato.affinity("node", "a") == ({"joy": 2.0}, False)
    assert await kato.affinity("node", "unknown") == ({}, False)


async def test_no_node_named_means_the_instances_own(kato: Kato) -> None:
    session = await opened(kato, None)
    name = await taught(kato, session, "a b")
    assert await kato.get_pattern(None, name) == await kato.get_pattern("kato", name)


async def test_finalizing_counts_the_patterns(kato: Kato, session: str) -> None:
    await taught(kato, session, "a b")
    done, state = await kato.finalize_training(session)
    assert (done.patterns_processed, state.session_id) == (1, session)
    assert done.time_ms >= 0


async def test_teaching_equals_a_session_for_each_sequence(kato: Kato, session: str) -> None:
    sequences = [[seen("ba", joy=1.0), seen("c", [[1, 2]])], [seen("a")], [seen("ab"), seen("c", [[1, 2]])]]
    names = await kato.teach("node", sequences, "op")
    vector = vector_name((1.0, 2.0))
    expected = PATTERN_PREFIX + pattern_name([("a", "b"), (vector, "c")])
    assert names == [expected, "", expected]
    assert (await kato.get_pattern("node", expected)).frequency == 2
    assert await kato.teach("node", sequences, "op") == names
    assert (await kato.get_pattern("node", expected)).frequency == 2
    await kato.teach("node", sequences, "op2")
    assert (await kato.get_pattern("node", expected)).frequency == 4
    near = await kato.observe(session, seen("", [[1, 2.5]]))
    assert vector in near.symbols
    assert await kato.teach(None, [[seen("ab")]], "op") == [full("ab")]
    assert (await kato.get_pattern("kato", full("ab"))).frequency == 1


@pytest.mark.parametrize("huge", [1.7e308, -1.7e308])
async def test_enormous_emotives_neither_fail_nor_make_the_node_unusable(
    tmp_path: Path, clock: Clock, huge: float
) -> None:
    async with kato_running(tmp_path, clock) as kato:
        session = await opened(kato, recall_threshold=0.0)
        for _ in range(3):
            await kato.observe(session, seen("ab", joy=huge))
            await kato.observe(session, seen("c", joy=huge))
            await kato.learn(session)
        await kato.observe(session, seen("ab", joy=-huge))
        before = await answer(kato, session)
    async with kato_running(tmp_path, clock) as kato:
        assert await answer(kato, session) == before
