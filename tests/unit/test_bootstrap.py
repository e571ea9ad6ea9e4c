"""Wiring: the settings reach the parts, and the data directory is held exactly as long as the service runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from kato import bootstrap
from kato.errors import DataCorrupted, DataDirectoryError, ResourceExhausted
from kato.settings import Settings
from tests.support.clock import Clock
from tests.support.kato import kato_running, opened, seen, show, stm, taught
from tests.support.waiting import until


async def test_the_directory_is_held_while_it_runs_and_free_afterwards(tmp_path: Path) -> None:
    async with kato_running(tmp_path):
        with pytest.raises(DataDirectoryError, match="in use by another KATO process"):
            async with kato_running(tmp_path):
                pass
    async with kato_running(tmp_path) as kato:
        assert await kato.count_sessions() == 0


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    async with kato_running(tmp_path, clock) as kato:
        session = await opened(kato)
        name = await taught(kato, session, "a b")
        await show(kato, session, "c")
    assert not list(tmp_path.glob("*-wal"))
    async with kato_running(tmp_path, clock) as kato:
        assert await stm(kato, session) == (("c",),)
        assert (await kato.get_pattern("node", name)).frequency == 1


async def test_in_memory_nothing_is_kept() -> None:
    async with kato_running() as kato:
        session = await opened(kato)
    async with kato_running() as kato:
        assert not (await kato.exists(session)).exists


@pytest.mark.parametrize("name", ["patterns.db", "sessions.db"])
async def test_a_damaged_file_stops_the_start_and_frees_the_directory(tmp_path: Path, name: str) -> None:
    async with kato_running(tmp_path):
        pass
    (tmp_path / name).write_bytes(b"damaged" * 1000)
    for _ in range(2):
        with pytest.raises(DataCorrupted, match=name):
            async with kato_running(tmp_path):
                pass


async def test_an_error_inside_closes_everything(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="inside"):
        async with kato_running(tmp_path):
            raise RuntimeError("inside")
    async with kato_running(tmp_path):
        pass


async def test_limits_reach_the_parts() -> None:
    async with kato_running(MAX_PROCESSORS=1, MAX_SESSION_MEMORY_BYTES=2000) as kato:
        for node in ("1", "2"):
            await taught(kato, await opened(kato, node), "a b")
        assert list(kato.memory.open_nodes) == ["2"]
        with pytest.raises(ResourceExhausted):
            await kato.observe(await opened(kato), seen("x" * 1000))


async def test_the_sweeper_runs(tmp_path: Path) -> None:
    clock = Clock()
    async with kato_running(clock=clock, SESSION_CLEANUP_INTERVAL=0.001) as kato:
        await kato.create_session("node", ttl_seconds=1)
        clock.advance(1)
        await until(lambda: kato.counters.sessions_expired == 1)


async def test_without_a_clock_time_is_the_machines() -> None:
    async with bootstrap.running(Settings(KATO_DATA=":memory:")) as kato:
        state = await kato.create_session("node", ttl_seconds=60)
        assert state.created_at >= kato.started_at > 1.7e9
