"""The guard of a server: which failures are tried again, how long, and what the breaker learns of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from kato.errors import (
    CircuitBreakerOpen,
    DataCorrupted,
    KatoError,
    ServiceUnavailable,
    StorageError,
    ValidationError,
)
from kato.ops.breaker import Breaker
from kato.ops.bulkhead import Bulkhead
from kato.ops.deadline import due
from kato.ops.guard import FAST, KINDS, STANDARD, Guard, Kind, Retry
from tests.support.waiting import idle


class Pauses:
    """What a guard sleeps, without sleeping it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken: list[float] = []
        sleep = asyncio.sleep

        async def pause(seconds: float) -> None:
            self.taken.append(seconds)
            await sleep(0)

        monkeypatch.setattr("kato.ops.guard.sleep", pause)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    return Pauses(monkeypatch)


class Server:
    """Fails as told, then answers how often it was asked."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked = 0

    async def __call__(self) -> int:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return self.asked


def guard(
    threshold: int = 100,
    profile: Retry = STANDARD,
    jitter: Callable[[], float] = lambda: 1.0,
    limit: int = 10,
) -> Guard:
    return Guard(
        "Store",
        Breaker("Store", threshold, 30),
        {kind: Bulkhead(f"Store ({kind})", limit, queue=0) for kind in KINDS},
        dict.fromkeys(KINDS, profile),
        jitter=jitter,
    )


def away() -> StorageError:
    return StorageError("away")


async def test_what_was_not_acknowledged_is_tried_again(pauses: Pauses) -> None:
    server, store = Server(away(), away()), guard()
    assert await store.run("learn", server) == 3
    assert pauses.taken == [1.0, 2.0]
    assert (store.operations, store.errors, store.retries) == (1, 2, 2)


async def test_no_more_often_than_the_profile_says(pauses: Pauses) -> None:
    server = Server(*(away() for _ in range(9)))
    with pytest.raises(StorageError, match="away"):
        await guard(profile=Retry(5, 1.0, 3.0)).run("learn", server)
    assert (server.asked, pauses.taken) == (5, [1.0, 2.0, 3.0, 3.0])


async def test_each_kind_has_its_profile(pauses: Pauses) -> None:
    store = Guard(
        "Store",
        Breaker("Store", 100, 30),
        {kind: Bulkhead(kind, 1) for kind in KINDS},
        {"observe": FAST, "predict": FAST, "admin": Retry(1, 0, 0), "learn": STANDARD},
        jitter=lambda: 1.0,
    )
    await store.run("observe", Server(away(), away()))
    await store.run("learn", Server(away(), away()))
    with pytest.raises(StorageError):
        await store.run("admin", Server(away()))
    assert pauses.taken == [0.1, 0.2, 1.0, 2.0]


@pytest.mark.parametrize("jitter", [0.5, 1.5])
async def test_jitter_stretches_the_pauses(jitter: float, pauses: Pauses) -> None:
    await guard(jitter=lambda: jitter).run("learn", Server(away(), away()))
    assert pauses.taken == [jitter, 2 * jitter]


async def test_without_saying_so_jitter_is_random(pauses: Pauses) -> None:
    store = Guard(
        "Store",
        Breaker("Store", 100, 30),
        {"learn": Bulkhead("learn", 1)},
        {"learn": Retry(40, 1.0, 1.0)},
        total_seconds=1e9,
    )
    await store.run("learn", Server(*(away() for _ in range(39))))
    assert 0.5 <= min(pauses.taken) < max(pauses.taken) <= 1.5


@pytest.mark.parametrize(
    "error", [ValidationError("no"), DataCorrupted("broken"), ServiceUnavailable("later")]
)
async def test_answers_are_not_asked_for_again(error: KatoError, pauses: Pauses) -> None:
    server, store = Server(error), guard(threshold=1)
    with pytest.raises(type(error)):
        await store.run("learn", server)
    assert (server.asked, pauses.taken, store.breaker.state, store.errors) == (1, [], "closed", 0)


async def test_what_must_not_be_repeated_is_not(pauses: Pauses) -> None:
    server, store = Server(away()), guard(threshold=1)
    with pytest.raises(StorageError):
        await store.run("admin", server, repeatable=False)
    assert (server.asked, pauses.taken, store.breaker.state) == (1, [], "open")


async def test_an_open_breaker_is_not_tried_again(pauses: Pauses) -> None:
    server, store = Server(*(away() for _ in range(9))), guard(threshold=2)
    with pytest.raises(CircuitBreakerOpen):
        await store.run("learn", server)
    assert (server.asked, pauses.taken) == (2, [1.0, 2.0])
    with pytest.raises(CircuitBreakerOpen):
        await store.run("predict", server)
    assert server.asked == 2


async def test_nobody_pauses_beyond_the_deadline(pauses: Pauses) -> None:
    server = Server(*(away() for _ in range(9)))
    with due(2.5), pytest.raises(StorageError, match="away"):
        # The first pause fits, and the pauses take no time here, so the second (2 s) does too, the third (4 s) not.
        await guard(profile=Retry(9, 1.0, 10.0)).run("learn", server)
    assert pauses.taken == [1.0, 2.0]


async def test_without_a_deadline_the_total_is_bounded(pauses: Pauses) -> None:
    store = Guard(
        "Store",
        Breaker("Store", 100, 30),
        {"learn": Bulkhead("learn", 1)},
        {"learn": STANDARD},
        total_seconds=0.5,
        jitter=lambda: 1.0,
    )
    with pytest.raises(StorageError):
        await store.run("learn", Server(away()))
    assert pauses.taken == []


async def test_an_attempt_ends_at_the_deadline_and_nobody_is_blamed() -> None:
    store = guard(threshold=1)
    began = asyncio.get_running_loop().time()
    with due(0.05), pytest.raises(StorageError, match="no time is left"):
        await store.run("learn", asyncio.Event().wait)
    assert asyncio.get_running_loop().time() - began < 5
    assert (store.breaker.state, store.errors) == ("closed", 0)


async def test_a_cancelled_call_counts_neither_way_and_frees_its_place() -> None:
    store = guard(threshold=1, limit=1)
    task = asyncio.create_task(store.run("learn", asyncio.Event().wait))
    await idle()
    assert store.bulkheads["learn"].used == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (store.breaker.state, store.bulkheads["learn"].used) == ("closed", 0)
    assert await store.run("learn", Server()) == 1


@pytest.mark.parametrize("full", KINDS)
async def test_a_kind_that_is_full_leaves_the_others_working(full: Kind) -> None:
    store, end = guard(limit=2), asyncio.Event()
    tasks = [asyncio.create_task(store.run(full, end.wait)) for _ in range(2)]
    await idle()
    for kind in KINDS:
        if kind == full:
            with pytest.raises(ServiceUnavailable):
                await store.run(kind, Server())
        else:
            assert await store.run(kind, Server()) == 1
    end.set()
    await asyncio.gather(*tasks)


async def test_while_it_pauses_its_place_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    store, used = guard(limit=1), list[int]()

    async def pause(_: float) -> None:
        used.append(store.bulkheads["learn"].used)

    monkeypatch.setattr("kato.ops.guard.sleep", pause)
    await store.run("learn", Server(away()))
    assert used == [0]


class TestCheck:
    """A look at the server, past the bulkheads."""

    async def test_however_busy(self) -> None:
        store, end = guard(limit=1), asyncio.Event()
        tasks = [asyncio.create_task(store.run(kind, end.wait)) for kind in KINDS]
        await idle()
        await store.check(Server(), 1)
        end.set()
        await asyncio.gather(*tasks)

    async def test_silence_is_a_failure(self) -> None:
        store = guard(threshold=1)
        with pytest.raises(StorageError, match=r"Store: no answer in 0\.01 s"):
            await store.check(asyncio.Event().wait, 0.01)
        assert store.breaker.state == "open"

    async def test_it_looks_past_an_open_breaker_and_does_not_close_it(self) -> None:
        store = guard(threshold=1)
        with pytest.raises(StorageError):
            await store.check(Server(away()), 1)
        server = Server()
        await store.check(server, 1)
        assert (server.asked, store.breaker.state) == (1, "open")

    async def test_it_is_the_probe_when_that_is_due(self) -> None:
        store = Guard("Store", Breaker("Store", 1, 0.0), {}, {})
        with pytest.raises(StorageError):
            await store.check(Server(away()), 1)
        assert store.breaker.state == "half_open"
        await store.check(Server(), 1)
        assert store.breaker.state == "closed"
