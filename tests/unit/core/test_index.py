"""Every operation of the compiled index, and what it refuses."""

import random

import numpy as np
import pytest

from kato import _core
from kato._core import Index
from kato.engine import matching
from kato.engine.matching import KnownPattern

from .material import assert_equal, index_of, name, random_patterns, random_state

A, B, C, D = name(10), name(11), name(12), name(13)


@pytest.fixture
def index() -> Index:
    return index_of(
        [
            (A, (("a",), ("b",), ("a",)), 3, 0),
            (B, (("a", "b"), ("c",)), 1, 1),
            (C, (("x",), ("a",), ("b",)), 2, 0),
        ]
    )


def test_empty_index_is_tiny_and_answers() -> None:
    index = Index()
    assert len(index) == 0
    assert index.memory_bytes() < 2048
    assert index.totals() == (0, 0, 0, 0)
    assert index.vocabulary() == []
    assert index.candidates(None) == []
    assert index.candidates(["a"]) == []
    assert index.page(None, 10, None, 0) == []
    assert index.symbol_statistics(["a"]) == [(0, 0)]
    assert index.events(A) is None
    for ensemble in (index.search(["a", "b"], 0.0, 10), index.search_first("a", 10), index.gather([], ["a"])):
        assert len(ensemble) == 0
        assert ensemble.names == []
        assert ensemble.match_offsets.tolist() == [0]
        assert ensemble.present_offsets.tolist() == [0]
    assert ensemble.state_symbols.tolist() == [-1]


def test_membership(index: Index) -> None:
    assert len(index) == 3
    assert A in index
    assert D not in index
    assert "no name" not in index
    assert A.upper() not in index
    assert index.events(A) == (("a",), ("b",), ("a",))
    assert index.events(D) is None
    assert index.events("no name") is None


def test_symbols_are_shared_objects(index: Index) -> None:
    first, second = index.events(A), index.events(B)
    assert first is not None
    assert second is not None
    assert first[0][0] is first[2][0] is second[0][0]


def test_search_columns(index: Index) -> None:
    found = index.search(["a", "b", "new"], 0.1, 10)
    assert found.names == [A, B, C]
    assert found.events == [index.events(A), index.events(B), index.events(C)]
    assert (found.patterns, found.symbols, found.total_frequency) == (3, 4, 6)
    assert found.frequency.tolist() == [3, 1, 2]
    assert found.flags.tolist() == [0, 1, 0]
    assert found.length.tolist() == [3, 3, 3]
    assert found.past_events.tolist() == [0, 0, 1]
    assert found.present_events.tolist() == [2, 1, 2]
    assert found.state_symbols.tolist() == [0, 1, -1]
    assert found.local_symbols == ["a", "b"]
    assert found.member_frequency.tolist() == [3, 3]
    assert found.frequency.dtype == np.int64
    assert found.state_symbols.dtype == np.int32
    assert found.flags.dtype == np.uint8


def test_the_event_before_a_clean_border_moves(index: Index) -> None:
    """Behaviour.md 8.5 step 2: the event before the border moves when it repeats the first match."""
    index.insert(D, (("k", "l"), ("k",), ("m",)), 1)
    found = index.search(["k", "m"], 0.1, 10)
    assert (found.past_events.tolist(), found.present_events.tolist()) == ([0], [3])


def test_a_pattern_may_end_in_its_first_event(index: Index) -> None:
    index.insert(D, (("p", "q", "r", "s"), ("t",)), 1)
    found = index.search(["q", "r"], 0.1, 10)
    assert (found.past_events.tolist(), found.present_events.tolist()) == ([0], [1])
    assert [found.local_symbols[i] for i in found.present_symbols] == ["p", "q", "r", "s"]


def test_search_first(index: Index) -> None:
    found = index.search_first("a", 10)
    assert found.names == [A, B]
    assert found.present_events.tolist() == [1, 1]
    assert found.present_offsets.tolist() == [0, 1, 3]
    assert found.matched.tolist() == found.lcs.tolist() == found.blocks.tolist() == [1, 1]
    assert index.search_first("a", 1).names == [A]
    assert index.search_first("b", 10).names == []
    assert index.search_first("unknown", 10).names == []


def test_candidates(index: Index) -> None:
    assert index.candidates(None) == [A, B, C]
    assert index.candidates(["c", "x", "x", "unknown"]) == [B, C]
    assert index.candidates([]) == []
    index.remove(B)
    assert index.candidates(["c"]) == []
    assert index.candidates(None) == [A, C]


def test_gather_keeps_the_given_order(index: Index) -> None:
    found = index.gather([C, D, A, "no name"], ["b", "?"])
    assert found.names == [C, A]
    assert found.lcs.tolist() == found.matched.tolist() == found.blocks.tolist() == [0, 0]
    assert found.past_events.tolist() == [0, 0]
    assert found.present_events.tolist() == [3, 3]
    assert found.local_symbols == ["x", "a", "b"]
    assert found.state_symbols.tolist() == [2, -1]


def test_page(index: Index) -> None:
    assert index.page(None, 10, None, 0) == [A, B, C]
    assert index.page(None, 2, None, 0) == [A, B]
    assert index.page(A, 10, None, 0) == [B, C]
    assert index.page(A[:-1], 10, None, 0) == [A, B, C]
    assert index.page("", 10, None, 0) == [A, B, C]
    assert index.page("zzz", 10, None, 0) == []
    assert index.page(None, 10, None, 2) == [A, C]
    assert index.page(None, 10, "c", 0) == [B]
    assert index.page(None, 10, "unknown", 0) == []
    assert index.page(None, 0, None, 0) == []


def test_statistics(index: Index) -> None:
    assert index.totals() == (3, 6, 18, 4)
    assert index.symbol_statistics(["a", "b", "c", "x", "?"]) == [(9, 3), (6, 3), (1, 1), (2, 1), (0, 0)]
    index.set_frequency(A, 0)
    index.set_flags(A, 255)
    assert index.totals() == (3, 3, 9, 4)
    assert index.symbol_statistics(["a"]) == [(3, 3)]
    found = index.search(["a", "b"], 0.5, 10)
    assert dict(zip(found.names, found.frequency.tolist(), strict=True))[A] == 0
    assert dict(zip(found.names, found.flags.tolist(), strict=True))[A] == 255


def test_large_frequencies(index: Index) -> None:
    index.set_frequency(A, 2**40)
    assert index.totals()[1] == 2**40 + 3
    assert index.search(["a", "b"], 0.5, 1).frequency.tolist() == [2**40]


def test_remove(index: Index) -> None:
    assert index.remove(B)
    assert not index.remove(B)
    assert not index.remove("no name")
    assert B not in index
    assert index.vocabulary() == ["a", "b", "x"]
    assert index.totals() == (2, 5, 15, 3)
    assert index.search(["a", "c"], 0.1, 10).state_symbols.tolist() == [0, -1]
    index.insert(B, (("c",),), 4)
    assert index.events(B) == (("c",),)
    assert index.vocabulary() == ["a", "b", "c", "x"]
    assert index.symbol_statistics(["c"]) == [(4, 1)]
    assert index.search_first("c", 5).names == [B]


def test_refusals(index: Index) -> None:
    with pytest.raises(ValueError, match="name"):
        index.insert(A, (("a",),), 1)
    for bad in ("", "p1", A.upper().replace("0", "F"), A + "0"):
        with pytest.raises(ValueError, match="40"):
            index.insert(bad, (("a",),), 1)
    for events in ((), ((),), (("a",), ())):
        with pytest.raises(ValueError, match="without"):
            index.insert(D, events, 1)
    with pytest.raises(ValueError, match="negative"):
        index.insert(D, (("a",),), -1)
    with pytest.raises(ValueError, match="byte"):
        index.insert(D, (("a",),), 1, 256)
    with pytest.raises(ValueError, match="surrogates"):
        index.insert(D, (("\ud800",),), 1)
    with pytest.raises(ValueError, match="surrogates"):
        index.search(["a", "\ud800"], 0.1, 1)
    with pytest.raises(ValueError, match="number"):
        index.search(["a", "b"], float("nan"), 1)
    with pytest.raises(KeyError):
        index.set_frequency(D, 1)
    with pytest.raises(KeyError):
        index.set_flags("no name", 1)
    with pytest.raises(ValueError, match="negative"):
        index.set_frequency(A, -1)
    for wrong in ([1], None, "ab", [None]):
        with pytest.raises(TypeError):
            index.search(wrong, 0.1, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        index.insert(D, ("ab",), 1)
    assert len(index) == 3
    assert index.vocabulary() == ["a", "b", "c", "x"]


def test_any_text_is_a_symbol() -> None:
    symbols = [
        "",
        "\0",
        "a\0b",
        "é",
        "漢字",
        "😀",
        "\U0010ffff",
        "\ue000",
        "x" * 5000,
        "x" * 5000 + "y",
        "'",
        '"',
    ]
    index = index_of([(A, (tuple(symbols),), 1, 0)])
    assert index.events(A) == (tuple(symbols),)
    assert index.vocabulary() == sorted(symbols)
    found = index.search(symbols, 0.9, 5)
    assert found.lcs.tolist() == [len(symbols)]
    assert found.local_symbols == symbols


def test_degenerate_states(index: Index) -> None:
    patterns: list[KnownPattern] = [(A, (("a",), ("b",)), 1, 0), (B, (("c",),), 1, 0)]
    index = index_of(patterns)
    for state in (("a",), ("?", "?"), ("a",) * 500, ("a", "b") * 400):
        for threshold in (0.0, 0.001, 0.5):
            assert_equal(index.search(state, threshold, 9), matching.ensemble(state, patterns, threshold, 9))


def test_more_than_255_shared_symbols() -> None:
    """Counters of one byte would not do."""
    chance = random.Random(11)
    patterns = random_patterns(chance, 30, "abc", 400)
    index = index_of(patterns)
    for threshold in (0.0, 0.3, 0.6):
        state = tuple(chance.choice("abcd") for _ in range(700))
        assert_equal(index.search(state, threshold, 7), matching.ensemble(state, patterns, threshold, 7))


def test_compaction_changes_nothing() -> None:
    chance = random.Random(5)
    patterns = random_patterns(chance, 6000, "abcdefgh", 3)
    index = index_of(patterns)
    for known in patterns:
        index.insert(f"{int(known[0], 16) + 1_000_000:040x}", (("gone", known[0]),), 9)
    before = index.memory_bytes()
    for known in patterns:
        assert index.remove(f"{int(known[0], 16) + 1_000_000:040x}")
        if int(known[0], 16) % 3 == 0:
            assert index.remove(known[0])
    patterns = [known for known in patterns if int(known[0], 16) % 3]
    assert index.memory_bytes() < before / 2
    assert index.vocabulary() == list("abcdefgh")
    assert index.candidates(None) == sorted(known[0] for known in patterns)
    state = random_state(chance, "abcdefgh", patterns, 6)
    for threshold in (0.0, 0.1, 0.5):
        assert_equal(index.search(state, threshold, 40), matching.ensemble(state, patterns, threshold, 40))


def test_a_symbol_map_of_its_own_for_large_vocabularies() -> None:
    patterns: list[KnownPattern] = [
        (name(i), ((f"s{2 * i}",), (f"s{2 * i + 1}",), ("all",)), 1, 0) for i in range(40_000)
    ]
    index = index_of(patterns)
    assert len(index.vocabulary()) == 80_001
    state = ("s20", "s21", "all", "?")
    found = index.search(state, 0.3, 5)
    assert_equal(found, matching.ensemble(state, patterns, 0.3, 5))
    assert found.lcs.tolist() == [3]


def test_simd_names_an_instruction_set() -> None:
    assert _core.simd()
