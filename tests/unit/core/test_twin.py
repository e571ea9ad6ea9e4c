"""The compiled index answers exactly like the readable twin and like a textbook reference."""

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kato.engine import matching
from kato.engine.matching import KnownPattern

from .material import (
    THRESHOLDS,
    assert_equal,
    index_of,
    load,
    name,
    random_patterns,
    random_state,
)
from .reference import survivors

PAIRS = int(os.environ.get("KATO_TWIN_PAIRS", "20000"))
"""Pairs of a state and a pattern that the seeded loop compares."""
WORLDS = [
    # alphabet, longest pattern in events, longest state, patterns
    ("ab", 4, 6, 60),
    ("abc", 6, 12, 100),
    ("abcdefgh", 6, 10, 100),
    ("abcdefghijklmnopqrstuvwxyz", 10, 14, 120),
    ("abcde", 30, 80, 40),
    ("abcdefghijklmnopqrstuvwxyz", 60, 200, 30),
    ("a", 20, 90, 20),
]


def options(chance: random.Random) -> dict[str, float]:
    chosen: dict[str, float] = {}
    if chance.random() < 0.2:
        chosen["min_length"] = chance.randint(0, 8)
    if chance.random() < 0.2:
        chosen["max_length"] = chance.randint(0, 20)
    if chance.random() < 0.2:
        chosen["min_overlap"] = chance.randint(0, 3)
    if chance.random() < 0.2:
        chosen["min_jaccard"] = chance.choice((0.1, 0.25, 1 / 3, 0.5))
    return chosen


@pytest.mark.slow
def test_twin_loop() -> None:
    chance = random.Random(20240601)
    pairs = world = 0
    while pairs < PAIRS:
        alphabet, longest, longest_state, count = WORLDS[world % len(WORLDS)]
        world += 1
        patterns = random_patterns(chance, count, alphabet, longest)
        index = index_of(patterns)
        for gone in chance.sample(patterns, chance.choice((0, 0, 1, count // 3))):
            assert index.remove(gone[0])
            patterns.remove(gone)
            if chance.random() < 0.3:
                again = (gone[0], chance.choice(patterns)[1], 7, 1)
                index.insert(*again)
                patterns.append(again)
        for _ in range(10):
            state = random_state(chance, alphabet, patterns, longest_state)
            threshold = chance.choice(THRESHOLDS)
            limit = chance.choice((0, 1, 2, 3, 5, 10, 30, 300))
            extra = options(chance)
            expected = matching.ensemble(state, patterns, threshold, limit, **extra)
            assert_equal(index.search(state, threshold, limit, **extra), expected)
            pairs += len(patterns)
        symbol = chance.choice(alphabet + "?")
        for limit in (3, 300):
            assert_equal(index.search_first(symbol, limit), matching.ensemble_first(symbol, patterns, limit))


def test_reference() -> None:
    chance = random.Random(7)
    for round_ in range(60):
        alphabet, longest, longest_state, count = WORLDS[round_ % len(WORLDS)]
        patterns = random_patterns(chance, min(count, 40), alphabet, longest)
        index = index_of(patterns)
        for _ in range(3):
            state = random_state(chance, alphabet, patterns, longest_state)
            threshold, limit = chance.choice(THRESHOLDS), chance.choice((1, 3, 10, 100))
            found = index.search(state, threshold, limit)
            expected = survivors(state, patterns, threshold, limit)
            assert found.names == [row.name for row in expected]
            for place, row in enumerate(expected):
                begin, end = found.match_offsets[place : place + 2]
                assert tuple(found.match_positions[begin:end].tolist()) == row.matches
                assert found.length[place] == row.length
                assert found.lcs[place] == row.lcs
                assert found.matched[place] == len(row.matches)
                assert found.blocks[place] == row.blocks
                assert found.past_events[place] == len(row.past)
                assert found.present_events[place] == len(row.present)
                begin, end = found.present_offsets[place : place + 2]
                present = [found.local_symbols[i] for i in found.present_symbols[begin:end]]
                assert present == [symbol for event in row.present for symbol in event]


symbols = st.sampled_from("abcdé\0😀") | st.text(max_size=3)
events = st.lists(st.lists(symbols, min_size=1, max_size=3).map(tuple), min_size=1, max_size=8).map(tuple)


@given(
    st.lists(events, max_size=12),
    st.lists(symbols, min_size=2, max_size=12).map(tuple),
    st.sampled_from(THRESHOLDS) | st.floats(0, 1),
    st.integers(0, 12),
)
def test_twin_property(
    contents: list[tuple[tuple[str, ...], ...]], state: tuple[str, ...], threshold: float, limit: int
) -> None:
    patterns: list[KnownPattern] = [(name(i), content, i, 0) for i, content in enumerate(contents)]
    index = index_of(patterns)
    expected = matching.ensemble(state, patterns, threshold, limit)
    assert_equal(index.search(state, threshold, limit), expected)
    chosen = [pattern[0] for pattern in patterns[::2]]
    assert_equal(index.gather(chosen, state), matching.gather(state, patterns, chosen))


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3, 0.5])
def test_twin_beyond_one_block(threshold: float) -> None:
    """Enough patterns that symbols become dense, get bitmaps, and searches count several blocks."""
    chance = random.Random(3)
    common = "abcdefghijklmnopqrstuvwxyz"
    patterns = []
    for number in range(40_000):
        rare = chr(0x100 + chance.randrange(2000))
        content = tuple(
            (chance.choice(common[: chance.randint(1, 26)]), rare)[: chance.randint(1, 2)]
            for _ in range(chance.randint(1, 4))
        )
        patterns.append((name(number * 7919 % 40_009), content, 1, 0))
    index = index_of(patterns[:20_000])
    load(index, patterns[20_000:])
    for gone in patterns[5:30_000:11]:
        index.remove(gone[0])
    del patterns[5:30_000:11]
    for _ in range(2):
        state = random_state(chance, common, patterns, 8)
        expected = matching.ensemble(state, patterns, threshold, 50)
        assert_equal(index.search(state, threshold, 50), expected)
