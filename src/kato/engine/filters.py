"""The filter pipeline as exact conditions that a search applies to every pattern (11).

Every stage is a condition on one pattern alone, so their order does not matter and nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kato.engine.matching import NO_MAXIMUM
from kato.model import SessionConfig

RAPIDFUZZ_THRESHOLD = 0.1
"""Least similarity of the rapidfuzz stage when the recall threshold is 0."""


class Bounds(msgspec.Struct, frozen=True):
    """What a pattern of m symbols, S distinct, must fulfil for a state of the distinct symbols T.

    similarity >= threshold (and at least one matching token if threshold > 0), min_length <= m <= max_length,
    |T & S| >= min_overlap, |T & S| / |T | S| >= min_jaccard.
    """

    threshold: float
    min_length: int = 0
    max_length: int = NO_MAXIMUM
    min_overlap: int = 0
    min_jaccard: float = 0.0


def bounds(config: SessionConfig, state: Sequence[str]) -> Bounds:
    """The conditions of a session's recall threshold and filter pipeline for a state.

    >>> bounds(SessionConfig(filter_pipeline=("length", "bloom")), ("a", "b", "c"))
    Bounds(threshold=0.1, min_length=1, max_length=6, min_overlap=1, min_jaccard=0.0)
    """
    threshold = config.recall_threshold
    min_length, max_length, min_overlap, min_jaccard = 0, NO_MAXIMUM, 0, 0.0
    for stage in config.filter_pipeline:
        if stage == "length":
            min_length = max(1, int(len(state) * config.length_min_ratio))
            max_length = min(NO_MAXIMUM, int(len(state) * config.length_max_ratio))
        elif stage == "jaccard":
            min_overlap = max(min_overlap, config.jaccard_min_overlap)
            min_jaccard = max(min_jaccard, config.jaccard_threshold)
        elif stage == "minhash":
            min_jaccard = max(min_jaccard, config.minhash_threshold)
        elif stage == "bloom":
            min_overlap = max(min_overlap, 1)
        else:
            threshold = threshold or RAPIDFUZZ_THRESHOLD
    return Bounds(threshold, min_length, max_length, min_overlap, min_jaccard)
