"""The verbs for programs on an event loop: as in `kato.verbs.sync`, awaited."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

from kato.presentation import STM, Predictions
from kato.verbs import calls
from kato.verbs.calls import JSON, Call
from kato.verbs.values import ObservationLike

T = TypeVar("T")


class AsyncVerbs(ABC):
    """Everything that can be asked of a KATO, awaited; the verbs and their answers are those of `Verbs`."""

    @abstractmethod
    async def carry(self, call: Call[Any]) -> bytes:
        """Carry a call out and return the JSON of its answer; raises `kato.errors`."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything; closing twice is harmless."""

    async def _ask(self, call: Call[T]) -> T:
        return call.read(await self.carry(call))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Sessions --------------------------------------------------------------------------------

    async def session(
        self,
        node_id: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl_seconds: int | None = None,
        session_id: str | None = None,
    ) -> AsyncSession:
        """Open a new session, or find one again by its `session_id`."""
        found = await self._ask(calls.session(node_id, config, metadata, ttl_seconds, session_id))
        return AsyncSession(self, calls.checked(found, node_id))

    async def sessions(
        self,
        limit: int = 100,
        cursor: str | None = None,
        node_id: str | None = None,
        include_expired: bool = False,
    ) -> JSON:
        """A page of sessions in ascending order of id: `sessions`, `count`, `total`, `next_cursor`."""
        return await self._ask(calls.sessions(limit, cursor, node_id, include_expired))

    async def count_sessions(self) -> int:
        """How many sessions are alive."""
        return await self._ask(calls.count_sessions())

    # Long-term memory --------------------------------------------------------------------------------

    async def patterns(
        self,
        node_id: str,
        limit: int = 100,
        cursor: str | None = None,
        symbol: str | None = None,
        min_frequency: int = 0,
    ) -> JSON:
        """A page of what a node has learned, in ascending order of name."""
        return await self._ask(calls.patterns(node_id, limit, cursor, symbol, min_frequency))

    async def pattern(self, name: str, node_id: str) -> JSON:
        """One pattern: `name`, `pattern_data` (its events), `length`, `frequency`, `emotives`, `metadata`."""
        return await self._ask(calls.pattern(name, node_id))

    async def update_pattern(
        self,
        name: str,
        node_id: str,
        *,
        frequency: int | None = None,
        emotives: Mapping[str, Sequence[float]] | Sequence[Mapping[str, float]] | None = None,
    ) -> JSON:
        """Change a pattern's frequency, emotives or both, and return it; parts left out stay as they are."""
        return await self._ask(calls.update_pattern(name, node_id, frequency, emotives))

    async def delete_pattern(self, name: str, node_id: str) -> JSON:
        """Remove a pattern with all its influence; raises `PatternNotFound`."""
        return await self._ask(calls.delete_pattern(name, node_id))

    async def symbols(self, node_id: str) -> dict[str, JSON]:
        """Every symbol of a node with its `frequency` and `pattern_member_frequency`."""
        return await self._ask(calls.symbols(node_id))

    async def affinities(self, node_id: str) -> dict[str, dict[str, float]]:
        """The affinity of every symbol of a node that has one."""
        return await self._ask(calls.affinities(node_id))

    async def affinity(self, symbol: str, node_id: str) -> dict[str, float]:
        """The affinity of one symbol; empty when it has none."""
        return await self._ask(calls.affinity(symbol, node_id))


class AsyncSession:
    """A conversation with one node, as `Session`; leaving an `async with` block does not end it."""

    def __init__(self, kato: AsyncVerbs, found: JSON) -> None:
        self._kato = kato
        self.id: str = found["session_id"]
        """The id by which the session is found again."""
        self.node_id: str = found["node_id"]
        """The key of the long-term memory the session learns into and predicts from."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, node_id={self.node_id!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """The session goes on; see the class."""

    # Observing, learning, predicting ----------------------------------------------------------------------

    async def observe(
        self,
        strings: Iterable[str] = (),
        vectors: Iterable[Iterable[float]] = (),
        emotives: Mapping[str, float] | None = None,
        metadata: Mapping[str, Any] | None = None,
        unique_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> JSON:
        """Show one observation: an event of symbols and vectors, with emotives and metadata."""
        return await self._kato._ask(
            calls.observe(self.id, strings, vectors, emotives, metadata, unique_id, idempotency_key)
        )

    async def observe_sequence(
        self,
        observations: Iterable[ObservationLike],
        learn_after_each: bool = False,
        learn_at_end: bool = False,
        clear_stm_between: bool = False,
        idempotency_key: str | None = None,
    ) -> JSON:
        """Show many observations in order; the session takes all of them or none."""
        flags = {
            "learn_after_each": learn_after_each,
            "learn_at_end": learn_at_end,
            "clear_stm_between": clear_stm_between,
        }
        return await self._kato._ask(calls.observe_sequence(self.id, observations, flags, idempotency_key))

    async def learn(self, idempotency_key: str | None = None) -> JSON:
        """Make a pattern of the STM and empty it; answers `pattern_name` (`PTRN|` and 40 digits)."""
        return await self._kato._ask(calls.learn(self.id, idempotency_key))

    async def stm(self) -> STM:
        """The short-term memory, oldest event first."""
        return await self._kato._ask(calls.stm(self.id))

    async def predictions(self, limit: int | None = None, unique_id: str | None = None) -> Predictions:
        """What the STM resembles, best first, and the futures it adds up to."""
        return await self._kato._ask(calls.predictions(self.id, limit, unique_id))

    async def predictions_json(self, limit: int | None = None, unique_id: str | None = None) -> bytes:
        """The JSON of the answer to `predictions`."""
        return await self._kato._ask(calls.raw(calls.predictions(self.id, limit, unique_id)))

    async def percept_data(self) -> JSON:
        """What the session perceived last: strings, vectors, emotives, metadata."""
        return await self._kato._ask(calls.percept_data(self.id))

    async def cognition_data(self) -> JSON:
        """What the session makes of it: predictions of the latest observation, emotives, symbols, STM."""
        return await self._kato._ask(calls.cognition_data(self.id))

    async def clear_stm(self) -> JSON:
        """Empty the STM and what was gathered with it; patterns stay."""
        return await self._kato._ask(calls.clear_stm(self.id))

    async def clear_all(self) -> JSON:
        """Forget everything the session's node has learned, for every session, and empty the STM."""
        return await self._kato._ask(calls.clear_all(self.id))

    async def finalize_training(self) -> JSON:
        """From now on show whole-pattern figures for the node's present patterns; answers how many."""
        return await self._kato._ask(calls.finalize_training(self.id))

    # The session itself --------------------------------------------------------------------------------

    async def config(self) -> JSON:
        """Every configuration parameter with its value in force."""
        return await self._kato._ask(calls.config(self.id))

    async def configure(self, **parameters: Any) -> JSON:
        """Set parameters of this session, all or none; None returns one to its default."""
        return await self._kato._ask(calls.configure(self.id, parameters))

    async def info(self) -> JSON:
        """What the service knows of the session: times, metadata, STM length, explicit configuration."""
        return await self._kato._ask(calls.info(self.id))

    async def exists(self) -> bool:
        """Whether the session is alive; looking does not prolong it."""
        return await self._kato._ask(calls.exists(self.id))

    async def extend(self, ttl_seconds: int = 3600) -> JSON:
        """Set the time to live in seconds, counted from now."""
        return await self._kato._ask(calls.extend(self.id, ttl_seconds))

    async def delete(self) -> JSON:
        """End the session; what it taught its node stays."""
        return await self._kato._ask(calls.delete(self.id))
