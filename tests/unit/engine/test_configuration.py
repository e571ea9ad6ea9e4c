from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from kato.engine.configuration import (
    GENES,
    PARAMETERS,
    RANK_METRICS,
    gene_value,
    listing,
    resolve,
    validate,
    validate_genes,
)
from kato.model import SessionConfig

DEFAULTS = SessionConfig()


def test_every_parameter_has_a_check_and_its_default_passes() -> None:
    defaults = msgspec.structs.asdict(DEFAULTS)
    assert list(PARAMETERS) == list(defaults)
    values, errors = validate(defaults)
    assert not errors
    assert resolve(DEFAULTS, values) == DEFAULTS


@pytest.mark.parametrize(
    ("name", "good", "bad", "reason"),
    [
        ("max_pattern_length", [0, 10**9], [-1, 1.0, True, "1"], "Must be an integer of at least 0"),
        ("persistence", [1, 100], [0, 101, 2.5], "Must be an integer between 1 and 100"),
        (
            "recall_threshold",
            [0, 1, 0.5],
            [1.5, -0.1, float("nan"), float("inf"), True, "0.5"],
            "Must be a number between 0.0 and 1.0",
        ),
        ("max_predictions", [1, 10_000], [0, 10_001], "Must be an integer between 1 and 10000"),
        ("sort_symbols", [True, False], [0, 1, "true"], "Must be true or false"),
        ("stm_mode", ["CLEAR", "ROLLING", "weird"], [1, ["CLEAR"]], "Must be a string"),
        ("indexer_type", ["VI", "LSH", "ANNOY", "FAISS"], ["vi", 1], "Must be one of: VI, LSH, ANNOY, FAISS"),
        (
            "rank_sort_algo",
            list(RANK_METRICS),
            ["nope", "entropy"],
            "Must be one of: " + ", ".join(RANK_METRICS),
        ),
        ("fuzzy_token_threshold", [0, 1.0], [5.0], "Must be a number between 0.0 and 1.0"),
        ("affinity_emotive", ["joy"], [1], "Must be a string"),
        (
            "filter_pipeline",
            [[], ["bloom", "length", "jaccard", "minhash", "rapidfuzz"]],
            ["length", ["nope"], [1], {"length": 1}],
            "Must be a list of: length, jaccard, minhash, bloom, rapidfuzz",
        ),
        ("length_max_ratio", [1, 50.0], [0.5, float("inf"), 10**400], "Must be a number of at least 1.0"),
        ("minhash_num_hashes", [10, 256], [9, 257], "Must be an integer between 10 and 256"),
        ("bloom_false_positive_rate", [0.0001, 0.1], [0.0, 0.2], "Must be a number between 0.0001 and 0.1"),
        ("max_candidates_per_stage", [100], [99], "Must be an integer of at least 100"),
    ],
)
def test_ranges_and_reasons(name: str, good: list[Any], bad: list[Any], reason: str) -> None:
    for value in good:
        values, errors = validate({name: value})
        assert not errors
        assert name in values
    for value in bad:
        assert validate({name: value}) == ({}, {name: reason})


def test_normal_forms() -> None:
    values, _ = validate({"recall_threshold": 1, "filter_pipeline": ("length",), "stm_mode": "WEIRD"})
    assert values == {"recall_threshold": 1.0, "filter_pipeline": ["length"], "stm_mode": "CLEAR"}
    assert (
        json.dumps(values) == '{"recall_threshold": 1.0, "filter_pipeline": ["length"], "stm_mode": "CLEAR"}'
    )


def test_unknown_names_are_ignored_and_sort_is_an_alias() -> None:
    assert validate({"colour": "red", "sort": False}) == ({"sort_symbols": False}, {})
    assert validate({"sort": 1}) == ({}, {"sort": "Must be true or false"})
    assert validate({"sort_symbols": True, "sort": False}) == ({"sort_symbols": True}, {})
    assert validate({"sort": False, "sort_symbols": True}) == ({"sort_symbols": True}, {})


def test_null_takes_a_value_back() -> None:
    values, errors = validate({"fuzzy_token_threshold": None, "persistence": None})
    assert (values, errors) == ({"fuzzy_token_threshold": None, "persistence": None}, {})
    assert resolve(DEFAULTS, values) == DEFAULTS


def test_resolve_lays_explicit_values_over_the_defaults() -> None:
    defaults = SessionConfig(persistence=9)
    config = resolve(defaults, {"filter_pipeline": ["length"], "recall_threshold": 0.5, "smoothness": 4})
    assert config == SessionConfig(persistence=9, filter_pipeline=("length",), recall_threshold=0.5)
    assert resolve(defaults, {}) is defaults


def test_listing_shows_optional_parameters_only_when_set() -> None:
    shown = listing(DEFAULTS)
    assert "fuzzy_token_threshold" not in shown
    assert "affinity_emotive" not in shown
    assert shown["max_candidates_per_stage"] == 100_000
    assert listing(SessionConfig(affinity_emotive="joy"))["affinity_emotive"] == "joy"
    assert listing(SessionConfig(fuzzy_token_threshold=0.0))["fuzzy_token_threshold"] == 0.0


def test_listing_shows_the_automatic_value_of_sort_symbols() -> None:
    config = SessionConfig(use_token_matching=False)
    assert listing(config)["sort_symbols"] is True
    assert listing(config, {"use_token_matching": False})["sort_symbols"] is False
    assert listing(config, {"use_token_matching": False, "sort_symbols": True})["sort_symbols"] is True


def test_genes_are_a_closed_list() -> None:
    values, inert, errors = validate_genes(
        {"recall_threshold": 0.5, "sort": False, "search_depth": 7, "auto_act_method": "adaptive"}
    )
    assert values == {"recall_threshold": 0.5, "sort_symbols": False}
    assert inert == {"search_depth": 7, "auto_act_method": "adaptive"}
    assert errors == {}
    assert validate_genes({"magic": 1, "smoothness": 11, "persistence": None})[2] == {
        "magic": "Unknown gene",
        "smoothness": "Must be an integer between 1 and 10",
        "persistence": "Must be an integer between 1 and 100",
    }


def test_every_gene_can_be_read_and_its_default_is_allowed() -> None:
    for name, gene in GENES.items():
        assert gene.check(gene_value(name, DEFAULTS, {})) == gene_value(name, DEFAULTS, {})
    assert gene_value("auto_act_threshold", DEFAULTS, {"auto_act_threshold": 0.25}) == 0.25
    with pytest.raises(KeyError):
        gene_value("__class__", DEFAULTS, {})
