"""The health paths under every fault of the servers, found and forgotten by themselves (service.md 6.3)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.api.driving import client
from tests.chaos.behind import ROLES, Behind, behind, until

SERVERS = tuple(ROLES)


class Verdict(NamedTuple):
    """What is said of a fault."""

    down: tuple[str, ...]
    status: str
    ready: bool


VERDICTS = [
    Verdict((), "healthy", ready=True),
    Verdict(("qdrant",), "degraded", ready=True),
    Verdict(("postgresql",), "degraded", ready=True),
    Verdict(("redis",), "degraded", ready=False),
    Verdict(("postgresql", "qdrant"), "degraded", ready=True),
    Verdict(("postgresql", "redis"), "unhealthy", ready=False),
    Verdict(SERVERS, "unhealthy", ready=False),
]


async def seen_down(kato: Behind) -> set[str]:
    found = (await kato.http.get("/health")).json()["dependencies"]
    return {name for name, each in found.items() if each["status"] == "unhealthy"}


async def said(kato: Behind, path: str) -> tuple[int, dict[str, Any]]:
    answer = await kato.http.get(path)
    return answer.status_code, answer.json()


@pytest.mark.parametrize("way", ["cut", "freeze"])
@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: "+".join(verdict.down) or "none")
async def test_every_path_says_what_is_the_matter(
    verdict: Verdict, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kato.ops.health.PING_SECONDS", 1.0)
    quick = {f"{name}_recovery_timeout": 0.3 for name in ("kato_database", "redis", "qdrant")}
    async with behind(health_check_interval=0.1, **quick) as kato:
        await kato.http.post("/observe", json={"strings": ["a"]})
        for server in verdict.down:
            getattr(kato.proxies[server], way)()

        async def as_it_should() -> bool:
            return await seen_down(kato) == set(verdict.down)

        await until(as_it_should)
        for prefix in ("", "/v2"):
            status, found = await said(kato, f"{prefix}/health")
            assert (status, found["status"]) == (
                503 if verdict.status == "unhealthy" else 200,
                verdict.status,
            )
            assert {issue.partition(":")[0] for issue in found["issues"]} == set(verdict.down)
            assert set(found["dependencies"]) == set(SERVERS)
            assert found["processor_status"] == ("unhealthy" if "postgresql" in verdict.down else "healthy")
        for server, each in found["dependencies"].items():
            assert each["circuit_breaker"] in ("closed", "half_open", "open")
            assert (each["error"] is None) == (server not in verdict.down)
        began = time.monotonic()
        assert await said(kato, "/health/live") == (200, {"status": "alive"})
        assert time.monotonic() - began < 0.5
        status, found = await said(kato, "/health/ready")
        assert (status, found["ready"]) == (200 if verdict.ready else 503, verdict.ready)
        for server, kept in ROLES.items():
            assert found["checks"][f"{kept}_store"] == (server not in verdict.down)
        assert await said(kato, "/health/startup") == (200, {"started": True})
        status, pools = await said(kato, "/connection-pools")
        assert (status, pools["status"]) == (200, "degraded" if verdict.down else "healthy")
        for server in SERVERS:
            health = pools["health"][server]
            assert health["healthy"] == (server not in verdict.down)
            assert health["error_count"] > 0 or server not in verdict.down
        status, found = await said(kato, "/v2/status")
        assert (status, found["sessions"]["backend"]) == (200, "redis")
        assert (await said(kato, "/v2/metrics"))[0] == (await said(kato, "/metrics"))[0] == 200

        # And back, without a restart.
        kato.mend()

        async def well() -> bool:
            return (await said(kato, "/health"))[1]["status"] == "healthy"

        await until(well)
        assert (await said(kato, "/health/ready"))[0] == 200
        answer = await kato.http.get("/stm")
        assert answer.json()["stm"] == [["a"]]


async def test_the_figures_of_the_pools_are_those_of_the_servers() -> None:
    async with behind(kato_database_pool_size=4, redis_max_connections=3, redis_min_connections=1) as kato:
        session = await kato.session()
        await kato.http.teach(session, "a", "b")
        await kato.observe_vector(session)
        pools = (await kato.http.get("/v2/connection-pools")).json()["pool_statistics"]
        assert {name: each["max"] for name, each in pools.items()} == {
            "postgresql": 4,
            "redis": 3,
            "qdrant": 20,
        }
        for name in ("postgresql", "redis"):
            each = pools[name]
            open_now = kato.proxies[name].connections
            # Redis has one more, on which events are heard.
            assert each["created"] == open_now - (name == "redis")
            assert each["available"] == each["max"] - each["in_use"]
        for each in pools.values():
            assert each["operations"] > 0
            assert (each["errors"], each["retries"]) == (0, 0)
            assert each["average_ms"] > 0
        started = kato.guard("postgresql").operations
        kato.proxies["postgresql"].freeze()
        asking = [
            asyncio.create_task(kato.http.kato.memory.patterns.fetch(kato.node, ["0" * 40])) for _ in range(1)
        ]

        async def used() -> bool:
            found = (await kato.http.get("/connection-pools")).json()["pool_statistics"]["postgresql"]
            return bool(found["in_use"] == 1)

        await until(used)
        kato.mend()
        await asyncio.gather(*asking)
        assert kato.guard("postgresql").operations == started + 1


async def test_the_embedded_store_has_no_pools() -> None:
    async with client() as http:
        found = (await http.get("/connection-pools")).json()
        assert (found["status"], found["health"], found["pool_statistics"]) == ("healthy", {}, {})


async def test_a_start_without_servers_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kato.ops.health.PING_SECONDS", 1.0)
    async with behind() as first:
        urls = {
            name: getattr(first.http.kato.settings, name)
            for name in ("database_url", "redis_url", "qdrant_port")
        }
        for proxy in first.proxies.values():
            proxy.cut()
        options = {
            "kato_store": "postgres",
            "qdrant_host": "127.0.0.1",
            "qdrant_prefer_grpc": False,
            "health_check_interval": 0.1,
            "redis_recovery_timeout": 0.2,
            "kato_database_recovery_timeout": 0.2,
            "processor_id": "late",
        }
        async with client(**options, **urls) as http:
            assert (await http.get("/health/startup")).status_code == 503
            assert (await http.get("/health/live")).status_code == 200
            answer = await http.get("/health/ready")
            assert (answer.status_code, answer.json()["checks"]["started"]) == (503, False)
            answer = await http.post("/observe", json={"strings": ["a"]})
            assert answer.status_code == 503
            assert "127.0.0.1" not in (await http.get("/health")).text
            first.mend()

            async def there() -> bool:
                return (await http.get("/health/ready")).status_code == 200

            await until(there)
            assert (await http.get("/health/startup")).json() == {"started": True}
            await http.delete("/sessions/default-late")
            for event in "ab":
                answer = await http.post("/observe", json={"strings": [event]})
                assert answer.status_code == 200, answer.text
            assert (await http.post("/learn")).status_code == 200
            await http.post("/clear-all")


FAULTS: dict[str, Callable[[Behind, str], None]] = {
    "cut": lambda kato, server: kato.proxies[server].cut(),
    "silent": lambda kato, server: kato.proxies[server].freeze(),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.timeout(180)
async def test_with_the_default_settings_faults_are_found_in_time_and_forgotten_in_time(
    fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found within 10 s, service back within 60 s (service.md 5.3), while clients keep asking."""
    defaults = {"health_check_interval": 5, "retry_base_delay": 1, "retry_max_delay": 10}
    async with behind(**defaults) as kato:
        session = await kato.session()
        await kato.http.teach(session, "a", "b")
        began = time.monotonic()
        for server in SERVERS:
            FAULTS[fault](kato, server)

        async def ask() -> None:
            while True:
                await kato.http.post(f"{session}/observe", json={"strings": ["a"]})
                await asyncio.sleep(0.05)

        asking = asyncio.create_task(ask())
        found = dict.fromkeys(SERVERS, 0.0)
        while not all(found.values()):
            for server in await seen_down(kato):
                found[server] = found[server] or time.monotonic() - began
            assert time.monotonic() - began < 10, found
            await asyncio.sleep(0.02)
        kato.mend()
        began = time.monotonic()

        async def well() -> bool:
            return (await kato.http.get("/health")).json()["status"] == "healthy"

        async def served() -> bool:
            answer = await kato.http.post(f"{session}/observe", json={"strings": ["x"]})
            return answer.status_code == 200 and (await kato.http.post(f"{session}/learn")).status_code == 200

        back = await until(served, 60)
        healthy = back + await until(well, 60 - back)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        with capsys.disabled():
            times = ", ".join(f"{server} {seconds:.1f} s" for server, seconds in found.items())
            print(
                f"\n{fault}: found after {times}; observe and learn work {back:.1f} s after, "
                f"healthy {healthy:.1f} s after the servers are back"
            )
