"""The worked example of behaviour.md 8.11 and what its table does not show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from kato.engine.likeness import fuzzy_ensemble
from kato.engine.matching import FINALIZED, Columns, Ensemble, KnownPattern, ensemble, flatten, gather
from kato.engine.metrics import Metrics, weight
from kato.model import Events

STM: Events = (("a",), ("b",))
WORKED: list[KnownPattern] = [
    ("abc", (("a",), ("b",), ("c",)), 3, 0),
    ("abd", (("a",), ("b",), ("d",)), 1, 0),
    ("xabc", (("x",), ("a",), ("b",), ("c",)), 1, 0),
]


def members(patterns: Sequence[KnownPattern], symbols: Sequence[str]) -> list[int]:
    return [sum(symbol in flatten(pattern[1]) for pattern in patterns) for symbol in symbols]


def metrics(
    patterns: Sequence[KnownPattern] = WORKED,
    stm: Events = STM,
    threshold: float = 0.1,
    weights: Mapping[str, float] | None = None,
    rows: Columns | None = None,
) -> Metrics:
    found = rows or ensemble(flatten(stm), patterns, threshold, 300)
    return Metrics(stm, found, lambda symbols: members(patterns, symbols), weights)


def near(*values: float) -> object:
    return pytest.approx(list(values), abs=1e-9)


def test_worked_example() -> None:
    found = metrics()
    assert found.similarity.tolist() == near(0.8, 0.8, 2 / 3)
    assert found.evidence.tolist() == near(2 / 3, 2 / 3, 0.5)
    assert found.confidence.tolist() == near(1, 1, 1)
    assert found.snr.tolist() == near(1, 1, 1)
    assert found.itfdf_similarity.tolist() == near(1, 1, 1)
    assert found.predictive_information.tolist() == near(0.605217391304, 0.773333333333, 0.168115942029)
    assert found.bayesian_prior.tolist() == near(0.6, 0.2, 0.2)
    assert found.bayesian_posterior.tolist() == near(0.620689655172, 0.206896551724, 0.172413793103)
    assert found.potential.tolist() == near(11 / 3, 11 / 3, 3.5)
    assert found.weighted_strength.tolist() == near(0.48, 0.16, 2 / 15)
    assert found.entropy.tolist() == near(1, 1, 1)
    assert found.normalized_entropy.tolist() == near(*[0.430676558073] * 3)
    assert found.global_normalized_entropy.tolist() == near(0, 0, 0)
    assert found.confluence.tolist() == near(0, 0, 0)
    assert found.tfidf_score.tolist() == near(0.5, 0.5, 0.5)
    assert found.weighted is None


def test_worked_example_finalized() -> None:
    finalized = [(name, events, frequency, FINALIZED) for name, events, frequency, _ in WORKED]
    found = metrics(finalized)
    assert found.entropy.tolist() == near(1.584962500721, 1.584962500721, 2)
    assert found.normalized_entropy.tolist() == near(0.682606194486, 0.682606194486, 0.861353116147)
    assert found.global_normalized_entropy.tolist() == near(0.167953090942, 0.227535398162, 0.395488489104)
    assert found.tfidf_score.tolist() == near(0.509440277858, 0.509440277858, 0.448120312590)
    # Everything else stays as it was.
    assert found.potential.tolist() == near(11 / 3, 11 / 3, 3.5)


def test_only_finalized_rows_change() -> None:
    mixed = [(*WORKED[0][:3], FINALIZED), *WORKED[1:]]
    assert metrics(mixed).entropy.tolist() == near(1.584962500721, 1, 1)


@pytest.mark.parametrize(
    ("pattern", "stm", "fragmentation", "confidence", "snr", "itfdf", "potential"),
    [
        ("a/b/c/d/e", "b/c", 0, 1, 1, 1, 3.4),
        ("a/b/c/d/e", "b/d", 1, 2 / 3, 1, 0.816496580928, 2.383163247594),
        ("ab/cd/ef", "b/c", 0, 0.5, 1, 0.707106781187, 2.540440114520),
        ("ab/cd", "ax/cy/z", 1, 0.5, 1 / 7, 0.707106781187, 1.349963924044),
    ],
)
def test_small_cases(
    pattern: str,
    stm: str,
    fragmentation: float,
    confidence: float,
    snr: float,
    itfdf: float,
    potential: float,
) -> None:
    events = tuple(tuple(event) for event in pattern.split("/"))
    found = metrics([("p", events, 1, 0)], tuple(tuple(event) for event in stm.split("/")))
    assert found.fragmentation.tolist() == near(fragmentation)
    assert found.confidence.tolist() == near(confidence)
    assert found.snr.tolist() == near(snr)
    assert found.itfdf_similarity.tolist() == near(itfdf)
    assert found.potential.tolist() == near(potential)


def test_a_pattern_without_any_match() -> None:
    patterns: list[KnownPattern] = [("ab", (("a",), ("b",)), 1, 0), ("pq", (("p",), ("q",)), 1, 0)]
    found = metrics(patterns, threshold=0.0)
    assert found.snr.tolist() == near(1, -1)
    assert found.fragmentation.tolist() == [0.0, -1.0]
    assert found.potential.tolist() == near(4, 0.5)
    assert found.bayesian_posterior.tolist() == near(1, 0)
    alone = metrics(patterns[1:], threshold=0.0)
    assert alone.bayesian_posterior.tolist() == [0.0]
    assert alone.itfdf_similarity.tolist() == [0.0]


def test_a_stored_frequency_of_zero_counts_as_one() -> None:
    patterns: list[KnownPattern] = [("ab", (("a",), ("b",), ("c",)), 0, 0)]
    found = metrics(patterns)
    assert found.frequency.tolist() == [1.0]
    assert found.bayesian_prior.tolist() == [1.0]
    # Nothing was counted, so nothing can be confluent.
    assert found.confluence.tolist() == [0.0]


def test_confluence_uses_symbols_with_multiplicity() -> None:
    patterns: list[KnownPattern] = [("aab", (("a", "a"), ("b",)), 3, 0), ("bc", (("b",), ("c",)), 1, 0)]
    found = metrics(patterns, (("a", "a"), ("b",)))
    assert found.confluence.tolist() == near(3 / 4 * (1 - 0.5 * 0.5 * 1), 1 / 4 * (1 - 1))


def test_one_known_symbol_has_no_base_for_a_logarithm() -> None:
    found = metrics([("aa", (("a",), ("a",)), 1, 0)], (("a",), ("a",)))
    assert found.normalized_entropy.tolist() == [0.0]
    assert found.global_normalized_entropy.tolist() == [0.0]
    assert found.entropy.tolist() == [0.0]


def test_repeated_symbols_have_the_entropy_of_their_counts() -> None:
    found = metrics([("aaab", (("a", "a", "a", "b"),), 1, 0)], (("a", "b"),))
    expected = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert found.entropy.tolist() == near(expected)
    # df is 1 of 1 pattern: both terms are tf * (0 + 1).
    assert found.tfidf_score.tolist() == near(0.5)


def test_document_counts_are_exact() -> None:
    # 22 of 22 divided and multiplied again must not lose a document (register 13).
    patterns: list[KnownPattern] = [(f"{n:02}", (("a",), (f"s{n}",)), 1, 0) for n in range(23)]
    patterns[0] = ("00", (("b",), ("s0",)), 1, 0)
    found = metrics(patterns, (("a",), ("zz",)))
    assert found.tfidf_score.tolist()[0] == pytest.approx(math.log2(23 / 22) + 1, abs=1e-12)


def test_futures_are_equal_up_to_the_order_inside_events() -> None:
    patterns: list[KnownPattern] = [
        ("p1", (("a",), ("b",), ("d", "c")), 2, 0),
        ("p2", (("a",), ("b",), ("c", "d")), 1, 0),
        ("p3", (("a",), ("b",), ("e",)), 1, 0),
        ("p4", (("a",), ("b",)), 1, 0),
    ]
    found = metrics(patterns)
    by_future = {future.future: future for future in found.futures}
    shared = by_future[(("d", "c"),)]
    assert shared.supporting_patterns == 2
    assert shared.total_weighted_frequency == pytest.approx(2.0)
    assert shared.aggregate_potential == pytest.approx(2 / 2.8)
    assert len(by_future) == 2
    # The row without a future carries no predictive information.
    assert found.predictive_information.tolist()[0] == 0.0


def test_futures_without_any_weight_share_nothing() -> None:
    patterns: list[KnownPattern] = [("pq", (("p",), ("q",)), 1, 0)]
    assert metrics(patterns, threshold=0.0).futures == []


def test_weights() -> None:
    assert weight(0.4, 2) == pytest.approx(0.21)
    assert weight(-0.4, 2) == pytest.approx(0.21)
    assert weight(0.0, 2) == weight(0.4, 0) == 0.01


def test_affinity_example() -> None:
    """Example affinity_weighting: a 0.4 / 2, b 0.6 / 1."""
    patterns: list[KnownPattern] = [
        ("abc", (("a",), ("b",), ("c",)), 1, 0),
        ("axy", (("a",), ("x",), ("y",)), 1, 0),
    ]
    found = metrics(patterns, weights={"a": weight(0.4, 2), "b": weight(0.6, 1)})
    assert found.weighted is not None
    assert found.weighted.similarity.tolist() == near(1, 0.407766990291)
    assert found.weighted.evidence.tolist() == near(1, 1)
    assert found.weighted.confidence.tolist() == near(1, 1)
    assert found.weighted.snr.tolist() == near(1, 0.256097560976)
    assert found.potential.tolist() == near(4, 2.459408717451)


def test_weights_of_nothing_are_zero() -> None:
    found = metrics([("pq", (("p",), ("q",)), 1, 0)], threshold=0.0, weights={})
    assert found.weighted is not None
    assert found.weighted.snr.tolist() == found.weighted.similarity.tolist() == [0.0]


def fuzzy_metrics(
    stm: Events, patterns: Sequence[KnownPattern], weights: dict[str, float] | None = None
) -> Metrics:
    state = flatten(stm)
    rows: Ensemble = gather(state, patterns, [pattern[0] for pattern in patterns])
    found = fuzzy_ensemble(state, rows, 0.0, 300, fuzzy_threshold=0.8)
    return metrics(patterns, stm, rows=found, weights=weights)


def test_fuzzy_rows_are_measured_with_their_aligned_state() -> None:
    patterns: list[KnownPattern] = [
        ("fruits", (("apple",), ("banana",), ("cherry",)), 1, 0),
        ("other", (("x",), ("y",)), 1, 0),
    ]
    spelled = fuzzy_metrics((("apple",), ("bannana",)), patterns, {"apple": 1.0, "banana": 2.0})
    exact = metrics(patterns, (("apple",), ("banana",)), threshold=0.0, weights={"apple": 1.0, "banana": 2.0})
    for name in ("similarity", "itfdf_similarity", "evidence", "confidence", "snr", "potential"):
        assert getattr(spelled, name).tolist() == near(*getattr(exact, name).tolist())


def test_fuzzy_rows_without_any_known_token() -> None:
    found = fuzzy_metrics((("q",), ("r",)), [("xy", (("x",), ("y",)), 1, 0)])
    assert found.itfdf_similarity.tolist() == [0.0]


def test_itfdf_counts_repetitions() -> None:
    patterns: list[KnownPattern] = [("aab", (("a", "a"), ("b",)), 1, 0), ("c", (("c",),), 1, 0)]
    found = metrics(patterns, (("a",), ("b", "b")))
    a, b = np.array([0.5 * 1, 0.5 * 2]), np.array([0.5 * 2, 0.5 * 1])
    cosine = float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
    assert found.itfdf_similarity.tolist() == near(cosine)
