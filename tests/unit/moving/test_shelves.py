"""The kinds of records on real stores, where they are special."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from kato.engine.learning import forget
from kato.errors import BadRequest
from kato.model import Pattern
from kato.moving.joining import ahead
from kato.moving.shelves import (
    SESSIONS_AT_ONCE,
    PatternShelf,
    SessionShelf,
    VectorShelf,
    pattern_record,
    session_record,
    vector_record,
    whole_patterns,
)
from kato.stores.sqlite import SqlitePatternStore, SqliteSessionStore, SqliteVectorStore
from tests.contract.values import NOW, RICH, pattern, session


async def test_whole_patterns_come_in_bounded_batches_in_order() -> None:
    store = SqlitePatternStore(":memory:")
    stored = [pattern(str(number), revision=number + 1) for number in range(25)]
    await store.insert("node", stored)
    batches = [batch async for batch in whole_patterns(store, "node", at_once=10)]
    assert [len(batch) for batch in batches] == [10, 10, 5]
    assert [each for batch in batches for each in batch] == sorted(stored, key=lambda each: each.name)
    await store.close()


async def test_a_pattern_that_goes_while_it_is_read_is_left_out() -> None:
    store = SqlitePatternStore(":memory:")
    await store.insert("node", [pattern(str(number)) for number in range(4)])
    found: list[Pattern] = []
    async for batch in whole_patterns(store, "node", at_once=2):
        found += batch
        await store.drop("node")
    assert len(found) == 2
    await store.close()


async def test_what_is_forgotten_is_not_read_and_makes_room() -> None:
    store = SqlitePatternStore(":memory:")
    shelf = PatternShelf(store, "node")
    records = sorted(pattern_record("node", pattern(str(number))) for number in range(5))
    await shelf.add(records)
    for record in records[:2]:
        await store.replace("node", forget(record.value, "deletion"), 1)
    read = [batch async for batch in whole_patterns(store, "node", at_once=2)]
    assert [each for batch in read for each in batch] == [record.value for record in records[2:]]
    assert await shelf.add(records) == records[:2]
    assert [batch async for batch in shelf.read()] == [records]
    await store.close()


async def test_what_is_forgotten_while_it_is_read_is_left_out() -> None:
    store = SqlitePatternStore(":memory:")
    records = sorted(pattern_record("node", pattern(str(number))) for number in range(4))
    await store.insert("node", [record.value for record in records])
    found: list[Pattern] = []
    async for batch in whole_patterns(store, "node", at_once=2):
        found += batch
        await store.replace("node", forget(records[3].value, "deletion"), 1)
    assert found == [record.value for record in records[:3]]
    await store.close()


async def test_only_a_pattern_that_is_still_the_same_is_changed() -> None:
    store = SqlitePatternStore(":memory:")
    shelf = PatternShelf(store, "node")
    old = [pattern_record("node", pattern(str(number))) for number in range(100)]
    new = [pattern_record("node", msgspec.structs.replace(each.value, frequency=9)) for each in old]
    await shelf.add(old)
    await store.delete("node", old[70].key)
    assert await shelf.change(list(zip(old, new, strict=True))) == [*new[:70], *new[71:]]
    await store.close()


async def test_a_pattern_that_is_there_is_not_added() -> None:
    store = SqlitePatternStore(":memory:")
    shelf = PatternShelf(store, "node")
    records = [pattern_record("node", each) for each in (RICH, pattern("other"))]
    assert await shelf.add(records[:1]) == records[:1]
    assert await shelf.add(records) == records[1:]
    await store.close()


async def test_vectors_of_another_dimension_are_told() -> None:
    store = SqliteVectorStore(":memory:")
    shelf = VectorShelf(store, "node")
    records = [vector_record("node", "a", (1.0, -0.0)), vector_record("node", "b", (1.0,))]
    with pytest.raises(BadRequest, match="node node: the target keeps vectors of another dimension"):
        await shelf.add(records)
    assert [batch async for batch in shelf.read()] == [records[:1]]
    await store.close()


async def test_sessions_of_some_nodes_or_of_all() -> None:
    store = SqliteSessionStore(":memory:")
    states = [session(f"s{number:03}", node_id=f"n{number % 3}") for number in range(2 * SESSIONS_AT_ONCE)]
    states.append(session("s-old", node_id="n0", expires_at=NOW))
    for state in states:
        await store.create(state, 0, 0)

    async def read(*nodes: str) -> list[str]:
        shelf = SessionShelf(store, nodes, NOW)
        return [record.key async for batch in shelf.read() for record in batch]

    assert await read() == [state.session_id for state in states[:-1]]
    assert await read("n1", "n2") == [each.session_id for each in states[:-1] if each.node_id != "n0"]
    assert await read("none") == []
    await store.close()


async def test_a_session_replaces_an_expired_one_of_its_id_but_no_living_one() -> None:
    store = SqliteSessionStore(":memory:")
    shelf = SessionShelf(store, (), NOW)
    await store.create(session("a", expires_at=NOW, revision=3), 0, 0)
    await store.create(session("b", revision=3), 0, 0)
    records = [session_record(session(each, revision=7)) for each in "abc"]
    assert await shelf.add(records) == [records[0], records[2]]
    assert await store.load("a") == records[0].value
    assert await store.load("b") == session("b", revision=3)
    assert await shelf.change([(session_record(session("b", revision=3)), records[1])]) == [records[1]]
    assert await store.load("b") == records[1].value
    await store.close()


async def test_batches_are_read_ahead_and_closed_early() -> None:
    begun: list[int] = []
    closed = asyncio.Event()

    async def numbers():  # type: ignore[no-untyped-def]
        try:
            for number in range(5):
                begun.append(number)
                yield number
        finally:
            closed.set()

    stream = ahead(numbers())
    assert await anext(stream) == 0
    await asyncio.sleep(0)
    assert begun == [0, 1]
    await stream.aclose()
    assert closed.is_set()
    assert [number async for number in ahead(numbers())] == [0, 1, 2, 3, 4]


async def test_an_error_ahead_is_told_when_it_is_its_turn() -> None:
    async def numbers():  # type: ignore[no-untyped-def]
        yield 1
        raise BadRequest("broken")

    stream = ahead(numbers())
    assert await anext(stream) == 1
    with pytest.raises(BadRequest, match="broken"):
        await anext(stream)
