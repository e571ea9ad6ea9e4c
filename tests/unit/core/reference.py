"""The rules of behaviour.md 8.2 to 8.6 once more, as directly as possible: textbook LCS and Python's own difflib."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from kato.engine.matching import KnownPattern
from kato.model import Events


@dataclass(frozen=True)
class Row:
    name: str
    length: int
    lcs: int
    matches: tuple[int, ...]
    blocks: int
    past: Events
    present: Events
    similarity: float
    potential: float


def textbook_lcs(a: Sequence[str], b: Sequence[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def segment(events: Events, start: int, size: int, first_match: str) -> tuple[Events, Events]:
    count = border = 0
    while count < start:
        count += len(events[border])
        border += 1
    end = border
    while count < start + size:
        count += len(events[end])
        end += 1
    if border and first_match in events[border - 1]:
        border -= 1
    return events[:border], events[border:end]


def compare(state: Sequence[str], pattern: KnownPattern) -> Row:
    name, events, _, _ = pattern
    flat = [symbol for event in events for symbol in event]
    found = SequenceMatcher(None, flat, list(state), autojunk=False).get_matching_blocks()[:-1]
    matches = tuple(j + i for _, j, size in found for i in range(size))
    past: Events = ()
    present = events
    if found:
        size = found[-1].a + found[-1].size - found[0].a
        past, present = segment(events, found[0].a, size, state[matches[0]])
    n, m, matched = len(state), len(flat), len(matches)
    extras = n - matched
    evidence = matched / m
    confidence = matched / sum(map(len, present))
    snr = (2 * matched - extras) / (2 * matched + extras)
    frag = 1 / len(found) if found else 0.0
    lcs = textbook_lcs(flat, state)
    potential = (evidence + confidence) * snr + frag
    return Row(name, m, lcs, matches, len(found), past, present, 2 * lcs / (n + m), potential)


def survivors(
    state: Sequence[str], patterns: Sequence[KnownPattern], threshold: float, limit: int
) -> list[Row]:
    rows = [compare(state, pattern) for pattern in patterns]
    rows = [row for row in rows if row.similarity >= threshold - 1e-9 and (threshold <= 0 or row.blocks)]
    rows.sort(key=lambda row: (-row.similarity, row.name))
    best = sorted(rows, key=lambda row: -row.potential)[:limit]  # a stable sort: ties in ensemble order
    return sorted(best, key=lambda row: (-row.similarity, row.name))
