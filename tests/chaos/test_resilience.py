"""Retries and circuit breakers in the real data path, through proxies to real servers, cell by cell."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from kato.errors import CircuitBreakerOpen, KatoError, ServiceUnavailable
from tests.chaos.behind import Behind, behind

Call = Callable[[], Awaitable[object]]


def an_operation(kato: Behind, server: str) -> Call:
    """Something small that this server is asked."""
    service = kato.http.kato
    return {
        "postgresql": lambda: service.memory.patterns.fetch(kato.node, ["0" * 40]),
        "redis": lambda: service.exists("nobody"),
        "qdrant": lambda: service.memory.vectors.nearest(kato.node, (1.0, 2.0), 1),
    }[server]


async def outcome(call: Call) -> str:
    try:
        await call()
    except KatoError as error:
        return error.code
    return "done"


# Retries --------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
@pytest.mark.parametrize("losses", [1, 2])
@pytest.mark.parametrize("lost", ["requests", "replies"])
async def test_a_learn_whose_packets_are_lost_counts_once(lost: str, losses: int, known: bool) -> None:
    async with behind() as kato:
        session = await kato.session()
        if known:
            await kato.http.teach(session, "a", "b")
        else:
            await kato.http.teach(session, "x", "y")
        proxy = kato.proxies["postgresql"]
        for event in "ab":
            await kato.http.observe(session, event)
        (proxy.drop_next if lost == "requests" else proxy.swallow_replies)(losses)
        answer = await kato.http.post(f"{session}/learn")
        assert answer.status_code == 200, answer.text
        assert kato.guard("postgresql").retries >= 1
        assert await kato.frequency(answer.json()["pattern_name"]) == 1 + known
        assert await kato.stm(session) == []


@pytest.mark.parametrize("losses", [1, 2])
@pytest.mark.parametrize("lost", ["requests", "replies"])
async def test_an_observe_whose_packets_are_lost_happens_once(lost: str, losses: int) -> None:
    async with behind() as kato:
        session = await kato.session()
        await kato.http.observe(session, "a")
        proxy = kato.proxies["redis"]
        lose = proxy.drop_next if lost == "requests" else proxy.swallow_replies
        shown = 1
        while not kato.guard("redis").retries:
            # What is lost may be what somebody else was told, as whoever listens to events.
            lose(losses)
            answer = await kato.http.observe(session, "b")
            shown += 1
            assert (answer["time"], answer["stm_length"]) == (shown, shown)
            lose(0)
        assert await kato.stm(session) == [["a"], *[["b"]] * (shown - 1)]


@pytest.mark.parametrize("lost", ["requests", "replies"])
async def test_vectors_whose_packets_are_lost_are_found(lost: str) -> None:
    async with behind() as kato:
        session = await kato.session()
        proxy = kato.proxies["qdrant"]
        lose = proxy.drop_next if lost == "requests" else proxy.swallow_replies
        for _ in range(2):
            lose(1)
            answer = await kato.observe_vector(session, "a")
            assert answer.status_code == 200
            assert "warnings" not in answer.json()
        lose(1)
        answer = await kato.http.post(f"{session}/learn")
        assert answer.status_code == 200, answer.text
        assert kato.guard("qdrant").retries >= 1
        nearest = await kato.http.kato.memory.vectors.nearest(kato.node, (1.0, 2.0, 3.0), 3)
        assert [distance for _, distance in nearest] == [0.0]


async def test_latency_changes_nothing_but_the_time() -> None:
    async with behind() as kato:
        session = await kato.session()
        for proxy in kato.proxies.values():
            proxy.latency = 0.02
        name = await kato.http.teach(session, "a", "b")
        assert await kato.frequency(name) == 1
        assert [kato.guard(server).retries for server in kato.proxies] == [0, 0, 0]


# Breakers --------------------------------------------------------------------------------

THRESHOLDS = {"postgresql": 5, "redis": 5, "qdrant": 3}


@pytest.mark.parametrize("server", THRESHOLDS)
async def test_a_server_that_is_gone_is_left_alone_and_found_again(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shorter = {f"{name}_recovery_timeout": 0.5 for name in ("kato_database", "redis", "qdrant")}
    async with behind(**shorter) as kato:
        call, proxy, breaker = an_operation(kato, server), kato.proxies[server], kato.guard(server).breaker
        told = kato.http.kato.events.subscribe(["system.error"])
        await call()
        proxy.cut()
        # Closed: every failure counts, however often it was tried.
        while breaker.state == "closed":
            assert await outcome(call) in ("STORAGE_ERROR", "CIRCUIT_BREAKER_OPEN")
        assert breaker.failures == THRESHOLDS[server]
        async with asyncio.timeout(5):
            event = await told.next()
        assert event.data["error_type"] == "CIRCUIT_BREAKER_OPEN"
        assert event.data["affected_component"] == server

        # Open: refused in less than a millisecond, the network is not touched.
        proxy.mend()
        before, taken = proxy.accepted, list[float]()
        while breaker.state == "open":
            began = time.perf_counter()
            with pytest.raises(CircuitBreakerOpen) as refusal:
                await call()
            taken.append(time.perf_counter() - began)
            assert refusal.value.retry_after is not None
            await asyncio.sleep(0)
            if len(taken) >= 100:
                break
        assert proxy.accepted == before
        median = statistics.median(taken) * 1000
        with capsys.disabled():
            print(f"\n{server}: an open breaker refuses in {median:.3f} ms (median of {len(taken)})")
        assert median < 1
        proxy.cut()

        # Half open: exactly one of many asks, and its failure opens the breaker again.
        await asyncio.sleep(breaker.retry_after)
        opens = breaker.opens
        outcomes = Counter(await asyncio.gather(*(outcome(call) for _ in range(20))))
        assert outcomes["CIRCUIT_BREAKER_OPEN"] >= 19
        assert breaker.opens == opens + 1

        # And with the server back, its success closes it.
        proxy.mend()
        await asyncio.sleep(breaker.retry_after)
        outcomes = Counter(await asyncio.gather(*(outcome(call) for _ in range(20))))
        assert outcomes == {"done": 1, "CIRCUIT_BREAKER_OPEN": 19}
        assert (breaker.state, breaker.failures) == ("closed", 0)
        assert await outcome(call) == "done"


async def test_the_breakers_of_the_servers_know_nothing_of_each_other() -> None:
    async with behind() as kato:
        session = await kato.session()
        kato.proxies["qdrant"].cut()
        while kato.breaker("qdrant") == "closed":
            await outcome(an_operation(kato, "qdrant"))
        assert (kato.breaker("postgresql"), kato.breaker("redis")) == ("closed", "closed")
        name = await kato.http.teach(session, "a", "b")
        assert await kato.frequency(name) == 1


# Bulkheads, deadlines, cancellation ----------------------------------------------------------------


async def test_learns_that_hang_leave_everything_else_working() -> None:
    async with behind(request_timeout=3) as kato:
        known = await kato.session()
        await kato.http.teach(known, "a", "b")
        sessions = [await kato.session() for _ in range(12)]
        for number, session in enumerate(sessions):
            for event in ("x", f"y{number}"):
                await kato.http.observe(session, event)
        kato.proxies["postgresql"].freeze()
        learns = [asyncio.create_task(kato.http.post(f"{session}/learn")) for session in sessions]
        while kato.guard("postgresql").bulkheads["learn"].used < 4:
            await asyncio.sleep(0.001)
        began = time.monotonic()
        await kato.http.observe(known, "a")
        assert await kato.stm(known) == [["a"]]
        found = await kato.http.get(f"{known}/predictions")
        assert [each["frequency"] for each in found.json()["predictions"]] == [1]
        assert (await kato.http.get("/health/live")).status_code == 200
        assert time.monotonic() - began < 2
        answers = await asyncio.gather(*learns)
        assert {answer.status_code for answer in answers} <= {503, 504}
        # No attempt outlives its request.
        assert time.monotonic() - began < 6
        kato.mend()


async def test_an_operation_ends_with_its_request_and_the_next_one_works() -> None:
    async with behind(request_timeout=0.5) as kato:
        session = await kato.session()
        await kato.http.teach(session, "a", "b")
        for event in "cd":
            await kato.http.observe(session, event)
        kato.proxies["postgresql"].freeze()
        began = time.monotonic()
        answer = await kato.http.post(f"{session}/learn")
        assert answer.status_code in (503, 504)
        assert time.monotonic() - began < 2
        kato.mend()
        async with asyncio.timeout(20):
            while (answer := await kato.http.post(f"{session}/learn")).status_code != 200:
                # Either it was taken back, or what was under way has come through meanwhile.
                if answer.status_code == 400:
                    assert answer.json()["error"]["code"] == "EMPTY_STM"
                    break
        name = await kato.http.teach(session, "c", "d")
        assert await kato.frequency(name) == 2


async def test_a_caller_that_leaves_frees_what_it_held() -> None:
    async with behind() as kato:
        service = kato.http.kato
        await service.memory.patterns.count(kato.node)
        kato.proxies["postgresql"].freeze()
        tasks = [asyncio.create_task(service.memory.patterns.count(kato.node)) for _ in range(3)]
        admin = kato.guard("postgresql").bulkheads["admin"]
        while not admin.used:
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (admin.used, kato.guard("postgresql").breaker.failures) == (0, 0)
        kato.mend()
        assert await service.memory.patterns.count(kato.node) == 0


async def test_too_many_at_once_are_refused_and_nobody_is_blamed() -> None:
    async with behind() as kato:
        guard = kato.guard("postgresql")
        places = guard.bulkheads["admin"].limit
        end = asyncio.Event()
        guard.bulkheads["admin"]._queue = 0
        tasks = [asyncio.create_task(guard.run("admin", end.wait)) for _ in range(places)]
        await asyncio.sleep(0)
        with pytest.raises(ServiceUnavailable):
            await kato.http.kato.memory.patterns.count(kato.node)
        assert (guard.bulkheads["admin"].refused, guard.breaker.failures) == (1, 0)
        pools = (await kato.http.get("/connection-pools")).json()["pool_statistics"]["postgresql"]
        assert pools["refused"]["admin"] == 1
        end.set()
        await asyncio.gather(*tasks)


async def test_a_storage_error_says_when_to_come_again() -> None:
    async with behind() as kato:
        kato.proxies["redis"].cut()
        answer = await kato.http.get("/sessions/count")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        while kato.breaker("redis") == "closed":
            assert await outcome(kato.http.kato.count_sessions) in ("STORAGE_ERROR", "CIRCUIT_BREAKER_OPEN")
        answer = await kato.http.get("/sessions/count")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "CIRCUIT_BREAKER_OPEN")
        assert 10 < int(answer.headers["retry-after"]) <= 15
