"""Without the pattern store: what goes on, what is refused and loses nothing, and which answers say they are stale."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from kato.engine.naming import pattern_name
from kato.errors import ServiceUnavailable, StorageError
from kato.model import PATTERN_PREFIX, Lesson, Pattern
from kato.ops.deadline import deadline, due
from kato.service import Kato
from tests.support.degrading import Degrading, degrading
from tests.support.feed import MoodyStore
from tests.support.kato import batch, opened, seen, show, stm, taught
from tests.support.memory import events
from tests.support.waiting import until

NAME = PATTERN_PREFIX + pattern_name(events("a b c"))


@pytest.fixture(params=[False, True], ids=["exclusive", "shared"])
async def parts(request: pytest.FixtureRequest) -> AsyncIterator[Degrading]:
    async with degrading(request.param) as made:
        yield made


@pytest.fixture
def kato(parts: Degrading) -> Kato:
    return parts.kato


async def remembering(kato: Kato) -> str:
    """A session that predicts from the one pattern of its node."""
    session = await opened(kato)
    await kato.observe(session, seen("a", joy=1.0))
    await show(kato, session, "b c")
    await kato.learn(session)
    await show(kato, session, "a b")
    return session


async def read(kato: Kato, session: str) -> dict[str, bool]:
    """For everything that is answered from the index, whether it says that it is stale."""
    found, _ = await kato.predictions(session)
    cognition, _ = await kato.cognition_data(session)
    statistics, of_statistics = await kato.symbol_statistics("node")
    affinities, of_affinities = await kato.affinities("node")
    affinity, of_affinity = await kato.affinity("node", "a")
    assert [prediction.pattern_name for prediction in found.predictions] == [NAME]
    assert [prediction.pattern_name for prediction in cognition["predictions"]] == [NAME]
    assert [figures.name for figures in statistics] == list(affinities) == ["a", "b", "c"]
    assert affinity == {"joy": 1.0}
    return {
        "predictions": found.stale,
        "cognition": cognition.get("stale", False),
        "statistics": of_statistics,
        "affinities": of_affinities,
        "affinity": of_affinity,
    }


# Stale


async def test_what_cannot_be_brought_up_to_date_is_stale_until_it_can(parts: Degrading, kato: Kato) -> None:
    session = await remembering(kato)
    assert set((await read(kato, session)).values()) == {False}
    parts.line.error = StorageError("the feed is down")
    assert set((await read(kato, session)).values()) == {True}
    assert (await kato.list_patterns("node")).stale
    parts.line.error = None
    assert set((await read(kato, session)).values()) == {False}
    assert not (await kato.list_patterns("node")).stale


async def test_while_the_pattern_store_is_known_to_be_down_everything_is_stale(
    parts: Degrading, kato: Kato
) -> None:
    session = await remembering(kato)
    parts.known_to_be_available = False
    assert set((await read(kato, session)).values()) == {True}
    parts.known_to_be_available = True
    assert set((await read(kato, session)).values()) == {False}


async def test_a_search_in_a_thread_is_stale_too(parts: Degrading, kato: Kato) -> None:
    session = await remembering(kato)
    await kato.configure(session, {"fuzzy_token_threshold": 0.9})
    parts.known_to_be_available = False
    assert (await kato.predictions(session))[0].stale


async def test_an_empty_stm_resembles_nothing_whatever_is_down(parts: Degrading, kato: Kato) -> None:
    session = await opened(kato)
    parts.patterns.down, parts.known_to_be_available = True, False
    found, _ = await kato.predictions(session)
    assert (found.predictions, found.stale) == ((), False)
    await kato.configure(session, {"process_predictions": False})
    await show(kato, session, "a")
    assert "stale" not in (await kato.cognition_data(session))[0]


async def test_looking_for_changes_in_a_store_that_hangs_takes_half_of_the_time(
    parts: Degrading, kato: Kato
) -> None:
    session, loop = await remembering(kato), asyncio.get_running_loop()
    # Another instance is about to learn something.
    parts.line.entries.append(("0f" * 20, "+another/1:operation"))
    # Looking up is done for all who wait, in its own time; who waits has only the half.
    gate = parts.patterns.fetch_gate = asyncio.Event()
    began = loop.time()
    with due(1):
        found, _ = await kato.predictions(session)
    assert (len(found.predictions), found.stale) == (1, True)
    assert 0.5 <= loop.time() - began < 1
    gate.set()
    parts.patterns.fetch_gate = None
    assert not (await kato.predictions(session))[0].stale


# Refused


@pytest.mark.parametrize("opened_before", [True, False], ids=["open", "not open"])
@pytest.mark.parametrize("way", ["manual", "automatic", "batch"])
async def test_without_the_pattern_store_a_learn_is_refused_and_changes_nothing(
    parts: Degrading, kato: Kato, opened_before: bool, way: str
) -> None:
    session = await opened(kato, max_pattern_length=0 if way == "manual" else 3)
    await show(kato, session, "a b")
    if opened_before:
        await kato.totals("node")
    parts.patterns.down = True

    async def learn() -> Any:
        if way == "manual":
            return await kato.learn(session)
        if way == "automatic":
            return await kato.observe(session, seen("c", joy=1.0))
        return await kato.observe_sequence(session, batch("c d e f"))

    for _ in range(2):
        with pytest.raises(StorageError):
            await learn()
        state = await kato.session(session)
        assert (state.stm, state.time, state.emotives) == (events("a b"), 2, ())
    if way == "manual":
        await show(kato, session, "c")
    parts.patterns.down = False
    await learn()
    assert (await kato.get_pattern("node", NAME)).frequency == 1
    assert await stm(kato, session) == ()


async def test_a_node_that_is_not_open_cannot_answer_but_its_sessions_go_on(
    parts: Degrading, kato: Kato
) -> None:
    session = await opened(kato)
    parts.patterns.down = True
    await show(kato, session, "a b")
    assert await stm(kato, session) == events("a b")
    for call in (
        kato.predictions(session),
        kato.cognition_data(session),
        kato.symbol_statistics("node"),
        kato.list_patterns("node"),
    ):
        with pytest.raises(StorageError):
            await call
    parts.patterns.down = False
    assert (await kato.predictions(session))[0].predictions == ()
    await kato.clear_stm(session)
    assert await taught(kato, session, "a b c") == NAME


# Opening


async def test_while_a_node_is_opened_others_answer_and_its_sessions_learn_later() -> None:
    async with degrading(opening_seconds=0.02) as parts:
        kato = parts.kato
        other = await opened(kato, "other")
        await taught(kato, other, "a b")
        session = await opened(kato)
        await show(kato, session, "a b c")
        gate = parts.patterns.scan_gate = asyncio.Event()
        for call in (kato.predictions, kato.learn):
            with pytest.raises(ServiceUnavailable) as refused:
                await call(session)
            assert refused.value.retry_after
            await show(kato, other, "a")
            assert (await kato.predictions(other))[0].predictions
        assert await stm(kato, session) == events("a b c")
        gate.set()
        await until(lambda: "node" in kato.memory.open_nodes)
        assert (await kato.learn(session)).pattern_name == NAME


async def test_an_opening_is_not_due_when_the_one_who_asked_first_is(
    parts: Degrading, kato: Kato, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[float | None] = []
    scan = MoodyStore.scan

    def noted(store: MoodyStore, node: str) -> Any:
        deadlines.append(deadline())
        return scan(store, node)

    monkeypatch.setattr(MoodyStore, "scan", noted)
    with due(5):
        await kato.totals("node")
    assert deadlines == [None]


async def test_a_lesson_is_delivered_in_half_of_the_time_so_that_it_can_be_taken_back() -> None:
    async with degrading(shared=True) as parts:
        kato, session = parts.kato, await opened(parts.kato)
        await show(kato, session, "a b c")
        remaining: list[float] = []
        learn = type(await kato.memory.node("node")).learn

        async def timed(node: Any, lessons: Sequence[Lesson]) -> dict[str, Pattern]:
            remaining.append((deadline() or 0.0) - asyncio.get_running_loop().time())
            return await learn(node, lessons)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(await kato.memory.node("node")), "learn", timed)
            with due(100):
                await kato.learn(session)
        assert 40 < remaining[0] <= 50
