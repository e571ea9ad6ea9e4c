"""How the process is doing: health, status, figures."""

from __future__ import annotations

import os
import resource
import shutil
from datetime import UTC, datetime
from typing import Any

from kato import answers
from kato.api import health, v1
from kato.api.health import live_sessions
from kato.api.instance import release
from kato.api.routing import Call, Route
from kato.engine import configuration
from kato.ops import process
from kato.service import Kato

TAG = "monitoring"
DESCRIPTION = "A memory that predicts: deterministic, explainable, editable."


class SessionFigures(answers.Answer, frozen=True, kw_only=True):
    """Sessions since the start."""

    total_sessions: int
    active_sessions: int
    expired_sessions: int
    backend: str


class ProcessorFigures(answers.Answer, frozen=True, kw_only=True):
    """An open long-term memory."""

    processor_id: str
    node_id: str
    patterns: int


class ProcessorsFigures(answers.Answer, frozen=True, kw_only=True):
    """The open long-term memories."""

    total_processors: int
    max_processors: int
    processors: tuple[ProcessorFigures, ...]


class StatusAnswer(answers.Answer, frozen=True, kw_only=True):
    """What the process is busy with."""

    status: str
    processor_id: str
    processor_name: str
    base_processor_id: str
    pid: int
    uptime: float
    uptime_seconds: float
    stm_length: int
    time: int
    session_id: str | None
    sessions: SessionFigures
    processors: ProcessorsFigures
    configuration: dict[str, Any]
    version: str


class MetricsAnswer(answers.Answer, frozen=True, kw_only=True):
    """Figures since the start."""

    processor_id: str
    observations_processed: int
    patterns_learned: int
    predictions_generated: int
    stm_size: int
    uptime_seconds: float


class SummaryAnswer(answers.Answer, frozen=True, kw_only=True):
    """Figures since the start, grouped."""

    timestamp: str
    uptime_seconds: float
    active_sessions: int
    sessions: dict[str, int]
    performance: dict[str, float]
    operations: dict[str, int]
    errors_by_code: dict[str, int]
    resources: dict[str, float]
    rates: dict[str, float]


class RootAnswer(answers.Answer, frozen=True, kw_only=True):
    """What this is."""

    service: str
    version: str
    description: str
    docs: str | None
    health: str
    status: str
    uptime_seconds: float
    architecture: str
    session_support: bool


class PingAnswer(answers.Answer, frozen=True, kw_only=True):
    """Here I am."""

    status: str
    processor_id: str


async def status(call: Call) -> StatusAnswer:
    """The process, and the session the call names (else the default one)."""
    kato, settings = call.kato, call.settings
    named = v1.named_session(call)
    active, length, ticks = await live_sessions(kato)
    if named is not None:
        state = await kato.session(named)
        call.session_id, length, ticks = named, len(state.stm), state.time
    return StatusAnswer(
        status="okay",
        processor_id=kato.processor_id(settings.base),
        processor_name=settings.processor_name,
        base_processor_id=settings.base,
        pid=os.getpid(),
        uptime=kato.uptime,
        uptime_seconds=kato.uptime,
        stm_length=length,
        time=ticks,
        session_id=named,
        sessions=SessionFigures(
            total_sessions=kato.counters.sessions_created,
            active_sessions=active,
            expired_sessions=kato.counters.sessions_expired,
            backend="sqlite" if settings.kato_store == "embedded" else "redis",
        ),
        processors=_processors(kato),
        configuration=configuration.listing(kato.defaults),
        version=release(),
    )


def _processors(kato: Kato) -> ProcessorsFigures:
    opened = kato.memory.open_nodes
    return ProcessorsFigures(
        total_processors=len(opened),
        max_processors=kato.memory.max_nodes,
        processors=tuple(
            ProcessorFigures(
                processor_id=kato.processor_id(node_id),
                node_id=node_id,
                patterns=node.totals().unique_patterns,
            )
            for node_id, node in opened.items()
        ),
    )


async def metrics(call: Call) -> MetricsAnswer:
    """The figures v1 clients know."""
    kato = call.kato
    return MetricsAnswer(
        processor_id=kato.processor_id(kato.settings.base),
        observations_processed=kato.counters.observations,
        patterns_learned=kato.counters.patterns_learned,
        predictions_generated=kato.counters.predictions,
        stm_size=(await live_sessions(kato)).stm_length,
        uptime_seconds=kato.uptime,
    )


async def summary(call: Call) -> SummaryAnswer:
    """The figures of v2."""
    kato, counters = call.kato, call.kato.counters
    uptime, active = kato.uptime, (await live_sessions(kato)).active
    used = resource.getrusage(resource.RUSAGE_SELF)
    resources = {
        "memory_bytes": float(process.memory_bytes()),
        "cpu_seconds": used.ru_utime + used.ru_stime,
    }
    if os.path.isdir(kato.settings.kato_data):
        disk = shutil.disk_usage(kato.settings.kato_data)
        resources["disk_percent"] = 100 * disk.used / disk.total
    return SummaryAnswer(
        timestamp=datetime.now(UTC).isoformat(),
        uptime_seconds=uptime,
        active_sessions=active,
        sessions={
            "total_created": counters.sessions_created,
            "total_deleted": counters.sessions_deleted,
            "total_expired": counters.sessions_expired,
            "active": active,
        },
        performance={
            "total_requests": counters.requests,
            "total_errors": counters.request_errors,
            "error_rate": counters.request_errors / max(1, counters.requests),
        },
        operations={
            "observations": counters.observations,
            "patterns_learned": counters.patterns_learned,
            "predictions": counters.predictions,
            "stm_trims": counters.trims,
        },
        errors_by_code=dict(sorted(counters.errors_by_code.items())),
        resources=resources,
        rates={"requests_per_second": counters.requests / max(uptime, 1e-9)},
    )


async def root(call: Call) -> RootAnswer:
    """What this is."""
    return RootAnswer(
        service="kato",
        version=release(),
        description=DESCRIPTION,
        docs="/docs" if call.settings.docs_enabled else None,
        health="/health",
        status="running",
        uptime_seconds=call.kato.uptime,
        architecture="embedded" if call.settings.kato_store == "embedded" else "distributed",
        session_support=True,
    )


async def ping(call: Call) -> PingAnswer:
    """Here I am."""
    return PingAnswer(status="okay", processor_id=call.kato.processor_id(call.settings.base))


def routes(*, v2: bool) -> list[Route]:
    """The monitoring paths, unprefixed and below /v1, with `v2` also below /v2."""
    found = [_route("/", root, RootAnswer, "What this is")]
    prefixes = ("", "/v1", "/v2") if v2 else ("", "/v1")
    for prefix in prefixes:
        figures = (summary, SummaryAnswer) if prefix == "/v2" else (metrics, MetricsAnswer)
        found += [
            _route(
                f"{prefix}/health",
                health.health,
                health.HealthAnswer,
                "Whether everything works",
                statuses=(503,),
            ),
            _route(f"{prefix}/health/live", health.live, health.LiveAnswer, "Whether the process runs"),
            _route(
                f"{prefix}/health/ready",
                health.ready,
                health.ReadyAnswer,
                "Whether to send requests",
                statuses=(503,),
            ),
            _route(
                f"{prefix}/health/startup",
                health.started,
                health.StartedAnswer,
                "Whether the start is over",
                statuses=(503,),
            ),
            _route(
                f"{prefix}/connection-pools",
                health.connection_pools,
                health.PoolsAnswer,
                "Connections to the servers",
            ),
            _route(
                f"{prefix}/health/detailed",
                health.health,
                health.HealthAnswer,
                "Check by check",
                statuses=(503,),
            ),
            _route(f"{prefix}/status", status, StatusAnswer, "What the process is busy with", sessioned=True),
            _route(f"{prefix}/metrics", figures[0], figures[1], "Figures since the start"),
            _route(f"{prefix}/ping", ping, PingAnswer, "Here I am"),
        ]
    return found


def _route(path: str, handler: Any, answer: Any, summary: str, **more: Any) -> Route:
    return Route(
        method="GET", path=path, handler=handler, answers=(answer,), summary=summary, tag=TAG, **more
    )
