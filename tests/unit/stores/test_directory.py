"""One process per data directory, one format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kato.errors import DataDirectoryError
from kato.stores import directory as module
from kato.stores.directory import DataDirectory

HOLD = """
import sys
from kato.stores.directory import DataDirectory
DataDirectory(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_it_is_created_and_names_its_files(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "a" / "b") as held:
        assert held.patterns == str(tmp_path / "a" / "b" / "patterns.db")
        assert held.sessions == str(tmp_path / "a" / "b" / "sessions.db")
    assert (tmp_path / "a" / "b" / "FORMAT").read_text().startswith("KATO data format 1, written by KATO ")
    with DataDirectory(tmp_path / "a" / "b"):
        pass


def test_memory_is_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with DataDirectory(":memory:") as first, DataDirectory(":memory:") as second:
        assert first.patterns == second.sessions == ":memory:"
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_is_told_who_holds_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DataDirectoryError) as refusal:
            DataDirectory(tmp_path)
        assert refusal.value.message == (
            f"the data directory {tmp_path} is in use by another KATO process (pid {holder.pid}); "
            "stop it or choose another with --data / KATO_DATA"
        )
        holder.kill()
        holder.wait()
    # The lock ends with its process, however that ended.
    DataDirectory(tmp_path).close()


def test_the_same_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    held = DataDirectory(tmp_path)
    with pytest.raises(DataDirectoryError, match="in use"):
        DataDirectory(tmp_path)
    held.close()
    held.close()
    DataDirectory(tmp_path).close()


def test_another_format_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("KATO data format 2, written by KATO 3.1.4\n")
    for _ in range(2):
        with pytest.raises(
            DataDirectoryError, match=r"has format 2, written by KATO 3\.1\.4.*Start it with KATO 3\.1\.4"
        ):
            DataDirectory(tmp_path)


def test_a_damaged_format_file(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_bytes(b"\xff\x00garbage")
    with pytest.raises(DataDirectoryError, match="damaged FORMAT"):
        DataDirectory(tmp_path)


@pytest.mark.parametrize("file", ["patterns.db", "sessions.db"])
def test_data_without_a_format_file_is_not_touched(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(b"data")
    with pytest.raises(DataDirectoryError, match=f"{file} but no FORMAT"):
        DataDirectory(tmp_path)
    assert (tmp_path / file).read_bytes() == b"data"
    assert not (tmp_path / "FORMAT").exists()


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryError, match="cannot be used"):
        DataDirectory(tmp_path / "file")


def test_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not stop a root user, so the refusal comes from the system call itself.
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.os, "ftruncate", refuse)
    with pytest.raises(DataDirectoryError, match="Permission denied"):
        DataDirectory(tmp_path)


def test_the_version_of_an_uninstalled_kato(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(_: str) -> str:
        raise module.metadata.PackageNotFoundError

    monkeypatch.setattr(module.metadata, "version", missing)
    DataDirectory(tmp_path).close()
    assert "unreleased" in (tmp_path / "FORMAT").read_text()
