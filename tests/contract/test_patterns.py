"""The contract of `PatternStore`."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from kato.engine.learning import forget
from kato.errors import StorageError, ValidationError
from kato.model import FORGOTTEN, Pattern
from kato.stores.codec import decode_pattern, details_of
from kato.stores.ports import PatternStore

from .adapters import Adapters
from .values import NODES, RICH, name, pattern, scanned


async def test_an_inserted_pattern_is_fetched_as_it_was(patterns: PatternStore) -> None:
    assert await patterns.insert("node", [RICH, pattern("plain")]) == set()
    assert await patterns.fetch("node", [RICH.name, name("plain"), name("other")]) == {
        RICH.name: RICH,
        name("plain"): pattern("plain"),
    }


async def test_emotives_that_an_update_wrote_keep_their_shape(patterns: PatternStore) -> None:
    for number, emotives in enumerate(({"joy": (1.0, 2.0)}, {}, (), ({},))):
        stored = pattern(str(number), emotives=emotives)
        await patterns.insert("node", [stored])
        assert (await patterns.fetch("node", [stored.name]))[stored.name] == stored


async def test_nothing_to_do(patterns: PatternStore) -> None:
    assert await patterns.insert("node", []) == set()
    assert await patterns.fetch("node", []) == {}
    assert await patterns.nodes() == []
    assert await patterns.count("node") == 0
    assert await scanned(patterns, "node") == []
    assert await patterns.drop("node") == 0


async def test_insert_leaves_known_records_untouched_and_names_them(patterns: PatternStore) -> None:
    await patterns.insert("node", [pattern("1", frequency=5), pattern("2")])
    again = [pattern(str(number), frequency=9) for number in range(4)]
    assert await patterns.insert("node", again) == {name("1"), name("2")}
    assert await patterns.insert("node", again[:1]) == {name("0")}
    found = await patterns.fetch("node", [each.name for each in again])
    assert [found[each.name].frequency for each in again] == [9, 5, 1, 9]


async def test_insert_refuses_one_name_twice(patterns: PatternStore) -> None:
    with pytest.raises(ValidationError):
        await patterns.insert("node", [pattern("1"), pattern("1")])
    assert await patterns.count("node") == 0


@pytest.mark.parametrize("wrong", ["", "PTRN|" + "0" * 40, "0" * 39, "A" * 40, "g" * 40, " " * 40, "0" * 42])
async def test_what_is_no_name_is_refused_or_unknown(patterns: PatternStore, wrong: str) -> None:
    with pytest.raises(ValidationError):
        await patterns.insert("node", [Pattern(name=wrong, events=(("a",),))])
    assert await patterns.fetch("node", [wrong]) == {}
    assert not await patterns.delete("node", wrong)


async def test_text_that_cannot_be_stored_is_refused(patterns: PatternStore) -> None:
    with pytest.raises(ValidationError):
        await patterns.insert("node", [pattern("1", (("\ud800",),))])
    with pytest.raises(ValidationError):
        await patterns.insert("\ud800", [pattern("1")])
    assert await patterns.nodes() == []


async def test_thousands_in_one_call(patterns: PatternStore) -> None:
    many = [pattern(str(number), ((f"s{number}",), ("end",)), frequency=number + 1) for number in range(5003)]
    assert await patterns.insert("node", many[:2000]) == set()
    assert await patterns.insert("node", many) == {each.name for each in many[:2000]}
    assert await patterns.count("node") == 5003
    assert await patterns.fetch("node", [each.name for each in many]) == {each.name: each for each in many}


async def test_scan_delivers_everything_in_order_of_name(patterns: PatternStore) -> None:
    many = [pattern(str(number), ((f"s{number}",), ("end",)), frequency=number + 1) for number in range(3000)]
    many.append(RICH)
    await patterns.insert("node", many)
    await patterns.insert("other", [pattern("elsewhere")])
    records = await scanned(patterns, "node")
    many.sort(key=lambda each: each.name)
    expected = [msgspec.structs.replace(each, revision=1) for each in many]
    assert [decode_pattern(record) for record in records] == expected
    assert [details_of(record).finalized for record in records] == [each.finalized for each in many]


async def test_scan_is_consistent_as_of_its_first_batch(patterns: PatternStore) -> None:
    await patterns.insert("node", [pattern(str(number)) for number in range(6000)])
    scan = patterns.scan("node")
    records = list(await anext(scan))
    assert len(records) > 0
    await patterns.insert("node", [pattern(f"late {number}") for number in range(100)])
    for number in range(0, 6000, 50):
        await patterns.delete("node", name(str(number)))
    async for batch in scan:
        records += batch
    assert [record.name.hex() for record in records] == sorted(name(str(number)) for number in range(6000))
    assert await patterns.count("node") == 6000 + 100 - 120


async def test_a_scan_may_be_left_early(patterns: PatternStore) -> None:
    await patterns.insert("node", [pattern(str(number)) for number in range(6000)])
    for _ in range(10):
        async for batch in patterns.scan("node"):
            assert batch
            break
    assert len(await scanned(patterns, "node")) == 6000


async def test_scans_side_by_side(patterns: PatternStore) -> None:
    await patterns.insert("node", [pattern(str(number)) for number in range(3000)])
    results = await asyncio.gather(*(scanned(patterns, "node") for _ in range(8)))
    assert all(records == results[0] for records in results)
    assert len(results[0]) == 3000


async def test_replace_wants_the_revision_that_was_read(patterns: PatternStore) -> None:
    await patterns.insert("node", [pattern("1", revision=1)])
    second = pattern("1", (("new",), ("events",)), frequency=2, operations=("op",), revision=2)
    assert not await patterns.replace("node", second, 2)
    assert await patterns.replace("node", second, 1)
    assert not await patterns.replace("node", second, 1)
    assert await patterns.fetch("node", [name("1")]) == {name("1"): second}


async def test_replace_of_what_is_gone(patterns: PatternStore) -> None:
    assert not await patterns.replace("node", pattern("1", revision=2), 1)
    await patterns.insert("node", [pattern("1")])
    await patterns.delete("node", name("1"))
    assert not await patterns.replace("node", pattern("1", revision=2), 1)
    assert await patterns.count("node") == 0


async def test_no_update_is_lost_when_many_replace_at_once(patterns: PatternStore) -> None:
    await patterns.insert("node", [pattern("1", frequency=0)])

    async def learn() -> None:
        while True:
            old = (await patterns.fetch("node", [name("1")]))[name("1")]
            new = msgspec.structs.replace(old, frequency=old.frequency + 1, revision=old.revision + 1)
            if await patterns.replace("node", new, old.revision):
                return

    await asyncio.gather(*(learn() for _ in range(20)))
    found = (await patterns.fetch("node", [name("1")]))[name("1")]
    assert (found.frequency, found.revision) == (20, 21)


async def test_of_many_inserts_of_one_name_exactly_one_wins(patterns: PatternStore) -> None:
    outcomes = await asyncio.gather(
        *(
            patterns.insert("node", [pattern("same", frequency=number), pattern(str(number))])
            for number in range(50)
        )
    )
    winners = [number for number, known in enumerate(outcomes) if not known]
    assert len(winners) == 1
    assert all(known == {name("same")} for number, known in enumerate(outcomes) if number not in winners)
    found = await patterns.fetch("node", [name("same")])
    assert found[name("same")].frequency == winners[0]
    assert await patterns.count("node") == 51


async def test_concurrent_writers_see_each_other_in_order(patterns: PatternStore) -> None:
    outcomes = await asyncio.gather(
        patterns.insert("node", [pattern("1")]),
        patterns.replace("node", pattern("1", frequency=2, revision=2), 1),
        patterns.delete("node", name("1")),
        patterns.insert("node", [pattern("1", frequency=9)]),
    )
    # Requests that overlap may be done in any order, but each wholly and the results must fit the order.
    stored = await patterns.fetch("node", [name("1")])
    assert (name("1") in stored) == (outcomes[0] == set() or outcomes[3] == set()) or outcomes[2]
    assert not (outcomes[0] and outcomes[3])


async def test_a_cancelled_write_is_done_or_not_and_harms_nobody(patterns: PatternStore) -> None:
    batch = [pattern(f"batch {number}") for number in range(500)]
    cancelled = asyncio.ensure_future(patterns.insert("node", batch))
    others = [asyncio.ensure_future(patterns.insert("node", [pattern(str(number))])) for number in range(20)]
    await asyncio.sleep(0)
    cancelled.cancel()
    assert await asyncio.gather(*others) == [set()] * 20
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await patterns.insert("node", [pattern("after")])
    assert await patterns.count("node") in (21, 521)


async def test_delete(patterns: PatternStore) -> None:
    await patterns.insert("node", [pattern("1"), pattern("2")])
    assert await patterns.delete("node", name("1"))
    assert not await patterns.delete("node", name("1"))
    assert not await patterns.delete("other", name("2"))
    assert await patterns.fetch("node", [name("1"), name("2")]) == {name("2"): pattern("2")}


async def test_delete_of_one_revision(patterns: PatternStore) -> None:
    await patterns.insert("node", [pattern("1", revision=3)])
    assert not await patterns.delete("node", name("1"), 2)
    assert not await patterns.delete("node", name("1"), 4)
    assert await patterns.count("node") == 1
    assert await patterns.delete("node", name("1"), 3)
    assert not await patterns.delete("node", name("1"), 3)
    assert await patterns.count("node") == 0


async def test_a_forgotten_record_is_one_like_any_other_that_does_not_count(patterns: PatternStore) -> None:
    await patterns.insert("node", [pattern("1", operations=("op",)), pattern("2")])
    forgotten = forget((await patterns.fetch("node", [name("1")]))[name("1")], "deletion")
    assert await patterns.replace("node", forgotten, 1)
    assert await patterns.fetch("node", [name("1")]) == {name("1"): forgotten}
    assert forgotten.forgotten
    assert (forgotten.operations, forgotten.revision) == (("op", "deletion"), 2)
    assert await patterns.insert("node", [pattern("1")]) == {name("1")}
    records = {record.name.hex(): record.frequency for record in await scanned(patterns, "node")}
    assert records == {name("1"): FORGOTTEN, name("2"): 1}
    assert await patterns.count("node") == 1
    assert await patterns.delete("node", name("1"), 2)
    assert len(await scanned(patterns, "node")) == 1


async def test_drop_removes_one_node_and_it_may_begin_again(patterns: PatternStore) -> None:
    for node in ("node", "other"):
        await patterns.insert(node, [pattern("1"), pattern("2")])
    assert await patterns.drop("node") == 2
    assert await patterns.drop("node") == 0
    assert await patterns.nodes() == ["other"]
    assert await patterns.insert("node", [pattern("2")]) == set()
    assert await scanned(patterns, "node") == [
        (bytes.fromhex(name("2")), b"\x92\x92\xa1a\xa1b\x91\xa1c", 1, b"")
    ]
    assert await patterns.count("other") == 2


async def test_nodes_are_kept_apart_byte_for_byte(patterns: PatternStore) -> None:
    for number, node in enumerate(NODES):
        assert await patterns.insert(node, [pattern("1", frequency=number), pattern(node)]) == set()
    assert await patterns.nodes() == sorted(NODES)
    for number, node in enumerate(NODES):
        assert (await patterns.fetch(node, [name("1")]))[name("1")].frequency == number
        assert await patterns.count(node) == 2
    assert await patterns.drop("a-b") == 2
    assert await patterns.nodes() == sorted(set(NODES) - {"a-b"})


async def test_a_node_whose_last_record_went_is_not_listed(patterns: PatternStore) -> None:
    await patterns.insert("node", [pattern("1")])
    await patterns.delete("node", name("1"))
    assert await patterns.nodes() == []


async def test_what_was_acknowledged_is_there_after_reopening(adapters: Adapters) -> None:
    store = await adapters.patterns()
    await store.insert("node", [RICH, pattern("1")])
    await store.delete("node", name("1"))
    await store.close()
    if adapters.persistent:
        store = await adapters.patterns()
        assert await store.fetch("node", [RICH.name, name("1")]) == {RICH.name: RICH}
        await store.close()


async def test_close_finishes_what_was_accepted(adapters: Adapters) -> None:
    store = await adapters.patterns()
    accepted = [asyncio.ensure_future(store.insert("node", [pattern(str(number))])) for number in range(100)]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*accepted) == [set()] * 100
    for call in (
        store.insert("node", [pattern("late")]),
        store.fetch("node", [name("1")]),
        store.count("node"),
    ):
        with pytest.raises(StorageError):
            await call
    await store.close()
