"""Which search answers a state: compiled for whole tokens, by spelling over gathered candidates otherwise."""

from __future__ import annotations

from kato._core import Index
from kato.engine import filters, likeness
from kato.engine.matching import Columns
from kato.model import Event, SessionConfig


def recall(index: Index, state: Event, config: SessionConfig) -> Columns:
    """The ensemble of a state (behaviour.md 8.2 to 8.6, 8.8): at most three times `max_predictions` patterns."""
    limit = 3 * config.max_predictions
    if len(state) == 1:
        return index.search_first(state[0], limit)
    bounds = filters.bounds(config, state)
    narrow = {
        "min_length": bounds.min_length,
        "max_length": bounds.max_length,
        "min_overlap": bounds.min_overlap,
    }
    fuzzy = config.fuzzy_token_threshold
    if config.use_token_matching and not fuzzy:
        return index.search(state, bounds.threshold, limit, **narrow, min_jaccard=bounds.min_jaccard)
    symbols: list[str] | None = None
    if bounds.threshold > 0:
        # Only a pattern with a matching token can pass a positive threshold.
        symbols = likeness.fuzzy_neighbours(state, index.vocabulary(), fuzzy) if fuzzy else list(state)
    gathered = index.gather(index.candidates(symbols), state)
    if fuzzy:
        return likeness.fuzzy_ensemble(
            state,
            gathered,
            bounds.threshold,
            limit,
            fuzzy_threshold=fuzzy,
            characters=not config.use_token_matching,
            **narrow,
            min_jaccard=bounds.min_jaccard,
        )
    return likeness.character_ensemble(
        state, gathered, bounds.threshold, limit, **narrow, min_jaccard=bounds.min_jaccard
    )
