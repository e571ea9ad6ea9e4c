"""The three roles of the compose file, run on real servers (Qdrant's is a stand-in) with the settings given there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from kato import bootstrap, settings
from kato.errors import PatternNotFound, SessionNotFound
from kato.service import Kato
from kato.stores.redis import RedisEvents
from tests.deploy.test_compose import ROLES, ROOT, composed, environment
from tests.support import postgres, qdrant_server, redis
from tests.support.environment import VARIABLES
from tests.support.kato import opened, seen, taught
from tests.support.waiting import until

NODE = "alice"


@pytest.fixture
def servers() -> Iterator[dict[str, str]]:
    """The server behind each address in the files; the databases are made as the container makes them."""
    with postgres.postgres() as database, redis.redis() as sessions:
        for statement in (ROOT / "deploy/postgres/databases.sql").read_text(encoding="utf-8").splitlines():
            database.sql(statement)
        yield {"database:5432": f"127.0.0.1:{database.port}", "redis:6379": f"127.0.0.1:{sessions.port}"}


@pytest_asyncio.fixture
async def roles(servers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Kato]]:
    async with AsyncExitStack() as stack:
        vectors = stack.enter_context(qdrant_server.qdrant_server())
        running = []
        for role in ROLES:
            for name in VARIABLES:
                monkeypatch.delenv(name, raising=False)
            for name, value in environment(composed(), role).items():
                for host, address in servers.items():
                    value = value.replace(host, address)
                monkeypatch.setenv(name, value)
            for name, value in vectors.environment.items():
                monkeypatch.setenv(name, value)
            running.append(await stack.enter_async_context(bootstrap.running(settings.load())))
        for kato in running:
            relay = kato.events._relay
            assert isinstance(relay, RedisEvents)
            await until(lambda: relay.listening)  # noqa: B023
        yield running


async def test_they_share_servers_but_neither_memory_nor_sessions_nor_events(roles: list[Kato]) -> None:
    primary, *others = roles
    assert [kato.settings.processor_id for kato in roles] == list(ROLES)
    listeners = [kato.events.subscribe() for kato in roles]
    session = await opened(primary, NODE)
    name = await taught(primary, session, "a b c")
    await primary.observe(session, seen("d", [[1.0, 2.0]]))
    await primary.learn(session)
    assert (await primary.totals(NODE)).unique_patterns == 2
    for kato in others:
        with pytest.raises(SessionNotFound):
            await kato.session(session)
        with pytest.raises(PatternNotFound):
            await kato.get_pattern(NODE, name)
        assert (await kato.totals(NODE)).unique_patterns == 0
        assert await kato.count_sessions() == 0
        # Another dimension is fine: this node has no vectors here.
        await kato.observe(await opened(kato, NODE), seen("d", [[1.0, 2.0, 3.0]]))
        assert [batch async for batch in kato.memory.vectors.scan(NODE)] == []
    assert await primary.count_sessions() == 1
    for kato in roles:
        kato.events.publish("system.error", {"last": True})
    told = []
    for listener in listeners:
        heard = [(await asyncio.wait_for(listener.next(), 10))]
        while heard[-1].event_type != "system.error":
            heard.append(await asyncio.wait_for(listener.next(), 10))
        told.append([each.event_type for each in heard])
    created, learned = "session.created", "pattern.learned"
    assert told == [
        [created, learned, learned, "system.error"],
        [created, "system.error"],
        [created, "system.error"],
    ]
