"""From an observation to the session's next state: event, STM, accumulators, automatic learning (3, 4,
6.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from kato.engine.learning import average, learn, make_lesson
from kato.engine.matching import flatten
from kato.engine.naming import sum_vectors, vector_name
from kato.model import Event, Events, Lesson, Observation, Prediction, SessionConfig, SessionState

STM_LIMIT = 1000
ACCUMULATOR_LIMIT = 1000


class Observed(msgspec.Struct, frozen=True):
    """What one observation did.

    `state` is the session's state after it, `event` what was appended to the STM (empty: nothing was),
    `lesson` what automatic learning wants stored, if anything.
    """

    state: SessionState
    event: Event
    lesson: Lesson | None = None


def observe(
    state: SessionState,
    observation: Observation,
    neighbours: Sequence[str],
    config: SessionConfig,
    operation: str,
    *,
    stm_limit: int = STM_LIMIT,
    accumulator_limit: int = ACCUMULATOR_LIMIT,
) -> Observed:
    """Show a session one observation (3.1, 6.4).

    `neighbours` are the names of the up to 3 stored vectors nearest to the sum of the observation's
    vectors, nearest first. `config` is the configuration in force, `operation` the id of an automatic
    learn. Revision and times of the state are the caller's. Raises ValueError when the vectors have unequal
    lengths.
    """
    event, vectors = _event(state, observation, neighbours, config.sort_symbols)
    emotives, metadata = state.emotives, state.observed_metadata
    if observation.emotives:
        emotives = (*emotives, {key: float(value) for key, value in observation.emotives.items()})
    if observation.metadata:
        metadata = (*metadata, observation.metadata)
    state = msgspec.structs.replace(
        state,
        stm=(*state.stm, event) if event else state.stm,
        stm_ids=_identifiers(state, observation.unique_id) if event else state.stm_ids,
        observed=None if event else state.observed,
        emotives=emotives,
        observed_metadata=metadata,
        time=state.time + 1,
        percept=Observation(
            strings=tuple(sorted(observation.strings)),
            vectors=observation.vectors,
            emotives=average(emotives) if emotives else {},
            metadata=observation.metadata,
        ),
        vectors=vectors,
    )
    lesson = None
    if event:
        state, lesson = _learn_when_full(state, config, operation)
    return Observed(_trimmed(state, stm_limit, accumulator_limit), event, lesson)


def lesson_of_sequence(
    observations: Sequence[Observation],
    config: SessionConfig,
    operation: str,
    *,
    stm_limit: int = STM_LIMIT,
    accumulator_limit: int = ACCUMULATOR_LIMIT,
) -> Lesson | None:
    """What a session would learn that shows observations without vectors to an empty STM and then learns.

    The same as `observe` for each and `learning.learn` at the end, without the states in between: what bulk learning
    needs. None when the sequence has fewer than two symbols.

    >>> lesson_of_sequence([Observation(strings=("b", "a")), Observation(strings=("c",))], SessionConfig(), "x").events
    (('a', 'b'), ('c',))
    """
    ordered = sorted if config.sort_symbols else tuple
    events = tuple([tuple(ordered(o.strings)) for o in observations if o.strings])[-stm_limit:]
    emotives = [{key: float(value) for key, value in o.emotives.items()} for o in observations if o.emotives]
    metadata = [o.metadata for o in observations if o.metadata]
    return make_lesson(
        events, tuple(emotives[-accumulator_limit:]), metadata[-accumulator_limit:], config, operation
    )


def _event(
    state: SessionState, observation: Observation, neighbours: Sequence[str], sort: bool
) -> tuple[Event, tuple[tuple[str, tuple[float, ...]], ...]]:
    """The event of an observation, and the vectors that wait for the next learn (3.1 steps 1 to 3, 3.3)."""
    strings = sorted(observation.strings) if sort else observation.strings
    if not observation.vectors:
        return tuple(strings), state.vectors
    vector = sum_vectors(observation.vectors)
    own = vector_name(vector)
    names = list(dict.fromkeys([*neighbours, own]))
    waiting = state.vectors
    if all(name != own for name, _ in waiting):
        waiting = (*waiting, (own, vector))
    return (*(sorted(names) if sort else names), *strings), waiting


def _identifiers(state: SessionState, unique_id: str | None) -> tuple[str, ...]:
    if not unique_id and not state.stm_ids:
        return ()
    return (*(state.stm_ids or ("",) * len(state.stm)), unique_id or "")


def _learn_when_full(
    state: SessionState, config: SessionConfig, operation: str
) -> tuple[SessionState, Lesson | None]:
    """Automatic learning once the STM has max_pattern_length events (6.4)."""
    limit = config.max_pattern_length
    if not 0 < limit <= len(state.stm):
        return state, None
    after, lesson = learn(state, config, operation)
    if config.stm_mode == "ROLLING" and limit > 1:
        after = msgspec.structs.replace(after, stm=state.stm[1 - limit :], stm_ids=state.stm_ids[1 - limit :])
    return after, lesson


def _trimmed(state: SessionState, stm_limit: int, accumulator_limit: int) -> SessionState:
    """The state with only the latest entries of what would otherwise grow without end (2)."""
    if (
        len(state.stm) <= stm_limit
        and len(state.emotives) <= accumulator_limit
        and len(state.observed_metadata) <= accumulator_limit
    ):
        return state
    return msgspec.structs.replace(
        state,
        stm=state.stm[-stm_limit:],
        stm_ids=state.stm_ids[-stm_limit:],
        emotives=state.emotives[-accumulator_limit:],
        observed_metadata=state.observed_metadata[-accumulator_limit:],
    )


def clear_stm(state: SessionState) -> SessionState:
    """The state with empty STM and accumulators, time 0 and no percept; vectors and configuration stay
    (4)."""
    return msgspec.structs.replace(
        state, stm=(), stm_ids=(), observed=None, emotives=(), observed_metadata=(), time=0, percept=None
    )


def observed_state(state: SessionState) -> Events:
    """The STM right after the latest observation, before a learn took it: its predictions' state."""
    return state.stm if state.observed is None else state.observed


def percept_data(state: SessionState) -> dict[str, Any]:
    """What was perceived last: {} before the first observation and after clear_stm (3.5).

    Strings are sorted; emotives are the average of the whole accumulator at that moment.
    """
    percept = state.percept
    if percept is None:
        return {}
    return {
        "strings": list(percept.strings),
        "vectors": [list(vector) for vector in percept.vectors],
        "emotives": percept.emotives,
        "path": [],
        "metadata": percept.metadata,
    }


def cognition_data(state: SessionState, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The session's present thoughts; `predictions` are those of the latest observation (3.5)."""
    return {
        "predictions": list(predictions),
        "emotives": state.emotives[-1] if state.emotives else {},
        "symbols": list(flatten(state.stm)),
        "command": "",
        "metadata": {},
        "path": [],
        "strings": [],
        "vectors": [],
        "short_term_memory": [list(event) for event in state.stm],
        "time": state.time,
    }
