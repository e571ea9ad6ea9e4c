"""Character matching and fuzzy tokens: the searches that compare spellings (8.3, 8.5).

Both take the candidates that the index gathered and return the survivors with all match columns. What is
kept of the exact rules: blocks, segmentation and pruning; what differs is the similarity, and in fuzzy mode
the state, whose tokens are replaced by the pattern's tokens they stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import Indel

from kato.engine.matching import (
    NO_MAXIMUM,
    TOLERANCE,
    Columns,
    Ensemble,
    Match,
    flatten,
    match,
    offsets,
    pre_potential,
    present_of,
    similarity,
    unsigned,
)
from kato.model import Anomaly, Event


@dataclass(eq=False)
class LikenessEnsemble(Ensemble):
    """An ensemble whose similarity is not 2L/(n+m) of the observed state.

    `likeness` is the similarity of each row. In fuzzy mode `aligned` holds for each row the state in the
    spelling of the pattern and `anomalies` the replaced tokens; in character mode both are empty.
    """

    likeness: NDArray[np.float64]
    aligned: list[Event]
    anomalies: list[tuple[Anomaly, ...]]


@dataclass(frozen=True)
class _Row:
    place: int
    match: Match
    present: int
    likeness: float
    aligned: Event


def character_ensemble(
    state: Sequence[str],
    gathered: Columns,
    threshold: float,
    limit: int,
    *,
    min_length: int = 0,
    max_length: int = NO_MAXIMUM,
    min_overlap: int = 0,
    min_jaccard: float = 0.0,
) -> LikenessEnsemble:
    """The ensemble by character similarity: 1 - D/total of the texts joined by blanks, D by insert and
    delete (8.3).

    `gathered` are the candidates with empty match columns; the bounds are those of `matching.ensemble`. A
    positive threshold still demands one exactly matching token.

    >>> from kato.engine.matching import gather
    >>> state = ("hello", "wurld")
    >>> candidates = gather(state, [("p", (("hello",), ("world",)), 1, 0)], ["p"])
    >>> character_ensemble(state, candidates, 0.1, 300).likeness.round(3).tolist()
    [0.909]
    """
    places = _admitted(state, gathered, min_length, max_length, min_overlap, min_jaccard)
    text = " ".join(state)
    rows = []
    for place in places:
        likeness = _text_similarity(text, " ".join(flatten(gathered.events[place])))
        if likeness >= threshold - TOLERANCE:
            rows.append(_row(gathered, place, tuple(state), likeness))
    return _likeness_ensemble(state, gathered, _survivors(gathered, rows, threshold, limit), None)


def fuzzy_ensemble(
    state: Sequence[str],
    gathered: Columns,
    threshold: float,
    limit: int,
    *,
    fuzzy_threshold: float,
    characters: bool = False,
    min_length: int = 0,
    max_length: int = NO_MAXIMUM,
    min_overlap: int = 0,
    min_jaccard: float = 0.0,
) -> LikenessEnsemble:
    """The ensemble with fuzzy tokens (8.5, register 14).

    For each pattern every state token is replaced by the pattern's token most alike, the earliest of
    equally alike ones, if they are alike by at least `fuzzy_threshold` (> 0). Similarity, threshold, blocks
    and present then follow from the replaced state; with `characters` the similarity is that of the joined
    texts. The bounds on shared symbols still mean the observed symbols.

    >>> from kato.engine.matching import gather
    >>> state = ("apple", "bannana")
    >>> candidates = gather(state, [("p", (("apple",), ("banana",)), 1, 0)], ["p"])
    >>> rows = fuzzy_ensemble(state, candidates, 0.1, 300, fuzzy_threshold=0.85)
    >>> rows.aligned, rows.likeness.tolist(), rows.anomalies[0][0].expected
    ([('apple', 'banana')], [1.0], 'banana')
    """
    places = _admitted(state, gathered, min_length, max_length, min_overlap, min_jaccard)
    partners = _partners(state, gathered.local_symbols, fuzzy_threshold)
    rows = []
    for place in places:
        pattern = flatten(gathered.events[place])
        order = {symbol: i for i, symbol in reversed(list(enumerate(pattern)))}
        aligned = tuple([_best_partner(token, partners[token], order) or token for token in state])
        if characters:
            likeness = _text_similarity(" ".join(aligned), " ".join(pattern))
            row = _row(gathered, place, aligned, likeness)
        else:
            row = _row(gathered, place, aligned, None)
        if row.likeness >= threshold - TOLERANCE:
            rows.append(row)
    return _likeness_ensemble(state, gathered, _survivors(gathered, rows, threshold, limit), partners)


def fuzzy_neighbours(tokens: Sequence[str], vocabulary: Sequence[str], threshold: float) -> list[str]:
    """The symbols of the vocabulary that may stand for one of the tokens, in the vocabulary's order.

    With a positive recall threshold only patterns that hold one of them can survive, so nothing is lost
    when the candidates are gathered by them.

    >>> fuzzy_neighbours(("bannana",), ("apple", "banana"), 0.85)
    ['banana']
    """
    alike: set[str] = set()
    for partners in _partners(tokens, vocabulary, threshold).values():
        alike.update(partners)
    return [symbol for symbol in vocabulary if symbol in alike]


def _partners(tokens: Sequence[str], symbols: Sequence[str], threshold: float) -> dict[str, dict[str, float]]:
    """For each token the symbols alike by at least the threshold, with their ratio 2 LCS / characters."""
    found: dict[str, dict[str, float]] = {}
    sizes = np.array([len(symbol) for symbol in symbols], np.float64)
    for token in dict.fromkeys(tokens):
        # Distances, not ratios with rapidfuzz's score_cutoff: that one loses ratios right at the cutoff.
        distances = process.cdist([token], symbols, scorer=Indel.distance, dtype=np.int32)[0]
        ratios = 1 - distances / np.maximum(sizes + len(token), 1)
        near = np.flatnonzero(ratios >= threshold - TOLERANCE).tolist()
        found[token] = {symbols[place]: float(ratios[place]) for place in near}
    return found


def _best_partner(token: str, partners: dict[str, float], order: dict[str, int]) -> str | None:
    """The partner most alike among a pattern's symbols, the earliest on ties; `order` gives first places."""
    if token in order:
        return token
    known = [symbol for symbol in partners if symbol in order]
    return min(known, key=lambda symbol: (-partners[symbol], order[symbol])) if known else None


def _text_similarity(a: str, b: str) -> float:
    total = len(a) + len(b)
    return 1 - Indel.distance(a, b) / total if total else 1.0


def _admitted(
    state: Sequence[str],
    gathered: Columns,
    min_length: int,
    max_length: int,
    min_overlap: int,
    min_jaccard: float,
) -> list[int]:
    """The rows that fulfil the bounds on length and shared symbols."""
    observed = frozenset(state)
    places = []
    for place, length in enumerate(gathered.length.tolist()):
        if not min_length <= length <= max_length:
            continue
        if min_overlap > 0 or min_jaccard > 0:
            symbols = frozenset(flatten(gathered.events[place]))
            shared = len(observed & symbols)
            if shared < min_overlap or shared / len(observed | symbols) < min_jaccard - TOLERANCE:
                continue
        places.append(place)
    return places


def _row(gathered: Columns, place: int, aligned: Event, likeness: float | None) -> _Row:
    """The row's match on its aligned state; its likeness is the token similarity when none is given."""
    events = gathered.events[place]
    found = match(aligned, events)
    if likeness is None:
        likeness = similarity(found.lcs, len(aligned), found.length)
    return _Row(place, found, sum(map(len, present_of(events, found))), likeness, aligned)


def _survivors(gathered: Columns, rows: list[_Row], threshold: float, limit: int) -> list[_Row]:
    """The rows that match at all (if they must), in ensemble order, at most `limit` (8.6)."""
    if threshold > 0:
        rows = [row for row in rows if row.match.blocks]
    rows.sort(key=lambda row: (-row.likeness, gathered.names[row.place]))
    if len(rows) <= limit:
        return rows

    def rank(at: int) -> tuple[float, int]:
        found = rows[at].match
        value = pre_potential(
            len(found.positions), len(found.blocks), len(rows[at].aligned), found.length, rows[at].present
        )
        return -value, at

    return [rows[at] for at in sorted(sorted(range(len(rows)), key=rank)[:limit])]


def _likeness_ensemble(
    state: Sequence[str],
    gathered: Columns,
    rows: list[_Row],
    partners: dict[str, dict[str, float]] | None,
) -> LikenessEnsemble:
    places = [row.place for row in rows]
    matches = [row.match for row in rows]
    presents = []
    for row in rows:
        before = sum(map(len, gathered.events[row.place][: row.match.past_events]))
        start = int(gathered.present_offsets[row.place]) + before
        presents.append(gathered.present_symbols[start : start + row.present])
    columns = {field.name: getattr(gathered, field.name) for field in fields(Ensemble)}
    columns |= {
        "names": [gathered.names[place] for place in places],
        "events": [gathered.events[place] for place in places],
        "frequency": gathered.frequency[places],
        "flags": gathered.flags[places],
        "length": gathered.length[places],
        "lcs": unsigned([found.lcs for found in matches]),
        "matched": unsigned([len(found.positions) for found in matches]),
        "blocks": unsigned([len(found.blocks) for found in matches]),
        "past_events": unsigned([found.past_events for found in matches]),
        "present_events": unsigned([found.present_events for found in matches]),
        "match_offsets": offsets([found.positions for found in matches]),
        "match_positions": unsigned([place for found in matches for place in found.positions]),
        "present_offsets": offsets(presents),
        "present_symbols": np.concatenate(presents) if presents else unsigned([]),
    }
    return LikenessEnsemble(
        **columns,
        likeness=np.array([row.likeness for row in rows], np.float64),
        aligned=[] if partners is None else [row.aligned for row in rows],
        anomalies=[] if partners is None else [_anomalies(state, row.aligned, partners) for row in rows],
    )


def _anomalies(
    state: Sequence[str], aligned: Event, partners: dict[str, dict[str, float]]
) -> tuple[Anomaly, ...]:
    return tuple(
        [
            Anomaly(observed, expected, partners[observed][expected])
            for observed, expected in zip(state, aligned, strict=True)
            if observed != expected
        ]
    )
