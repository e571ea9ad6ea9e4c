"""The service: many observations at once, and vectors among them."""

from __future__ import annotations

import pytest

from kato import errors
from kato.engine.naming import pattern_name, vector_name
from kato.model import PATTERN_PREFIX, Totals
from kato.results import Batch, BatchItem
from kato.service import Kato
from tests.support.kato import batch, kato_running, opened, seen, show, stm
from tests.support.memory import events


def full(text: str) -> str:
    return PATTERN_PREFIX + pattern_name(events(text))


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
