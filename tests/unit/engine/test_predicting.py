from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kato.engine.configuration import RANK_METRICS
from kato.engine.likeness import fuzzy_ensemble
from kato.engine.matching import Ensemble, KnownPattern, ensemble, ensemble_first, flatten, gather
from kato.engine.predicting import predict
from kato.model import Events, Predictions, SessionConfig


def parse(text: str) -> Events:
    return tuple(tuple(event) for event in text.split("/"))


def known(**frequencies: int) -> list[KnownPattern]:
    """Patterns of one-letter symbols, one event each; the name is the text."""
    return [(name, tuple((symbol,) for symbol in name), count, 0) for name, count in frequencies.items()]


def answer(stm: str, rows: Ensemble, weights: dict[str, float] | None = None, **config: Any) -> Predictions:
    return predict(
        parse(stm),
        rows,
        SessionConfig(**config),
        member_frequency=lambda symbols: [1] * len(symbols),
        emotives=lambda name: {"joy": float(len(name))},
        weights=weights,
    )


def search(stm: str, patterns: list[KnownPattern], threshold: float = 0.1, limit: int = 300) -> Ensemble:
    return ensemble(flatten(parse(stm)), patterns, threshold, limit)


def test_full_object() -> None:
    found = answer("a/b", search("a/b", known(abc=2))).predictions[0]
    assert msgspec.to_builtins(found, str_keys=True) == {
        "type": "prototypical",
        "name": "abc",
        "pattern_name": "PTRN|abc",
        "frequency": 2,
        "emotives": {"joy": 3.0},
        "matches": ("a", "b"),
        "past": (),
        "present": (("a",), ("b",)),
        "missing": ((), ()),
        "extras": ((), ()),
        "anomalies": (),
        "future": (("c",),),
        "sequence": (("a",), ("b",), ("c",)),
        "length": 3,
        "potential": pytest.approx(11 / 3),
        "similarity": 0.8,
        "evidence": pytest.approx(2 / 3),
        "confidence": 1.0,
        "snr": 1.0,
        "fragmentation": 0.0,
        "entropy": 1.0,
        "normalized_entropy": pytest.approx(0.630929753571),
        "global_normalized_entropy": 0.0,
        "hamiltonian": pytest.approx(0.630929753571),
        "grand_hamiltonian": 0.0,
        "itfdf_similarity": pytest.approx(1.0),
        "confluence": 0.0,
        "tfidf_score": 0.5,
        "predictive_information": 0.8,
        "pattern_probability": 1.0,
        "weighted_strength": 0.8,
        "bayesian_prior": 1.0,
        "bayesian_likelihood": 0.8,
        "bayesian_posterior": 1.0,
        "weighted_similarity": None,
        "weighted_evidence": None,
        "weighted_confidence": None,
        "weighted_snr": None,
    }


@pytest.mark.parametrize(
    ("pattern", "stm", "past", "present", "missing", "extras"),
    [
        ("a/b/c/d/e", "b/d", "a", "b/c/d", ["", "c", ""], ["", ""]),
        ("ab/cd/ef", "b/c", "", "ab/cd", ["a", "d"], ["", ""]),
        ("ab/cd", "ax/cy/z", "", "ab/cd", ["b", "d"], ["x", "y", "z"]),
        # Membership, not counts.
        ("aa/b", "a/b", "", "aa/b", ["", ""], ["", ""]),
        # Nothing matches: everything is present and missing.
        ("p/q", "a/b", "", "p/q", ["p", "q"], ["a", "b"]),
    ],
)
def test_segments(
    pattern: str, stm: str, past: str, present: str, missing: list[str], extras: list[str]
) -> None:
    found = answer(stm, search(stm, [("p", parse(pattern), 1, 0)], 0.0)).predictions[0]
    assert found.past == (parse(past) if past else ())
    assert found.present == parse(present)
    assert found.missing == tuple(map(tuple, missing))
    assert found.extras == tuple(map(tuple, extras))
    assert found.sequence == found.past + found.present + found.future


def test_fuzzy_tokens_are_shown_as_observed() -> None:
    patterns: list[KnownPattern] = [("fruits", (("apple",), ("banana",), ("cherry",)), 1, 0)]
    stm = (("apple", "kiwi"), ("bannana",))
    rows = fuzzy_ensemble(
        flatten(stm), gather(flatten(stm), patterns, ["fruits"]), 0.1, 300, fuzzy_threshold=0.8
    )
    found = predict(
        stm, rows, SessionConfig(), member_frequency=lambda _: [], emotives=lambda _: {}
    ).predictions[0]
    assert found.matches == ("apple", "bannana")
    assert found.present == (("apple",), ("banana",))
    assert found.missing == ((), ())
    assert found.extras == (("kiwi",), ())
    assert found.confidence == 1.0
    assert [(a.observed, a.expected) for a in found.anomalies] == [("bannana", "banana")]


def test_one_symbol_gets_the_same_object() -> None:
    patterns: list[KnownPattern] = [("p", (("a", "b"), ("c",)), 1, 0)]
    found = answer("a", ensemble_first("a", patterns, 300)).predictions[0]
    assert (found.matches, found.present, found.missing, found.extras) == (
        ("a",),
        (("a", "b"),),
        (("b",),),
        ((),),
    )
    assert (found.future, found.past) == ((("c",),), ())
    assert (found.similarity, found.evidence, found.confidence, found.fragmentation) == (0.5, 1 / 3, 0.5, 0.0)
    assert found.potential == pytest.approx(1 / 3 + 0.5 + 1 + found.itfdf_similarity)


def test_one_symbol_with_weights_for_all_symbols() -> None:
    """The one-symbol part of example affinity_weighting, with the itfdf term (register 5)."""
    patterns = known(abc=1, axy=1)
    weights = {"a": 0.21, "b": 0.61, "c": 0.61, "x": 0.21, "y": 0.21}
    found = answer("a", ensemble_first("a", patterns, 300), weights).predictions
    assert [p.name for p in found] == ["axy", "abc"]
    assert found[0].weighted_similarity == pytest.approx(0.5)
    assert found[0].weighted_evidence == pytest.approx(1 / 3)
    assert found[1].weighted_similarity == pytest.approx(0.256097560976, abs=1e-9)
    assert found[0].potential == pytest.approx(2.333333333333 + found[0].itfdf_similarity)


def test_no_rows_no_predictions() -> None:
    assert answer("a/b", search("a/b", known(xyz=1))) == Predictions()


def test_the_rank_metric_of_the_session_decides() -> None:
    rows = search("a/b", known(abcd=9, abc=1))
    assert [p.name for p in answer("a/b", rows).predictions] == ["abc", "abcd"]
    assert [p.name for p in answer("a/b", rows, rank_sort_algo="frequency").predictions] == ["abcd", "abc"]
    assert [p.name for p in answer("a/b", rows, rank_sort_algo="bayesian_likelihood").predictions] == [
        "abc",
        "abcd",
    ]


def test_ties_go_by_similarity_frequency_and_name() -> None:
    rows = search("a/b", known(abc=1, abd=2, abe=1, ab=1, abcd=5))
    names = [p.name for p in answer("a/b", rows, rank_sort_algo="confidence").predictions]
    assert names == ["ab", "abd", "abc", "abe", "abcd"]


def test_weighted_ranks_need_weights() -> None:
    rows = search("a/b", known(abc=1, bxy=1))
    ranked = answer("a/b", rows, {"a": 0.1, "b": 3.0}, rank_sort_algo="weighted_similarity")
    assert [p.name for p in ranked.predictions] == ["abc", "bxy"]
    weighed = answer("a/b", rows, {"b": 3.0, "x": 0.1}, rank_sort_algo="weighted_evidence").predictions
    assert [p.weighted_evidence for p in weighed] == [1.0, pytest.approx(3 / 3.1)]
    without = answer("a/b", rows, rank_sort_algo="weighted_similarity").predictions
    assert [p.name for p in without] == ["abc", "bxy"]
    assert without[0].weighted_similarity is None


@pytest.mark.parametrize("metric", RANK_METRICS)
def test_every_rank_metric_orders_descending(metric: str) -> None:
    rows = search("a/b/c", known(abcd=1, abx=3, bc=2, cxyz=1, aabbcc=4))
    weights = {"a": 0.5, "b": 0.25, "c": 0.125}
    found = answer("a/b/c", rows, weights, rank_sort_algo=metric).predictions
    values = [getattr(prediction, metric) for prediction in found]
    assert values == sorted(values, reverse=True)


def test_the_limit_cuts_the_list_but_not_the_futures() -> None:
    found = answer("a/b", search("a/b", known(abc=1, abd=1, abe=1)), max_predictions=1)
    assert [p.name for p in found.predictions] == ["abc"]
    assert len(found.future_potentials) == 3
    assert found.predictions[0].bayesian_prior == pytest.approx(1 / 3)


def test_future_potentials_of_the_worked_example() -> None:
    found = answer("a/b", search("a/b", known(abc=3, abd=1, xabc=1))).future_potentials
    assert [(f.future, f.supporting_patterns) for f in found] == [((("c",),), 2), ((("d",),), 1)]
    assert found[0].aggregate_potential == pytest.approx(0.793103448276)
    assert found[0].total_weighted_frequency == pytest.approx(3.066666666667)
    assert found[1].aggregate_potential == pytest.approx(0.206896551724)


def test_pruning_happens_before_the_ensemble_sums() -> None:
    patterns = known(abc=1, abd=1, abe=1, abf=7)
    whole = answer("a/b", search("a/b", patterns)).predictions
    pruned = answer("a/b", search("a/b", patterns, limit=3)).predictions
    assert {p.name: p.bayesian_prior for p in whole}["abc"] == pytest.approx(0.1)
    assert [p.bayesian_prior for p in pruned] == [pytest.approx(1 / 3)] * 3
