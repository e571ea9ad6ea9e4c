"""A KATO in this process on real servers that can be taken away, one by one, as a network does it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from kato.ops.breaker import State
from kato.ops.guard import Guard
from tests.api.driving import Client, client
from tests.support import postgres, qdrant_server, redis
from tests.support.proxy import Proxy, proxied

ROLES = {"postgresql": "patterns", "redis": "sessions", "qdrant": "vectors"}


class Behind:
    """The servers behind a KATO, each through a proxy, and a client of the KATO."""

    def __init__(self, http: Client, proxies: dict[str, Proxy]) -> None:
        self.http = http
        self.proxies = proxies
        self.node = f"node-{uuid.uuid4().hex}"

    def guard(self, server: str) -> Guard:
        found = self.http.kato.health.dependencies[ROLES[server]].guard
        assert found is not None
        return found

    def breaker(self, server: str) -> State:
        return self.guard(server).breaker.state

    async def session(self) -> str:
        return await self.http.session(self.node)

    async def stm(self, session: str) -> list[list[str]]:
        found: list[list[str]] = (await self.http.get(f"{session}/stm")).json()["stm"]
        return found

    async def frequency(self, name: str) -> int:
        answer = await self.http.get(f"/v2/patterns/{name}", params={"user_id": self.node})
        assert answer.status_code == 200, answer.text
        found: int = answer.json()["pattern"]["frequency"]
        return found

    async def observe_vector(self, session: str, *strings: str) -> httpx.Response:
        return await self.http.post(
            f"{session}/observe", json={"strings": strings, "vectors": [[1.0, 2.0, 3.0]]}
        )

    def mend(self) -> None:
        """Undo whatever was done to the proxies."""
        for proxy in self.proxies.values():
            proxy.thaw()
            proxy.mend()


@asynccontextmanager
async def behind(**settings: Any) -> AsyncIterator[Behind]:
    """Servers that nobody else uses through these proxies; health is looked at rarely unless told otherwise."""
    database, cache, vectors = postgres.shared(), redis.shared(), qdrant_server.shared()
    async with AsyncExitStack() as stack:
        proxies = {
            "postgresql": stack.enter_context(proxied("127.0.0.1", database.port)),
            "redis": stack.enter_context(proxied("127.0.0.1", cache.port)),
            "qdrant": stack.enter_context(proxied("127.0.0.1", vectors.port)),
        }
        chosen = {
            "kato_store": "postgres",
            "database_url": database.url.replace(str(database.port), str(proxies["postgresql"].port)),
            "redis_url": cache.url.replace(str(cache.port), str(proxies["redis"].port)),
            "qdrant_host": "127.0.0.1",
            "qdrant_port": proxies["qdrant"].port,
            "qdrant_prefer_grpc": False,
            "kato_database_pool_size": 8,
            "processor_id": uuid.uuid4().hex,
            "max_sessions": 0,
            "health_check_interval": 60,
            "retry_base_delay": 0.05,
            "retry_max_delay": 0.1,
        }
        yield Behind(await stack.enter_async_context(client(**(chosen | settings))), proxies)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> float:
    """Ask until it is so; how many seconds that took."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() - began < seconds, "the condition did not come true in time"
        await asyncio.sleep(0.005)
    return time.monotonic() - began
