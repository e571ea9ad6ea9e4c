from __future__ import annotations

import numpy as np
import pytest

from kato.engine.matching import (
    Ensemble,
    KnownPattern,
    ensemble,
    ensemble_first,
    gather,
    longest_common_subsequence,
    match,
    matching_blocks,
    pre_potential,
    similarity,
)
from kato.model import Events


def events(*texts: str) -> Events:
    return tuple(tuple(text) for text in texts)


def known(*patterns: str, frequency: int = 1) -> list[KnownPattern]:
    """Patterns written as their events joined by "/", named by the same text."""
    return [(text, events(*text.split("/")), frequency, 0) for text in patterns]


@pytest.mark.parametrize(
    ("a", "b", "length"),
    [("", "", 0), ("abc", "", 0), ("abcd", "bxd", 2), ("abhf", "bfa", 2), ("aab", "aba", 2)],
)
def test_lcs(a: str, b: str, length: int) -> None:
    assert longest_common_subsequence(a, b) == length
    assert longest_common_subsequence(b, a) == length


def test_blocks_take_the_earliest_of_equally_long_runs() -> None:
    assert matching_blocks("abhf", "bfa") == [(0, 2, 1)]
    assert matching_blocks("abab", "ab") == [(0, 0, 2)]
    assert matching_blocks("ab", "abab") == [(0, 0, 2)]
    assert matching_blocks("abc", "xyz") == []


def test_blocks_may_touch_in_one_sequence_only() -> None:
    assert matching_blocks("abb", "abb") == [(0, 0, 3)]
    assert matching_blocks("abcab", "abxcab") == [(0, 0, 2), (2, 3, 3)]


@pytest.mark.parametrize(
    ("pattern", "state", "past", "present", "positions"),
    [
        ("a/b/c/d/e", "bc", 1, 2, (0, 1)),
        ("a/b/c/d/e", "bd", 1, 3, (0, 1)),
        ("ab/cd/ef", "bc", 0, 2, (0, 1)),
        ("ab/cd", "axcyz", 0, 2, (0, 2)),
        # The border is clean, but the event before holds the first match too (kept).
        ("ab/a/c", "ac", 0, 3, (0, 1)),
        # The past overshoots the whole present and gives it back.
        ("abc", "b", 0, 1, (0,)),
        ("x/a/b/c", "ab", 1, 2, (0, 1)),
        ("p/q", "ab", 0, 2, ()),
    ],
)
def test_segments(pattern: str, state: str, past: int, present: int, positions: tuple[int, ...]) -> None:
    found = match(state, events(*pattern.split("/")))
    assert (found.past_events, found.present_events) == (past, present)
    assert found.positions == positions


def test_similarity_uses_the_lcs_though_matches_are_blocks() -> None:
    found = match("bfa", events("a", "b", "h", "f"))
    assert similarity(found.lcs, 3, found.length) == 4 / 7
    assert found.positions == (2,)


def test_pre_potential_of_nothing_is_not_an_error() -> None:
    assert pre_potential(0, 0, 2, 2, 2) == 0.0
    assert pre_potential(0, 0, 0, 2, 0) == 0.0


def test_ensemble_order_and_columns() -> None:
    rows = ensemble("ab", known("x/a/b/c", "a/b/d", "a/b/c", "p/q", frequency=2), 0.1, 300)
    assert rows.names == ["a/b/c", "a/b/d", "x/a/b/c"]
    assert (rows.patterns, rows.symbols, rows.total_frequency, len(rows)) == (4, 7, 8, 3)
    assert rows.lcs.tolist() == [2, 2, 2]
    assert rows.length.tolist() == [3, 3, 4]
    assert rows.past_events.tolist() == [0, 0, 1]
    assert rows.match_offsets.tolist() == [0, 2, 4, 6]
    assert rows.match_positions.tolist() == [0, 1] * 3
    assert rows.present_offsets.tolist() == [0, 2, 4, 6]
    assert [rows.local_symbols[place] for place in rows.present_symbols] == ["a", "b"] * 3
    assert rows.local_symbols == ["a", "b"]
    assert rows.member_frequency.tolist() == [3, 3]
    assert rows.state_symbols.tolist() == [0, 1]
    expected = {
        "frequency": np.int64,
        "flags": np.uint8,
        "lcs": np.uint32,
        "present_symbols": np.uint32,
        "member_frequency": np.uint32,
        "state_symbols": np.int32,
    }
    assert {name: getattr(rows, name).dtype for name in expected} == expected


def test_state_symbols_known_elsewhere_are_listed_and_unknown_ones_are_not() -> None:
    rows = ensemble("aqz", known("a/b", "q/r"), 0.5, 300)
    assert rows.names == []
    assert rows.local_symbols == ["a", "q"]
    assert rows.state_symbols.tolist() == [0, 1, -1]


def test_threshold_zero_keeps_everything_and_a_positive_one_needs_a_match() -> None:
    assert ensemble("ab", known("a/b", "p/q"), 0.0, 300).names == ["a/b", "p/q"]
    assert ensemble("ab", known("a/b", "p/q"), 1e-12, 300).names == ["a/b"]


def test_thresholds_are_inclusive_within_the_tolerance() -> None:
    assert ensemble("ab", known("a/b/c"), 0.8, 300).names == ["a/b/c"]
    assert ensemble("ab", known("a/b/c"), 0.8000001, 300).names == []
    assert ensemble("ab", known("x/a/b/c"), 2 / 3, 300).names == ["x/a/b/c"]


def test_too_many_survivors_are_cut_by_pre_potential() -> None:
    patterns = known("a/b/x", "a/b/y", "a/b/z", "a/z/b", "b/a/a")
    assert ensemble("ab", patterns, 0.1, 3).names == ["a/b/x", "a/b/y", "a/b/z"]
    # Equal pre-potentials stay in ensemble order.
    assert ensemble("ab", patterns, 0.1, 2).names == ["a/b/x", "a/b/y"]
    assert ensemble("ab", patterns, 0.1, 0).names == []


@pytest.mark.parametrize(
    ("bounds", "names"),
    [
        ({"min_length": 3}, ["a/b/x"]),
        ({"max_length": 2}, ["a/b", "p/q"]),
        ({"min_overlap": 1}, ["a/b", "a/b/x"]),
        ({"min_overlap": 3}, []),
        ({"min_jaccard": 2 / 3}, ["a/b", "a/b/x"]),
        ({"min_jaccard": 0.7}, ["a/b"]),
    ],
)
def test_bounds(bounds: dict[str, float], names: list[str]) -> None:
    assert ensemble("ab", known("a/b", "a/b/x", "p/q"), 0.0, 300, **bounds).names == names  # type: ignore[arg-type]


def test_one_symbol_finds_the_patterns_that_begin_with_it() -> None:
    rows = ensemble_first("a", known("aq", "a/b/c", "x/a", "ab/a"), 300)
    assert rows.names == ["aq", "a/b/c", "ab/a"]
    assert rows.matched.tolist() == rows.lcs.tolist() == rows.blocks.tolist() == [1, 1, 1]
    assert rows.present_events.tolist() == [1, 1, 1]
    assert rows.past_events.tolist() == [0, 0, 0]
    # Evidence plus confidence is 1.5, 1.33 and 0.83: the second event symbol costs confidence.
    assert ensemble_first("a", known("aq", "a/b/c", "x/a", "ab/a"), 1).names == ["a/b/c"]


def test_gather_keeps_the_given_order_and_matches_nothing() -> None:
    rows = gather("az", known("a/b", "c/d", "e/f"), ["e/f", "a/b"])
    assert rows.names == ["e/f", "a/b"]
    assert rows.matched.tolist() == rows.blocks.tolist() == rows.lcs.tolist() == [0, 0]
    assert rows.present_events.tolist() == rows.length.tolist() == [2, 2]
    assert rows.local_symbols == ["e", "f", "a", "b"]
    assert isinstance(gather("a", [], []), Ensemble)
