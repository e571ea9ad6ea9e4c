"""The verbs for programs that wait: a KATO (wherever it runs) and its sessions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

from kato.presentation import STM, Predictions
from kato.verbs import calls
from kato.verbs.calls import JSON, Call
from kato.verbs.values import ObservationLike

T = TypeVar("T")


class Verbs(ABC):
    """Everything that can be asked of a KATO; how the calls travel is up to the subclass.

    Every method raises the errors of `kato.errors`; a call that was refused has changed nothing. After a
    timeout or a broken connection nobody knows: repeat the call with an idempotency key to have it done once.
    """

    @abstractmethod
    def carry(self, call: Call[Any]) -> bytes:
        """Carry a call out and return the JSON of its answer; raises `kato.errors`."""

    @abstractmethod
    def close(self) -> None:
        """Release everything; closing twice is harmless."""

    def _ask(self, call: Call[T]) -> T:
        return call.read(self.carry(call))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Sessions --------------------------------------------------------------------------------

    def session(
        self,
        node_id: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl_seconds: int | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Open a new session, or find one again by its `session_id` (then nothing else may be given but its
        node).

        `node_id` is the key of the long-term memory (None: the instance's own), `config` holds parameters as
        in `Session.configure`, `metadata` is kept with the session, `ttl_seconds` is its time to live,
        prolonged by every use. Raises `SessionNotFound`, `SessionLimitExceeded`, `ConfigurationInvalid`,
        `ValidationError`.

        >>> import kato
        >>> with kato.open(":memory:") as memory:
        ...     memory.session("a-node", config={"recall_threshold": 0.4}).config()["recall_threshold"]
        0.4
        """
        found = self._ask(calls.session(node_id, config, metadata, ttl_seconds, session_id))
        return Session(self, calls.checked(found, node_id))

    def sessions(
        self,
        limit: int = 100,
        cursor: str | None = None,
        node_id: str | None = None,
        include_expired: bool = False,
    ) -> JSON:
        """A page of sessions in ascending order of id: `sessions`, `count`, `total`, `next_cursor`."""
        return self._ask(calls.sessions(limit, cursor, node_id, include_expired))

    def count_sessions(self) -> int:
        """How many sessions are alive."""
        return self._ask(calls.count_sessions())

    # Long-term memory --------------------------------------------------------------------------------

    def patterns(
        self,
        node_id: str,
        limit: int = 100,
        cursor: str | None = None,
        symbol: str | None = None,
        min_frequency: int = 0,
    ) -> JSON:
        """A page of what a node has learned, in ascending order of name: `patterns`, `count`, `total`,
        `next_cursor`.

        `symbol` keeps the patterns that hold it, `min_frequency` those that were learned at least that often.
        `total` counts all patterns of the node."""
        return self._ask(calls.patterns(node_id, limit, cursor, symbol, min_frequency))

    def pattern(self, name: str, node_id: str) -> JSON:
        """One pattern: `name`, `pattern_data` (its events), `length`, `frequency`, `emotives`, `metadata`.

        `name` may come with or without `PTRN|`. Raises `PatternNotFound`."""
        return self._ask(calls.pattern(name, node_id))

    def update_pattern(
        self,
        name: str,
        node_id: str,
        *,
        frequency: int | None = None,
        emotives: Mapping[str, Sequence[float]] | Sequence[Mapping[str, float]] | None = None,
    ) -> JSON:
        """Change a pattern's frequency, emotives or both, and return it; parts left out stay as they are.

        `emotives` are a window (a list of mappings) or lists by name. Raises `PatternNotFound`."""
        return self._ask(calls.update_pattern(name, node_id, frequency, emotives))

    def delete_pattern(self, name: str, node_id: str) -> JSON:
        """Remove a pattern with all its influence; raises `PatternNotFound`."""
        return self._ask(calls.delete_pattern(name, node_id))

    def symbols(self, node_id: str) -> dict[str, JSON]:
        """Every symbol of a node with its `frequency` and `pattern_member_frequency`."""
        return self._ask(calls.symbols(node_id))

    def affinities(self, node_id: str) -> dict[str, dict[str, float]]:
        """The affinity of each symbol that has one: the summed emotives of the patterns that hold it."""
        return self._ask(calls.affinities(node_id))

    def affinity(self, symbol: str, node_id: str) -> dict[str, float]:
        """The affinity of one symbol; empty when it has none."""
        return self._ask(calls.affinity(symbol, node_id))


class Session:
    """A conversation with one node: a short-term memory and a configuration of its own.

    Leaving a `with` block does not end the session: it lives until its time to live is over or `delete` is
    called, and `kato.session(session_id=...)` finds it again. May be used from several threads; its calls run
    one by one.
    """

    def __init__(self, kato: Verbs, found: JSON) -> None:
        self._kato = kato
        self.id: str = found["session_id"]
        """The id by which the session is found again."""
        self.node_id: str = found["node_id"]
        """The key of the long-term memory the session learns into and predicts from."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, node_id={self.node_id!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The session goes on; see the class."""

    # Observing, learning, predicting ----------------------------------------------------------------------

    def observe(
        self,
        strings: Iterable[str] = (),
        vectors: Iterable[Iterable[float]] = (),
        emotives: Mapping[str, float] | None = None,
        metadata: Mapping[str, Any] | None = None,
        unique_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> JSON:
        """Show one observation: an event of symbols and vectors, with emotives (numbers by name) and
        metadata.

        Nothing is learned unless the session learns automatically (`max_pattern_length`). `unique_id` names
        the observation (one is made otherwise). A call repeated with the same `idempotency_key` is not
        applied again: it gets the first answer. Answers `stm_length`, `time`, `unique_id`,
        `auto_learned_pattern`, and `warnings` if something was left out because a server did not answer.
        Raises `ValidationError` (a bare str is refused: write `["hello"]`), `VectorDimensionError`,
        `SessionNotFound`.

        >>> import kato
        >>> with kato.open(":memory:") as memory:
        ...     memory.session().observe(["hello", "big", "world"])["stm_length"]
        1
        """
        return self._kato._ask(
            calls.observe(self.id, strings, vectors, emotives, metadata, unique_id, idempotency_key)
        )

    def observe_sequence(
        self,
        observations: Iterable[ObservationLike],
        learn_after_each: bool = False,
        learn_at_end: bool = False,
        clear_stm_between: bool = False,
        idempotency_key: str | None = None,
    ) -> JSON:
        """Show many observations in order; the session takes all of them or none.

        Each is a list of symbols, a mapping with the arguments of `observe`, or a `kato.Observation`. The STM
        is learned after each one or at the end, and emptied before each but the first, as the flags say.
        Answers `results` per observation and `auto_learned_patterns`, all names learned.

        >>> import kato
        >>> with kato.open(":memory:") as memory:
        ...     answer = memory.session().observe_sequence([["a"], {"strings": ["b"]}], learn_at_end=True)
        >>> answer["observations_processed"], answer["final_learned_pattern"][:5]
        (2, 'PTRN|')
        """
        flags = {
            "learn_after_each": learn_after_each,
            "learn_at_end": learn_at_end,
            "clear_stm_between": clear_stm_between,
        }
        return self._kato._ask(calls.observe_sequence(self.id, observations, flags, idempotency_key))

    def learn(self, idempotency_key: str | None = None) -> JSON:
        """Make a pattern of the STM and empty it; answers `pattern_name` (`PTRN|` and 40 digits).

        The name is "" when the STM held fewer than two symbols. Raises `EmptySTM`."""
        return self._kato._ask(calls.learn(self.id, idempotency_key))

    def stm(self) -> STM:
        """The short-term memory, oldest event first."""
        return self._kato._ask(calls.stm(self.id))

    def predictions(self, limit: int | None = None, unique_id: str | None = None) -> Predictions:
        """What the STM resembles, best first (at most `limit`), with the evidence, and the futures it adds up
        to.

        Their `stale` is true when they may lack what was learned elsewhere, because a server is down.
        With `unique_id`: what the STM resembled right after the observation of that name.

        >>> import kato
        >>> with kato.open(":memory:") as memory:
        ...     session = memory.session()
        ...     _ = session.observe_sequence([["a"], ["b"], ["c"]], learn_at_end=True)
        ...     _ = session.observe_sequence([["a"], ["b"]])
        ...     session.predictions().best["future"]
        [['c']]
        """
        return self._kato._ask(calls.predictions(self.id, limit, unique_id))

    def predictions_json(self, limit: int | None = None, unique_id: str | None = None) -> bytes:
        """The JSON of the answer to `predictions`: the same bytes wherever the same was shown."""
        return self._kato._ask(calls.raw(calls.predictions(self.id, limit, unique_id)))

    def percept_data(self) -> JSON:
        """What the session perceived last: strings, vectors, emotives, metadata."""
        return self._kato._ask(calls.percept_data(self.id))

    def cognition_data(self) -> JSON:
        """What the session makes of it: predictions of the latest observation, emotives, symbols, STM."""
        return self._kato._ask(calls.cognition_data(self.id))

    def clear_stm(self) -> JSON:
        """Empty the STM and what was gathered with it; patterns stay."""
        return self._kato._ask(calls.clear_stm(self.id))

    def clear_all(self) -> JSON:
        """Forget everything the session's node has learned, for every session, and empty the STM."""
        return self._kato._ask(calls.clear_all(self.id))

    def finalize_training(self) -> JSON:
        """From now on show whole-pattern figures for the node's present patterns; answers how many."""
        return self._kato._ask(calls.finalize_training(self.id))

    # The session itself --------------------------------------------------------------------------------

    def config(self) -> JSON:
        """Every configuration parameter with its value in force."""
        return self._kato._ask(calls.config(self.id))

    def configure(self, **parameters: Any) -> JSON:
        """Set parameters of this session, all or none; None returns one to its default.

        Raises `ConfigurationInvalid` with a reason for each value that cannot be."""
        return self._kato._ask(calls.configure(self.id, parameters))

    def info(self) -> JSON:
        """What the service knows of the session: times, metadata, STM length, explicit configuration."""
        return self._kato._ask(calls.info(self.id))

    def exists(self) -> bool:
        """Whether the session is alive; looking does not prolong it."""
        return self._kato._ask(calls.exists(self.id))

    def extend(self, ttl_seconds: int = 3600) -> JSON:
        """Set the time to live in seconds, counted from now."""
        return self._kato._ask(calls.extend(self.id, ttl_seconds))

    def delete(self) -> JSON:
        """End the session; what it taught its node stays."""
        return self._kato._ask(calls.delete(self.id))
