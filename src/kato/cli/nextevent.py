"""From KATO's predictions to one answer: which event comes next?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

STALE = 0.001
"""What a vote counts whose pattern does not know the latest event: it decides only without others."""


class Vote(NamedTuple):
    """A possible next event and its share of all votes (0 to 1); the empty event stands for the end."""

    event: tuple[str, ...]
    share: float


def votes(predictions: Iterable[dict[str, Any]], observed: Sequence[Sequence[str]]) -> list[Vote]:
    """Every next event that a prediction supports, most supported first; `observed` are the events so far.

    A prediction votes for the first event of its future, with the weight of `weight`.
    """
    weights: dict[tuple[str, ...], float] = {}
    for prediction in predictions:
        event = tuple(prediction["future"][0]) if prediction["future"] else ()
        weights[event] = weights.get(event, 0.0) + weight(prediction, observed)
    total = sum(weights.values())
    ranked = sorted(weights.items(), key=lambda item: (-item[1], item[0]))
    return [Vote(event, value / total if total else 0.0) for event, value in ranked]


def weight(prediction: dict[str, Any], observed: Sequence[Sequence[str]]) -> float:
    """What the vote of a prediction weighs: how often its pattern was learned, times its confidence, times
    the fourth power of the share of observed symbols that match.

    A future begins after the last match. If that is not in the latest event, the future should have begun
    earlier, and the vote counts a thousandth.
    """
    matches = prediction["matches"]
    if not matches:
        return 0.0
    current = matches[-1] in observed[-1]
    share = len(matches) / sum(map(len, observed))
    return float(prediction["frequency"] * prediction["confidence"] * share**4 * (1.0 if current else STALE))


def best(
    predictions: Iterable[dict[str, Any]], observed: Sequence[Sequence[str]], end: bool = False
) -> tuple[str, ...] | None:
    """The most supported next event, None without any; with `end`, () may say that nothing follows."""
    return next((vote.event for vote in votes(predictions, observed) if vote.event or end), None)
