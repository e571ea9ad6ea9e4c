"""What the use cases answer: plain values that carry everything any vocabulary shows."""

from __future__ import annotations

import msgspec

from kato.model import Event, Observation, Pattern


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A sequence of observations and what to do between and after them."""

    observations: tuple[Observation, ...]
    learn_after_each: bool = False
    learn_at_end: bool = False
    clear_stm_between: bool = False


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What one observation did. `auto_learned_pattern` is the full name (`PTRN|...`) of an automatic learn.

    `warnings` say what of the observation was left out, a sentence each.
    """

    session_id: str
    node_id: str
    unique_id: str
    stm_length: int
    time: int
    auto_learned_pattern: str | None = None
    symbols: Event = ()
    warnings: tuple[str, ...] = ()


class BatchItem(msgspec.Struct, frozen=True, kw_only=True):
    """What one observation of a batch did; `stm_length` is measured after `learn_after_each`."""

    sequence_position: int
    stm_length: int
    time: int
    unique_id: str
    auto_learned_pattern: str | None = None
    warnings: tuple[str, ...] = ()


class BatchObserved(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch did.

    `patterns` are the full names of all patterns learned in it, in order, empty names left out;
    `final_learned_pattern` is None when no learn at the end was attempted, "" when the STM held too little.
    `warnings` are those of all items, each sentence once.
    """

    session_id: str
    node_id: str
    initial_stm_length: int
    final_stm_length: int
    results: tuple[BatchItem, ...]
    patterns: tuple[str, ...]
    final_learned_pattern: str | None
    isolated: bool
    warnings: tuple[str, ...] = ()


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """The full name of the learned pattern (`PTRN|...`), or "" when the STM held fewer than two symbols."""

    session_id: str
    node_id: str
    pattern_name: str


class Existence(msgspec.Struct, frozen=True):
    """Whether a session exists, and if not, whether it is known to have expired."""

    exists: bool
    expired: bool


class Finalized(msgspec.Struct, frozen=True):
    """How many patterns a finalize-training covered, and how long it took."""

    patterns_processed: int
    time_ms: float


class PatternPage(msgspec.Struct, frozen=True):
    """A page of patterns in ascending order of name; `cursor` continues after it, None at the end.

    A `stale` one may lack what was learned elsewhere.
    """

    patterns: tuple[Pattern, ...]
    cursor: str | None
    total: int
    stale: bool = False
