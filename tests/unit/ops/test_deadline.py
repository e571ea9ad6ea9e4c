"""The deadline of a request is known to all that works for it."""

from __future__ import annotations

import asyncio

from kato.ops.deadline import deadline, due


async def test_it_is_known_inside_and_in_tasks_begun_there() -> None:
    assert deadline() is None
    now = asyncio.get_running_loop().time()

    async def look() -> float | None:
        return deadline()

    with due(5):
        until = deadline()
        assert until is not None
        assert 5 <= until - now < 6
        task = asyncio.create_task(look())
    assert await task == until
    assert deadline() is None


async def test_nobody_gets_more_time_than_who_asked() -> None:
    with due(1):
        outer = deadline()
        with due(60):
            assert deadline() == outer
        with due(0.5):
            inner = deadline()
            assert inner is not None
            assert outer is not None
            assert inner < outer
