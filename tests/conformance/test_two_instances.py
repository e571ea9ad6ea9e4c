"""Every recorded case, each request of it dealt at random to one of two instances on the same servers."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.conformance import replay
from tests.conformance.recorded import ALGORITHMS, CASES, FAMILIES, SETTINGS, Replays, of_family
from tests.support import postgres, qdrant_server, redis
from tests.support.served import served
from tests.support.server import serving


def shared_servers() -> dict[str, str]:
    """The settings of instances of one deployment that nobody else belongs to."""
    return {
        "KATO_STORE": "postgres",
        "DATABASE_URL": postgres.shared().url,
        "KATO_DATABASE_POOL_SIZE": "4",
        "REDIS_URL": redis.shared().url,
        "KATO_CLUSTER_ID": uuid.uuid4().hex,
        "MAX_SESSIONS": "0",
        **qdrant_server.shared().environment,
    }


class Dealer:
    """Deals requests to the instances of a service; the same `seed` deals alike."""

    def __init__(self, clients: Sequence[replay.Client], seed: object) -> None:
        self._clients = clients
        self._chance = random.Random(str(seed))
        self.dealt: list[int] = []

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        self.dealt.append(self._chance.randrange(len(self._clients)))
        return self._clients[self.dealt[-1]].call(method, path, body)

    def dealt_to_all(self) -> bool:
        """Whether every instance got its part."""
        fair = len(self.dealt) / len(self._clients)
        return all(self.dealt.count(number) > 0.7 * fair for number in range(len(self._clients)))


@contextmanager
def dealing(urls: Sequence[str], seed: object) -> Iterator[Dealer]:
    clients = [replay.Client(url) for url in urls]
    try:
        yield Dealer(clients, seed)
    finally:
        for client in clients:
            client.close()


@pytest.fixture(scope="module")
def instances(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Where two processes of one deployment listen."""
    settings, data = shared_servers(), tmp_path_factory.mktemp("instances")
    with ExitStack() as stack:
        yield [stack.enter_context(serving(data / str(number), settings)).url for number in range(2)]
        assert not list(data.iterdir()), "an instance keeps something for itself"


@pytest.fixture(scope="module")
def replays() -> Replays:
    return Replays()


@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_answer_as_one(instances: list[str], replays: Replays, family: str) -> None:
    with dealing(instances, family) as dealer:
        assert replays.differences(dealer, of_family(family)) == []
        assert dealer.dealt_to_all()


@contextmanager
def two_in_threads(settings: dict[str, str]) -> Iterator[Dealer]:
    """Instances with other settings: processes for each of them would take minutes to start."""
    chosen = {name.lower(): value for name, value in (shared_servers() | settings).items()}
    with ExitStack() as stack:
        urls = [stack.enter_context(served(**chosen)) for _ in range(2)]
        yield stack.enter_context(dealing(urls, str(settings)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_instances_with_a_rank_sort_algo_answer_as_one(replays: Replays, algorithm: str) -> None:
    settings = {"RANK_SORT_ALGO": algorithm}
    with two_in_threads(settings) as dealer:
        assert replays.differences(dealer, replay.under(CASES, settings)) == []
        assert dealer.dealt_to_all()


def test_every_wanted_difference_occurs(instances: list[str], replays: Replays) -> None:
    for settings in SETTINGS:
        if left := replays.left(settings):
            with two_in_threads(settings) if settings else dealing(instances, "left") as dealer:
                assert replays.differences(dealer, left) == []
    assert replays.deviations.unused() == []
