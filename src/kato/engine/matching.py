"""How a learned pattern resembles a state: the readable, exact twin of the compiled index (8.2 to 8.6, 8.8).

`ensemble` and `ensemble_first` look at every pattern they are given and are meant for tests and small
nodes; the compiled index gives the same columns without looking at most patterns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from kato.model import Event, Events

TOLERANCE = 1e-9
"""Slack of every threshold comparison, so that a threshold of exactly 2/3 admits a similarity of 2/3
(8.3)."""
NO_MAXIMUM = 4_294_967_295
FINALIZED = 1
"""Bit of `Columns.flags`: the pattern's figures are taken over the whole pattern (8.7)."""

Block: TypeAlias = tuple[int, int, int]
KnownPattern: TypeAlias = tuple[str, Events, int, int]
"""Name, events, frequency, flags."""


class Columns(Protocol):
    """The surviving patterns of one search as columns, one row each, in ensemble order.

    Both `Ensemble` below and the compiled index's class of that name have this shape; `kato._core`
    documents the columns. Ensemble order is similarity descending, then name ascending.
    """

    patterns: int
    symbols: int
    total_frequency: int
    names: list[str]
    events: list[Events]
    frequency: NDArray[np.int64]
    flags: NDArray[np.uint8]
    length: NDArray[np.uint32]
    lcs: NDArray[np.uint32]
    matched: NDArray[np.uint32]
    blocks: NDArray[np.uint32]
    past_events: NDArray[np.uint32]
    present_events: NDArray[np.uint32]
    match_offsets: NDArray[np.uint32]
    match_positions: NDArray[np.uint32]
    present_offsets: NDArray[np.uint32]
    present_symbols: NDArray[np.uint32]
    local_symbols: list[str]
    member_frequency: NDArray[np.uint32]
    state_symbols: NDArray[np.int32]

    def __len__(self) -> int: ...


@dataclass(eq=False)
class Ensemble:
    """`Columns` made in Python. `local_symbols` lists the presents' symbols row by row, then the state's."""

    patterns: int
    symbols: int
    total_frequency: int
    names: list[str]
    events: list[Events]
    frequency: NDArray[np.int64]
    flags: NDArray[np.uint8]
    length: NDArray[np.uint32]
    lcs: NDArray[np.uint32]
    matched: NDArray[np.uint32]
    blocks: NDArray[np.uint32]
    past_events: NDArray[np.uint32]
    present_events: NDArray[np.uint32]
    match_offsets: NDArray[np.uint32]
    match_positions: NDArray[np.uint32]
    present_offsets: NDArray[np.uint32]
    present_symbols: NDArray[np.uint32]
    local_symbols: list[str]
    member_frequency: NDArray[np.uint32]
    state_symbols: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.names)


class Match(msgspec.Struct, frozen=True):
    """How one pattern lies on one state (8.4, 8.5 step 1 and 2).

    `length` is the number of symbols of the pattern, `lcs` the length of the longest common subsequence.
    `positions` are the places in the state that the blocks cover, in order. Of the pattern's events the
    first `past_events` are the past, the next `present_events` the present, all others the future.
    """

    length: int
    lcs: int
    positions: tuple[int, ...]
    blocks: tuple[Block, ...]
    past_events: int
    present_events: int


def flatten(events: Events) -> Event:
    """All symbols of all events in order.

    >>> flatten((("a", "b"), ("c",)))
    ('a', 'b', 'c')
    """
    return tuple([symbol for event in events for symbol in event])


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest sequence of tokens that both hold in this order, gaps allowed (8.3).

    Bit-parallel (Hyyrö 2004): in `row` bit i is 0 where the length grows by one at a[i].

    >>> longest_common_subsequence("abcd", "bxd")
    2
    """
    places: dict[str, int] = {}
    for i, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << i
    ones = (1 << len(a)) - 1
    row = ones
    for token in b:
        common = row & places.get(token, 0)
        row = (row + common | row - common) & ones
    return len(a) - row.bit_count()


def matching_blocks(pattern: Sequence[str], state: Sequence[str]) -> list[Block]:
    """The runs (start in pattern, start in state, size) that both share, longest first by recursion (8.4).

    In a window the longest common contiguous run is taken, of equally long ones the first in the pattern,
    then the first in the state; then the windows on its left and right. The result is in order of position
    and blocks that touch in both sequences are one. Equal to difflib's blocks without junk rules.

    >>> matching_blocks("abcde", "abxde")
    [(0, 0, 2), (3, 3, 2)]
    """
    places: dict[str, list[int]] = {}
    for j, token in enumerate(state):
        places.setdefault(token, []).append(j)
    found: list[Block] = []
    windows = [(0, len(pattern), 0, len(state))]
    while windows:
        a0, a1, b0, b1 = windows.pop()
        i, j, size = _longest_run(pattern, places, a0, a1, b0, b1)
        if size:
            found.append((i, j, size))
            windows.append((a0, i, b0, j))
            windows.append((i + size, a1, j + size, b1))
    # No two blocks touch in both sequences: together they would have been found as one longer run.
    return sorted(found)


def _longest_run(
    pattern: Sequence[str], places: dict[str, list[int]], a0: int, a1: int, b0: int, b1: int
) -> Block:
    best = (a0, b0, 0)
    # runs[j] is the length of the common run that ends at the latest pattern token and at state[j]
    runs: dict[int, int] = {}
    for i in range(a0, a1):
        longer: dict[int, int] = {}
        for j in places.get(pattern[i], ()):
            if b0 <= j < b1:
                size = longer[j] = runs.get(j - 1, 0) + 1
                if size > best[2]:
                    best = (i - size + 1, j - size + 1, size)
        runs = longer
    return best


def match(state: Sequence[str], events: Events) -> Match:
    """Lay a pattern on a state.

    >>> found = match(("b", "c"), (("a",), ("b",), ("c",), ("d",)))
    >>> found.lcs, found.positions, found.past_events, found.present_events
    (2, (0, 1), 1, 2)
    """
    pattern = flatten(events)
    blocks = matching_blocks(pattern, state)
    positions = tuple([place for _, j, size in blocks for place in range(j, j + size)])
    past, present = 0, len(events)
    if blocks:
        past, present = _segment(events, blocks[0][0], blocks[-1][0] + blocks[-1][2])
        # An event cut by the border belongs to the present; so does one that merely repeats the symbol.
        if past and state[positions[0]] in events[past - 1]:
            past, present = past - 1, present + 1
    return Match(
        length=len(pattern),
        lcs=longest_common_subsequence(pattern, state),
        positions=positions,
        blocks=tuple(blocks),
        past_events=past,
        present_events=present,
    )


def _segment(events: Events, start: int, end: int) -> tuple[int, int]:
    """Numbers of past and present events when the matches span the flat places start to end (8.5 step 1)."""
    count = past = 0
    while count < start:
        count += len(events[past])
        past += 1
    present = 0
    while count < end:
        count += len(events[past + present])
        present += 1
    return past, present


def similarity(lcs: int, state_length: int, pattern_length: int) -> float:
    """2L / (n + m), from 0 to 1 (8.3).

    >>> similarity(2, 2, 3)
    0.8
    """
    return 2 * lcs / (state_length + pattern_length)


def pre_potential(matched: int, blocks: int, state_length: int, pattern_length: int, present: int) -> float:
    """(evidence + confidence) * snr + 1/B: what decides which rows of a too large ensemble stay (8.6).

    `matched` symbols in the blocks, number of `blocks`, symbols in the `present`. Evaluated in exactly this
    order of double operations by the compiled index too (no fused multiply-add), so that both prune alike.

    >>> pre_potential(2, 1, 2, 3, 2)
    2.6666666666666665
    """
    unmatched = state_length - matched
    confidence = matched / present if present else 0.0
    denominator = 2 * matched + unmatched
    snr = (2 * matched - unmatched) / denominator if denominator else 0.0
    return (matched / pattern_length + confidence) * snr + (1 / blocks if blocks else 0.0)


def ensemble(
    state: Sequence[str],
    patterns: Iterable[KnownPattern],
    threshold: float,
    limit: int,
    *,
    min_length: int = 0,
    max_length: int = NO_MAXIMUM,
    min_overlap: int = 0,
    min_jaccard: float = 0.0,
) -> Ensemble:
    """The ensemble of a state by looking at every pattern, token mode (8.2 to 8.6).

    A pattern survives when 2L/(n+m) >= threshold (within 1e-9), it has at least one block if threshold > 0,
    min_length <= m <= max_length, and with T, S the sets of distinct symbols of state and pattern |T & S|
    >= min_overlap and |T & S| / |T | S| >= min_jaccard (within 1e-9). Of more than `limit` survivors those
    with the largest pre-potential stay, ties in ensemble order.

    >>> known = [("p1", (("a",), ("b",), ("c",)), 3, 0), ("p2", (("x",),), 1, 0)]
    >>> rows = ensemble(("a", "b"), known, 0.1, 300)
    >>> rows.names, rows.lcs.tolist(), rows.patterns, rows.symbols, rows.total_frequency
    (['p1'], [2], 2, 4, 4)
    """
    known = list(patterns)
    distinct = frozenset(state)

    def lay(pattern: KnownPattern) -> Match | None:
        symbols = frozenset(flatten(pattern[1]))
        shared = len(distinct & symbols)
        if shared < min_overlap or shared / len(distinct | symbols) < min_jaccard - TOLERANCE:
            return None
        found = match(state, pattern[1])
        if not min_length <= found.length <= max_length or (threshold > 0 and not found.blocks):
            return None
        return found if similarity(found.lcs, len(state), found.length) >= threshold - TOLERANCE else None

    return _columns(state, known, _survivors(state, known, lay, limit))


def ensemble_first(symbol: str, patterns: Iterable[KnownPattern], limit: int) -> Ensemble:
    """The ensemble of a state of one symbol: the patterns that begin with it, first event as present (8.8).

    >>> rows = ensemble_first("a", [("p1", (("a", "b"), ("c",)), 1, 0), ("p2", (("b",), ("a",)), 1, 0)], 300)
    >>> rows.names, rows.present_events.tolist(), [rows.local_symbols[i] for i in rows.present_symbols]
    (['p1'], [1], ['a', 'b'])
    """
    known = list(patterns)

    def lay(pattern: KnownPattern) -> Match | None:
        events = pattern[1]
        if events[0][0] != symbol:
            return None
        length = len(flatten(events))
        return Match(
            length=length, lcs=1, positions=(0,), blocks=((0, 0, 1),), past_events=0, present_events=1
        )

    return _columns((symbol,), known, _survivors((symbol,), known, lay, limit))


def gather(state: Sequence[str], patterns: Iterable[KnownPattern], names: Iterable[str]) -> Ensemble:
    """The named patterns in the given order, with empty match columns and everything as present.

    These are the candidates that `kato.engine.likeness` chooses from.

    >>> gather(("a",), [("p1", (("a", "b"),), 1, 0), ("p2", (("c",),), 1, 0)], ["p1"]).local_symbols
    ['a', 'b']
    """
    known = {pattern[0]: pattern for pattern in patterns}

    def lay(pattern: KnownPattern) -> Match:
        events = pattern[1]
        return Match(len(flatten(events)), 0, (), (), 0, len(events))

    rows = [(known[name], lay(known[name])) for name in names]
    return _columns(state, list(known.values()), rows)


def _survivors(
    state: Sequence[str],
    known: list[KnownPattern],
    lay: Callable[[KnownPattern], Match | None],
    limit: int,
) -> list[tuple[KnownPattern, Match]]:
    """The patterns that `lay` accepts, in ensemble order, at most `limit`."""
    rows = [(pattern, found) for pattern in known if (found := lay(pattern))]
    rows.sort(key=lambda row: (-similarity(row[1].lcs, len(state), row[1].length), row[0][0]))
    if len(rows) <= limit:
        return rows

    def rank(place: int) -> tuple[float, int]:
        (_, events, _, _), found = rows[place]
        present = sum(map(len, present_of(events, found)))
        value = pre_potential(len(found.positions), len(found.blocks), len(state), found.length, present)
        return -value, place

    return [rows[place] for place in sorted(sorted(range(len(rows)), key=rank)[:limit])]


def present_of(events: Events, found: Match) -> Events:
    """The events of the present."""
    return events[found.past_events : found.past_events + found.present_events]


def _columns(
    state: Sequence[str], known: list[KnownPattern], rows: list[tuple[KnownPattern, Match]]
) -> Ensemble:
    members: dict[str, int] = {}
    for _, events, _, _ in known:
        for symbol in dict.fromkeys(flatten(events)):
            members[symbol] = members.get(symbol, 0) + 1
    presents = [flatten(present_of(pattern[1], found)) for pattern, found in rows]
    local: dict[str, int] = {}
    for present in presents:
        for symbol in present:
            local.setdefault(symbol, len(local))
    for symbol in state:
        if symbol in members:
            local.setdefault(symbol, len(local))

    matches = [found for _, found in rows]
    return Ensemble(
        patterns=len(known),
        symbols=len(members),
        total_frequency=sum(frequency for _, _, frequency, _ in known),
        names=[name for (name, _, _, _), _ in rows],
        events=[events for (_, events, _, _), _ in rows],
        frequency=np.array([frequency for (_, _, frequency, _), _ in rows], np.int64),
        flags=np.array([flags for (_, _, _, flags), _ in rows], np.uint8),
        length=unsigned([found.length for found in matches]),
        lcs=unsigned([found.lcs for found in matches]),
        matched=unsigned([len(found.positions) for found in matches]),
        blocks=unsigned([len(found.blocks) for found in matches]),
        past_events=unsigned([found.past_events for found in matches]),
        present_events=unsigned([found.present_events for found in matches]),
        match_offsets=offsets([found.positions for found in matches]),
        match_positions=unsigned([place for found in matches for place in found.positions]),
        present_offsets=offsets(presents),
        present_symbols=unsigned([local[symbol] for present in presents for symbol in present]),
        local_symbols=list(local),
        member_frequency=unsigned([members[symbol] for symbol in local]),
        state_symbols=np.array([local.get(symbol, -1) for symbol in state], np.int32),
    )


def unsigned(values: Sequence[int]) -> NDArray[np.uint32]:
    """A column of the type that counts and places have."""
    return np.array(values, np.uint32)


def offsets(rows: Iterable[Sized]) -> NDArray[np.uint32]:
    """Where each row begins in the concatenation of all rows, and the total at the end.

    >>> offsets(["ab", "", "c"]).tolist()
    [0, 2, 2, 3]
    """
    return np.cumsum([0, *map(len, rows)]).astype(np.uint32)
