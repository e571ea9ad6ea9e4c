"""The time series of a process's figures."""

from __future__ import annotations

import asyncio

from kato.ops import series
from kato.ops.series import Point, Series


def test_points_come_oldest_first_and_only_from_the_asked_time_on() -> None:
    recorded = Series()
    for at in (1.0, 2.0, 3.0):
        recorded.record(at, {"requests": at * 10})
    assert recorded.points("requests", since=2.0) == [Point(2.0, 20.0), Point(3.0, 30.0)]
    assert recorded.points("unknown", since=0.0) == []


def test_a_sample_may_lack_a_metric_that_others_have() -> None:
    recorded = Series()
    recorded.record(1.0, {"a": 1})
    recorded.record(2.0, {"b": 2})
    assert recorded.names() == ["a", "b"]
    assert recorded.points("b", since=0.0) == [Point(2.0, 2)]


def test_only_the_latest_samples_are_kept() -> None:
    recorded = Series()
    for at in range(series.KEPT + 5):
        recorded.record(float(at), {"a": at})
    points = recorded.points("a", since=0.0)
    assert len(points) == series.KEPT
    assert points[0].value == 5


async def test_sampling_begins_at_once_and_goes_on_until_cancelled(monkeypatch) -> None:
    monkeypatch.setattr(series, "INTERVAL", 0.0)
    recorded, taken = Series(), asyncio.Event()

    async def figures() -> dict[str, float]:
        if len(recorded.points("a", 0.0)) >= 3:
            taken.set()
        return {"a": 1.0}

    task = asyncio.create_task(recorded.sample(figures, lambda: 7.0))
    await taken.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert recorded.points("a", 7.0)[0] == Point(7.0, 1.0)
