"""The figures of an ensemble, one column per metric (8.7).

Sums run sequentially and logarithms come from `math`, so the last bits are the same on every processor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from kato.engine.likeness import LikenessEnsemble
from kato.engine.matching import FINALIZED, Columns, flatten
from kato.model import Event, Events, FuturePotential

Column = NDArray[np.float64]
WEIGHT_FLOOR = 0.01
"""What every known symbol weighs at least when an affinity is active."""


def weight(affinity: float, frequency: int) -> float:
    """What a symbol weighs, given its affinity to the emotive and its frequency (8.7).

    >>> weight(-3.0, 2), weight(0.0, 2)
    (1.51, 0.01)
    """
    return abs(affinity) / frequency + WEIGHT_FLOOR if affinity and frequency else WEIGHT_FLOOR


@dataclass(frozen=True)
class Weighted:
    """The four figures by symbol weights instead of counts, one value per row."""

    similarity: Column
    evidence: Column
    confidence: Column
    snr: Column


@dataclass(frozen=True)
class _Symbols:
    """The distinct symbols of each row: (row, id, count) triples, and the number of symbols of each row."""

    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    counts: Column
    sizes: Column


class Metrics:
    """All metrics of an ensemble, each a column over its rows, computed when first asked for.

    `stm` is the observed short-term memory, `member_frequency` gives the number of patterns that hold each
    of some symbols (asked for finalized rows only), `weights` what each symbol weighs (None: no affinity;
    missing: 0). The ensemble must have at least one row.
    """

    def __init__(
        self,
        stm: Events,
        ensemble: Columns,
        member_frequency: Callable[[Sequence[str]], Sequence[int]],
        weights: Mapping[str, float] | None,
    ) -> None:
        self._ensemble = ensemble
        self._member_frequency = member_frequency
        self._weights = weights
        self.state: Event = flatten(stm)
        likeness = ensemble if isinstance(ensemble, LikenessEnsemble) else None
        self.aligned: list[Event] | None = likeness.aligned or None if likeness else None
        """For each row the state in the pattern's spelling, in fuzzy mode."""
        self.frequency: Column = np.maximum(ensemble.frequency, 1).astype(np.float64)
        matched = ensemble.matched.astype(np.float64)
        unmatched = len(self.state) - matched
        self.similarity: Column = (
            likeness.likeness
            if likeness
            else 2 * ensemble.lcs / (len(self.state) + ensemble.length.astype(float))
        )
        self.present_sizes: Column = np.diff(ensemble.present_offsets.astype(np.int64)).astype(np.float64)
        self.evidence: Column = matched / ensemble.length
        self.confidence: Column = _ratio(matched, self.present_sizes)
        self.snr: Column = _ratio(2 * matched - unmatched, 2 * matched + unmatched)
        self.fragmentation: Column = ensemble.blocks.astype(np.float64) - 1
        self.bayesian_prior: Column = self.frequency / _total(self.frequency)
        self.bayesian_likelihood = self.similarity
        self.weighted_strength: Column = self.similarity * self.bayesian_prior

    # What the ensemble knows about its symbols ----------------------------------------------------------

    @cached_property
    def _present_rows(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self._ensemble)), self.present_sizes.astype(np.int64))

    @cached_property
    def _present(self) -> _Symbols:
        ids = self._ensemble.present_symbols.astype(np.int64)
        return _distinct(self._present_rows, ids, len(self._ensemble.local_symbols), self.present_sizes)

    @cached_property
    def _in_present(self) -> NDArray[np.bool_]:
        """Which local symbols occur in a present: exactly those in the matches or missing of some row."""
        seen = np.zeros(len(self._ensemble.local_symbols), np.bool_)
        seen[self._ensemble.present_symbols] = True
        return seen

    @cached_property
    def _probability(self) -> Column:
        """prob(s) of each local symbol."""
        return np.where(self._in_present, self._ensemble.member_frequency / self._ensemble.patterns, 0.0)

    @cached_property
    def _whole(self) -> tuple[_Symbols, Column, Column] | None:
        """Of the finalized rows: the symbols of the whole patterns, and their pmf and document counts."""
        rows = np.flatnonzero(self._ensemble.flags & FINALIZED)
        if not len(rows):
            return None
        patterns = [flatten(self._ensemble.events[row]) for row in rows.tolist()]
        known: dict[str, int] = {
            symbol: place for place, symbol in enumerate(dict.fromkeys(chain(*patterns)))
        }
        sizes = np.zeros(len(self._ensemble))
        sizes[rows] = [len(pattern) for pattern in patterns]
        symbols = _distinct(
            np.repeat(rows, sizes[rows].astype(np.int64)),
            np.array([known[symbol] for pattern in patterns for symbol in pattern], np.int64),
            len(known),
            sizes,
        )
        members = np.array(self._member_frequency(list(known)), np.float64)
        local = {self._ensemble.local_symbols[place] for place in np.flatnonzero(self._in_present).tolist()}
        documents = np.array(
            [count if symbol in local else 1.0 for symbol, count in zip(known, members.tolist(), strict=True)]
        )
        return symbols, members, documents

    def _finalized(self, run_time: Column, whole: Column) -> Column:
        return np.where(self._ensemble.flags & FINALIZED, whole, run_time)

    # Entropies, term statistics -------------------------------------------------------------------------

    @cached_property
    def entropy(self) -> Column:
        """Of the symbols of the present, in bits."""
        figures = _entropy(self._present)
        return self._finalized(figures, _entropy(self._whole[0])) if self._whole else figures

    @cached_property
    def normalized_entropy(self) -> Column:
        """The entropy to the base of the number of symbols of the node."""
        return self.entropy * self._per_bit

    @cached_property
    def global_normalized_entropy(self) -> Column:
        """The node-wide surprise of the distinct symbols of the present."""
        figures = self._surprise(self._present, self._probability)
        if self._whole:
            symbols, members, _ = self._whole
            figures = self._finalized(figures, self._surprise(symbols, members / self._ensemble.patterns))
        return figures

    def _surprise(self, symbols: _Symbols, probability: Column) -> Column:
        terms = _lookup(lambda p: -p * math.log2(p) if p > 0 else 0.0, probability)
        return self._sum(symbols, terms[symbols.ids]) * self._per_bit

    @cached_property
    def _per_bit(self) -> float:
        return 1 / math.log2(self._ensemble.symbols) if self._ensemble.symbols > 1 else 0.0

    @cached_property
    def tfidf_score(self) -> Column:
        """The mean of tf * (log2(N/df) + 1) over the distinct symbols of the present."""
        figures = self._mean_tfidf(self._present, self._ensemble.member_frequency.astype(np.float64))
        if self._whole:
            symbols, _, documents = self._whole
            figures = self._finalized(figures, self._mean_tfidf(symbols, documents))
        return figures

    def _mean_tfidf(self, symbols: _Symbols, documents: Column) -> Column:
        patterns = self._ensemble.patterns
        rarity = _lookup(lambda count: math.log2(patterns / max(1.0, count)) + 1, documents)
        scores = symbols.counts / symbols.sizes[symbols.rows] * rarity[symbols.ids]
        return _ratio(self._sum(symbols, scores), self._sum(symbols, np.ones(len(scores))))

    def _sum(self, symbols: _Symbols, values: Column) -> Column:
        return _row_sums(symbols.rows, values, len(self._ensemble))

    @cached_property
    def confluence(self) -> Column:
        """How much more often the pattern occurs than its symbols would meet by chance."""
        total = self._ensemble.total_frequency
        if not total:
            return np.zeros(len(self._ensemble))
        probabilities = np.where(self._probability > 0, self._probability, 1e-10)
        factors = probabilities[self._ensemble.present_symbols].tolist()
        borders = self._ensemble.present_offsets.tolist()
        chance = np.array([math.prod(factors[start:end]) for start, end in pairwise(borders)])
        return np.asarray(self.frequency / total * (1 - chance))

    # Likeness of state and present ----------------------------------------------------------------------

    @cached_property
    def itfdf_similarity(self) -> Column:
        """1 - d * f / sum of f, d the cosine distance of state and present, both weighted by prob."""
        squares = self._probability * self._probability
        present = self._present
        present_norm = self._sum(present, squares[present.ids] * present.counts * present.counts)
        if self.aligned is None:
            counts = np.zeros(len(self._ensemble.local_symbols))
            known = self._ensemble.state_symbols[self._ensemble.state_symbols >= 0]
            np.add.at(counts, known, 1.0)
            dot = self._sum(present, (squares * counts)[present.ids] * present.counts)
            state_norm = np.full(len(dot), _total(squares * counts * counts))
        else:
            dot, state_norm = self._aligned_products(squares)
        norms = np.sqrt(state_norm) * np.sqrt(present_norm)
        cosine = np.minimum(_ratio(dot, norms), 1.0)
        return 1 - (1 - cosine) * self.bayesian_prior

    def _aligned_products(self, squares: Column) -> tuple[Column, Column]:
        """The dot products of aligned state and present, and the squared norms of the aligned states."""
        local = {symbol: place for place, symbol in enumerate(self._ensemble.local_symbols)}
        width = len(local)
        pairs = [
            (row, local[symbol])
            for row, state in enumerate(self.aligned or ())
            for symbol in state
            if symbol in local
        ]
        rows, ids = np.array(pairs, np.int64).reshape(-1, 2).T
        state = _distinct(rows, ids, width, self.present_sizes)
        present = self._present
        present_counts = dict(
            zip((present.rows * width + present.ids).tolist(), present.counts.tolist(), strict=True)
        )
        shared = np.array([present_counts.get(key, 0.0) for key in (state.rows * width + state.ids).tolist()])
        terms = squares[state.ids] * state.counts
        return self._sum(state, terms * shared), self._sum(state, terms * state.counts)

    @cached_property
    def potential(self) -> Column:
        """(evidence + confidence) * snr + itfdf_similarity + 1/B; by weights when an affinity is active."""
        figures = self.weighted or self
        cohesion = _ratio(np.ones(len(self._ensemble)), self.fragmentation + 1)
        return (figures.evidence + figures.confidence) * figures.snr + self.itfdf_similarity + cohesion

    @cached_property
    def weighted(self) -> Weighted | None:
        """The figures by weights; None when no affinity is active."""
        weights = self._weights
        if weights is None:
            return None
        ensemble = self._ensemble
        borders = ensemble.match_offsets.tolist()
        positions = ensemble.match_positions.tolist()

        def heavy(symbols: Sequence[str]) -> float:
            total = 0.0
            for symbol in symbols:
                if symbol in weights:
                    total += weights[symbol]
            return total

        sums = []
        starts, counts = ensemble.past_events.tolist(), ensemble.present_events.tolist()
        for row, events in enumerate(ensemble.events):
            state = self.state if self.aligned is None else self.aligned[row]
            present = flatten(events[starts[row] : starts[row] + counts[row]])
            inside = frozenset(present)
            sums.append(
                (
                    heavy([state[place] for place in positions[borders[row] : borders[row + 1]]]),
                    heavy(state),
                    heavy(flatten(events)),
                    heavy(present),
                    heavy([symbol for symbol in state if symbol not in inside]),
                )
            )
        matches, states, patterns, presents, extras = np.array(sums).T
        return Weighted(
            similarity=_ratio(2 * matches, states + patterns),
            evidence=_ratio(matches, patterns),
            confidence=_ratio(matches, presents),
            snr=_ratio(matches, matches + extras),
        )

    # What the ensemble expects --------------------------------------------------------------------------

    @cached_property
    def bayesian_posterior(self) -> Column:
        """similarity * prior as a share of the ensemble's sum."""
        return _ratio(self.weighted_strength, np.full(len(self._ensemble), _total(self.weighted_strength)))

    @cached_property
    def _future_of(self) -> tuple[dict[Events, int], list[int]]:
        """The place of each distinct future in first-seen order, and for each row that of its own, or -1."""
        starts = (self._ensemble.past_events + self._ensemble.present_events).tolist()
        places: dict[Events, int] = {}
        membership = []
        for events, start in zip(self._ensemble.events, starts, strict=True):
            # Futures that differ only in the order inside events are the same.
            key = tuple([event if len(event) == 1 else tuple(sorted(event)) for event in events[start:]])
            membership.append(places.setdefault(key, len(places)) if key else -1)
        return places, membership

    @cached_property
    def futures(self) -> list[FuturePotential]:
        """The futures that some rows share, in first-seen order and spelling."""
        places, membership = self._future_of
        weights = [0.0] * len(places)
        supports = [0] * len(places)
        spellings: list[Events] = [()] * len(places)
        starts = (self._ensemble.past_events + self._ensemble.present_events).tolist()
        for row, (place, weight) in enumerate(
            zip(membership, (self.frequency * self.similarity).tolist(), strict=True)
        ):
            if place < 0:
                continue
            if not supports[place]:
                spellings[place] = self._ensemble.events[row][starts[row] :]
            supports[place] += 1
            weights[place] += weight
        total = math.fsum(weights)
        return [
            FuturePotential(
                future=spelling,
                aggregate_potential=weight / total if total else 0.0,
                supporting_patterns=support,
                total_weighted_frequency=weight,
            )
            for spelling, support, weight in zip(spellings, supports, weights, strict=True)
        ]

    @cached_property
    def predictive_information(self) -> Column:
        """weighted_strength / aggregate potential of the row's future; 0 without a future."""
        shares = np.array([future.aggregate_potential for future in self.futures] + [0.0])
        return _ratio(self.weighted_strength, shares[self._future_of[1]])


def _distinct(rows: NDArray[np.int64], ids: NDArray[np.int64], width: int, sizes: Column) -> _Symbols:
    """Count equal (row, symbol) pairs; `width` is the number of symbol ids."""
    keys, counts = np.unique(rows * width + ids, return_counts=True)
    return _Symbols(keys // max(1, width), keys % max(1, width), counts.astype(np.float64), sizes)


def _entropy(symbols: _Symbols) -> Column:
    sizes = symbols.sizes[symbols.rows]
    bits = _lookup(math.log2, sizes) - _lookup(math.log2, symbols.counts)
    return _row_sums(symbols.rows, symbols.counts / sizes * bits, len(symbols.sizes))


def _row_sums(rows: NDArray[np.int64], values: Column, length: int) -> Column:
    """The sum of the values of each row, added in their order."""
    return np.bincount(rows, values, length).astype(np.float64, copy=False)


def _lookup(function: Callable[[float], float], values: Column) -> Column:
    """The function of every value, called once for each distinct one."""
    distinct, places = np.unique(values, return_inverse=True)
    return np.array([function(value) for value in distinct.tolist()])[places]


def _ratio(numerator: Column, denominator: Column) -> Column:
    """numerator / denominator, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator != 0)


def _total(values: Column) -> float:
    return math.fsum(values.tolist())
