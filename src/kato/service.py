"""The use cases of KATO, one method per verb; the only caller of engine, memory and sessions.

Every surface (HTTP, WebSocket, embedded) decodes its request, calls one method here and encodes the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec

from kato import errors
from kato.engine import configuration, naming, observing
from kato.memory.node import Node
from kato.memory.registry import Memory
from kato.model import (
    Emotives,
    Events,
    Observation,
    Pattern,
    Predictions,
    SessionConfig,
    SessionState,
    SymbolStatistics,
    Totals,
)
from kato.ops.counters import Counters
from kato.ops.events import EventBus
from kato.ops.health import Health
from kato.ops.series import Series
from kato.results import (
    Batch,
    BatchObserved,
    Existence,
    Finalized,
    Learned,
    Observed,
    PatternPage,
)
from kato.sessions.keeper import Sessions
from kato.sessions.once import Change, once
from kato.sessions.shared import SharedSessions
from kato.settings import Settings
from kato.stores.ports import SessionPage
from kato.teaching import Teaching

T = TypeVar("T", bound=msgspec.Struct)

NEIGHBOURS = 3
Stale: TypeAlias = bool
"""Whether what comes with it may lack what was learned elsewhere: the node could not be brought up to date."""


class Kato:
    """Everything a client can ask for.

    All methods are coroutines to be called on one event loop and raise only `kato.errors`; a call that raises has
    changed nothing unless its docstring says otherwise.
    """

    def __init__(
        self,
        settings: Settings,
        sessions: Sessions,
        memory: Memory,
        events: EventBus,
        counters: Counters,
        clock: Callable[[], float] = time.time,
        health: Health | None = None,
    ) -> None:
        self.settings = settings
        self.sessions = sessions
        self.memory = memory
        self.events = events
        self.counters = counters
        self.series = Series()
        self.clock = clock
        self.health = health or Health({}, events, clock)
        self.started_at = clock()
        self.defaults = settings.defaults()
        self._config_of_new: dict[str, Any] = {}
        self.teaching = Teaching(memory, events, counters, settings, clock, outbox=not sessions.exclusive)
        if isinstance(sessions, SharedSessions):
            sessions.deliver = self.teaching.deliver

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return max(0.0, self.clock() - self.started_at)

    # Sessions --------------------------------------------------------------------------------

    async def create_session(
        self,
        node_id: str | None = None,
        *,
        metadata: dict[str, Any] | None = None,
        ttl_seconds: int | None = None,
        config: dict[str, Any] | None = None,
    ) -> SessionState:
        """Open a new session on `node_id` (None: the instance's own node)."""
        explicit = self._config_of_new | self._validated(config or {})
        return await self.sessions.create(
            node_id=self.settings.base if node_id is None else node_id,
            user_id=node_id,
            metadata=metadata or {},
            ttl_seconds=self.settings.session_ttl if ttl_seconds is None else ttl_seconds,
            config=explicit,
        )

    async def default_session(self) -> str:
        """The id of the instance's one session for v1 clients, created when there is none."""
        return await self.sessions.default(self._config_of_new)

    async def session(self, session_id: str) -> SessionState:
        """The state of a session; counts as an access and prolongs it."""
        return await self.sessions.get(session_id)

    async def peek(self, session_id: str) -> SessionState | None:
        """The state of a session if it is alive; looking does not prolong it."""
        return await self.sessions.peek(session_id)

    async def exists(self, session_id: str) -> Existence:
        """Look without prolonging."""
        return await self.sessions.exists(session_id)

    async def list_sessions(
        self,
        limit: int = 100,
        cursor: str | None = None,
        node_id: str | None = None,
        include_expired: bool = False,
    ) -> SessionPage:
        """A page of sessions in ascending order of id."""
        return await self.sessions.page(limit, cursor, node_id, include_expired)

    async def count_sessions(self) -> int:
        """How many sessions are alive."""
        return await self.sessions.count()

    async def extend(self, session_id: str, ttl_seconds: int) -> SessionState:
        """Set the session's time to live, counted from now."""
        return await self.sessions.extend(session_id, ttl_seconds)

    async def delete_session(self, session_id: str) -> None:
        """End a session; what it has taught its node stays."""
        await self.sessions.delete(session_id)

    def processor_id(self, node_id: str) -> str:
        """The label of a node in answers (the "cleaned database name" of v2.0); never a key."""
        base = self.settings.base
        return base if node_id == base else naming.processor_id(node_id, base)

    # Configuration --------------------------------------------------------------------------------

    def configuration(self, state: SessionState) -> SessionConfig:
        """The configuration in force for a session."""
        return configuration.resolve(self.defaults, state.config) if state.config else self.defaults

    async def configure(self, session_id: str, values: dict[str, Any]) -> SessionState:
        """Set configuration values of a session, all or none; null returns a parameter to its default."""
        explicit = self._validated(values)

        async def change(state: SessionState) -> tuple[SessionState, SessionState]:
            config = {k: v for k, v in {**state.config, **explicit}.items() if v is not None}
            changed = msgspec.structs.replace(state, config=config)
            return changed, changed

        return await self.sessions.change(session_id, change)

    async def update_genes(self, session_id: str | None, genes: dict[str, Any]) -> SessionState:
        """v1 and v2.0 configuration: a closed list, all or nothing.

        Without a session id the default session changes and the values become the defaults of new sessions until
        the restart.
        """
        values, inert, problems = configuration.validate_genes(genes)
        if problems:
            kind = (
                errors.UnknownGene
                if set(problems) - set(configuration.GENES)
                else errors.ConfigurationInvalid
            )
            raise kind(
                "; ".join(f"{k}: {reason}" for k, reason in sorted(problems.items())),
                validation_errors=problems,
            )

        async def change(state: SessionState) -> tuple[SessionState, SessionState]:
            changed = msgspec.structs.replace(state, config={**state.config, **values, **inert})
            return changed, changed

        state = await self.sessions.change(session_id or await self.default_session(), change)
        if session_id is None:
            self._config_of_new |= values
        return state

    def _validated(self, values: dict[str, Any]) -> dict[str, Any]:
        explicit, problems = configuration.validate(values)
        if problems:
            raise errors.ConfigurationInvalid(
                "Configuration validation failed: "
                + "; ".join(f"{k}: {v}" for k, v in sorted(problems.items())),
                validation_errors=problems,
            )
        return explicit

    # Observing and learning --------------------------------------------------------------------------------

    async def observe(self, session_id: str, observation: Observation, key: str | None = None) -> Observed:
        """Show a session one observation; a call repeated with the same `key` returns the first answer.

        `warnings` in the answer say what was left out because a server did not answer. An automatic learn is never
        left out: when it cannot be done, the observation is refused.
        """
        self.teaching.check(observation)
        shown = 0

        async def change(state: SessionState) -> tuple[SessionState, Observed]:
            nonlocal shown
            outcome = await self.teaching.observe(state, observation, self.configuration(state))
            shown = 1
            return outcome

        observed = await self._once(session_id, key, observation, Observed, change)
        self.counters.observations += shown
        return observed

    async def observe_sequence(self, session_id: str, batch: Batch, key: str | None = None) -> BatchObserved:
        """Show a session many observations in order: the session takes all of them or none.

        Patterns that a batch learns are stored together at its end, before the session changes.
        """
        self.teaching.check_sequence(batch.observations)

        shown = 0

        async def change(state: SessionState) -> tuple[SessionState, BatchObserved]:
            nonlocal shown
            outcome = await self.teaching.observe_batch(state, batch, self.configuration(state))
            shown = len(batch.observations)
            return outcome

        observed = await self._once(session_id, key, batch, BatchObserved, change)
        self.counters.observations += shown
        return observed

    async def learn(self, session_id: str, key: str | None = None, *, refuse_empty: bool = True) -> Learned:
        """Make a pattern of the STM. An empty STM raises `EmptySTM` unless `refuse_empty` is false (v1)."""

        async def change(state: SessionState) -> tuple[SessionState, Learned]:
            if not state.stm and refuse_empty:
                raise errors.EmptySTM("Cannot learn from empty STM", session_id=session_id)
            return await self.teaching.learn(state, self.configuration(state))

        return await self._once(session_id, key, None, Learned, change)

    async def teach(
        self, node_id: str | None, sequences: Sequence[Sequence[Observation]], operation: str
    ) -> list[str]:
        """Learn many sequences at once, each as if observed and learned in a session of its own.

        All become durable together; repeated with the same `operation` they count once. Returns the full
        pattern name of each sequence, "" where it held fewer than two symbols. The instance's default
        configuration applies.
        """
        node_id = self.settings.base if node_id is None else node_id
        config = msgspec.structs.replace(self.defaults, max_pattern_length=0)
        return await self.teaching.teach(node_id, sequences, config, operation)

    async def clear_stm(self, session_id: str) -> SessionState:
        """Empty the STM and the accumulators, set the time to 0; patterns stay."""

        async def change(state: SessionState) -> tuple[SessionState, SessionState]:
            after = observing.clear_stm(state)
            return after, after

        return await self.sessions.change(session_id, change)

    async def clear_all(self, session_id: str) -> SessionState:
        """Delete everything the session's node has learned, then clear the session's STM."""

        async def change(state: SessionState) -> tuple[SessionState, SessionState]:
            await self.memory.drop(state.node_id)
            after = msgspec.structs.replace(observing.clear_stm(state), vectors=())
            return after, after

        # Delivered afterwards, it would come back.
        await self.sessions.deliver_pending(session_id)
        return await self.sessions.change(session_id, change)

    async def _once(
        self,
        session_id: str,
        key: str | None,
        request: msgspec.Struct | None,
        result: type[T],
        change: Change[T],
    ) -> T:
        once_only = change if key is None else once(key, request, result, change, self.clock)
        return await self.sessions.change(session_id, once_only)

    # Predicting --------------------------------------------------------------------------------

    async def predictions(
        self, session_id: str, unique_id: str | None = None
    ) -> tuple[Predictions, SessionState]:
        """What the session's STM resembles; with `unique_id`, the STM as it was right after that observation.

        An observation is known by the id its caller gave it as long as its event is in the STM.
        """
        state = await self.sessions.get(session_id)
        events = state.stm
        if unique_id is not None:
            if unique_id not in state.stm_ids:
                raise errors.NotFound(
                    f"No observation {unique_id!r} in the short-term memory of this session",
                    unique_id=unique_id,
                )
            events = events[: state.stm_ids.index(unique_id) + 1]
        predictions = await self._predict(state, events)
        self.counters.predictions += 1
        return predictions, state

    async def _predict(self, state: SessionState, events: Events) -> Predictions:
        if not events:
            return Predictions()
        node = await self.memory.fresh(state.node_id)
        return await node.predict(events, self.configuration(state), refreshed=True)

    async def percept_data(self, session_id: str) -> tuple[dict[str, Any], SessionState]:
        """What the session perceived last."""
        state = await self.sessions.get(session_id)
        return observing.percept_data(state), state

    async def cognition_data(self, session_id: str) -> tuple[dict[str, Any], SessionState]:
        """What the session makes of it: predictions of the latest observation (perhaps `stale`), emotives, symbols."""
        state = await self.sessions.get(session_id)
        found = Predictions()
        if self.configuration(state).process_predictions:
            found = await self._predict(state, observing.observed_state(state))
        data = observing.cognition_data(state, found.predictions)
        return data | ({"stale": True} if found.stale else {}), state

    # Long-term memory --------------------------------------------------------------------------------

    async def _fresh(self, node_id: str | None) -> Node:
        return await self.memory.fresh(self.settings.base if node_id is None else node_id)

    async def _node(self, node_id: str | None) -> Node:
        return await self.memory.node(self.settings.base if node_id is None else node_id)

    async def finalize_training(self, session_id: str) -> tuple[Finalized, SessionState]:
        """From now on the entropies and tf-idf of the node's present patterns are those of the whole pattern."""
        state = await self.sessions.get(session_id)
        started = time.perf_counter()
        covered = await (await self.memory.node(state.node_id)).finalize()
        return Finalized(covered, (time.perf_counter() - started) * 1000), state

    async def get_pattern(self, node_id: str | None, name: str) -> Pattern:
        """A pattern by its name, with or without `PTRN|`; `PatternNotFound` when the node has none."""
        return await (await self._node(node_id)).pattern(name)

    async def list_patterns(
        self,
        node_id: str | None,
        limit: int = 100,
        cursor: str | None = None,
        symbol: str | None = None,
        min_frequency: int = 0,
    ) -> PatternPage:
        """A page of a node's patterns in ascending order of name, those that hold `symbol` if one is given."""
        return await (await self._node(node_id)).page(limit, cursor, symbol, min_frequency)

    async def update_pattern(
        self,
        node_id: str | None,
        name: str,
        *,
        frequency: int | None = None,
        emotives: dict[str, Sequence[float]] | Sequence[Emotives] | None = None,
    ) -> Pattern:
        """Change a pattern's frequency or emotives; parts left out stay as they are."""
        return await (await self._node(node_id)).update(name, frequency, emotives, self.defaults.persistence)

    async def delete_pattern(self, node_id: str | None, name: str) -> str:
        """Remove a pattern and all its influence; returns its bare name."""
        return await (await self._node(node_id)).delete(name)

    async def symbol_statistics(self, node_id: str | None) -> tuple[list[SymbolStatistics], Stale]:
        """Every symbol the node has learned, ascending."""
        node = await self._fresh(node_id)
        return node.symbol_statistics(), node.stale

    async def affinities(self, node_id: str | None) -> tuple[dict[str, Emotives], Stale]:
        """The affinity of every symbol that has one."""
        node = await self._fresh(node_id)
        return node.affinities(), node.stale

    async def affinity(self, node_id: str | None, symbol: str) -> tuple[Emotives, Stale]:
        """The summed emotives of a symbol over the patterns that hold it; empty when there are none."""
        node = await self._fresh(node_id)
        return node.affinity(symbol), node.stale

    async def totals(self, node_id: str | None) -> Totals:
        """Figures of the whole node."""
        return (await self._fresh(node_id)).totals()

    async def close(self) -> None:
        """Stop in order: sessions first (they hold unsaved accesses), then long-term memory, then events."""
        await self.health.close()
        await self.sessions.close()
        await self.memory.close()
        await self.events.close()
