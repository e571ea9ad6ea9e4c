"""The supervisor of several workers, in this process; the workers are real ones on real stores."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from kato.api import listeners, workers
from kato.api.server import serve
from kato.api.workers import LONGEST_PAUSE, SHORT_LIFE, Place, StartFailed, Supervisor, supervise
from kato.settings import Settings, SettingsError
from tests.support.workers import SECONDS, answering, broken, children, runs, variables

MISSING = "raise ModuleNotFoundError('no driver', name='asyncpg')"


def settings(**more: object) -> Settings:
    return Settings(**{**variables(), "PORT": 0, "GRACEFUL_SHUTDOWN_TIMEOUT": 2, **more})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.02)


class Supervised:
    """A supervisor that has begun to supervise."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.running = asyncio.create_task(supervisor.run())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.supervisor.port}"

    def started(self) -> bool:
        return self.running.done() or len(self.pids()) == len(self.supervisor.places)

    def pids(self) -> set[int]:
        """The workers that accept connections now, as the supervisor sees it."""
        return {place.worker.process.pid for place in self.supervisor.places if place.worker is not None}

    async def answering(self) -> set[int]:
        return await asyncio.to_thread(answering, self.address)


@asynccontextmanager
async def supervised(chosen: Settings) -> AsyncIterator[Supervised]:
    """Workers that accept connections; at the end there are none, whatever happened."""
    others = children(os.getpid())
    found = Supervised(Supervisor(chosen))
    try:
        await until(found.started)
        yield found
    finally:
        if not found.running.done():
            signal.raise_signal(signal.SIGINT)
        await found.running
        assert not children(os.getpid()) - others


async def test_all_of_them_answer_are_renewed_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    async with supervised(settings()) as found:
        assert f"listens on http://{found.address}, data in postgres and redis\n" in capsys.readouterr().err
        first = found.pids()
        assert await found.answering() == first
        signal.raise_signal(signal.SIGHUP)
        await until(lambda: not found.pids() & first and not any(map(runs, first)))
        second = found.pids()
        assert await found.answering() == second
    assert not any(map(runs, second))
    assert "listens on" not in capsys.readouterr().err


async def test_one_that_dies_is_replaced_as_soon_as_that_is_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with supervised(settings()) as found:
        first = found.pids()
        module = broken(tmp_path, MISSING)
        victim, survivor = first
        os.kill(victim, signal.SIGKILL)
        await until(lambda: "a worker cannot start" in caplog.text)
        told = caplog.records[0].__dict__
        assert (told["msg"], told["pid"], told["ended"]) == (
            "a worker has ended and will be replaced",
            victim,
            "SIGKILL",
        )
        assert await found.answering() == {survivor}
        module.unlink()
        await until(lambda: victim not in found.pids())
        assert await found.answering() == found.pids()
        assert survivor in found.pids()


async def test_those_that_work_go_on_when_new_ones_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with supervised(settings()) as found:
        first = found.pids()
        module = broken(tmp_path, "import os; os._exit(7)")
        signal.raise_signal(signal.SIGHUP)
        await until(lambda: "the former ones go on" in caplog.text)
        assert caplog.records[-1].__dict__["reason"] == "A worker ended with status 7 while it was starting"
        assert await found.answering() == found.pids() == first
        module.unlink()
        # The old one dies while its successor is starting: that one is the replacement.
        signal.raise_signal(signal.SIGHUP)
        await until(lambda: len(children(os.getpid())) > 2)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not found.pids() & first)
        assert await found.answering() == found.pids()


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        (MISSING, r"KATO_STORE=postgres: the driver 'asyncpg' is not installed; pip install [^\n]*"),
        ("import os; os._exit(7)", "A worker ended with status 7 while it was starting"),
        ("import os; os.kill(os.getpid(), 9)", "A worker ended with SIGKILL while it was starting"),
    ],
)
def test_workers_that_cannot_start_at_all_stop_the_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    statement: str,
    sentence: str,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    broken(tmp_path, statement)
    others = children(os.getpid())
    with pytest.raises(StartFailed, match=rf"\A{sentence}\Z"):
        supervise(settings())
    assert not children(os.getpid()) - others
    assert capfd.readouterr().err == ""


async def test_an_order_to_stop_ends_also_those_that_are_starting() -> None:
    found = Supervised(Supervisor(settings()))
    others = children(os.getpid())
    await until(lambda: len(children(os.getpid()) - others) == 2)
    signal.raise_signal(signal.SIGINT)
    await found.running
    assert not children(os.getpid()) - others


async def test_a_worker_that_does_not_end_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "CLOSING_SECONDS", 0.5)
    async with supervised(settings(GRACEFUL_SHUTDOWN_TIMEOUT=0)) as found:
        hanging = next(iter(found.pids()))
        os.kill(hanging, signal.SIGSTOP)
    assert not runs(hanging)
    assert "killed" in caplog.text


async def test_ctrl_c_once_more_kills_them_all() -> None:
    async with supervised(settings(GRACEFUL_SHUTDOWN_TIMEOUT=1000)) as found:
        for pid in found.pids():
            os.kill(pid, signal.SIGSTOP)
        signal.raise_signal(signal.SIGINT)
        await until(found.supervisor.stopping.is_set)
        signal.raise_signal(signal.SIGINT)
        await found.running


def test_who_dies_young_again_and_again_is_replaced_after_a_pause() -> None:
    place = Place([])
    assert [place.pause(0) for _ in range(8)] == [0, 1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE]
    assert place.pause(SHORT_LIFE) == 0
    assert place.pause(0) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_a_port_that_is_taken_is_told_at_once(number: int) -> None:
    with closing(listeners.bind("127.0.0.1", 0)[0]) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            SettingsError, match=rf"cannot listen on 127.0.0.1:{port}: Address already in use"
        ):
            serve(settings(PORT=port, WORKERS=number))
