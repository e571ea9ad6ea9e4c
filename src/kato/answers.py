"""What clients read: the wire shapes of the session vocabularies (v2, v3) and of the embedded API.

HTTP encodes these Structs, the embedded API shows them: the same call has the same JSON on both ways.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from kato import model
from kato.engine import configuration
from kato.results import BatchObserved, Existence, Finalized, Learned, Observed
from kato.service import Kato
from kato.stores.ports import SessionPage

Warnings: TypeAlias = tuple[str, ...] | UnsetType
"""What was left out, a sentence each; not in the JSON when nothing was."""
Stale: TypeAlias = bool | UnsetType
"""True when the answer may lack what was learned elsewhere, because a server is down; else not in the JSON."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all answers."""


class ObserveAnswer(Answer, frozen=True, kw_only=True):
    """What one observation did; `warnings` say what of it was left out because a server did not answer."""

    status: str
    session_id: str
    processor_id: str
    stm_length: int
    time: int
    unique_id: str
    auto_learned_pattern: str | None
    warnings: Warnings = UNSET


class SequenceItem(Answer, frozen=True, kw_only=True):
    """What one observation of a batch did."""

    status: str
    sequence_position: int
    stm_length: int
    time: int
    unique_id: str
    auto_learned_pattern: str | None
    warnings: Warnings = UNSET


class SequenceAnswer(Answer, frozen=True, kw_only=True):
    """What a batch did; `warnings` are those of all its items."""

    status: str
    session_id: str
    processor_id: str
    observations_processed: int
    initial_stm_length: int
    final_stm_length: int
    results: tuple[SequenceItem, ...]
    auto_learned_patterns: tuple[str, ...]
    final_learned_pattern: str | None
    isolated: bool
    warnings: Warnings = UNSET


class LearnAnswer(Answer, frozen=True, kw_only=True):
    """The learned pattern; an empty name when the STM held fewer than two symbols."""

    status: str
    pattern_name: str
    session_id: str
    processor_id: str
    message: str


class StmAnswer(Answer, frozen=True, kw_only=True):
    """The short-term memory, oldest event first."""

    stm: model.Events
    session_id: str
    length: int


class ClearAnswer(Answer, frozen=True, kw_only=True):
    """What was emptied."""

    status: str
    session_id: str
    scope: str
    message: str


class PredictionsAnswer(Answer, frozen=True, kw_only=True):
    """Ranked predictions, best first, and the futures they add up to.

    `stale` is true when they may lack what was learned elsewhere, because a server is down.
    """

    predictions: tuple[model.Prediction, ...]
    future_potentials: tuple[model.FuturePotential, ...]
    session_id: str
    count: int
    time: float | None = None
    stale: Stale = UNSET


class SessionAnswer(Answer, frozen=True, kw_only=True):
    """A session as its owner sees it; `session_config` holds what was set explicitly."""

    session_id: str
    user_id: str | None
    node_id: str
    processor_id: str
    created_at: str
    last_accessed: str
    expires_at: str
    ttl_seconds: int
    access_count: int
    stm_length: int
    time: int
    metadata: dict[str, Any]
    session_config: dict[str, Any]


class SessionListAnswer(Answer, frozen=True, kw_only=True):
    """A page of sessions in ascending order of id; `total` counts all that fit."""

    sessions: tuple[SessionAnswer, ...]
    count: int
    total: int
    next_cursor: str | None


class SessionCountAnswer(Answer, frozen=True, kw_only=True):
    """How many sessions are alive."""

    active_session_count: int


class ExistsAnswer(Answer, frozen=True, kw_only=True):
    """Whether a session is alive; looking does not prolong it."""

    exists: bool
    expired: bool
    session_id: str


class DeletedAnswer(Answer, frozen=True, kw_only=True):
    """The session is gone; what it taught stays."""

    status: str
    session_id: str


class ExtendedAnswer(Answer, frozen=True, kw_only=True):
    """The new end of a session."""

    status: str
    session_id: str
    ttl_seconds: int
    expires_at: str


class ConfigAnswer(Answer, frozen=True, kw_only=True):
    """Every parameter with its value in force."""

    session_id: str
    config: dict[str, Any]


class ConfiguredAnswer(Answer, frozen=True, kw_only=True):
    """All given values were set."""

    status: str
    message: str
    session_id: str


class PerceptAnswer(Answer, frozen=True, kw_only=True):
    """What the session perceived last."""

    percept_data: dict[str, Any]
    session_id: str
    user_id: str | None
    node_id: str


class CognitionAnswer(Answer, frozen=True, kw_only=True):
    """What the session makes of it; in it `stale` is true under the same circumstances as beside predictions."""

    cognition_data: dict[str, Any]
    session_id: str
    user_id: str | None
    node_id: str


class FinalizedAnswer(Answer, frozen=True, kw_only=True):
    """How many patterns were covered."""

    status: str
    patterns_processed: int
    time_ms: float
    session_id: str
    node_id: str
    message: str


# From results ---------------------------------------------------------------------------------------------


def stamp(seconds: float) -> str:
    """Epoch seconds as ISO-8601 in UTC.

    >>> stamp(0)
    '1970-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def observed(kato: Kato, result: Observed, status: str = "okay") -> ObserveAnswer:
    """The answer to an observation."""
    return ObserveAnswer(
        status=status,
        session_id=result.session_id,
        processor_id=kato.processor_id(result.node_id),
        stm_length=result.stm_length,
        time=result.time,
        unique_id=result.unique_id,
        auto_learned_pattern=result.auto_learned_pattern,
        warnings=result.warnings or UNSET,
    )


def sequence(kato: Kato, result: BatchObserved, status: str = "okay") -> SequenceAnswer:
    """The answer to a batch; `status` is that of its items."""
    return SequenceAnswer(
        status="completed",
        session_id=result.session_id,
        processor_id=kato.processor_id(result.node_id),
        observations_processed=len(result.results),
        initial_stm_length=result.initial_stm_length,
        final_stm_length=result.final_stm_length,
        results=tuple(
            SequenceItem(
                status=status,
                sequence_position=item.sequence_position,
                stm_length=item.stm_length,
                time=item.time,
                unique_id=item.unique_id,
                auto_learned_pattern=item.auto_learned_pattern,
                warnings=item.warnings or UNSET,
            )
            for item in result.results
        ),
        auto_learned_patterns=result.patterns,
        final_learned_pattern=result.final_learned_pattern,
        isolated=result.isolated,
        warnings=result.warnings or UNSET,
    )


def learn_message(name: str) -> str:
    """What a learn did, in words."""
    return f"Learned pattern: {name}" if name else "Insufficient data for learning"


def learned(kato: Kato, result: Learned) -> LearnAnswer:
    """The answer to a learn."""
    return LearnAnswer(
        status="learned",
        pattern_name=result.pattern_name,
        session_id=result.session_id,
        processor_id=kato.processor_id(result.node_id),
        message=learn_message(result.pattern_name),
    )


def stm(state: model.SessionState) -> StmAnswer:
    """The short-term memory of a session."""
    return StmAnswer(stm=state.stm, session_id=state.session_id, length=len(state.stm))


def cleared(state: model.SessionState, scope: str) -> ClearAnswer:
    """The answer to clear-stm (`scope` "stm") and clear-all ("all")."""
    return ClearAnswer(status="cleared", session_id=state.session_id, scope=scope, message=f"{scope}-cleared")


def predictions(
    found: model.Predictions, state: model.SessionState, limit: int | None = None
) -> PredictionsAnswer:
    """The predictions of a session, at most `limit`."""
    ranked = found.predictions if limit is None else found.predictions[:limit]
    return PredictionsAnswer(
        predictions=ranked,
        future_potentials=found.future_potentials,
        session_id=state.session_id,
        count=len(ranked),
        stale=found.stale or UNSET,
    )


def session(kato: Kato, state: model.SessionState) -> SessionAnswer:
    """A session."""
    return SessionAnswer(
        session_id=state.session_id,
        user_id=state.user_id,
        node_id=state.node_id,
        processor_id=kato.processor_id(state.node_id),
        created_at=stamp(state.created_at),
        last_accessed=stamp(state.last_accessed),
        expires_at=stamp(state.expires_at),
        ttl_seconds=state.ttl_seconds,
        access_count=state.access_count,
        stm_length=len(state.stm),
        time=state.time,
        metadata=state.metadata,
        session_config=state.config,
    )


def sessions(kato: Kato, page: SessionPage) -> SessionListAnswer:
    """A page of sessions."""
    return SessionListAnswer(
        sessions=tuple(session(kato, state) for state in page.sessions),
        count=len(page.sessions),
        total=page.total,
        next_cursor=page.cursor,
    )


def existence(session_id: str, found: Existence) -> ExistsAnswer:
    """Whether a session is alive."""
    return ExistsAnswer(exists=found.exists, expired=found.expired, session_id=session_id)


def extended(state: model.SessionState) -> ExtendedAnswer:
    """The answer to an extension."""
    return ExtendedAnswer(
        status="extended",
        session_id=state.session_id,
        ttl_seconds=state.ttl_seconds,
        expires_at=stamp(state.expires_at),
    )


def config(kato: Kato, state: model.SessionState) -> ConfigAnswer:
    """The configuration in force."""
    return ConfigAnswer(
        session_id=state.session_id, config=configuration.listing(kato.configuration(state), state.config)
    )


def configured(state: model.SessionState) -> ConfiguredAnswer:
    """The answer to a change of configuration."""
    return ConfiguredAnswer(status="okay", message="Configuration updated", session_id=state.session_id)


def percept(data: dict[str, Any], state: model.SessionState) -> PerceptAnswer:
    """What the session perceived last."""
    return PerceptAnswer(
        percept_data=data, session_id=state.session_id, user_id=state.user_id, node_id=state.node_id
    )


def cognition(data: dict[str, Any], state: model.SessionState) -> CognitionAnswer:
    """What the session makes of it."""
    return CognitionAnswer(
        cognition_data=data, session_id=state.session_id, user_id=state.user_id, node_id=state.node_id
    )


def finalized(result: Finalized, state: model.SessionState) -> FinalizedAnswer:
    """The answer to finalize-training."""
    return FinalizedAnswer(
        status="completed",
        patterns_processed=result.patterns_processed,
        time_ms=result.time_ms,
        session_id=state.session_id,
        node_id=state.node_id,
        message=f"Finalized {result.patterns_processed} patterns",
    )
