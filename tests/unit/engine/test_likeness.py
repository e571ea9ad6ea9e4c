from __future__ import annotations

import pytest

from kato.engine.likeness import LikenessEnsemble, character_ensemble, fuzzy_ensemble, fuzzy_neighbours
from kato.engine.matching import Ensemble, KnownPattern, gather
from kato.model import Anomaly

FRUITS: list[KnownPattern] = [
    ("fruits", (("apple",), ("banana",), ("cherry",)), 1, 0),
    ("animals", (("ape",), ("bat",), ("cat",)), 1, 0),
]
GREETING: list[KnownPattern] = [("greeting", (("hello",), ("world",), ("again",)), 1, 0)]


def gathered(state: tuple[str, ...], patterns: list[KnownPattern]) -> Ensemble:
    return gather(state, patterns, sorted(pattern[0] for pattern in patterns))


def fuzzy(state: tuple[str, ...], threshold: float, alike: float, **options: object) -> LikenessEnsemble:
    rows = gathered(state, FRUITS)
    return fuzzy_ensemble(state, rows, threshold, 300, fuzzy_threshold=alike, **options)  # type: ignore[arg-type]


def test_characters_decide_the_similarity_but_tokens_the_matches() -> None:
    state = ("hello", "wurld")
    rows = character_ensemble(state, gathered(state, GREETING), 0.1, 300)
    assert rows.likeness.tolist() == [pytest.approx(0.7142857142857143)]
    assert rows.match_positions.tolist() == [0]
    assert rows.present_events.tolist() == [1]
    assert rows.aligned == []
    assert rows.anomalies == []


def test_characters_alone_survive_only_threshold_zero() -> None:
    state = ("hallo", "wurld")
    assert character_ensemble(state, gathered(state, GREETING), 0.1, 300).names == []
    rows = character_ensemble(state, gathered(state, GREETING), 0.0, 300)
    assert rows.blocks.tolist() == [0]
    assert rows.present_offsets.tolist() == [0, 3]


def test_character_threshold_is_inclusive() -> None:
    state = ("ab", "cd")
    pattern: list[KnownPattern] = [("p", (("ab",), ("cd",)), 1, 0)]
    assert character_ensemble(state, gathered(state, pattern), 1.0, 300).names == ["p"]
    empty: list[KnownPattern] = [("p", (("",),), 1, 0)]
    assert character_ensemble(("",), gathered(("",), empty), 1.0, 300).likeness.tolist() == [1.0]


def test_fuzzy_tokens_count_as_their_partners() -> None:
    rows = fuzzy(("apple", "bannana"), 0.1, 0.85)
    assert rows.names == ["fruits"]
    assert rows.aligned == [("apple", "banana")]
    assert rows.likeness.tolist() == [0.8]
    assert rows.present_events.tolist() == [2]
    assert rows.anomalies == [(Anomaly("bannana", "banana", 1 - 1 / 13),)]


def test_an_exact_token_is_its_own_partner_and_far_tokens_have_none() -> None:
    rows = fuzzy(("apple", "zzz"), 0.1, 1.0)
    assert rows.aligned == [("apple", "zzz")]
    assert rows.anomalies == [()]


def test_the_earliest_of_equally_alike_tokens_is_the_partner() -> None:
    patterns: list[KnownPattern] = [("p", (("xab", "abx"), ("yab",)), 1, 0)]
    rows = fuzzy_ensemble(("ab",), gathered(("ab",), patterns), 0.0, 300, fuzzy_threshold=0.5)
    assert rows.aligned == [("xab",)]


def test_acceptance_is_inclusive() -> None:
    # 2 * 6 / (8 + 7) is exactly 0.8: rapidfuzz's own cutoff would lose it.
    patterns: list[KnownPattern] = [("p", (("talking",), ("x",)), 1, 0)]
    rows = fuzzy_ensemble(("waalking",), gathered(("waalking",), patterns), 0.1, 300, fuzzy_threshold=0.8)
    assert rows.aligned == [("talking",)]
    assert fuzzy_neighbours(("waalking",), ["talking", "x"], 0.8) == ["talking"]


def test_fuzzy_with_characters_compares_the_aligned_texts() -> None:
    rows = fuzzy(("apple", "bannana", "cherry"), 0.1, 0.85, characters=True)
    assert rows.likeness.tolist() == [1.0]


def test_fuzzy_bounds_mean_the_observed_symbols() -> None:
    state = ("appel", "bannana")
    assert fuzzy(state, 0.1, 0.8).names == ["fruits"]
    assert fuzzy(state, 0.1, 0.8, min_overlap=1).names == []
    assert fuzzy(("apple", "banana"), 0.1, 0.7, min_jaccard=2 / 3).names == ["fruits"]
    assert fuzzy(("apple", "banana"), 0.1, 0.7, min_length=4).names == []
    assert fuzzy(("apple", "banana"), 0.1, 0.7, max_length=2).names == []


def test_too_many_survivors_are_cut_by_pre_potential_and_ordered_by_likeness() -> None:
    patterns: list[KnownPattern] = [(name, (("a",), (name,)), 1, 0) for name in "xyz"]
    state = ("a", "y")
    rows = character_ensemble(state, gathered(state, patterns), 0.1, 2)
    assert rows.names == ["y", "x"]
    assert [rows.local_symbols[place] for place in rows.present_symbols] == ["a", "y", "a"]


def test_no_survivor() -> None:
    rows = fuzzy(("q",), 0.5, 0.9)
    assert len(rows) == 0
    assert rows.present_symbols.tolist() == []


def test_fuzzy_neighbours_come_in_the_order_of_the_vocabulary() -> None:
    assert fuzzy_neighbours(("bannana", "appel"), ["apple", "banana", "cherry"], 0.7) == ["apple", "banana"]
    assert fuzzy_neighbours(("",), ["", "a"], 0.5) == [""]
    assert fuzzy_neighbours(("a",), [], 0.5) == []
