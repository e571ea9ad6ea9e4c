"""Random patterns and states over small alphabets, so that repeats, ties and empty overlaps all occur."""

import random
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from kato._core import Index
from kato.engine.matching import Columns, KnownPattern
from kato.model import Event, Events

COLUMNS = (
    *("names", "events", "frequency", "flags", "length", "lcs", "matched", "blocks"),
    *("past_events", "present_events", "match_offsets", "match_positions", "present_offsets"),
    *("present_symbols", "local_symbols", "member_frequency", "state_symbols"),
)
THRESHOLDS = (0.0, 0.05, 0.1, 0.2, 0.3, 1 / 3, 0.4, 0.5, 4 / 7, 0.6, 2 / 3, 0.75, 0.8, 5 / 6, 0.9, 1.0)


def name(number: int) -> str:
    """A pattern's name that keeps the order of numbers."""
    return f"{number:040x}"


def random_events(chance: random.Random, alphabet: str, longest: int) -> Events:
    sizes = [chance.choice((1, 1, 1, 2, 2, 3)) for _ in range(chance.randint(1, longest))]
    return tuple(tuple(chance.choice(alphabet) for _ in range(size)) for size in sizes)


def random_state(
    chance: random.Random, alphabet: str, patterns: Sequence[KnownPattern], longest: int
) -> Event:
    """Random symbols, or a cut of a pattern with some noise."""
    if patterns and chance.random() < 0.6:
        flat = [symbol for event in chance.choice(patterns)[1] for symbol in event]
        start = chance.randrange(len(flat))
        state = flat[start : start + chance.randint(2, longest)]
        for _ in range(chance.randint(0, 2)):
            state.insert(chance.randint(0, len(state)), chance.choice(alphabet + "?"))
    else:
        state = [chance.choice(alphabet + "?") for _ in range(chance.randint(2, longest))]
    while len(state) < 2:
        state.append(chance.choice(alphabet))
    return tuple(state)


def random_patterns(chance: random.Random, count: int, alphabet: str, longest: int) -> list[KnownPattern]:
    numbers = chance.sample(range(10 * count), count)
    return [
        (name(number), random_events(chance, alphabet, longest), chance.randint(0, 5), chance.randint(0, 3))
        for number in numbers
    ]


def index_of(patterns: Iterable[KnownPattern]) -> Index:
    index = Index()
    for pattern in patterns:
        index.insert(*pattern)
    return index


def load(index: Index, patterns: Sequence[KnownPattern]) -> None:
    index.load(
        [bytes.fromhex(pattern[0]) for pattern in patterns],
        [msgspec.msgpack.encode(pattern[1]) for pattern in patterns],
        [pattern[2] for pattern in patterns],
        [pattern[3] for pattern in patterns],
    )


def assert_equal(found: Columns, expected: Columns) -> None:
    """Every column is the same, in content and in type."""
    assert len(found) == len(expected)
    for total in ("patterns", "symbols", "total_frequency"):
        assert getattr(found, total) == getattr(expected, total), total
    for column in COLUMNS:
        left, right = getattr(found, column), getattr(expected, column)
        if isinstance(right, np.ndarray):
            assert left.dtype == right.dtype, column
            assert left.tolist() == right.tolist(), column
        else:
            assert left == right, column
