"""One kind on both sides, on real stores in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

import msgspec
import pytest

from kato.errors import BadRequest, ConcurrencyError
from kato.model import Pattern
from kato.moving.copying import COMPARING, COPYING, VERIFYING, Pair
from kato.moving.figures import Figures
from kato.moving.shelves import PatternShelf
from kato.stores.sqlite import SqlitePatternStore
from tests.contract.values import RICH, pattern

NODE = "node"
MANY = sorted((pattern(str(number), frequency=number) for number in range(30)), key=lambda each: each.name)


class Heard:
    """What a watch was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int]] = []

    def expect(self, kind: str, records: int) -> None:
        raise AssertionError("a pair expects nothing")

    def __call__(self, doing: str, kind: str, records: int) -> None:
        self.told.append((doing, kind, records))


class Both(NamedTuple):
    source: SqlitePatternStore
    target: SqlitePatternStore
    heard: Heard

    def pair(self, *, replace: bool = False, blank: bool = False) -> Pair[Pattern]:
        theirs = PatternShelf(self.target, NODE)
        ours = PatternShelf(self.source, NODE)
        return Pair(ours, theirs, self.heard, change=theirs.change, replace=replace, blank=blank)

    async def fill(self, source: Sequence[Pattern], target: Sequence[Pattern]) -> None:
        await self.source.insert(NODE, source)
        await self.target.insert(NODE, target)

    async def held(self) -> list[Pattern]:
        found = await self.target.fetch(NODE, [each.name for each in [*MANY, RICH]])
        return sorted(found.values(), key=lambda each: each.name)


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    stores = SqlitePatternStore(":memory:"), SqlitePatternStore(":memory:")
    yield Both(*stores, Heard())
    for store in stores:
        await store.close()


async def done(pair: Pair[Pattern]) -> Pair[Pattern]:
    await pair.compare()
    await pair.copy()
    await pair.verify()
    return pair


def changed(patterns: Sequence[Pattern], place: int) -> list[Pattern]:
    """The patterns, one of them with another frequency."""
    other = msgspec.structs.replace(patterns[place], frequency=77, revision=5)
    return [*patterns[:place], other, *patterns[place + 1 :]]


@pytest.mark.parametrize("blank", [False, True])
async def test_an_empty_target_gets_everything(both: Both, blank: bool) -> None:
    await both.fill([*MANY, RICH], [])
    pair = await done(both.pair(blank=blank))
    assert pair.written == {NODE: 31}
    assert pair.figures[NODE].count == 31
    assert await both.held() == sorted([*MANY, RICH], key=lambda each: each.name)
    assert both.heard.told == [
        (COPYING, "pattern", 31),
        (VERIFYING, "pattern", 31),
        (VERIFYING, "pattern", 31),
    ]


async def test_what_agrees_is_neither_written_nor_read_again(both: Both) -> None:
    await both.fill(MANY, MANY)
    pair = await done(both.pair())
    assert pair.written == {}
    assert pair.figures == (await done(both.pair(replace=True))).figures
    assert {doing for doing, _, _ in both.heard.told} == {COMPARING}


@pytest.mark.parametrize(
    "there", [MANY[:1], MANY[-1:], MANY[::3], MANY[5:20], [*MANY[:9], *MANY[11:]]], ids=len
)
async def test_only_what_is_missing_is_written(both: Both, there: list[Pattern]) -> None:
    await both.fill(MANY, there)
    pair = await done(both.pair())
    assert pair.written == {NODE: len(MANY) - len(there)}
    assert await both.held() == MANY


@pytest.mark.parametrize("place", [0, 17, 29])
async def test_other_values_are_refused_or_replaced(both: Both, place: int) -> None:
    await both.fill(MANY, changed(MANY, place)[: place + 1])
    with pytest.raises(BadRequest) as refused:
        await both.pair().compare()
    assert refused.value.message == (
        f"node node: the target holds pattern {MANY[place].name} with other values than the source; "
        "nothing was copied. Choose a target where the node is empty, or overwrite with --replace"
    )
    assert await both.held() == changed(MANY, place)[: place + 1]
    pair = await done(both.pair(replace=True))
    assert pair.written == {NODE: len(MANY) - place}
    assert await both.held() == MANY


@pytest.mark.parametrize("place", [0, 17, 29])
@pytest.mark.parametrize("replace", [False, True])
async def test_what_only_the_target_holds_is_always_refused(both: Both, place: int, replace: bool) -> None:
    await both.fill([*MANY[:place], *MANY[place + 1 :]], MANY)
    with pytest.raises(BadRequest, match=f"node node: the target holds pattern {MANY[place].name}, which"):
        await both.pair(replace=replace).compare()


async def test_an_empty_source_stands_against_a_full_target(both: Both) -> None:
    await both.fill([], MANY)
    with pytest.raises(BadRequest, match=MANY[0].name):
        await both.pair().compare()


async def test_two_empty_sides_agree(both: Both) -> None:
    pair = await done(both.pair())
    assert (pair.written, pair.figures) == ({}, {})


async def test_what_comes_into_the_target_meanwhile_stops_the_copy(both: Both) -> None:
    await both.fill(MANY, MANY[:1])
    pair = both.pair()
    await pair.compare()
    await both.target.insert(NODE, [RICH])
    with pytest.raises(ConcurrencyError, match=f"holds pattern {RICH.name}.*; it came there during the copy"):
        await pair.copy()


async def add_to_target(both: Both) -> None:
    await both.target.insert(NODE, [RICH])


async def add_to_source(both: Both) -> None:
    await both.source.insert(NODE, [RICH])


async def change_target(both: Both) -> None:
    await both.target.replace(NODE, msgspec.structs.replace(MANY[3], frequency=99), MANY[3].revision)


async def empty_source(both: Both) -> None:
    await both.source.drop(NODE)


@pytest.mark.parametrize("change", [add_to_target, add_to_source, change_target, empty_source])
async def test_a_difference_in_the_end_names_the_node(both: Both, change: Callable[[Both], object]) -> None:
    await both.fill(MANY, [])
    pair = both.pair()
    await pair.compare()
    await pair.copy()
    await change(both)  # type: ignore[misc]
    with pytest.raises(ConcurrencyError, match=r"^node node: after the copy the source holds \d+ patterns"):
        await pair.verify()
    assert pair.figures == {}


async def test_what_was_there_first_stays(both: Both) -> None:
    """Another process writes between the look and the write: its record is left, and the verification tells."""
    await both.fill(MANY, [])
    pair = both.pair(blank=True)
    await pair.compare()
    await both.target.insert(NODE, changed(MANY, 4)[4:5])
    await pair.copy()
    assert pair.written == {NODE: 29}
    with pytest.raises(ConcurrencyError, match="node node: after the copy"):
        await pair.verify()


async def test_figures_are_those_of_the_records(both: Both) -> None:
    await both.fill(MANY[:2], [])
    first = (await done(both.pair())).figures[NODE]
    await both.source.insert("other", MANY[:2])
    other = Pair(PatternShelf(both.source, "other"), PatternShelf(both.target, "other"), both.heard)
    assert (await done(other)).figures == {"other": first}
    assert isinstance(first, Figures)
