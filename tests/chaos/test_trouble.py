"""Full disks, damaged files, a second process, an order to stop: clear words, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chaos.workers import Worker, expected_of, load, patterns_of
from tests.support.http import calling
from tests.support.server import Server, StartFailed, serving


def file_size_limit(server: Server, limit: int) -> None:
    """From now on the process cannot write beyond `limit` bytes of any file, as on a disk that is full."""
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (limit, hard))


def open_session(client: httpx.Client) -> str:
    session: str = client.post("/sessions", json={"node_id": "node"}).json()["session_id"]
    return session


def observe(client: httpx.Client, session: str, symbol: str) -> httpx.Response:
    return client.post(f"/sessions/{session}/observe", json={"strings": [symbol]})


def shown(client: httpx.Client, session: str) -> tuple[Any, Any]:
    stm = client.get(f"/sessions/{session}/stm").json()["stm"]
    return stm, client.get(f"/sessions/{session}").json()["time"]


def frequencies(client: httpx.Client) -> list[int]:
    patterns = client.get("/v2/patterns", params={"node_id": "node"}).json()["patterns"]
    return [pattern["frequency"] for pattern in patterns]


def test_a_full_disk_is_told_and_nothing_changes_until_there_is_space(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.client() as client:
        session = open_session(client)
        for symbol in "xyab":
            assert observe(client, session, symbol).status_code == 200
            if symbol == "y":
                assert client.post(f"/sessions/{session}/learn").status_code == 200
        before = shown(client, session)
        file_size_limit(server, 1)
        for _ in range(3):
            for answer in (
                observe(client, session, "c"),
                client.post(f"/sessions/{session}/learn"),
                client.post("/sessions", json={"node_id": "node"}),
            ):
                assert answer.status_code == 503
                error = answer.json()["error"]
                assert error["code"] == "STORAGE_ERROR"
                assert "disk" in error["message"]
            assert shown(client, session) == before
            assert frequencies(client) == [1]
        file_size_limit(server, resource.RLIM_INFINITY)
        assert observe(client, session, "c").json()["time"] == 5
        assert client.post(f"/sessions/{session}/learn").status_code == 200
        assert (shown(client, session), frequencies(client)) == (([], 5), [1, 1])
    with serving(tmp_path) as server, server.client() as client:
        assert (shown(client, session), frequencies(client)) == (([], 5), [1, 1])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "kato-test", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk; a limit on file sizes stands in for it above")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_load_fills_a_small_disk_and_goes_on_when_there_is_space(small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1_200_000))
    with serving(small_disk / "data") as server, server.client() as client:
        session, acknowledged = open_session(client), 0
        while (answer := observe(client, session, "x" * 1000)).status_code == 200:
            acknowledged += 1
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "STORAGE_ERROR")
        assert "the disk is full" in answer.json()["error"]["message"]
        assert shown(client, session)[1] == acknowledged > 0
        filler.unlink()
        assert observe(client, session, "y").json()["time"] == acknowledged + 1
        server.kill()
    with serving(small_disk / "data") as server, server.client() as client:
        assert shown(client, session)[1] == acknowledged + 1


def filled(data: Path) -> str:
    """A data directory with patterns and a session in its files; returns the session's id."""
    with serving(data) as server, server.client() as client:
        session = open_session(client)
        observations = [{"strings": [f"symbol {n}", f"other {n % 7}"]} for n in range(1000)]
        body = {"observations": observations, "learn_after_each": True}
        assert client.post(f"/sessions/{session}/observe-sequence", json=body).status_code == 200
        observe(client, session, "symbol 1")
        observe(client, session, "other 1")
    for name in ("patterns.db", "sessions.db"):
        with closing(sqlite3.connect(data / name)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return session


@pytest.mark.parametrize("name", ["patterns.db", "sessions.db"])
@pytest.mark.parametrize("content", [b"", b"this is no database" * 1000])
def test_a_file_that_is_no_database_stops_the_start(tmp_path: Path, name: str, content: bytes) -> None:
    filled(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StartFailed, match=rf"{name} is damaged") as caught:
        Server(tmp_path)
    assert "Traceback" not in str(caught.value)
    assert (tmp_path / name).read_bytes() == content


def test_damage_inside_a_file_is_told_to_whom_it_concerns(tmp_path: Path) -> None:
    session = filled(tmp_path)
    with (tmp_path / "patterns.db").open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(8192)
        file.write(random.Random(1).randbytes(size - 8192))
    with serving(tmp_path) as server, server.client() as client:
        answer = client.get(f"/sessions/{session}/predictions")
        assert answer.status_code == 500
        error = answer.json()["error"]
        assert error["code"] == "DATA_CONSISTENCY_ERROR"
        assert "kato check" in error["message"]
        assert client.get(f"/sessions/{session}/stm").json()["length"] == 2


def test_a_second_process_is_refused_with_the_first_ones_id(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.client() as client:
        session = open_session(client)
        with pytest.raises(
            StartFailed, match=rf"in use by another KATO process \(pid {server.process.pid}\)"
        ):
            Server(tmp_path)
        assert observe(client, session, "a").status_code == 200


@pytest.mark.timeout(120)
async def test_an_order_to_stop_under_load_loses_nothing(tmp_path: Path) -> None:
    workers = [Worker(number, "node", "stop") for number in range(8)]
    with serving(tmp_path) as server:
        async with calling(server.url) as client:
            await asyncio.gather(*(worker.open(client) for worker in workers))
            await load(client, workers, 200, server.process.terminate)
        server.stop()
    assert "Traceback" not in server.output
    with serving(tmp_path) as server:
        async with calling(server.url) as client:
            assert [await worker.settle(client) for worker in workers] == [[]] * len(workers)
            assert await patterns_of(client, "node") == expected_of(workers, "node")


def test_after_an_order_to_stop_the_stores_are_closed(tmp_path: Path) -> None:
    filled_by = Server(tmp_path)
    with filled_by.client() as client:
        session = open_session(client)
        observe(client, session, "a")
    filled_by.stop()
    assert not list(tmp_path.glob("*-wal")), "the logs were not moved into the files"
