"""Whether KATO is well: live, ready, started, and the servers it depends on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from kato import answers, errors
from kato.api.instance import release
from kato.api.routing import Call, Raw
from kato.ops import process
from kato.ops.health import Check, Dependency
from kato.service import Kato

MOST_MEMORY = 0.9
FIGURE_SECONDS = 1.0
"""Whoever asks how KATO is must not have to wait for a server that is silent."""


class DependencyAnswer(answers.Answer, frozen=True, kw_only=True):
    """How a store or server answered when it was asked last; servers have a circuit breaker."""

    status: str
    latency_ms: float
    error: str | None = None
    checked_at: str | None = None
    circuit_breaker: str | None = None


class HealthAnswer(answers.Answer, frozen=True, kw_only=True):
    """`status` is healthy, degraded (something is missing) or unhealthy, which comes with HTTP status 503."""

    status: str
    processor_status: str
    processor_id: str
    processor_name: str
    base_processor_id: str
    service_name: str
    version: str
    uptime: float
    uptime_seconds: float
    active_sessions: int
    stm_length: int
    memory_usage: int
    timestamp: str
    issues: tuple[str, ...]
    dependencies: dict[str, DependencyAnswer]
    features: dict[str, bool]


class LiveAnswer(answers.Answer, frozen=True, kw_only=True):
    """The event loop runs."""

    status: str


class ReadyAnswer(answers.Answer, frozen=True, kw_only=True):
    """Whether requests should be sent here, check by check."""

    ready: bool
    checks: dict[str, bool]


class StartedAnswer(answers.Answer, frozen=True, kw_only=True):
    """The start is over."""

    started: bool


class PoolHealth(answers.Answer, frozen=True, kw_only=True):
    """What looking at a server found; `last_check` in seconds since the epoch."""

    healthy: bool
    last_check: float
    response_time_ms: float
    error_count: int
    error: str | None
    circuit_breaker: str


class PoolFigures(answers.Answer, frozen=True, kw_only=True):
    """Connections to a server, and what was done over them since the start."""

    max: int
    created: int
    in_use: int
    available: int
    operations: int
    errors: int
    retries: int
    average_ms: float
    refused: dict[str, int]


class PoolsAnswer(answers.Answer, frozen=True, kw_only=True):
    """The connections to all servers; the embedded store has none. `timestamp` in seconds since the epoch."""

    status: str
    health: dict[str, PoolHealth]
    pool_statistics: dict[str, PoolFigures]
    timestamp: float


class LiveSessions(NamedTuple):
    """How many sessions are alive; length and time of the default one's STM."""

    active: int = 0
    stm_length: int = 0
    time: int = 0


async def live_sessions(kato: Kato) -> LiveSessions:
    """The figures of now; zeros while the store of sessions does not answer. Brings no session about, prolongs none."""
    sessions = kato.health.dependencies.get("sessions")
    if sessions is not None and sessions.guard is not None and sessions.status == "unhealthy":
        return LiveSessions()
    try:
        async with asyncio.timeout(FIGURE_SECONDS):
            state = await kato.peek(kato.sessions.default_id)
            active = await kato.count_sessions()
    except (errors.StorageError, TimeoutError):
        return LiveSessions()
    return LiveSessions(active) if state is None else LiveSessions(active, len(state.stm), state.time)


async def dependencies(kato: Kato) -> dict[str, DependencyAnswer]:
    """How every store is, by its name."""
    found = await kato.health.latest()
    return {each.name: _answer(each) for each in found.values()}


def _answer(dependency: Dependency) -> DependencyAnswer:
    check, guard = dependency.check, dependency.guard
    return DependencyAnswer(
        status=dependency.status,
        latency_ms=0.0 if check is None else check.latency_ms,
        error="not asked yet" if check is None else check.error,
        checked_at=None if check is None else answers.stamp(check.at),
        circuit_breaker=None if guard is None else guard.breaker.state,
    )


async def health(call: Call) -> HealthAnswer | Raw:
    """Whether everything works, in one word and in detail."""
    kato, settings = call.kato, call.settings
    stores = await dependencies(kato)
    of_stores = [f"{name}: {store.error}" for name, store in stores.items() if store.error]
    of_process = ["stopping"] if call.instance.draining else []
    if process.memory_share() > MOST_MEMORY:
        of_process.append(f"more than {MOST_MEMORY:.0%} of the memory is used")
    down = {kept for kept, each in kato.health.dependencies.items() if each.status == "unhealthy"}
    well = all(store.status == "healthy" for store in stores.values())
    uptime, sessions = kato.uptime, await live_sessions(kato)
    answer = HealthAnswer(
        status="unhealthy" if of_process or _lost(kato, down) else "healthy" if well else "degraded",
        processor_status="unhealthy" if "patterns" in down else "healthy",
        processor_id=kato.processor_id(settings.base),
        processor_name=settings.processor_name,
        base_processor_id=settings.base,
        service_name="kato",
        version=release(),
        uptime=uptime,
        uptime_seconds=uptime,
        active_sessions=sessions.active,
        stm_length=sessions.stm_length,
        memory_usage=process.memory_bytes(),
        timestamp=datetime.now(UTC).isoformat(),
        issues=(*of_stores, *of_process),
        dependencies=stores,
        features={"websocket_events": True, "v2": settings.enable_v2_features},
    )
    return answer if answer.status != "unhealthy" else Raw(msgspec.json.encode(answer), 503)


def _lost(kato: Kato, down: set[str]) -> bool:
    """Without sessions and without patterns nothing can be done; an embedded KATO needs both of its files."""
    return bool(down) if kato.settings.kato_store == "embedded" else {"sessions", "patterns"} <= down


async def live(_call: Call) -> LiveAnswer:
    """Touches nothing."""
    return LiveAnswer(status="alive")


async def ready(call: Call) -> ReadyAnswer | Raw:
    """Whether requests should be sent here: without its patterns KATO still observes, without sessions it cannot."""
    kato, found = call.kato, await call.kato.health.latest()
    checks = {
        "started": kato.health.started,
        "accepting": not call.instance.draining,
        **{f"{kept}_store": each.reachable for kept, each in found.items()},
    }
    needed = {"started", "accepting", "sessions_store"}
    if call.settings.kato_store == "embedded":
        needed |= set(checks)
    answer = ReadyAnswer(ready=all(checks.get(name, True) for name in needed), checks=checks)
    return answer if answer.ready else Raw(msgspec.json.encode(answer), 503)


async def started(call: Call) -> StartedAnswer | Raw:
    """Whether the servers were there once, their indexes and tables made."""
    answer = StartedAnswer(started=call.kato.health.started)
    return answer if answer.started else Raw(msgspec.json.encode(answer), 503)


async def connection_pools(call: Call) -> PoolsAnswer:
    """The connections to the servers and how they are."""
    kato = call.kato
    found = {each.name: each for each in (await kato.health.latest()).values() if each.guard is not None}
    return PoolsAnswer(
        status="healthy" if all(each.status == "healthy" for each in found.values()) else "degraded",
        health={name: _pool_health(each) for name, each in found.items()},
        pool_statistics={name: _pool_figures(each) for name, each in found.items()},
        timestamp=kato.clock(),
    )


def _pool_health(dependency: Dependency) -> PoolHealth:
    assert dependency.guard is not None
    check = dependency.check or Check(0.0, 0.0, "not asked yet", 0)
    return PoolHealth(
        healthy=dependency.status == "healthy",
        last_check=check.at,
        response_time_ms=check.latency_ms,
        error_count=check.error_count,
        error=check.error,
        circuit_breaker=dependency.guard.breaker.state,
    )


def _pool_figures(dependency: Dependency) -> PoolFigures:
    guard = dependency.guard
    assert guard is not None
    assert dependency.connections is not None
    most, opened, used = dependency.connections()
    return PoolFigures(
        max=most,
        created=opened,
        in_use=used,
        available=most - used,
        operations=guard.operations,
        errors=guard.errors,
        retries=guard.retries,
        average_ms=1000 * guard.seconds / max(1, guard.operations),
        refused={kind: bulkhead.refused for kind, bulkhead in guard.bulkheads.items()},
    )
