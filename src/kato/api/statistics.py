"""How the figures of the process developed over the last minutes."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from kato import answers
from kato.api.routing import Call, Route
from kato.errors import KatoError, MetricNotFound
from kato.ops.process import memory_bytes
from kato.ops.series import Point
from kato.service import Kato

TAG = "monitoring"


class RangeQuery(msgspec.Struct, frozen=True):
    """How far to look back."""

    minutes: Annotated[int, msgspec.Meta(ge=1, le=1440)] = 10


class PointAnswer(answers.Answer, frozen=True, kw_only=True):
    """One value; `timestamp` in seconds since the epoch."""

    timestamp: float
    value: float
    labels: dict[str, str]


class SeriesAnswer(answers.Answer, frozen=True, kw_only=True):
    """A metric over time. `statistics` holds count, min, max and avg of the points."""

    metric_name: str
    time_range_minutes: int
    timestamp: float
    statistics: dict[str, float]
    data_points: tuple[PointAnswer, ...]


class StatsAnswer(answers.Answer, frozen=True, kw_only=True):
    """All metrics over time, and their latest values."""

    time_range_minutes: int
    timestamp: float
    processor_manager: dict[str, int]
    current_status: dict[str, float]
    time_series: dict[str, tuple[PointAnswer, ...]]
    summary: dict[str, dict[str, float]]


async def figures(kato: Kato) -> dict[str, float]:
    """What is sampled: counters since the start, and what is held right now."""
    counters = kato.counters
    found: dict[str, float] = {
        "requests_total": counters.requests,
        "errors_total": counters.request_errors,
        "observations_total": counters.observations,
        "predictions_total": counters.predictions,
        "patterns_learned_total": counters.patterns_learned,
        "memory_bytes": memory_bytes(),
        "open_nodes": len(kato.memory.open_nodes),
    }
    try:
        found["active_sessions"] = await kato.count_sessions()
    except KatoError:
        # The session store is in trouble, which health reports; the other figures are still true.
        return found
    return found


def _points(points: list[Point]) -> tuple[PointAnswer, ...]:
    return tuple(PointAnswer(timestamp=at, value=value, labels={}) for at, value in points)


def _statistics(points: list[Point]) -> dict[str, float]:
    values = [point.value for point in points]
    return {"count": len(values), "min": min(values), "max": max(values), "avg": sum(values) / len(values)}


async def series(call: Call) -> SeriesAnswer:
    """One metric over the last minutes."""
    name, minutes, now = call.parameters[0], call.query.minutes, call.kato.clock()
    points = call.kato.series.points(name, now - 60 * minutes)
    if not points:
        raise MetricNotFound(
            f"No data for metric {name[:100]} in the last {minutes} minutes",
            metric_name=name[:100],
            known=call.kato.series.names(),
        )
    return SeriesAnswer(
        metric_name=name,
        time_range_minutes=minutes,
        timestamp=now,
        statistics=_statistics(points),
        data_points=_points(points),
    )


async def stats(call: Call) -> StatsAnswer:
    """All metrics over the last minutes."""
    kato, minutes, now = call.kato, call.query.minutes, call.kato.clock()
    current = await figures(kato)
    found = {name: kato.series.points(name, now - 60 * minutes) for name in kato.series.names()}
    return StatsAnswer(
        time_range_minutes=minutes,
        timestamp=now,
        processor_manager={"open": len(kato.memory.open_nodes), "max": kato.memory.max_nodes},
        current_status=current,
        time_series={name: _points(points) for name, points in found.items()},
        summary={name: _statistics(points) for name, points in found.items() if points},
    )


def routes(*, v2: bool) -> list[Route]:
    """The paths, unprefixed and below /v1, with `v2` also below /v2."""
    prefixes = ("", "/v1", "/v2") if v2 else ("", "/v1")
    shared: dict[str, Any] = {"method": "GET", "tag": TAG, "query": RangeQuery}
    return [
        route
        for prefix in prefixes
        for route in (
            Route(
                path=f"{prefix}/stats",
                handler=stats,
                answers=(StatsAnswer,),
                summary="All metrics over the last minutes",
                **shared,
            ),
            Route(
                path=f"{prefix}/metrics/{{metric_name}}",
                handler=series,
                answers=(SeriesAnswer,),
                summary="One metric over the last minutes",
                errors=(MetricNotFound,),
                **shared,
            ),
        )
    ]
