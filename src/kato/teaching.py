"""What observing and learning do to a session and to the long-term memory of its node."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from kato.engine import learning, naming, observing
from kato.errors import ServiceUnavailable, StorageError, VectorDimensionError
from kato.memory.patience import half
from kato.memory.registry import Memory
from kato.model import PATTERN_PREFIX, Lesson, Observation, Pending, SessionConfig, SessionState
from kato.ops.counters import Counters
from kato.ops.events import EventBus
from kato.results import Batch, BatchItem, BatchObserved, Learned, Observed
from kato.sessions.operations import Operation
from kato.settings import Settings
from kato.stores.sqlite.vectors import distances

NEIGHBOURS = 3
VECTORS_LEFT_OUT = "vectors were left out: {server} does not answer, the observation was taken without them"


class Teaching:
    """Runs the engine on a session's state and makes durable what it wants learned, before anyone sees the state.

    With `outbox` it is only noted as pending in the next state: where other instances change the session too, nobody
    knows yet whether that state comes to be. Once it is stored, `deliver` makes it durable.

    Every method takes the state as it is and returns the next one with the answer. What one request teaches carries
    one operation id, which is the same again when the request is repeated on the same state, and so counts once.

    Where the vectors have a server of their own (`memory.vectors_server`) an observation goes on without its vectors
    while that does not answer, and says so. A learn does not: a pattern never names a vector that is not there.
    """

    def __init__(
        self,
        memory: Memory,
        events: EventBus,
        counters: Counters,
        settings: Settings,
        clock: Callable[[], float],
        *,
        outbox: bool = False,
    ) -> None:
        self._outbox = outbox
        self._memory = memory
        self._events = events
        self._counters = counters
        self._settings = settings
        self._clock = clock

    def check(self, observation: Observation) -> None:
        """All vectors of an observation are added, so they must have one length (the configured one, if any)."""
        expected = self._settings.vector_dimension
        for number, vector in enumerate(observation.vectors):
            expected = len(vector) if expected is None else expected
            if len(vector) != expected:
                raise VectorDimensionError(
                    f"vectors[{number}] has {len(vector)} elements, expected {expected}",
                    expected_dimension=expected,
                    actual_dimension=len(vector),
                    vector_name=f"vectors[{number}]",
                )

    def check_sequence(self, observations: Sequence[Observation]) -> None:
        """`check` for each; the error names the position."""
        for position, observation in enumerate(observations):
            if not observation.vectors:
                continue
            try:
                self.check(observation)
            except VectorDimensionError as error:
                error.details["observation_index"] = position
                raise

    async def observe(
        self, state: SessionState, observation: Observation, config: SessionConfig
    ) -> tuple[SessionState, Observed]:
        """One observation, with the automatic learn it may set off."""
        seen, warnings = await self._see(
            state, observation, config, Operation(state.session_id, state.changes, 0).id
        )
        after, lesson = seen.state, seen.lesson
        if lesson is not None:
            after = await self._keep(after, [lesson])
        return after, Observed(
            session_id=state.session_id,
            node_id=state.node_id,
            unique_id=observation.unique_id or f"obs-{uuid.uuid4().hex}-{int(self._clock() * 1e6)}",
            stm_length=len(after.stm),
            time=after.time,
            auto_learned_pattern=None if lesson is None else PATTERN_PREFIX + lesson.name,
            symbols=seen.event,
            warnings=warnings,
        )

    async def observe_batch(
        self, state: SessionState, batch: Batch, config: SessionConfig
    ) -> tuple[SessionState, BatchObserved]:
        """Many observations in order (behaviour.md 5); everything they teach is stored together at the end."""
        first, lessons, results, names = state, list[Lesson](), list[BatchItem](), list[str]()
        final: str | None = None
        part, lost = 0, tuple[str, ...]()
        for position, observation in enumerate(batch.observations):
            if batch.clear_stm_between and position:
                state = msgspec.structs.replace(state, stm=(), stm_ids=())
            if observation.vectors and lessons and not lost:
                # What this batch has learned so far must be found by its later vectors.
                state, lessons, part = await self._keep(state, lessons), [], part + 1
            operation = Operation(first.session_id, first.changes, part).id
            # A server that did not answer is not asked again: there may be a thousand more vectors.
            seen, warnings = await self._see(state, observation, config, operation, asking=not lost)
            lost = lost or warnings
            state, found = seen.state, [] if seen.lesson is None else [seen.lesson]
            if batch.learn_after_each and state.stm:
                state, lesson = learning.learn(state, config, operation)
                found += [] if lesson is None else [lesson]
            # The manual learn of a step is named before the automatic one (behaviour.md 5).
            names += [PATTERN_PREFIX + lesson.name for lesson in reversed(found)]
            lessons += found
            results.append(
                BatchItem(
                    sequence_position=position,
                    stm_length=len(state.stm),
                    time=state.time,
                    unique_id=observation.unique_id or f"seq-obs-{uuid.uuid4().hex}",
                    auto_learned_pattern=None if seen.lesson is None else PATTERN_PREFIX + seen.lesson.name,
                    warnings=warnings,
                )
            )
        if batch.learn_at_end and state.stm:
            state, lesson = learning.learn(state, config, Operation(first.session_id, first.changes, part).id)
            final = "" if lesson is None else PATTERN_PREFIX + lesson.name
            lessons += [] if lesson is None else [lesson]
            names += [final] if final else []
        if lessons:
            state = await self._keep(state, lessons)
        return state, BatchObserved(
            session_id=state.session_id,
            node_id=state.node_id,
            initial_stm_length=len(first.stm),
            final_stm_length=len(state.stm),
            results=tuple(results),
            patterns=tuple(names),
            final_learned_pattern=final,
            isolated=batch.clear_stm_between,
            warnings=lost,
        )

    async def learn(self, state: SessionState, config: SessionConfig) -> tuple[SessionState, Learned]:
        """Make a pattern of the STM; the name is "" when it held fewer than two symbols."""
        after, lesson = learning.learn(state, config, Operation(state.session_id, state.changes, 0).id)
        after = await self._keep(after, [] if lesson is None else [lesson])
        name = "" if lesson is None else PATTERN_PREFIX + lesson.name
        return after, Learned(session_id=state.session_id, node_id=state.node_id, pattern_name=name)

    async def teach(
        self,
        node_id: str,
        sequences: Sequence[Sequence[Observation]],
        config: SessionConfig,
        operation: str,
    ) -> list[str]:
        """Each sequence as if observed and learned in a session of its own; the full name of each, "" if too short."""
        for number, sequence in enumerate(sequences):
            try:
                self.check_sequence(sequence)
            except VectorDimensionError as error:
                error.details["sequence_index"] = number
                raise
        blank = SessionState(
            session_id=operation, node_id=node_id, created_at=0, last_accessed=0, expires_at=0, ttl_seconds=1
        )
        state, lessons, names, part = blank, list[Lesson](), list[str](), 0
        for sequence in sequences:
            if state.vectors:
                # What was taught before must be found by the vectors of this sequence.
                state, lessons, part = await self._store(state, lessons), [], part + 1
            state, lesson = await self._lesson(state, sequence, config, Operation(operation, 0, part).id)
            names.append("" if lesson is None else PATTERN_PREFIX + lesson.name)
            lessons += [] if lesson is None else [lesson]
        await self._store(state, lessons)
        self._counters.observations += sum(map(len, sequences))
        return names

    async def _lesson(
        self, state: SessionState, sequence: Sequence[Observation], config: SessionConfig, operation: str
    ) -> tuple[SessionState, Lesson | None]:
        limit = self._settings.max_stm_size
        if not any(observation.vectors for observation in sequence):
            return state, observing.lesson_of_sequence(sequence, config, operation, stm_limit=limit)
        for observation in sequence:
            # Nobody would read a warning here, so nothing is left out.
            neighbours = await self._neighbours(state, observation) if observation.vectors else ()
            state = self._observed(state, observation, neighbours, config, operation).state
        return learning.learn(state, config, operation)

    async def _see(
        self,
        state: SessionState,
        observation: Observation,
        config: SessionConfig,
        operation: str,
        *,
        asking: bool = True,
    ) -> tuple[observing.Observed, tuple[str, ...]]:
        """One observation, with warnings: its vectors are left out while their server does not answer.

        Not `asking`: that is known already.
        """
        warnings: tuple[str, ...] = ()
        if observation.vectors:
            neighbours = await self._neighbours_if_possible(state, observation) if asking else None
            if neighbours is not None:
                return self._observed(state, observation, neighbours, config, operation), ()
            observation = msgspec.structs.replace(observation, vectors=())
            warnings = (VECTORS_LEFT_OUT.format(server=self._memory.vectors_server),)
        return self._observed(state, observation, (), config, operation), warnings

    async def _neighbours_if_possible(
        self, state: SessionState, observation: Observation
    ) -> Sequence[str] | None:
        """None when the vectors have a server of their own that does not answer."""
        try:
            with half():
                return await self._neighbours(state, observation)
        except (StorageError, ServiceUnavailable) as error:
            # Unavailable is a server before which too many wait already.
            if self._memory.vectors_server is None or not error.retry_helps:
                raise
            return None

    async def _neighbours(self, state: SessionState, observation: Observation) -> Sequence[str]:
        """The names of the known vectors nearest to the sum of the observation's, nearest first."""
        vector = naming.sum_vectors(observation.vectors)
        nearest = await self._memory.vectors.nearest(state.node_id, vector, NEIGHBOURS)
        if state.pending is not None and state.pending.vectors:
            nearest = await self._among(state, vector, nearest)
        return [name for name, _ in nearest]

    def _observed(
        self,
        state: SessionState,
        observation: Observation,
        neighbours: Sequence[str],
        config: SessionConfig,
        operation: str,
    ) -> observing.Observed:
        return observing.observe(
            state, observation, neighbours, config, operation, stm_limit=self._settings.max_stm_size
        )

    async def _among(
        self, state: SessionState, vector: Sequence[float], stored: list[tuple[str, float]]
    ) -> list[tuple[str, float]]:
        """The nearest of the stored vectors (`stored`) and the pending ones, as if these were stored already."""
        assert state.pending is not None
        waiting = state.pending.vectors
        dimension = len(waiting[0][1])
        if not stored:
            async for batch in self._memory.vectors.scan(state.node_id):
                # The node has vectors, none of them of this length: it accepts none of the pending ones.
                dimension = len(batch[0][1])
                break
        if len(vector) != dimension:
            return stored
        fitting = [(name, content) for name, content in waiting if len(content) == dimension]
        matrix = np.array([content for _, content in fitting], dtype=np.float64).reshape(-1, dimension)
        measured = distances(matrix, np.array(vector, dtype=np.float64)).tolist()
        found = dict(zip((name for name, _ in fitting), measured, strict=True)) | dict(stored)
        return sorted(found.items(), key=lambda pair: (pair[1], pair[0]))[:NEIGHBOURS]

    async def _keep(self, state: SessionState, lessons: Sequence[Lesson]) -> SessionState:
        """Make lessons durable, or note them as pending."""
        if not self._outbox:
            return await self._store(state, lessons)
        if not lessons and not state.vectors:
            return state
        noted = state.pending or Pending()
        pending = Pending((*noted.lessons, *lessons), (*noted.vectors, *state.vectors))
        return msgspec.structs.replace(state, vectors=(), pending=pending)

    async def deliver(self, state: SessionState) -> None:
        """Make durable what is pending in `state`; once or many times comes to the same."""
        pending = state.pending or Pending()
        # The rest of the time is for taking it back.
        with half():
            await self._store(msgspec.structs.replace(state, vectors=pending.vectors), pending.lessons)

    async def _store(self, state: SessionState, lessons: Sequence[Lesson]) -> SessionState:
        """Make lessons durable (vectors first: a pattern never names a vector that is not there)."""
        if state.vectors:
            await self._memory.vectors.put(state.node_id, dict(state.vectors))
            state = msgspec.structs.replace(state, vectors=())
        if lessons:
            learned = await (await self._memory.node(state.node_id)).learn(lessons)
            self._counters.patterns_learned += len(lessons)
            for lesson in lessons:
                if learned[lesson.name].forgotten:
                    # It was learned and deleted already.
                    continue
                self._events.publish(
                    "pattern.learned",
                    {
                        "pattern_name": PATTERN_PREFIX + lesson.name,
                        "session_id": state.session_id,
                        "frequency": learned[lesson.name].frequency,
                    },
                )
        return state
