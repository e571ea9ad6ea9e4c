"""The twin against the simplest possible definitions."""

from __future__ import annotations

from collections import Counter
from difflib import SequenceMatcher

from hypothesis import given
from hypothesis import strategies as st

from kato.engine.filters import bounds
from kato.engine.likeness import character_ensemble, fuzzy_ensemble, fuzzy_neighbours
from kato.engine.matching import (
    KnownPattern,
    ensemble,
    flatten,
    gather,
    longest_common_subsequence,
    match,
    matching_blocks,
    similarity,
)
from kato.model import Events, SessionConfig

TOKENS = st.lists(st.sampled_from("abcde"), max_size=12)
WORDS = st.sampled_from(["apple", "appel", "aple", "bat", "cat", "cab", "banana", "bannana", "x"])


def as_events(symbol: st.SearchStrategy[str], least: int = 1) -> st.SearchStrategy[Events]:
    event = st.lists(symbol, min_size=1, max_size=3).map(tuple)
    return st.lists(event, min_size=least, max_size=5).map(tuple)


def as_patterns(symbol: st.SearchStrategy[str]) -> st.SearchStrategy[list[KnownPattern]]:
    known = st.tuples(as_events(symbol), st.integers(0, 5))
    return st.lists(known, max_size=8).map(
        lambda rows: [(f"p{n}", events, frequency, 0) for n, (events, frequency) in enumerate(rows)]
    )


LETTERS = st.sampled_from("abcdef")
PATTERNS = as_patterns(LETTERS)
STATES = st.lists(LETTERS, min_size=2, max_size=8).map(tuple)
THRESHOLDS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 2 / 3, 0.8, 1.0])


@given(TOKENS, TOKENS)
def test_lcs_equals_the_table(a: list[str], b: list[str]) -> None:
    row = [0] * (len(b) + 1)
    for x in a:
        before = row
        row = [0]
        for j, y in enumerate(b):
            row.append(before[j] + 1 if x == y else max(before[j + 1], row[j]))
    assert longest_common_subsequence(a, b) == row[-1]


@given(TOKENS, TOKENS)
def test_blocks_equal_difflib(a: list[str], b: list[str]) -> None:
    expected = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    assert matching_blocks(a, b) == [tuple(block) for block in expected[:-1]]


@given(STATES, as_events(LETTERS))
def test_a_match_lies_in_its_present(state: tuple[str, ...], events: Events) -> None:
    found = match(state, events)
    present = flatten(events[found.past_events : found.past_events + found.present_events])
    assert not Counter(state[place] for place in found.positions) - Counter(present)
    assert len(found.positions) <= found.lcs <= min(len(state), found.length)
    assert list(found.positions) == sorted(found.positions)
    assert found.past_events + found.present_events <= len(events)


@given(STATES, PATTERNS, THRESHOLDS, st.integers(1, 9))
def test_pruning_keeps_a_part_in_the_same_order(
    state: tuple[str, ...], patterns: list[KnownPattern], threshold: float, limit: int
) -> None:
    everything = ensemble(state, patterns, threshold, 1000)
    pruned = ensemble(state, patterns, threshold, limit)
    assert len(pruned) == min(limit, len(everything))
    assert [name for name in everything.names if name in pruned.names] == pruned.names


@given(
    STATES,
    PATTERNS,
    THRESHOLDS,
    st.lists(st.sampled_from(["length", "jaccard", "minhash", "bloom", "rapidfuzz"]), max_size=4),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.integers(1, 4),
)
def test_filters_lose_nothing_they_should_keep(
    state: tuple[str, ...],
    patterns: list[KnownPattern],
    threshold: float,
    pipeline: list[str],
    jaccard: float,
    overlap: int,
) -> None:
    """The bounds equal the stages of behaviour.md 11 applied one after the other."""
    config = SessionConfig(
        recall_threshold=threshold,
        filter_pipeline=tuple(pipeline),  # type: ignore[arg-type]
        jaccard_threshold=jaccard,
        minhash_threshold=jaccard,
        jaccard_min_overlap=overlap,
    )
    observed = set(state)

    def passes(stage: str, events: Events) -> bool:
        pattern = flatten(events)
        shared, union = len(observed & set(pattern)), len(observed | set(pattern))
        found = match(state, events)
        alike = similarity(found.lcs, len(state), len(pattern))
        return {
            "length": max(1, len(state) // 2) <= len(pattern) <= 2 * len(state),
            "jaccard": shared >= overlap and shared / union >= jaccard - 1e-9,
            "minhash": shared / union >= jaccard - 1e-9,
            "bloom": shared >= 1,
            "rapidfuzz": alike >= (threshold or 0.1) - 1e-9 and shared >= 1,
        }[stage]

    kept = [row for row in patterns if all(passes(stage, row[1]) for stage in pipeline)]
    limits = bounds(config, state)
    found = ensemble(
        state,
        patterns,
        limits.threshold,
        1000,
        min_length=limits.min_length,
        max_length=limits.max_length,
        min_overlap=limits.min_overlap,
        min_jaccard=limits.min_jaccard,
    )
    assert found.names == ensemble(state, kept, threshold, 1000).names


@given(STATES, PATTERNS, THRESHOLDS, st.integers(1, 9))
def test_fuzzy_at_one_is_exact(
    state: tuple[str, ...], patterns: list[KnownPattern], threshold: float, limit: int
) -> None:
    exact = ensemble(state, patterns, threshold, limit)
    gathered = gather(state, patterns, [pattern[0] for pattern in patterns])
    fuzzy = fuzzy_ensemble(state, gathered, threshold, limit, fuzzy_threshold=1.0)
    assert fuzzy.names == exact.names
    assert fuzzy.likeness.tolist() == [
        similarity(lcs, len(state), length)
        for lcs, length in zip(exact.lcs.tolist(), exact.length.tolist(), strict=True)
    ]
    for column in (
        "matched",
        "blocks",
        "past_events",
        "present_events",
        "match_positions",
        "present_offsets",
    ):
        assert getattr(fuzzy, column).tolist() == getattr(exact, column).tolist()
    assert all(not anomalies for anomalies in fuzzy.anomalies)


@given(
    st.lists(WORDS, min_size=2, max_size=5).map(tuple),
    as_patterns(WORDS),
    st.sampled_from([0.1, 0.5]),
    st.sampled_from([0.5, 0.6, 0.75, 0.8, 0.9]),
)
def test_candidates_by_shared_symbols_are_enough(
    state: tuple[str, ...], patterns: list[KnownPattern], threshold: float, alike: float
) -> None:
    """A positive threshold needs a match, so an inverted index loses nothing (8.2)."""
    names = [pattern[0] for pattern in patterns]
    vocabulary = sorted({symbol for pattern in patterns for symbol in flatten(pattern[1])})
    everything = gather(state, patterns, names)

    def holding(symbols: set[str]) -> list[str]:
        return [name for name, events, _, _ in patterns if symbols & set(flatten(events))]

    near = gather(state, patterns, holding(set(fuzzy_neighbours(state, vocabulary, alike))))
    assert (
        fuzzy_ensemble(state, near, threshold, 99, fuzzy_threshold=alike).names
        == fuzzy_ensemble(state, everything, threshold, 99, fuzzy_threshold=alike).names
    )
    shared = gather(state, patterns, holding(set(state)))
    assert (
        character_ensemble(state, shared, threshold, 99).names
        == character_ensemble(state, everything, threshold, 99).names
    )
