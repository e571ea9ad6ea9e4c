"""The breaker: cell by cell what opens it, what closes it, and who is let through meanwhile."""

from __future__ import annotations

import time

import pytest

from kato.errors import CircuitBreakerOpen
from kato.ops.breaker import GAUGE, Breaker, State
from tests.support.clock import Clock


class Watched(Breaker):
    """A breaker with a clock that the test moves, and what it told."""

    def __init__(self, threshold: int = 3, open_seconds: float = 20.0) -> None:
        self.clock = Clock()
        self.told: list[State] = []
        super().__init__("Qdrant", threshold, open_seconds, clock=self.clock, changed=self.told.append)

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.leave(self.enter(), failed=True)

    def succeed(self) -> None:
        self.leave(self.enter(), failed=False)


def test_failures_in_a_row_open_it() -> None:
    breaker = Watched()
    breaker.fail(2)
    assert (breaker.state, breaker.retry_after) == ("closed", 0.0)
    breaker.fail()
    assert (breaker.state, breaker.retry_after, breaker.opens) == ("open", 20.0, 1)
    assert breaker.told == ["open"]


def test_a_success_between_them_starts_the_count_anew() -> None:
    breaker = Watched()
    for _ in range(5):
        breaker.fail(2)
        breaker.succeed()
    assert (breaker.state, breaker.failures) == ("closed", 0)


def test_what_was_cancelled_counts_neither_way() -> None:
    breaker = Watched()
    breaker.fail(2)
    breaker.leave(breaker.enter(), failed=None)
    assert breaker.failures == 2
    breaker.fail()
    assert breaker.state == "open"


def test_while_open_nobody_is_let_through_and_the_error_says_for_how_long() -> None:
    breaker = Watched()
    breaker.fail(3)
    breaker.clock.now += 12.5
    with pytest.raises(CircuitBreakerOpen) as refusal:
        breaker.enter()
    assert refusal.value.retry_after == 7.5
    assert refusal.value.details == {"service": "Qdrant"}
    assert (refusal.value.code, refusal.value.status) == ("CIRCUIT_BREAKER_OPEN", 503)


def test_a_refusal_takes_less_than_a_millisecond() -> None:
    breaker = Watched()
    breaker.fail(3)
    began = time.perf_counter()
    for _ in range(1000):
        with pytest.raises(CircuitBreakerOpen):
            breaker.enter()
    assert (time.perf_counter() - began) / 1000 < 0.001


def test_exactly_one_probe_then_closed() -> None:
    breaker = Watched()
    breaker.fail(3)
    breaker.clock.now += 20
    assert breaker.state == "half_open"
    assert breaker.enter() is True
    assert breaker.state == "half_open"
    for _ in range(10):
        with pytest.raises(CircuitBreakerOpen) as refusal:
            breaker.enter()
        assert refusal.value.retry_after == 0.1
    breaker.leave(True, failed=False)
    assert (breaker.state, breaker.failures) == ("closed", 0)
    assert breaker.told == ["open", "closed"]
    breaker.fail(2)
    assert breaker.state == "closed"


def test_a_probe_that_fails_opens_it_for_as_long_again() -> None:
    breaker = Watched()
    breaker.fail(3)
    breaker.clock.now += 20
    breaker.fail()
    assert (breaker.state, breaker.retry_after, breaker.opens) == ("open", 20.0, 2)


def test_a_probe_that_was_cancelled_leaves_its_place_to_the_next() -> None:
    breaker = Watched()
    breaker.fail(3)
    breaker.clock.now += 20
    breaker.leave(breaker.enter(), failed=None)
    assert breaker.state == "half_open"
    breaker.succeed()
    assert breaker.state == "closed"


@pytest.mark.parametrize("failed", [True, False, None])
def test_what_was_under_way_when_it_opened_changes_nothing(failed: bool | None) -> None:
    breaker = Watched()
    late = breaker.enter()
    breaker.fail(3)
    breaker.clock.now += 5
    breaker.leave(late, failed)
    assert (breaker.state, breaker.retry_after, breaker.failures) == ("open", 15.0, 3)


def test_nobody_need_listen() -> None:
    breaker = Breaker("Redis", threshold=1, open_seconds=15)
    breaker.leave(breaker.enter(), failed=True)
    assert GAUGE[breaker.state] == 2
