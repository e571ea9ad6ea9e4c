"""Learning counts every operation once, in whatever order and however often it arrives."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kato.engine.learning import average, emotives_window, first, learn, merge
from kato.engine.observing import lesson_of_sequence, observe
from kato.model import Lesson, Observation, Pattern, SessionConfig, SessionState

EMOTIVES = st.lists(
    st.dictionaries(st.sampled_from("ef"), st.integers(-4, 4).map(float), min_size=1), max_size=4
).map(tuple)
METADATA = st.dictionaries(
    st.sampled_from("km"), st.lists(st.sampled_from("xyz"), min_size=1).map(lambda v: tuple(sorted(set(v))))
)


def as_lesson(operation: str) -> st.SearchStrategy[Lesson]:
    return st.builds(
        Lesson,
        name=st.just("n"),
        events=st.just((("a", "b"),)),
        emotives=EMOTIVES,
        metadata=METADATA,
        persistence=st.integers(1, 4),
        operation=st.just(operation),
    )


LESSONS = st.integers(1, 6).flatmap(lambda count: st.tuples(*(as_lesson(f"o{n}") for n in range(count))))


def told(lessons: Sequence[Lesson]) -> Pattern:
    pattern = first(lessons[0])
    for lesson in lessons[1:]:
        pattern = merge(pattern, lesson)
    return pattern


@given(LESSONS, st.data())
def test_a_repeated_lesson_changes_nothing(lessons: tuple[Lesson, ...], data: st.DataObject) -> None:
    pattern = told(lessons)
    again = data.draw(st.sampled_from(lessons))
    assert merge(pattern, again) is pattern
    assert pattern.frequency == pattern.revision == len(lessons)


@given(LESSONS, st.data())
def test_order_matters_only_for_the_window(lessons: tuple[Lesson, ...], data: st.DataObject) -> None:
    one, other = told(lessons), told(data.draw(st.permutations(lessons)))
    assert one.frequency == other.frequency
    assert one.metadata == other.metadata
    assert one.affinity == pytest.approx(other.affinity)


@given(LESSONS)
def test_the_window_holds_the_latest_emotives(lessons: tuple[Lesson, ...]) -> None:
    pattern = told(lessons)
    everything = tuple(entry for lesson in lessons for entry in lesson.emotives)
    window = tuple(pattern.emotives)
    assert len(window) <= 4
    assert window == everything[len(everything) - len(window) :]


@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(-9, 9).map(float), min_size=1).map(tuple))
)
def test_a_written_mapping_keeps_its_averages_as_a_window(written: dict[str, tuple[float, ...]]) -> None:
    averages = average(emotives_window(written))
    assert averages == pytest.approx({key: sum(values) / len(values) for key, values in written.items()})


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=3).map(tuple), max_size=12),
    st.integers(0, 4),
    st.sampled_from(["CLEAR", "ROLLING"]),
)
def test_observing_loses_no_event(events: list[tuple[str, ...]], limit: int, mode: str) -> None:
    """In CLEAR mode what was learned and what is left are together what was observed."""
    config = SessionConfig(max_pattern_length=limit, stm_mode=mode, sort_symbols=False)
    state = SessionState(
        session_id="s", node_id="n", created_at=0, last_accessed=0, expires_at=0, ttl_seconds=60
    )
    learned: list[tuple[str, ...]] = []
    for event in events:
        done = observe(state, Observation(strings=event), (), config, "o")
        if done.lesson and mode == "CLEAR":
            learned += done.lesson.events
        elif done.state.observed is not None and mode == "CLEAR" and done.event:
            # One symbol alone is not worth a pattern, but it was taken.
            learned += done.state.observed
        if limit:
            assert len(done.state.stm) < max(limit, 1)
        state = done.state
    assert state.time == len(events)
    if mode == "CLEAR":
        assert (*learned, *state.stm) == tuple(event for event in events if event)


_PLAIN = st.builds(
    Observation,
    strings=st.lists(st.sampled_from("abcÄ"), max_size=3).map(tuple),
    emotives=st.dictionaries(st.sampled_from(["joy", "fear"]), st.integers(-3, 3), max_size=2),
    metadata=st.dictionaries(st.sampled_from("kl"), st.integers(0, 2), max_size=2),
)


@given(st.lists(_PLAIN, max_size=8), st.booleans(), st.integers(1, 3))
def test_a_sequence_learned_in_bulk_teaches_what_a_session_would(
    observations: list[Observation], sort: bool, limit: int
) -> None:
    config = SessionConfig(sort_symbols=sort)
    state = SessionState(
        session_id="s", node_id="n", created_at=0, last_accessed=0, expires_at=0, ttl_seconds=1
    )
    for observation in observations:
        state = observe(state, observation, (), config, "op", stm_limit=limit, accumulator_limit=limit).state
    _, taught = learn(state, config, "op")
    assert lesson_of_sequence(observations, config, "op", stm_limit=limit, accumulator_limit=limit) == taught
