"""The service: sessions, their configuration, and requests that are repeated."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kato import errors
from kato.engine.naming import pattern_name
from kato.model import PATTERN_PREFIX
from kato.results import Existence
from kato.service import Kato
from kato.sessions.once import ANSWER_LIFETIME, ANSWERS_KEPT
from tests.support.clock import Clock
from tests.support.kato import batch, kato_running, opened, seen, show, stm, taught
from tests.support.memory import events


def full(text: str) -> str:
    return PATTERN_PREFIX + pattern_name(events(text))


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
