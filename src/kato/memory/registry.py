"""The nodes this process holds open: opened once on first use, closed again when there are too many or too large."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context

from kato.errors import ServiceUnavailable
from kato.memory.feed import PENDING_SECONDS, Feed, Follower
from kato.memory.lessons import Repeatable, nobody_knows
from kato.memory.node import Node
from kato.memory.patience import half
from kato.ops.bulkhead import Bulkhead
from kato.stores.ports import PatternStore, VectorStore

SEARCH_THREADS = 4
SEARCHES, SEARCH_QUEUE, SEARCH_SECONDS = 10, 100, 30.0
"""So many searches of large nodes are under way at once, so many wait, each at most so long; others are refused."""
RETRY_AFTER = 2.0
"""Seconds after which to ask again for a node that is still being opened."""


class Memory:
    """Long-term memory of all nodes.

    At most `max_nodes` are held open, and their indexes together hold at most `max_bytes` (0: no limit); beyond that
    those used longest ago are closed, but never one that a call is using. Closing loses nothing: the store holds
    everything.

    With a `feed` other instances may change the same patterns; `pending_seconds` is then how long an announced
    change is waited for, longer than any request may last. Without one this process must be the only one. Who waits
    longer than `opening_seconds` for a node to be opened is sent away (None: waits), while the opening goes on.

    `vectors_server` names the server of the vectors where that is another one than that of the patterns: then one may
    answer while the other does not. `available` tells whether the store of the patterns is known to answer; what its
    nodes show meanwhile is stale. `repeatable` tells which learns may yet be done once more: their patterns remember
    that they have counted them.
    """

    def __init__(
        self,
        patterns: PatternStore,
        vectors: VectorStore,
        max_nodes: int = 1000,
        *,
        feed: Feed | None = None,
        max_bytes: int = 0,
        opening_seconds: float | None = None,
        pending_seconds: float = PENDING_SECONDS,
        vectors_server: str | None = None,
        available: Callable[[], bool] = lambda: True,
        repeatable: Repeatable = nobody_knows,
    ) -> None:
        self.patterns = patterns
        self.vectors = vectors
        self.vectors_server = vectors_server
        self.max_nodes = max_nodes
        self.max_bytes = max_bytes
        self._feed = feed
        self._opening_seconds = opening_seconds
        self._pending_seconds = pending_seconds
        self._available = available
        self._repeatable = repeatable
        self._threads = ThreadPoolExecutor(SEARCH_THREADS, thread_name_prefix="kato-search")
        self._searches = Bulkhead("searches", SEARCHES, SEARCH_QUEUE, SEARCH_SECONDS)
        self._open: OrderedDict[str, Node] = OrderedDict()
        self._opening: dict[str, asyncio.Task[Node]] = {}
        self._awaited: Counter[str] = Counter()
        self._sizes: dict[str, int] = {}
        self._bytes = 0

    async def node(self, node_id: str) -> Node:
        """The node, opened if need be; use it before the next await, or its place may be given away.

        `ServiceUnavailable` with `retry_after` when opening it takes longer than a call may wait.
        """
        node = self._open.get(node_id)
        if node is None:
            self._awaited[node_id] += 1
            try:
                node = await self._opened(node_id)
            finally:
                self._awaited[node_id] -= 1
                if not self._awaited[node_id]:
                    del self._awaited[node_id]
        self._open.move_to_end(node_id)
        if self.max_bytes:
            self._measure(node)
        return node

    async def fresh(self, node_id: str) -> Node:
        """The node after a `refresh`, for who reads from its index; `node.stale` says when that failed."""
        node = await self.node(node_id)
        with half():
            await node.refresh()
        return node

    async def _opened(self, node_id: str) -> Node:
        task = self._opening.get(node_id)
        if task is None:
            # In a context of its own: it is done for all, and not by when the first of them must be answered.
            task = self._opening[node_id] = asyncio.create_task(self._load(node_id), context=Context())
            # If all who wait give up, nobody is left to take the error.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        # Many may wait for one opening; one that gives up must not cancel it for the others.
        done, _ = await asyncio.wait([task], timeout=self._opening_seconds)
        if not done:
            raise ServiceUnavailable(
                "This node is still being opened", retry_after=RETRY_AFTER, node_id=node_id
            )
        return task.result()

    async def _load(self, node_id: str) -> Node:
        try:
            follower = None if self._feed is None else Follower(node_id, self._feed, self._pending_seconds)
            node = Node(
                node_id,
                self.patterns,
                self._threads,
                follower,
                self._available,
                self._searches,
                self._repeatable,
            )
            await node.open()
            self._open[node_id] = node
            self._measure(node)
            self._make_room()
            return node
        finally:
            del self._opening[node_id]

    def _measure(self, node: Node) -> None:
        """Note how large a node has become."""
        size = node.memory_bytes()
        self._bytes += size - self._sizes.get(node.node_id, 0)
        self._sizes[node.node_id] = size
        if 0 < self.max_bytes < self._bytes:
            self._make_room()

    def _make_room(self) -> None:
        for node_id, node in list(self._open.items())[:-1]:
            if len(self._open) <= self.max_nodes and not 0 < self.max_bytes < self._bytes:
                return
            # Two of one node would each miss what the other learns.
            if node.users == 0 and node_id not in self._awaited:
                del self._open[node_id]
                self._bytes -= self._sizes.pop(node_id)

    async def drop(self, node_id: str) -> int:
        """Delete everything a node has learned, its vectors too; returns how many patterns there were.

        Nothing is deleted when one of the stores does not answer. What fails on the way can be repeated.
        """
        node = await self.node(node_id)
        node.users += 1
        try:
            # Asked first: vectors that are gone while their patterns are not would be half a deletion.
            await self.patterns.count(node_id)
            await self.vectors.drop(node_id)
            return await node.drop()
        finally:
            node.users -= 1

    @property
    def open_nodes(self) -> dict[str, Node]:
        """The nodes held open, the one used longest ago first."""
        return dict(self._open)

    @property
    def held_bytes(self) -> int:
        """Bytes of the indexes held open, as far as measured: with `max_bytes` at every use, else when opened."""
        return self._bytes

    async def close(self) -> None:
        """Finish running searches and close the stores and the feed."""
        for task in list(self._opening.values()):
            await asyncio.gather(task, return_exceptions=True)
        for node in self._open.values():
            await node.settled()
        self._threads.shutdown(wait=True)
        await self.vectors.close()
        await self.patterns.close()
        if self._feed is not None:
            await self._feed.close()
