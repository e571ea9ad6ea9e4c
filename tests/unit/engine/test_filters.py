from __future__ import annotations

from typing import Any

import pytest

from kato.engine.filters import Bounds, bounds
from kato.engine.matching import NO_MAXIMUM
from kato.model import SessionConfig

STATE = ("a", "b", "c")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, Bounds(0.1)),
        ({"filter_pipeline": ("length",)}, Bounds(0.1, min_length=1, max_length=6)),
        (
            {"filter_pipeline": ("length",), "length_min_ratio": 0.0, "length_max_ratio": 1e300},
            Bounds(0.1, min_length=1, max_length=NO_MAXIMUM),
        ),
        ({"filter_pipeline": ("jaccard",)}, Bounds(0.1, min_overlap=2, min_jaccard=0.3)),
        ({"filter_pipeline": ("jaccard",), "jaccard_threshold": 0.0}, Bounds(0.1, min_overlap=2)),
        ({"filter_pipeline": ("minhash",)}, Bounds(0.1, min_jaccard=0.7)),
        (
            {"filter_pipeline": ("bloom", "minhash", "jaccard")},
            Bounds(0.1, min_overlap=2, min_jaccard=0.7),
        ),
        ({"filter_pipeline": ("bloom",), "recall_threshold": 0.0}, Bounds(0.0, min_overlap=1)),
        ({"filter_pipeline": ("rapidfuzz",), "recall_threshold": 0.0}, Bounds(0.1)),
        ({"filter_pipeline": ("rapidfuzz",), "recall_threshold": 0.05}, Bounds(0.05)),
    ],
)
def test_bounds(config: dict[str, Any], expected: Bounds) -> None:
    assert bounds(SessionConfig(**config), STATE) == expected
