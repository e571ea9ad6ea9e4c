from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kato.engine.learning import (
    accumulate_metadata,
    average,
    emotives_window,
    first,
    learn,
    merge,
    shown_emotives,
    update,
)
from kato.model import Lesson, Pattern, SessionConfig, SessionState

EMPTY = SessionState(session_id="s", node_id="n", created_at=0, last_accessed=0, expires_at=0, ttl_seconds=60)
CONFIG = SessionConfig()


def with_(**changes: Any) -> SessionState:
    return msgspec.structs.replace(EMPTY, **changes)


def lesson(**changes: Any) -> Lesson:
    return msgspec.structs.replace(Lesson(name="x", events=(("a", "b"),), operation="o1"), **changes)


def test_average_is_over_the_entries_that_hold_the_key() -> None:
    assert average([{"happy": 4, "sad": 2}, {"happy": 6}, {"sad": 4}]) == {"happy": 5.0, "sad": 3.0}
    assert average([]) == {}


def test_metadata_becomes_sorted_distinct_texts() -> None:
    entries = [
        {"src": "x", "n": 1, "f": 1.5, "b": True, "none": None, "l": ["q"], "d": {"k": 1}},
        {"src": "y", "n": 1},
    ]
    assert accumulate_metadata(entries) == {
        "src": ("x", "y"),
        "n": ("1",),
        "f": ("1.5",),
        "b": ("True",),
        "none": ("None",),
        "l": ("['q']",),
        "d": ("{'k': 1}",),
    }


def test_learn_takes_stm_and_accumulators_and_leaves_the_vectors() -> None:
    state = with_(
        stm=(("a",), ("b",)),
        stm_ids=("", "u"),
        emotives=({"joy": 1.0},),
        observed_metadata=({"k": 1},),
        time=2,
        vectors=(("VCTR|x", (1.0,)),),
    )
    after, found = learn(state, SessionConfig(persistence=7), "operation")
    assert found == Lesson(
        name="76d7efca2e96cb5eeddf4e06ac96a0f424630135",
        events=(("a",), ("b",)),
        emotives=({"joy": 1.0},),
        metadata={"k": ("1",)},
        persistence=7,
        operation="operation",
    )
    assert after == with_(observed=state.stm, time=2, vectors=state.vectors)


@pytest.mark.parametrize("stm", [(), (("a",),)])
def test_fewer_than_two_symbols_teach_nothing_but_are_gone(stm: tuple[tuple[str, ...], ...]) -> None:
    after, found = learn(with_(stm=stm, emotives=({"joy": 1.0},)), CONFIG, "o")
    assert found is None
    assert after.stm == ()
    assert after.emotives == ()


def test_two_symbols_in_one_event_are_enough() -> None:
    assert learn(with_(stm=(("a", "b"),)), CONFIG, "o")[1] is not None


def test_a_second_learn_keeps_what_the_latest_observation_saw() -> None:
    rolled = with_(stm=(("b",), ("c",)), observed=(("a",), ("b",), ("c",)))
    assert learn(rolled, CONFIG, "o")[0].observed == (("a",), ("b",), ("c",))


def test_first_pattern_keeps_the_window_but_averages_everything_for_affinity() -> None:
    pattern = first(
        lesson(emotives=({"e": 1.0}, {"e": 2.0}, {"e": 6.0}), persistence=2, metadata={"k": ("v",)})
    )
    assert pattern == Pattern(
        name="x",
        events=(("a", "b"),),
        emotives=({"e": 2.0}, {"e": 6.0}),
        metadata={"k": ("v",)},
        affinity={"e": 3.0},
        operations=("o1",),
    )
    assert first(lesson(operation="")).operations == ()


def test_merge_adds_up() -> None:
    known = first(lesson(emotives=({"e": 1.0}, {"f": 1.0}), metadata={"k": ("b",), "m": ("1",)}))
    again = merge(
        known,
        lesson(
            operation="o2", emotives=({"e": 3.0},), persistence=2, metadata={"k": ("a", "b"), "z": ("2",)}
        ),
    )
    assert again.frequency == 2
    assert again.revision == 2
    assert again.emotives == ({"f": 1.0}, {"e": 3.0})
    assert again.affinity == {"e": 4.0, "f": 1.0}
    assert again.metadata == {"k": ("a", "b"), "m": ("1",), "z": ("2",)}
    assert again.operations == ("o1", "o2")


def test_merge_without_emotives_keeps_the_window_even_when_persistence_is_smaller() -> None:
    known = first(lesson(emotives=({"e": 1.0}, {"e": 2.0})))
    assert merge(known, lesson(operation="o2", persistence=1)).emotives == known.emotives


def test_merge_counts_an_operation_once() -> None:
    known = first(lesson())
    assert merge(known, lesson()) is known
    assert merge(known, lesson(operation="")).frequency == 2
    assert merge(known, lesson(operation="")).operations == ("o1",)


def test_merge_remembers_the_latest_32_operations() -> None:
    pattern = first(lesson())
    for number in range(40):
        pattern = merge(pattern, lesson(operation=f"p{number}"))
    assert pattern.operations == tuple(f"p{number}" for number in range(8, 40))


def test_written_emotives_become_a_window_when_more_are_learned() -> None:
    written = update(first(lesson()), None, {"joy": [1, 2], "fear": [3]}, 5)
    assert shown_emotives(written) == {"joy": [1.0, 2.0], "fear": [3.0]}
    assert merge(written, lesson(operation="o2")).emotives == written.emotives
    merged = merge(written, lesson(operation="o2", emotives=({"joy": 6.0},), persistence=2))
    assert merged.emotives == ({"joy": 2.0, "fear": 3.0}, {"joy": 6.0})


def test_window_of_a_window_and_of_nothing() -> None:
    assert emotives_window([{"a": 1.0}]) == ({"a": 1.0},)
    assert emotives_window({}) == ()
    assert emotives_window({"a": ()}) == ()


def test_shown_emotives_are_the_average() -> None:
    assert shown_emotives(first(lesson(emotives=({"e": 1.0}, {"e": 2.0})))) == {"e": 1.5}


def test_update_changes_only_what_is_given() -> None:
    known = first(lesson(emotives=({"e": 1.0},)))
    assert update(known, None, None, 5) is known
    seven = update(known, 7, None, 5)
    assert (seven.frequency, seven.emotives, seven.revision) == (7, known.emotives, 2)
    assert update(known, 0, None, 5).frequency == 0
    listed = update(known, None, [{"e": 1}, {"f": 2}], 5)
    assert (listed.frequency, listed.emotives) == (1, ({"e": 1.0}, {"f": 2.0}))
    assert update(known, None, {}, 5).emotives == {}


@pytest.mark.parametrize(
    ("frequency", "emotives", "reason"),
    [
        (-1, None, "frequency must be"),
        (1.5, None, "frequency must be"),
        (True, None, "frequency must be"),
        (None, {"e": [1, 2, 3]}, "e has 3 entries, persistence allows 2"),
        (None, {"e": 1}, "e must be a list"),
        (None, {"e": "ab"}, "e must be a list"),
        (None, {"e": [True]}, "e must hold finite numbers only"),
        (None, [{"e": "x"}], "e must hold finite numbers only"),
        (None, {"e": [10**400]}, "e must hold finite numbers only"),
        (None, {"e": [float("nan")]}, "e must hold finite numbers only"),
        (None, [{}, {}, {}], "emotives has 3 entries"),
        (None, [1], "emotives must map"),
        (None, 1, "emotives must be a list"),
    ],
)
def test_update_refuses(frequency: Any, emotives: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        update(first(lesson()), frequency, emotives, 2)
