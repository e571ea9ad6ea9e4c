"""The plain immutable data that every part of KATO speaks.

Nothing here does anything: the engine computes with these values, the stores keep them, the service hands
them around. Symbols are strings, an *event* is a tuple of symbols observed at once, a *short-term memory* (STM)
and the content of a pattern are tuples of events.

What exists by the thousand holds JSON-like data only, which cannot form cycles, and is kept from the garbage
collector (`gc=False`).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

Event: TypeAlias = tuple[str, ...]
Events: TypeAlias = tuple[Event, ...]
Emotives: TypeAlias = dict[str, float]

PATTERN_PREFIX = "PTRN|"
VECTOR_PREFIX = "VCTR|"
OPERATIONS_KEPT = 32
"""How many operation ids a pattern record remembers at least, so that a repeated learn counts once."""
FORGOTTEN = -1
"""The frequency of a record whose pattern was deleted."""


class Observation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a client shows at one moment. Every part may be empty."""

    strings: tuple[str, ...] = ()
    vectors: tuple[tuple[float, ...], ...] = ()
    emotives: Emotives = {}
    metadata: dict[str, Any] = {}
    unique_id: str | None = None


class Pattern(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A learned sequence of events: one durable record, and everything that is known about it.

    `name` is the bare 40-digit SHA-1 of the events (behaviour.md 6.2). `frequency` counts how often exactly this
    pattern was learned. `emotives` is the window of the latest observations' emotives, or the mapping that an
    update wrote. `affinity` is the running sum, over all learns, of the averaged emotives of each learn; a symbol's
    affinity is the sum over the patterns that hold it. `operations` names the latest learns that were counted, and
    earlier ones that may yet be repeated. `revision` grows by one with every change of the record.

    A record may outlive its pattern: deleted where several instances teach, it is kept for a while with the frequency
    `FORGOTTEN` and without content, for its `operations`. A learn that was counted before the deletion and is
    delivered once more then does not bring the pattern back.
    """

    name: str
    events: Events
    frequency: int = 1
    emotives: tuple[Emotives, ...] | dict[str, tuple[float, ...]] = ()
    metadata: dict[str, tuple[str, ...]] = {}
    affinity: Emotives = {}
    operations: tuple[str, ...] = ()
    finalized: bool = False
    revision: int = 1

    @property
    def length(self) -> int:
        """Number of symbols in all events."""
        return sum(map(len, self.events))

    @property
    def forgotten(self) -> bool:
        """Whether the pattern was deleted and only its record remains."""
        return self.frequency == FORGOTTEN


class Lesson(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One act of learning: what is to be stored as a new pattern or merged into the known one of that name.

    `emotives` and `metadata` are the session's accumulators, `persistence` the length of the emotives window,
    `operation` the id under which this act is counted at most once.
    """

    name: str
    events: Events
    emotives: tuple[Emotives, ...] = ()
    metadata: dict[str, tuple[str, ...]] = {}
    persistence: int = 5
    operation: str = ""


class Pending(msgspec.Struct, frozen=True, array_like=True):
    """What a session has been told to teach and may not have made durable yet.

    Delivering it again changes nothing: vectors are known by their names, lessons by their operations. `claimed`
    once another than the learner may have delivered it: then it cannot be taken back any more.
    """

    lessons: tuple[Lesson, ...] = ()
    vectors: tuple[tuple[str, tuple[float, ...]], ...] = ()
    claimed: bool = False


class PatternRecord(NamedTuple):
    """A pattern in its stored form, as a scan delivers it: cheap to read by the million.

    `name` is 20 bytes, `events` the MessagePack array of arrays of strings, `details` the MessagePack of everything
    else (see `kato.stores.codec`); `details` is empty when nothing but the frequency is known.
    """

    name: bytes
    events: bytes
    frequency: int
    details: bytes


class SessionState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything a session is; replaced as a whole, never changed in place.

    Times are seconds since the epoch. `config` holds only what the client set explicitly. `observed` is the STM
    right after the latest observation when it no longer equals `stm` (a learn emptied it): predictions "of the
    latest observe" are computed from it. `stm_ids` holds, parallel to `stm`, the caller's `unique_id` of each
    event ("" when none), and is empty while no caller gave one. `vectors` wait for the session's next learn to
    become searchable. `pending` is what its latest change teaches, until that is known to be durable (only where
    several instances share the sessions). `answers` are the latest answers given under an idempotency key. `changes`
    counts what clients did to the session; `revision` also grows when only an access is written.
    """

    session_id: str
    node_id: str
    user_id: str | None = None
    created_at: float
    last_accessed: float
    expires_at: float
    ttl_seconds: int
    metadata: dict[str, Any] = {}
    config: dict[str, Any] = {}
    stm: Events = ()
    stm_ids: tuple[str, ...] = ()
    observed: Events | None = None
    emotives: tuple[Emotives, ...] = ()
    observed_metadata: tuple[dict[str, Any], ...] = ()
    time: int = 0
    percept: Observation | None = None
    vectors: tuple[tuple[str, tuple[float, ...]], ...] = ()
    pending: Pending | None = None
    answers: tuple[Answer, ...] = ()
    access_count: int = 0
    changes: int = 0
    revision: int = 0


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """An answer given under an idempotency key: a repeated request gets the same bytes again."""

    key: str
    request: bytes
    body: bytes
    at: float


RankMetric: TypeAlias = Literal[
    "potential",
    "similarity",
    "evidence",
    "confidence",
    "snr",
    "fragmentation",
    "frequency",
    "normalized_entropy",
    "global_normalized_entropy",
    "itfdf_similarity",
    "confluence",
    "predictive_information",
    "bayesian_posterior",
    "bayesian_prior",
    "bayesian_likelihood",
    "tfidf_score",
    "weighted_similarity",
    "weighted_evidence",
    "weighted_confidence",
    "weighted_snr",
]
FilterName: TypeAlias = Literal["length", "jaccard", "minhash", "bloom", "rapidfuzz"]


class SessionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The effective configuration of a session (behaviour.md 12): each parameter with its value in force.

    >>> SessionConfig(recall_threshold=0.5).max_predictions
    100
    """

    max_pattern_length: int = 0
    persistence: int = 5
    recall_threshold: float = 0.1
    indexer_type: str = "VI"
    max_predictions: int = 100
    sort_symbols: bool = True
    process_predictions: bool = True
    use_token_matching: bool = True
    stm_mode: str = "CLEAR"
    rank_sort_algo: RankMetric = "potential"
    fuzzy_token_threshold: float | None = None
    affinity_emotive: str | None = None
    filter_pipeline: tuple[FilterName, ...] = ()
    length_min_ratio: float = 0.5
    length_max_ratio: float = 2.0
    jaccard_threshold: float = 0.3
    jaccard_min_overlap: int = 2
    minhash_threshold: float = 0.7
    minhash_bands: int = 20
    minhash_rows: int = 5
    minhash_num_hashes: int = 100
    bloom_false_positive_rate: float = 0.01
    max_candidates_per_stage: int = 100_000
    enable_filter_metrics: bool = True


class Anomaly(msgspec.Struct, frozen=True, gc=False):
    """A fuzzily matched token: what was observed, which token of the pattern it stands for, how alike they are."""

    observed: str
    expected: str
    similarity: float


class Prediction(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One learned pattern that the state resembles, with the evidence (behaviour.md 8.10).

    The order of the fields is the order of the JSON answer.
    """

    type: str = "prototypical"
    name: str
    pattern_name: str
    frequency: int
    emotives: dict[str, Any]
    matches: tuple[str, ...]
    past: Events
    present: Events
    missing: Events
    extras: Events
    anomalies: tuple[Anomaly, ...]
    future: Events
    sequence: Events
    length: int
    potential: float
    similarity: float
    evidence: float
    confidence: float
    snr: float
    fragmentation: float
    entropy: float
    normalized_entropy: float
    global_normalized_entropy: float
    hamiltonian: float
    grand_hamiltonian: float
    itfdf_similarity: float
    confluence: float
    tfidf_score: float
    predictive_information: float
    pattern_probability: float
    weighted_strength: float
    bayesian_prior: float
    bayesian_likelihood: float
    bayesian_posterior: float
    weighted_similarity: float | None = None
    weighted_evidence: float | None = None
    weighted_confidence: float | None = None
    weighted_snr: float | None = None


class FuturePotential(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A future that some members of the ensemble share, with its share of the total weight."""

    future: Events
    aggregate_potential: float
    supporting_patterns: int
    total_weighted_frequency: float


class Predictions(msgspec.Struct, frozen=True, kw_only=True):
    """Ranked predictions, best first, and the futures they add up to.

    `stale` ones may lack what was learned elsewhere: their node could not be brought up to date.
    """

    predictions: tuple[Prediction, ...] = ()
    future_potentials: tuple[FuturePotential, ...] = ()
    stale: bool = False


class SymbolStatistics(msgspec.Struct, frozen=True, gc=False):
    """How often a symbol occurs over all learns, and how many distinct patterns hold it."""

    name: str
    frequency: int
    pattern_member_frequency: int


class Totals(msgspec.Struct, frozen=True):
    """Figures of a whole node, derived from its patterns."""

    unique_patterns: int
    pattern_frequencies: int
    symbol_occurrences: int
    symbols: int
