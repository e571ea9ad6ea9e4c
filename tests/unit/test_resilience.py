"""The production stores behind guards: wired from the settings, and what they tell."""

from __future__ import annotations

from typing import Any

import pytest

from kato import production, resilience
from kato.ops.events import EventBus
from kato.ops.guard import KINDS
from kato.resilience import Protected
from kato.settings import Settings
from kato.stores.novectors import NoVectors
from tests.support.clock import Clock

NOWHERE = "127.0.0.1:1"


def protected(**more: Any) -> tuple[Protected, EventBus]:
    given: dict[str, Any] = {
        "KATO_STORE": "postgres",
        "DATABASE_URL": f"postgresql://{NOWHERE}/db",
        "MONGO_BASE_URL": f"mongodb://{NOWHERE}",
        "REDIS_URL": f"redis://{NOWHERE}",
        "QDRANT_HOST": "127.0.0.1",
    }
    settings, clock = Settings(**(given | more)), Clock()
    events = EventBus(clock)
    return resilience.protected(production.chosen(settings), settings, events, clock), events


@pytest.mark.parametrize(
    ("store", "server", "pool"), [("postgres", "postgresql", 20), ("mongo", "mongodb", 50)]
)
async def test_each_server_has_a_guard_of_its_own(store: str, server: str, pool: int) -> None:
    ports, _ = protected(KATO_STORE=store)
    found = ports.health.dependencies
    assert {kept: each.name for kept, each in found.items()} == {
        "sessions": "redis",
        "patterns": server,
        "vectors": "qdrant",
    }
    assert {kept: each.vital for kept, each in found.items()} == {
        "sessions": True,
        "patterns": True,
        "vectors": False,
    }
    guards = [each.guard for each in found.values()]
    assert len({id(guard) for guard in guards}) == 3
    patterns = found["patterns"].guard
    assert patterns is not None
    assert set(patterns.bulkheads) == set(KINDS)
    # A connection is left for whoever looks whether the server is well.
    assert sum(bulkhead.limit for bulkhead in patterns.bulkheads.values()) < pool
    for each in found.values():
        assert each.connections is not None
        assert each.connections()[1:] == (0, 0)


@pytest.mark.parametrize(
    ("store", "kept", "variable"),
    [
        ("postgres", "patterns", "KATO_DATABASE"),
        ("mongo", "patterns", "MONGO"),
        ("postgres", "vectors", "QDRANT"),
        ("postgres", "sessions", "REDIS"),
    ],
)
async def test_the_settings_reach_the_breakers_and_what_they_do_is_told(
    store: str, kept: str, variable: str, caplog: pytest.LogCaptureFixture
) -> None:
    more = {f"{variable}_FAILURE_THRESHOLD": 2, f"{variable}_RECOVERY_TIMEOUT": 0.001}
    ports, events = protected(KATO_STORE=store, **more)
    guard = ports.health.dependencies[kept].guard
    assert guard is not None
    told = events.subscribe()
    caplog.set_level("INFO")
    for _ in range(2):
        guard.breaker.leave(guard.breaker.enter(), failed=True)
    assert guard.breaker.opens == 1
    while guard.breaker.retry_after:
        pass
    guard.breaker.leave(guard.breaker.enter(), failed=False)
    assert guard.breaker.state == "closed"
    event = await told.next()
    assert (event.event_type, event.data["affected_component"]) == ("system.error", guard.name)
    assert [record.message for record in caplog.records] == [
        "circuit breaker opened",
        "circuit breaker closed",
    ]


async def test_writes_wait_longer_than_reads_and_redis() -> None:
    ports, _ = protected(RETRY_MAX_ATTEMPTS=4, RETRY_BASE_DELAY=2, RETRY_MAX_DELAY=5)
    profiles = {kept: each.guard._profiles for kept, each in ports.health.dependencies.items() if each.guard}
    for kept in ("patterns", "vectors"):
        assert profiles[kept]["learn"] == (4, 2.0, 5.0)
        assert {profiles[kept][kind] for kind in ("observe", "predict", "admin")} == {(4, 0.2, 0.5)}
    assert set(profiles["sessions"].values()) == {(4, 0.2, 0.5)}


async def test_without_vectors_nobody_looks_for_their_server() -> None:
    ports, _ = protected(KATO_VECTORS=False)
    assert set(ports.health.dependencies) == {"sessions", "patterns"}
    assert isinstance(ports.vectors, NoVectors)
