"""The production stores as the service uses them: each behind the guard of its server, all of them watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from kato.guarded import GuardedFeed, GuardedPatterns, GuardedSessions, GuardedVectors
from kato.memory.feed import Feed
from kato.ops.breaker import Breaker, State
from kato.ops.bulkhead import Bulkhead
from kato.ops.events import EventBus
from kato.ops.guard import KINDS, Guard, Kind, Retry
from kato.ops.health import Connections, Dependency, Health
from kato.ops.logging import logger
from kato.production import Stores
from kato.sessions.shared import SharedStore
from kato.settings import Settings
from kato.stores.ports import PatternStore, VectorStore

_SHARES: Final[dict[Kind, float]] = {"learn": 0.5, "predict": 0.25, "admin": 0.15, "observe": 0.05}
"""What part of a pool each kind may use. Together less than all: health checks find a connection."""
_OF_VECTORS: Final[dict[Kind, float]] = {"observe": 0.5, "learn": 0.25, "predict": 0.05, "admin": 0.15}
_QUEUE: Final = 20_000
"""One request may teach thousands of patterns; how long each waits is what is limited."""
_TO_REDIS: Final[dict[Kind, int]] = {"observe": 2000, "learn": 1000, "predict": 2000, "admin": 200}
"""Commands share few connections there, so many may be under way."""
log = logger("kato.resilience")


class Protected(NamedTuple):
    """The ports and the health of what is behind them."""

    patterns: PatternStore
    vectors: VectorStore
    sessions: SharedStore
    feed: Feed
    health: Health


def protected(stores: Stores, settings: Settings, events: EventBus, clock: Callable[[], float]) -> Protected:
    """`stores` behind guards as `settings` say; nothing is connected yet."""
    standard = Retry(settings.retry_max_attempts, settings.retry_base_delay, settings.retry_max_delay)
    # What only reads, and all that Redis does, is tried again sooner (service.md 4.5).
    fast = Retry(standard.attempts, standard.base / 10, standard.longest / 10)

    def guard(name: str, threshold: int, open_seconds: float, places: dict[Kind, int]) -> Guard:
        breaker = Breaker(name, threshold, open_seconds, changed=lambda state: _tell(events, name, state))
        bulkheads = {kind: Bulkhead(f"{name} ({kind})", places[kind], _QUEUE) for kind in KINDS}
        profiles = dict.fromkeys(KINDS, fast)
        if name != "redis":
            profiles["learn"] = standard
        return Guard(name, breaker, bulkheads, profiles, total_seconds=settings.request_timeout)

    kind, pool, threshold, open_seconds = _pattern_server(settings)
    of_patterns = guard(kind, threshold, open_seconds, _places(_SHARES, pool))
    of_sessions = guard("redis", settings.redis_failure_threshold, settings.redis_recovery_timeout, _TO_REDIS)
    dependencies = {
        "sessions": Dependency(
            "redis",
            stores.redis.ping,
            open=stores.redis.open,
            guard=of_sessions,
            connections=lambda: _connections(settings.redis_max_connections, stores.redis.connections),
        ),
        "patterns": Dependency(
            kind,
            stores.patterns.ping,
            open=stores.patterns.open,
            guard=of_patterns,
            connections=lambda: _connections(pool, stores.patterns.connections),
        ),
    }
    vectors: VectorStore = stores.vectors
    if settings.kato_vectors:
        from kato.stores.qdrant import QdrantVectorStore

        assert isinstance(vectors, QdrantVectorStore)
        qdrant = vectors
        places = _places(_OF_VECTORS, settings.qdrant_pool_size)
        of_vectors = guard(
            "qdrant", settings.qdrant_failure_threshold, settings.qdrant_recovery_timeout, places
        )
        dependencies["vectors"] = Dependency(
            "qdrant",
            qdrant.ping,
            guard=of_vectors,
            connections=lambda: Connections(settings.qdrant_pool_size, *qdrant.under_way),
            vital=False,
        )
        vectors = GuardedVectors(qdrant, of_vectors)
    return Protected(
        GuardedPatterns(stores.patterns, of_patterns),
        vectors,
        GuardedSessions(stores.sessions, of_sessions),
        GuardedFeed(stores.feed(), of_sessions),
        Health(dependencies, events, clock, settings.health_check_interval),
    )


def _pattern_server(settings: Settings) -> tuple[str, int, int, float]:
    """Name, pool size, failures that open the breaker, seconds that it stays open."""
    if settings.kato_store == "mongo":
        return (
            "mongodb",
            settings.mongo_pool_size,
            settings.mongo_failure_threshold,
            settings.mongo_recovery_timeout,
        )
    return (
        "postgresql",
        settings.kato_database_pool_size,
        settings.kato_database_failure_threshold,
        settings.kato_database_recovery_timeout,
    )


def _places(shares: dict[Kind, float], pool: int) -> dict[Kind, int]:
    return {kind: max(1, int(share * pool)) for kind, share in shares.items()}


def _connections(most: int, now: tuple[int, int]) -> Connections:
    opened, idle = now
    return Connections(most, opened, opened - idle)


def _tell(events: EventBus, server: str, state: State) -> None:
    if state == "closed":
        log.info("circuit breaker closed", server=server)
        return
    log.warning("circuit breaker opened", server=server)
    events.publish(
        "system.error",
        {
            "error_type": "CIRCUIT_BREAKER_OPEN",
            "severity": "critical",
            "message": f"{server} has failed too often and is not asked for a while",
            "affected_component": server,
        },
    )
