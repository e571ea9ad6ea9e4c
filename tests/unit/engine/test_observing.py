from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kato.engine.observing import (
    Observed,
    clear_stm,
    cognition_data,
    observe,
    observed_state,
    percept_data,
)
from kato.model import Event, Observation, SessionConfig, SessionState

EMPTY = SessionState(session_id="s", node_id="n", created_at=0, last_accessed=0, expires_at=0, ttl_seconds=60)
OWN = "VCTR|fe5de4472f7e4d5c9cdd19cadebfa06fe3da8e43"


def show(
    state: SessionState,
    *strings: str,
    config: SessionConfig | None = None,
    near: tuple[str, ...] = (),
    **parts: Any,
) -> Observed:
    return observe(state, Observation(strings=strings, **parts), near, config or SessionConfig(), "o")


def play(config: SessionConfig, *events: str) -> tuple[SessionState, list[str | None]]:
    state, learned = EMPTY, []
    for event in events:
        done = show(state, *event, config=config)
        state = done.state
        learned.append("".join(sum(done.lesson.events, ())) if done.lesson else None)
    return state, learned


@pytest.mark.parametrize(
    ("strings", "event"),
    [
        (("test_2", "test_1", "test_10"), ("test_1", "test_10", "test_2")),
        (("Zoo", "apple", "Apple"), ("Apple", "Zoo", "apple")),
        (("b", "a", "b"), ("a", "b", "b")),
        (("",), ("",)),
    ],
)
def test_strings_are_sorted_by_code_point(strings: Event, event: Event) -> None:
    done = show(EMPTY, *strings)
    assert done.event == event
    assert done.state.stm == (event,)
    assert show(EMPTY, *strings, config=SessionConfig(sort_symbols=False)).event == strings


def test_an_empty_observation_only_lets_time_pass() -> None:
    before = show(EMPTY, "a").state
    done = show(before, emotives={"q": 3}, metadata={"k": 1})
    assert done.event == ()
    assert done.lesson is None
    assert (done.state.stm, done.state.time) == ((("a",),), 2)
    assert done.state.emotives == ({"q": 3.0},)
    assert done.state.observed_metadata == ({"k": 1},)


def test_vectors_come_before_the_strings_with_their_neighbours() -> None:
    near = ("VCTR|zz", "VCTR|aa")
    vectors = ((1.0, 1.0, 3.0), (0.0, 1.0, 0.0))
    done = show(EMPTY, "a", "B", near=near, vectors=vectors)
    assert done.event == ("VCTR|aa", OWN, "VCTR|zz", "B", "a")
    unsorted = show(EMPTY, "b", "a", near=near, vectors=vectors, config=SessionConfig(sort_symbols=False))
    assert unsorted.event == ("VCTR|zz", "VCTR|aa", OWN, "b", "a")
    assert done.state.vectors == ((OWN, (1.0, 2.0, 3.0)),)


def test_a_vector_waits_once_and_is_named_once() -> None:
    first = show(EMPTY, vectors=((1.0, 2.0, 3.0),))
    again = show(first.state, vectors=((1.0, 2.0, 3.0),), near=(OWN,))
    assert again.event == (OWN,)
    assert again.state.vectors == first.state.vectors
    assert len(show(again.state, vectors=((9.0, 9.0, 9.0),)).state.vectors) == 2


def test_unequal_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="positions 1"):
        show(EMPTY, vectors=((1.0,), (1.0, 2.0)))


def test_clear_mode_learns_and_empties() -> None:
    state, learned = play(SessionConfig(max_pattern_length=3), *"abcde")
    assert learned == [None, None, "abc", None, None]
    assert state.stm == (("d",), ("e",))


def test_rolling_mode_keeps_one_event_less_than_the_limit() -> None:
    state, learned = play(SessionConfig(max_pattern_length=3, stm_mode="ROLLING"), *"abcde")
    assert learned == [None, None, "abc", "bcd", "cde"]
    assert state.stm == (("d",), ("e",))
    assert observed_state(state) == (("c",), ("d",), ("e",))


@pytest.mark.parametrize("mode", ["CLEAR", "ROLLING"])
def test_limit_one_clears_in_both_modes(mode: str) -> None:
    config = SessionConfig(max_pattern_length=1, stm_mode=mode)
    state, learned = play(config, "a", "bc")
    assert learned == [None, "bc"]
    assert state.stm == ()
    longer, _ = play(SessionConfig(), *"abc")
    done = show(longer, "d", config=config)
    assert done.lesson is not None
    assert done.state.stm == ()


def test_a_lowered_limit_learns_the_whole_stm() -> None:
    longer, _ = play(SessionConfig(), *"abcd")
    done = show(longer, "e", config=SessionConfig(max_pattern_length=3, stm_mode="ROLLING"))
    assert done.lesson is not None
    assert len(done.lesson.events) == 5
    assert done.state.stm == (("d",), ("e",))


@pytest.mark.parametrize("mode", ["CLEAR", "ROLLING"])
def test_automatic_learning_takes_the_accumulators_with_the_triggering_observation(mode: str) -> None:
    config = SessionConfig(max_pattern_length=2, stm_mode=mode, persistence=9)
    state = show(EMPTY, "a", emotives={"e": 1.0}, metadata={"k": "v"}, config=config).state
    done = show(state, "b", emotives={"e": 3.0}, config=config)
    assert done.lesson is not None
    assert done.lesson.emotives == ({"e": 1.0}, {"e": 3.0})
    assert done.lesson.metadata == {"k": ("v",)}
    assert (done.lesson.persistence, done.lesson.operation) == (9, "o")
    assert done.state.emotives == done.state.observed_metadata == ()
    assert percept_data(done.state)["emotives"] == {"e": 2.0}


def test_stm_and_accumulators_keep_their_latest_entries() -> None:
    state = EMPTY
    for number in range(5):
        observation = Observation(
            strings=(str(number),), emotives={"e": number}, metadata={"k": number}, unique_id=f"u{number}"
        )
        done = observe(state, observation, (), SessionConfig(), "o", stm_limit=3, accumulator_limit=2)
        state = done.state
    assert state.stm == (("2",), ("3",), ("4",))
    assert state.stm_ids == ("u2", "u3", "u4")
    assert state.emotives == ({"e": 3.0}, {"e": 4.0})
    assert state.observed_metadata == ({"k": 3}, {"k": 4})
    assert state.time == 5


def test_ids_are_kept_beside_the_stm_once_a_caller_gives_one() -> None:
    state = show(EMPTY, "a").state
    assert state.stm_ids == ()
    state = show(state, "b", unique_id="u").state
    assert state.stm_ids == ("", "u")
    state = show(state, "c").state
    assert state.stm_ids == ("", "u", "")
    rolled = show(state, "d", config=SessionConfig(max_pattern_length=4, stm_mode="ROLLING")).state
    assert rolled.stm_ids == ("u", "", "")


def test_observed_is_forgotten_when_the_stm_is_the_latest_observation_again() -> None:
    config = SessionConfig(max_pattern_length=2)
    state, _ = play(config, *"ab")
    assert observed_state(state) == (("a",), ("b",))
    assert observed_state(show(state, config=config).state) == (("a",), ("b",))
    state = show(state, "c", config=config).state
    assert state.observed is None
    assert observed_state(state) == (("c",),)


def test_clear_stm_keeps_vectors_and_configuration() -> None:
    state = msgspec.structs.replace(EMPTY, config={"persistence": 3})
    state = show(state, "a", vectors=((1.0, 2.0, 3.0),), emotives={"e": 1.0}, unique_id="u").state
    cleared = clear_stm(state)
    assert cleared == msgspec.structs.replace(EMPTY, config={"persistence": 3}, vectors=state.vectors)
    assert percept_data(cleared) == {}


def test_percept_data_shows_the_latest_observation_sorted_with_all_emotives() -> None:
    state = show(EMPTY, "x", emotives={"e": 1.0}).state
    unsorted = SessionConfig(sort_symbols=False)
    state = show(
        state, "b", "a", emotives={"e": 2.0}, vectors=((1.0,),), metadata={"k": [1]}, config=unsorted
    ).state
    assert percept_data(state) == {
        "strings": ["a", "b"],
        "vectors": [[1.0]],
        "emotives": {"e": 1.5},
        "path": [],
        "metadata": {"k": [1]},
    }
    assert percept_data(EMPTY) == {}


def test_cognition_data() -> None:
    state = show(show(EMPTY, "b", "a", emotives={"e": 1.0}).state, "c", emotives={"f": 2.0}).state
    assert cognition_data(state, ()) == {
        "predictions": [],
        "emotives": {"f": 2.0},
        "symbols": ["a", "b", "c"],
        "command": "",
        "metadata": {},
        "path": [],
        "strings": [],
        "vectors": [],
        "short_term_memory": [["a", "b"], ["c"]],
        "time": 2,
    }
    assert cognition_data(EMPTY, ())["emotives"] == {}
