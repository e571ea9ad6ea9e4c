"""The contract of `VectorStore`."""

from __future__ import annotations

import asyncio
import math
import random

import pytest

from kato.errors import ValidationError
from kato.stores.ports import VectorStore

from .adapters import Adapters
from .values import NODES


def euclidean(left: list[float], right: list[float]) -> float:
    total = 0.0
    for a, b in zip(left, right, strict=True):
        total += (a - b) * (a - b)
    return math.sqrt(total)


async def test_nearest_first(vectors: VectorStore) -> None:
    refused = await vectors.put("node", {"far": [3.0, 4.0], "here": [0.0, 0.0], "near": [0.0, 1.0]})
    assert refused == []
    found = await vectors.nearest("node", [0.0, 0.0], 5)
    assert found == [("here", 0.0), ("near", 1.0), ("far", 5.0)]
    assert await vectors.nearest("node", (0.0, 0.0), 1) == [("here", 0.0)]
    assert await vectors.nearest("node", [0.0, 0.0], 0) == []


async def test_equal_distances_by_name_also_at_the_border(vectors: VectorStore) -> None:
    names = ["é", "b", "a", "B", "🧠", "c"]
    await vectors.put("node", {each: [1.0 if number % 2 else -1.0] for number, each in enumerate(names)})
    for k in range(1, 7):
        assert [each for each, _ in await vectors.nearest("node", [0.0], k)] == sorted(names)[:k]


@pytest.mark.parametrize("count", [1, 50, 3000])
async def test_the_answer_is_that_of_a_full_comparison(
    vectors: VectorStore, adapters: Adapters, count: int
) -> None:
    source = random.Random(count)
    stored = {f"v{number:04}": [source.gauss(0, 1) for _ in range(33)] for number in range(count)}
    await vectors.put("node", stored)
    for _ in range(3):
        wanted = [source.gauss(0, 1) for _ in range(33)]
        full = sorted((euclidean(vector, wanted), each) for each, vector in stored.items())[:20]
        found = await vectors.nearest("node", wanted, 20)
        if adapters.vector_precision:
            distances = [distance for _, distance in found]
            assert distances == pytest.approx(
                [distance for distance, _ in full], rel=adapters.vector_precision
            )
        else:
            assert found == [(each, distance) for distance, each in full]


async def test_a_known_name_is_left_as_it_is(vectors: VectorStore) -> None:
    await vectors.put("node", {"a": [1.0]})
    assert await vectors.nearest("node", [0.0], 9) == [("a", 1.0)]
    assert await vectors.put("node", {"a": [2.0], "b": [3.0]}) == []
    assert await vectors.nearest("node", [0.0], 9) == [("a", 1.0), ("b", 3.0)]


async def test_the_first_vector_fixes_the_dimension(vectors: VectorStore) -> None:
    assert await vectors.put("node", {"a": [1.0, 2.0], "b": [1.0], "c": [0.0, 0.0]}) == ["b"]
    assert await vectors.put("node", {"d": [1.0, 2.0, 3.0]}) == ["d"]
    assert await vectors.put("other", {"d": [1.0, 2.0, 3.0]}) == []
    assert [each for each, _ in await vectors.nearest("node", [0.0, 0.0], 9)] == ["c", "a"]
    assert await vectors.nearest("node", [0.0], 9) == []


async def test_a_vector_without_elements_is_refused(vectors: VectorStore) -> None:
    assert await vectors.put("node", {"a": []}) == ["a"]
    assert await vectors.put("node", {"b": [1.0]}) == []
    assert await vectors.nearest("node", [1.0], 9) == [("b", 0.0)]
    assert await vectors.nearest("node", [], 9) == []


async def test_nothing_stored(vectors: VectorStore) -> None:
    assert await vectors.put("node", {}) == []
    assert await vectors.nearest("node", [1.0], 3) == []
    await vectors.drop("node")
    with pytest.raises(ValidationError):
        await vectors.put("node", {"\ud800": [1.0]})


async def test_after_a_drop_the_dimension_is_free_again(vectors: VectorStore) -> None:
    await vectors.put("node", {"a": [1.0, 2.0]})
    await vectors.put("other", {"a": [1.0, 2.0]})
    assert await vectors.nearest("node", [1.0, 2.0], 1)
    await vectors.drop("node")
    assert await vectors.nearest("node", [1.0, 2.0], 1) == []
    assert await vectors.put("node", {"a": [5.0]}) == []
    assert await vectors.nearest("node", [5.0], 1) == [("a", 0.0)]
    assert await vectors.nearest("other", [1.0, 2.0], 1) == [("a", 0.0)]


async def test_nodes_are_kept_apart(vectors: VectorStore) -> None:
    for number, node in enumerate(NODES):
        assert await vectors.put(node, {"a": [float(number)]}) == []
    for number, node in enumerate(NODES):
        assert await vectors.nearest(node, [0.0], 9) == [("a", float(number))]


async def test_the_nodes_that_hold_vectors(vectors: VectorStore) -> None:
    assert await vectors.nodes() == []
    for node in NODES:
        await vectors.put(node, {"a": [1.0], "b": [2.0]})
    await vectors.put("none", {"a": []})
    assert await vectors.nodes() == sorted(NODES)
    await vectors.drop("node")
    assert await vectors.nodes() == sorted(set(NODES) - {"node"})


async def scanned(vectors: VectorStore, node: str) -> list[tuple[str, tuple[float, ...]]]:
    return [row async for batch in vectors.scan(node) for row in batch]


async def test_scan_delivers_all_in_order_of_name(vectors: VectorStore) -> None:
    stored = {f"v{number:04}": [float(number), -0.5] for number in range(2500)} | {
        "": [0.0, 1.0],
        "é": [9.0, 9.0],
    }
    await vectors.put("node", dict(reversed(stored.items())))
    await vectors.put("other", {"x": [1.0]})
    assert await scanned(vectors, "node") == [(name, tuple(stored[name])) for name in sorted(stored)]
    assert await scanned(vectors, "none") == []


async def test_puts_and_searches_side_by_side(vectors: VectorStore) -> None:
    async def put(number: int) -> None:
        await vectors.put("node", {f"v{number:03}": [float(number), 0.0]})
        assert (f"v{number:03}", 0.0) in await vectors.nearest("node", [float(number), 0.0], 1)

    await asyncio.gather(*(put(number) for number in range(100)))
    found = await vectors.nearest("node", [0.0, 0.0], 1000)
    assert found == [(f"v{number:03}", float(number)) for number in range(100)]


async def test_a_drop_among_puts_leaves_no_ghosts(vectors: VectorStore, adapters: Adapters) -> None:
    await asyncio.gather(
        vectors.put("node", {"before": [0.0]}),
        vectors.nearest("node", [0.0], 1),
        vectors.drop("node"),
        vectors.nearest("node", [0.0], 1),
        vectors.put("node", {"after": [0.0]}),
        vectors.nearest("node", [0.0], 1),
    )
    held = await vectors.nearest("node", [0.0], 9)
    await vectors.close()
    if adapters.persistent:
        fresh = await adapters.vectors()
        assert await fresh.nearest("node", [0.0], 9) == held
        await fresh.close()


async def test_vectors_are_there_after_reopening(adapters: Adapters) -> None:
    store = await adapters.vectors()
    await store.put("node", {"a": [0.1, -0.0, 1e300]})
    await store.close()
    if adapters.persistent:
        store = await adapters.vectors()
        assert await store.nearest("node", [0.1, 0.0, 1e300], 1) == [("a", 0.0)]
        await store.close()
