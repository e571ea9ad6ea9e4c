"""Figures over time: /stats and /metrics/{name} on every prefix."""

from __future__ import annotations

import pytest

from tests.api.driving import Client, refused

PREFIXES = ["", "/v1", "/v2"]


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_metric_over_time(http: Client, prefix: str) -> None:
    http.kato.series.record(http.kato.clock(), {"requests_total": 4.0})
    found = (await http.get(f"{prefix}/metrics/requests_total?minutes=5")).json()
    assert found["metric_name"] == "requests_total"
    assert found["time_range_minutes"] == 5
    assert found["statistics"]["max"] >= 4.0
    assert found["data_points"][-1]["labels"] == {}


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_an_unknown_metric_is_not_found(http: Client, prefix: str) -> None:
    answer = await http.get(f"{prefix}/metrics/nothing")
    assert "requests_total" in refused(answer, 404, "METRIC_NOT_FOUND")["details"]["known"]


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_all_metrics_over_time(http: Client, prefix: str) -> None:
    http.kato.series.record(http.kato.clock(), {"observations_total": 2.0})
    found = (await http.get(f"{prefix}/stats")).json()
    assert found["time_range_minutes"] == 10
    assert found["current_status"]["active_sessions"] >= 0
    assert found["time_series"]["observations_total"][-1]["value"] == 2.0
    assert found["summary"]["observations_total"]["count"] >= 1


@pytest.mark.parametrize("minutes", ["0", "1441", "x"])
async def test_the_range_is_checked(http: Client, minutes: str) -> None:
    refused(await http.get(f"/stats?minutes={minutes}"), 422, "VALIDATION_ERROR", "minutes")
