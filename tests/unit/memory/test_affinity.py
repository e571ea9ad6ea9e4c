"""Affinity sums are exact: no order of learning and deleting changes a bit."""

from __future__ import annotations

import math
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kato.memory.affinity import Affinities

EMOTIVES = st.dictionaries(
    st.sampled_from(["joy", "fear", "rage"]), st.floats(allow_nan=False, allow_infinity=False), max_size=3
)
SHARES = st.lists(st.tuples(st.lists(st.sampled_from("abcd"), unique=True), EMOTIVES), max_size=12)


def table(shares: list[tuple[list[str], dict[str, float]]]) -> Affinities:
    affinities = Affinities()
    for symbols, emotives in shares:
        affinities.add(symbols, emotives)
    return affinities


def bits(affinities: Affinities) -> dict[str, dict[str, str]]:
    return {s: {e: v.hex() for e, v in sums.items()} for s, sums in affinities.all().items()}


@given(SHARES, st.randoms(use_true_random=False))
def test_the_order_of_learning_changes_no_bit(shares: list, random_: random.Random) -> None:
    other = list(shares)
    random_.shuffle(other)
    assert bits(table(shares)) == bits(table(other))


@given(SHARES, SHARES)
def test_what_was_removed_never_was(kept: list, removed: list) -> None:
    affinities = table(kept + removed)
    for symbols, emotives in removed:
        affinities.remove(symbols, emotives)
    assert bits(affinities) == bits(table(kept))


def test_sums_are_rounded_once() -> None:
    affinities = table([(["a"], {"joy": 0.1})] * 10)
    assert affinities.of("a") == {"joy": math.fsum([0.1] * 10)}


def test_a_sum_of_zero_is_shown_as_long_as_a_pattern_carries_it() -> None:
    affinities = table([(["a"], {"joy": 1.0}), (["a"], {"joy": -1.0})])
    assert affinities.of("a") == {"joy": 0.0}
    affinities.remove(["a"], {"joy": 1.0})
    affinities.remove(["a"], {"joy": -1.0})
    assert affinities.all() == {}


def test_symbols_and_emotives_are_listed_in_ascending_order() -> None:
    affinities = table([(["b", "a"], {"rage": 2.0, "joy": 1.0})])
    assert [(s, list(e)) for s, e in affinities.all().items()] == [
        ("a", ["joy", "rage"]),
        ("b", ["joy", "rage"]),
    ]


@pytest.mark.parametrize("value", [5e-324, -5e-324, sys.float_info.max, sys.float_info.min, 3.0, -0.75])
def test_every_double_is_kept_exactly(value: float) -> None:
    assert table([(["a"], {"joy": value})]).of("a") == {"joy": value}


def test_a_sum_beyond_the_largest_double_is_shown_as_the_largest() -> None:
    huge = sys.float_info.max
    affinities = table([(["a"], {"joy": huge, "fear": -huge})] * 2)
    assert affinities.of("a") == {"joy": huge, "fear": -huge}
    affinities.remove(["a"], {"joy": huge, "fear": -huge})
    assert affinities.of("a") == {"joy": huge, "fear": -huge}


@pytest.mark.parametrize(
    ("stored", "shown"), [(math.inf, sys.float_info.max), (-math.inf, -sys.float_info.max)]
)
def test_an_infinite_sum_of_a_pattern_counts_as_the_largest_double(stored: float, shown: float) -> None:
    assert table([(["a"], {"joy": stored})]).of("a") == {"joy": shown}
