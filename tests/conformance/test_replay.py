"""Every recorded case, replayed over HTTP against a server of its own settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conformance import replay
from tests.conformance.recorded import ALGORITHMS, CASES, FAMILIES, RULES, SETTINGS, Replays, of_family
from tests.support.server import serving


class Servers:
    """Servers by settings, started when first needed."""

    def __init__(self, data: Path, stack: ExitStack) -> None:
        self._data = data
        self._stack = stack
        self._clients: dict[str, replay.Client] = {}

    def client(self, settings: dict[str, str]) -> replay.Client:
        key = json.dumps(settings)
        if key not in self._clients:
            folder = self._data / str(len(self._clients))
            server = self._stack.enter_context(serving(folder, settings))
            self._clients[key] = replay.Client(server.url)
            self._stack.callback(self._clients[key].close)
        return self._clients[key]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(tmp_path_factory.mktemp("replay"), stack)


@pytest.fixture(scope="module")
def replays() -> Replays:
    return Replays()


def test_all_recorded_cases_are_here() -> None:
    assert len(CASES) == 404
    assert len({case["id"] for case in CASES}) == 404
    assert [len(replay.under(CASES, {})), sum(len(replay.under(CASES, each)) for each in SETTINGS)] == [
        387,
        404,
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_default_settings_answer_as_recorded(servers: Servers, replays: Replays, family: str) -> None:
    assert replays.differences(servers.client({}), of_family(family)) == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_rank_sort_algo_of_the_service_answers_as_recorded(
    servers: Servers, replays: Replays, algorithm: str
) -> None:
    settings = {"RANK_SORT_ALGO": algorithm}
    assert replays.differences(servers.client(settings), replay.under(CASES, settings)) == []


def test_every_wanted_difference_occurs(servers: Servers, replays: Replays) -> None:
    for settings in SETTINGS:
        if left := replays.left(settings):
            assert replays.differences(servers.client(settings), left) == []
    assert replays.deviations.unused() == []


def test_wanted_differences_name_their_reason() -> None:
    for rule in RULES:
        register = rule["register"]
        assert register == "design.md 1.3" or register in range(1, 27)
        assert rule["family"] in (*FAMILIES, "rankd")
        assert rule["why"].endswith(".")


def test_a_ranking_of_the_session_changes_nothing_but_the_order(servers: Servers) -> None:
    """The rules of family `ranks` name many fields, because rows are compared by place: compare by name here."""
    client, tag = servers.client({}), replay.fresh_tag()
    compared = 0
    for case in CASES:
        algorithm = case["config"].get("rank_sort_algo")
        if case["family"] != "ranks" or algorithm is None:
            continue
        for number, step, _, answer in replay.steps(client, case, tag):
            want, got = step["expect"].get("predictions", []), answer.get("predictions", [])
            if step["op"] != "predictions" or replay.names(want) != replay.names(got):
                continue
            if any("pattern_data" in row for row in want):
                continue
            rows = [
                [{k: v for k, v in row.items() if k != "confluence"} for row in replay.keyed(rows, "name")]
                for rows in (want, got)
            ]
            place = f"{case['id']} step {number}"
            assert replay.differ(*rows, place) == []
            assert replay.ordered_by(got, algorithm, place) == []
            compared += 1
    assert compared > 10
