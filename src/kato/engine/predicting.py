"""From an ensemble to ranked predictions and the futures they add up to (8.5, 8.9, 8.10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kato.engine.likeness import LikenessEnsemble
from kato.engine.matching import Columns
from kato.engine.metrics import Column, Metrics
from kato.model import (
    PATTERN_PREFIX,
    Anomaly,
    Event,
    Events,
    FuturePotential,
    Prediction,
    Predictions,
    RankMetric,
    SessionConfig,
)

RANK_DECIMALS = 12
"""Values that agree to this many decimals are ties."""
# In the order in which `_predictions` takes them apart.
_COLUMNS = (
    "potential",
    "similarity",
    "evidence",
    "confidence",
    "snr",
    "fragmentation",
    "entropy",
    "normalized_entropy",
    "global_normalized_entropy",
    "itfdf_similarity",
    "confluence",
    "tfidf_score",
    "predictive_information",
    "weighted_strength",
    "bayesian_prior",
    "bayesian_posterior",
)


def predict(
    stm: Events,
    ensemble: Columns,
    config: SessionConfig,
    *,
    member_frequency: Callable[[Sequence[str]], Sequence[int]],
    emotives: Callable[[str], dict[str, Any]],
    weights: Mapping[str, float] | None = None,
) -> Predictions:
    """The predictions of an ensemble, best first by `config.rank_sort_algo`, at most
    `config.max_predictions`.

    `stm` is what the ensemble was searched with. `member_frequency` gives for each symbol the number of
    patterns that hold it (asked only when finalized patterns are in the ensemble), `emotives` what to show
    for a pattern's name, `weights` what each symbol weighs (None: no affinity is active; a missing symbol
    weighs 0). All sums run over the whole ensemble, and so do the future potentials.

    >>> from kato.engine.matching import ensemble
    >>> rows = ensemble(("a", "b"), [("p", (("a",), ("b",), ("c",)), 1, 0)], 0.1, 300)
    >>> stm = (("a",), ("b",))
    >>> answer = predict(stm, rows, SessionConfig(), member_frequency=len, emotives=lambda _: {})
    >>> answer.predictions[0].future, round(answer.predictions[0].potential, 6)
    ((('c',),), 3.666667)
    """
    if not len(ensemble):
        return Predictions()
    metrics = Metrics(stm, ensemble, member_frequency, weights)
    places = _ranking(ensemble, metrics, config.rank_sort_algo)[: config.max_predictions]
    return Predictions(
        predictions=_predictions(stm, ensemble, metrics, places, emotives),
        future_potentials=_future_potentials(metrics),
    )


def _ranking(ensemble: Columns, metrics: Metrics, metric: RankMetric) -> list[int]:
    """The rows in order: metric and similarity descending to 12 decimals, frequency descending, name
    (8.9)."""
    if not metric.startswith("weighted_"):
        values: Column = getattr(metrics, metric)
    elif metrics.weighted:
        values = getattr(metrics.weighted, metric.removeprefix("weighted_"))
    else:
        # Nothing has a weighted value: all tie.
        values = np.zeros(len(ensemble))
    keys = zip(
        (-values.round(RANK_DECIMALS)).tolist(),
        (-metrics.similarity.round(RANK_DECIMALS)).tolist(),
        (-metrics.frequency).tolist(),
        ensemble.names,
        range(len(ensemble)),
        strict=True,
    )
    return [key[-1] for key in sorted(keys)]


def _predictions(
    stm: Events,
    ensemble: Columns,
    metrics: Metrics,
    places: list[int],
    emotives: Callable[[str], dict[str, Any]],
) -> tuple[Prediction, ...]:
    figures = zip(*(getattr(metrics, name)[places].tolist() for name in _COLUMNS), strict=True)
    weighted: Sequence[tuple[float | None, ...]] = [(None,) * 4] * len(places)
    if metrics.weighted:
        columns = metrics.weighted
        weighted = list(
            zip(
                columns.similarity[places].tolist(),
                columns.evidence[places].tolist(),
                columns.confidence[places].tolist(),
                columns.snr[places].tolist(),
                strict=True,
            )
        )
    segments = _Segments(stm, ensemble, metrics)
    frequencies, lengths = metrics.frequency.astype(np.int64).tolist(), ensemble.length.tolist()
    found = []
    for row, values, four in zip(places, figures, weighted, strict=True):
        name = ensemble.names[row]
        matches, past, present, missing, extras, anomalies, future = segments.of(row)
        potential, similarity, evidence, confidence, snr, fragmentation, *others = values
        entropy, normalized_entropy, global_normalized_entropy, itfdf_similarity, *others = others
        confluence, tfidf_score, predictive_information, weighted_strength, prior, posterior = others
        weighted_similarity, weighted_evidence, weighted_confidence, weighted_snr = four
        found.append(
            Prediction(
                name=name,
                pattern_name=PATTERN_PREFIX + name,
                frequency=frequencies[row],
                emotives=emotives(name),
                matches=matches,
                past=past,
                present=present,
                missing=missing,
                extras=extras,
                anomalies=anomalies,
                future=future,
                sequence=ensemble.events[row],
                length=lengths[row],
                potential=potential,
                similarity=similarity,
                evidence=evidence,
                confidence=confidence,
                snr=snr,
                fragmentation=fragmentation,
                entropy=entropy,
                normalized_entropy=normalized_entropy,
                global_normalized_entropy=global_normalized_entropy,
                hamiltonian=normalized_entropy,
                grand_hamiltonian=global_normalized_entropy,
                itfdf_similarity=itfdf_similarity,
                confluence=confluence,
                tfidf_score=tfidf_score,
                predictive_information=predictive_information,
                pattern_probability=prior,
                weighted_strength=weighted_strength,
                bayesian_prior=prior,
                bayesian_likelihood=similarity,
                bayesian_posterior=posterior,
                weighted_similarity=weighted_similarity,
                weighted_evidence=weighted_evidence,
                weighted_confidence=weighted_confidence,
                weighted_snr=weighted_snr,
            )
        )
    return tuple(found)


class _Segments:
    """Past, present and future of each row, and how the state lies on the present (8.5)."""

    def __init__(self, stm: Events, ensemble: Columns, metrics: Metrics) -> None:
        self._stm = stm
        self._state = metrics.state
        self._events = ensemble.events
        self._past = ensemble.past_events.tolist()
        self._present = ensemble.present_events.tolist()
        self._borders = ensemble.match_offsets.tolist()
        self._positions = ensemble.match_positions.tolist()
        self._aligned = metrics.aligned
        self._anomalies = ensemble.anomalies if isinstance(ensemble, LikenessEnsemble) else []

    def of(self, row: int) -> tuple[Event, Events, Events, Events, Events, tuple[Anomaly, ...], Events]:
        """Matches, past, present, missing, extras, anomalies and future of a row."""
        events = self._events[row]
        start = self._past[row]
        end = start + self._present[row]
        present = events[start:end]
        places = self._positions[self._borders[row] : self._borders[row + 1]]
        state = self._state
        aligned = self._aligned[row] if self._aligned else state
        matched = {aligned[place] for place in places}
        return (
            tuple([state[place] for place in places]),
            events[:start],
            present,
            tuple([_without(event, matched) for event in present]),
            self._extras(aligned, set().union(*present)),
            self._anomalies[row] if self._anomalies else (),
            events[end:],
        )

    def _extras(self, aligned: Event, inside: set[str]) -> Events:
        """Per STM event its symbols that do not occur in the present, in the observed spelling."""
        if not self._aligned:
            return tuple([_without(event, inside) for event in self._stm])
        spellings = iter(aligned)
        return tuple([tuple([s for s in event if next(spellings) not in inside]) for event in self._stm])


def _without(event: Event, symbols: set[str]) -> Event:
    """The symbols of an event that are not among `symbols`, in order."""
    return event if symbols.isdisjoint(event) else tuple([s for s in event if s not in symbols])


def _future_potentials(metrics: Metrics) -> tuple[FuturePotential, ...]:
    """The futures by aggregate potential descending, equal ones in first-seen order (8.7)."""
    return tuple(
        sorted(metrics.futures, key=lambda future: -round(future.aggregate_potential, RANK_DECIMALS))
    )
