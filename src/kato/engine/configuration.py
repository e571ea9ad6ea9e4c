"""The parameters of a session: what is allowed, what is in force (12), and their older names (13)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, get_args

import msgspec

from kato.model import FilterName, RankMetric, SessionConfig

Check: TypeAlias = Callable[[Any], Any]
"""Returns the value in its normal form, or raises ValueError with the reason."""

STM_MODES = ("CLEAR", "ROLLING")
INDEXER_TYPES = ("VI", "LSH", "ANNOY", "FAISS")
RANK_METRICS: tuple[str, ...] = get_args(RankMetric)
FILTER_NAMES: tuple[str, ...] = get_args(FilterName)
ALIASES = {"sort": "sort_symbols"}
SHOWN_WHEN_SET = ("fuzzy_token_threshold", "affinity_emotive")


def _integer(low: int, high: int | None = None) -> Check:
    reason = (
        f"Must be an integer of at least {low}"
        if high is None
        else f"Must be an integer between {low} and {high}"
    )

    def check(value: Any) -> int:
        if type(value) is not int or value < low or (high is not None and value > high):
            raise ValueError(reason)
        return value

    return check


def _number(low: float, high: float | None = None) -> Check:
    reason = (
        f"Must be a number of at least {low}"
        if high is None
        else f"Must be a number between {low} and {high}"
    )

    def check(value: Any) -> float:
        # NaN fails every comparison, and no double reaches the largest integers.
        largest = sys.float_info.max if high is None else high
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= largest:
            raise ValueError(reason)
        return float(value)

    return check


def _choice(*allowed: str) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError("Must be one of: " + ", ".join(allowed))
        return value

    return check


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("Must be true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("Must be a string")
    return value


def _stm_mode(value: Any) -> str:
    """Unknown modes have always been accepted and mean CLEAR (6.4)."""
    return value if _text(value) in STM_MODES else "CLEAR"


def _filter_pipeline(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or any(name not in FILTER_NAMES for name in value):
        raise ValueError("Must be a list of: " + ", ".join(FILTER_NAMES))
    return list(value)


PARAMETERS: dict[str, Check] = {
    "max_pattern_length": _integer(0),
    "persistence": _integer(1, 100),
    "recall_threshold": _number(0.0, 1.0),
    "indexer_type": _choice(*INDEXER_TYPES),
    "max_predictions": _integer(1, 10_000),
    "sort_symbols": _boolean,
    "process_predictions": _boolean,
    "use_token_matching": _boolean,
    "stm_mode": _stm_mode,
    "rank_sort_algo": _choice(*RANK_METRICS),
    "fuzzy_token_threshold": _number(0.0, 1.0),
    "affinity_emotive": _text,
    "filter_pipeline": _filter_pipeline,
    "length_min_ratio": _number(0.0, 1.0),
    "length_max_ratio": _number(1.0),
    "jaccard_threshold": _number(0.0, 1.0),
    "jaccard_min_overlap": _integer(1),
    "minhash_threshold": _number(0.0, 1.0),
    "minhash_bands": _integer(1, 100),
    "minhash_rows": _integer(1, 20),
    "minhash_num_hashes": _integer(10, 256),
    "bloom_false_positive_rate": _number(0.0001, 0.1),
    "max_candidates_per_stage": _integer(100),
    "enable_filter_metrics": _boolean,
}


class Gene(msgspec.Struct, frozen=True):
    """An older name: of a parameter, or (parameter None) of a value that is kept but changes nothing."""

    parameter: str | None
    check: Check
    default: Any = None


GENES: dict[str, Gene] = {
    **{
        name: Gene(ALIASES.get(name, name), PARAMETERS[ALIASES.get(name, name)])
        for name in (
            "recall_threshold",
            "persistence",
            "max_pattern_length",
            "max_predictions",
            "sort",
            "sort_symbols",
            "process_predictions",
            "stm_mode",
            "rank_sort_algo",
        )
    },
    "smoothness": Gene(None, _integer(1, 10), 3),
    "quiescence": Gene(None, _integer(0, 100), 3),
    "auto_act_method": Gene(None, _choice("none", "threshold", "adaptive"), "none"),
    "auto_act_threshold": Gene(None, _number(0.0, 1.0), 0.8),
    "always_update_frequencies": Gene(None, _boolean, False),
    "search_depth": Gene(None, _integer(1, 100), 10),
}


def validate(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Check configuration values: (values in normal form, {name: reason} of those that cannot be accepted).

    Unknown names are ignored, `sort` means `sort_symbols`, null takes a value back (it stays None in the
    result). Nothing may be applied when there is any reason.

    >>> validate({"sort": False, "max_predictions": 0, "colour": "red"})
    ({'sort_symbols': False}, {'max_predictions': 'Must be an integer between 1 and 10000'})
    """
    accepted: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for given, value in values.items():
        name = ALIASES.get(given, given)
        # The parameter's own name wins over its alias, whichever comes first.
        if name not in PARAMETERS or (name != given and name in values):
            continue
        try:
            accepted[name] = None if value is None else PARAMETERS[name](value)
        except ValueError as error:
            errors[given] = str(error)
    return accepted, errors


def resolve(defaults: SessionConfig, explicit: Mapping[str, Any]) -> SessionConfig:
    """The configuration in force: the explicit (validated) values over the defaults; other names are ignored.

    >>> resolve(SessionConfig(), {"persistence": 7, "smoothness": 3}).persistence
    7
    """
    values = {name: value for name, value in explicit.items() if name in PARAMETERS and value is not None}
    if "filter_pipeline" in values:
        values["filter_pipeline"] = tuple(values["filter_pipeline"])
    return msgspec.structs.replace(defaults, **values) if values else defaults


def listing(config: SessionConfig, explicit: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every parameter with its value in force; fuzzy_token_threshold and affinity_emotive only when set.

    With the session's `explicit` values, sort_symbols is shown as use_token_matching when only the latter
    was set: clients have always read it back so, although it never sorted by it (3.2).

    >>> listing(SessionConfig())["filter_pipeline"]
    []
    """
    values: dict[str, Any] = msgspec.structs.asdict(config)
    values["filter_pipeline"] = list(config.filter_pipeline)
    if explicit and explicit.get("sort_symbols") is None and explicit.get("use_token_matching") is not None:
        values["sort_symbols"] = config.use_token_matching
    return {name: value for name, value in values.items() if value is not None or name not in SHOWN_WHEN_SET}


def validate_genes(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Check genes: (configuration values, values without effect, {name: reason}); a closed list (13).

    >>> validate_genes({"sort": True, "smoothness": 3, "magic": 1})
    ({'sort_symbols': True}, {'smoothness': 3}, {'magic': 'Unknown gene'})
    """
    accepted: dict[str, Any] = {}
    inert: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name, value in values.items():
        gene = GENES.get(name)
        if gene is None:
            errors[name] = "Unknown gene"
            continue
        try:
            checked = gene.check(value)
        except ValueError as error:
            errors[name] = str(error)
            continue
        if gene.parameter is None:
            inert[name] = checked
        else:
            accepted[gene.parameter] = checked
    return accepted, inert, errors


def gene_value(name: str, config: SessionConfig, explicit: Mapping[str, Any]) -> Any:
    """The present value of a gene; KeyError for an unknown name.

    >>> gene_value("sort", SessionConfig(), {}), gene_value("smoothness", SessionConfig(), {"smoothness": 5})
    (True, 5)
    """
    gene = GENES[name]
    return explicit.get(name, gene.default) if gene.parameter is None else getattr(config, gene.parameter)
