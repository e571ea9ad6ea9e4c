"""Searches of large nodes take threads, of which there are few."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kato import errors
from kato.memory import node as node_module
from kato.memory.node import Node
from kato.model import SessionConfig
from kato.ops.bulkhead import Bulkhead
from tests.support.memory import events, learning, lesson


async def test_too_many_searches_of_a_large_node_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with learning(":memory:") as node:
        await node.learn([lesson("a b", "0")])
        monkeypatch.setattr(node_module, "QUICK_PATTERNS", 0)
        searches = node._searches = Bulkhead("searches", limit=1, queue=1)
        begun, end, predict = threading.Semaphore(0), threading.Event(), Node._predict

        def slow(self: Node, *args: object) -> object:
            begun.release()
            assert end.wait(10)
            return predict(self, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(Node, "_predict", slow)
        tasks = [asyncio.create_task(node.predict(events("a"), SessionConfig())) for _ in range(2)]
        assert await asyncio.to_thread(begun.acquire, timeout=10)
        with pytest.raises(errors.ServiceUnavailable, match="searches: too much is under way"):
            await node.predict(events("a"), SessionConfig())
        end.set()
        assert [len(found.predictions) for found in await asyncio.gather(*tasks)] == [1, 1]
        assert (searches.used, node.users) == (0, 0)
