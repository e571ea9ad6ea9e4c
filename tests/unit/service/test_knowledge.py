"""The service: predictions, and what is known in the long-term memory."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kato import errors
from kato.engine.naming import pattern_name, vector_name
from kato.model import PATTERN_PREFIX, SymbolStatistics, Totals
from kato.service import Kato
from tests.support.clock import Clock
from tests.support.kato import answer, kato_running, opened, seen, show, taught
from tests.support.memory import events


def full(text: str) -> str:
    return PATTERN_PREFIX + pattern_name(events(text))


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
