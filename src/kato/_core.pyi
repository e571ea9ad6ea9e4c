"""The compiled pattern index of one node (sources in core/). Exact: equal to `kato.engine.matching`, always."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kato.model import Events

class Ensemble:
    """The surviving patterns of one search as columns, one row each, in ensemble order.

    Ensemble order is similarity descending, then name ascending. All figures were read at one moment.
    """

    patterns: int
    """Number of patterns of the node (N)."""
    symbols: int
    """Number of distinct symbols of the node (V)."""
    total_frequency: int
    """Sum of the frequencies of all patterns (Ftot)."""
    names: list[str]
    events: list[Events]
    frequency: NDArray[np.int64]
    flags: NDArray[np.uint8]
    length: NDArray[np.uint32]
    """Symbols in the pattern (m)."""
    lcs: NDArray[np.uint32]
    """Length of the longest common subsequence with the state (L)."""
    matched: NDArray[np.uint32]
    """Symbols in the matching blocks (|matches|)."""
    blocks: NDArray[np.uint32]
    """Number of matching blocks (B)."""
    past_events: NDArray[np.uint32]
    """Events before the present, after the repair of behaviour.md 8.5 step 2."""
    present_events: NDArray[np.uint32]
    match_offsets: NDArray[np.uint32]
    """Row r's matches are state[match_positions[match_offsets[r]:match_offsets[r + 1]]]."""
    match_positions: NDArray[np.uint32]
    present_offsets: NDArray[np.uint32]
    """Row r's present, flattened, is local_symbols[present_symbols[present_offsets[r]:present_offsets[r + 1]]]."""
    present_symbols: NDArray[np.uint32]
    local_symbols: list[str]
    """The distinct symbols of all presents and of the state (those known to the node), in order of first use."""
    member_frequency: NDArray[np.uint32]
    """For each local symbol the number of patterns that hold it (pmf)."""
    state_symbols: NDArray[np.int32]
    """For each symbol of the state its place in local_symbols, -1 when the node does not know it."""

    def __len__(self) -> int: ...

class Index:
    """Patterns of one node, searchable. Searches run without the GIL beside inserts, each on a consistent snapshot.

    Changes (insert, load, set_*, remove) may come from any thread, one at a time; the others wait.
    """

    def __init__(self) -> None: ...
    def __len__(self) -> int: ...
    def __contains__(self, name: str) -> bool: ...
    def insert(self, name: str, events: Sequence[Sequence[str]], frequency: int, flags: int = 0) -> None:
        """Add a pattern. ValueError when the name is already there or the pattern is empty."""
    def load(
        self,
        names: Sequence[bytes],
        events: Sequence[bytes],
        frequencies: Sequence[int],
        flags: Sequence[int],
    ) -> None:
        """Add many patterns in stored form (20-byte names, MessagePack events), parsed without the GIL."""
    def set_frequency(self, name: str, frequency: int) -> None: ...
    def set_flags(self, name: str, flags: int) -> None: ...
    def remove(self, name: str) -> bool: ...
    def events(self, name: str) -> Events | None: ...
    def search(
        self,
        state: Sequence[str],
        threshold: float,
        limit: int,
        min_length: int = 0,
        max_length: int = 4294967295,
        min_overlap: int = 0,
        min_jaccard: float = 0.0,
    ) -> Ensemble:
        """The ensemble of a state of two or more symbols, token mode (behaviour.md 8.2 to 8.6).

        A pattern survives when 2L/(n+m) >= threshold - 1e-9, it has at least one block if threshold > 0,
        min_length <= m <= max_length, and with T, S the sets of distinct symbols of state and pattern
        |T & S| >= min_overlap and |T & S| / |T | S| >= min_jaccard - 1e-9. Of more than `limit` survivors those with
        the largest pre-potential stay (ties: ensemble order). A stored frequency of 0 is returned as it is.
        """
    def search_first(self, symbol: str, limit: int) -> Ensemble:
        """The ensemble of a one-symbol state: patterns whose first symbol is `symbol` (behaviour.md 8.8).

        matched = lcs = blocks = 1, the present is the first event; same order and same pruning as `search`.
        """
    def candidates(self, symbols: Sequence[str] | None) -> list[str]:
        """Names of the patterns that hold at least one of the symbols (None: of all patterns), ascending."""
    def gather(self, names: Sequence[str], state: Sequence[str]) -> Ensemble:
        """Those patterns, in the given order, with the match columns zero and everything as present."""
    def page(self, after: str | None, limit: int, symbol: str | None, min_frequency: int) -> list[str]:
        """Up to `limit` names greater than `after`, ascending, that hold `symbol` and have the frequency."""
    def vocabulary(self) -> list[str]:
        """All symbols that at least one pattern holds, ascending by code point."""
    def symbol_statistics(self, symbols: Sequence[str]) -> list[tuple[int, int]]:
        """(frequency, pattern member frequency) of each symbol, (0, 0) for an unknown one.

        The frequency is the sum over the patterns of frequency times occurrences.
        """
    def totals(self) -> tuple[int, int, int, int]:
        """(patterns, sum of frequencies, sum of frequency times length, distinct symbols)."""
    def memory_bytes(self) -> int:
        """Bytes held by this index, capacity included."""

def simd() -> str:
    """Which instruction set the compiled loops use; for benchmark reports."""
