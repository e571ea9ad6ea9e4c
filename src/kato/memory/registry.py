"""The nodes this process holds open: opened once on first use, closed again when there are too many."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor

from kato.memory.node import Node
from kato.stores.ports import PatternStore, VectorStore

SEARCH_THREADS = 4


class Memory:
    """Long-term memory of all nodes.

    At most `max_nodes` are held open; beyond that the one used longest ago is closed, unless a call is using it.
    Closing loses nothing: the store holds everything.
    """

    def __init__(self, patterns: PatternStore, vectors: VectorStore, max_nodes: int = 1000) -> None:
        self.patterns = patterns
        self.vectors = vectors
        self.max_nodes = max_nodes
        self._threads = ThreadPoolExecutor(SEARCH_THREADS, thread_name_prefix="kato-search")
        self._open: OrderedDict[str, Node] = OrderedDict()
        self._opening: dict[str, asyncio.Task[Node]] = {}
        self._awaited: Counter[str] = Counter()

    async def node(self, node_id: str) -> Node:
        """The node, opened if need be; use it before the next await, or its place may be given away."""
        node = self._open.get(node_id)
        if node is None:
            task = self._opening.get(node_id)
            if task is None:
                task = self._opening[node_id] = asyncio.create_task(self._load(node_id))
            self._awaited[node_id] += 1
            try:
                # Many may wait for one opening; one that gives up must not cancel it for the others.
                node = await asyncio.shield(task)
            finally:
                self._awaited[node_id] -= 1
                if not self._awaited[node_id]:
                    del self._awaited[node_id]
        self._open.move_to_end(node_id)
        return node

    async def _load(self, node_id: str) -> Node:
        try:
            node = Node(node_id, self.patterns, self._threads)
            await node.open()
            self._open[node_id] = node
            self._make_room()
            return node
        finally:
            del self._opening[node_id]

    def _make_room(self) -> None:
        for node_id, node in list(self._open.items())[:-1]:
            if len(self._open) <= self.max_nodes:
                return
            # Two of one node would each miss what the other learns.
            if node.users == 0 and node_id not in self._awaited:
                del self._open[node_id]

    async def drop(self, node_id: str) -> int:
        """Delete everything a node has learned, its vectors too; returns how many patterns there were."""
        await self.vectors.drop(node_id)
        return await (await self.node(node_id)).drop()

    @property
    def open_nodes(self) -> dict[str, Node]:
        """The nodes held open, the one used longest ago first."""
        return dict(self._open)

    async def close(self) -> None:
        """Finish running searches and close the stores."""
        for task in list(self._opening.values()):
            await asyncio.gather(task, return_exceptions=True)
        self._threads.shutdown(wait=True)
        await self.vectors.close()
        await self.patterns.close()
