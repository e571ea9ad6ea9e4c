"""Damaged files are told, never replaced; `check` finds what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from kato.engine.naming import pattern_name
from kato.errors import DataCorrupted
from kato.model import Pattern
from kato.stores.directory import DataDirectory
from kato.stores.sqlite import SqlitePatternStore, SqliteSessionStore, SqliteVectorStore
from kato.stores.sqlite import check as check_module
from kato.stores.sqlite.check import check
from tests.contract.values import NOW, scanned, session

EVENTS = (("a", "b"), ("c",))
OPENERS: dict[str, Callable[[Path], object]] = {
    "patterns.db": SqlitePatternStore,
    "sessions.db": SqliteSessionStore,
}


async def fill(path: Path, patterns: int = 3) -> None:
    with DataDirectory(path) as directory:
        store = SqlitePatternStore(directory.patterns)
        made = [((f"s{number}",) * 20, ("end",)) for number in range(patterns)]
        await store.insert("node", [Pattern(name=pattern_name(each), events=each) for each in made])
        await store.close()
        vectors = SqliteVectorStore(directory.patterns)
        await vectors.put("node", {"a": [1.0, 2.0]})
        await vectors.close()
        sessions = SqliteSessionStore(directory.sessions)
        for number in range(3):
            await sessions.create(session(f"s{number}"), 0, 0)
        await sessions.create(session("over", expires_at=NOW - 1.0), 0, 0)
        await sessions.expire(NOW)
        await sessions.close()


def edit(file: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize("content", [b"", b"garbage", b"SQLite format 3\0" + b"\xff" * 5000, b"\0" * 8192])
@pytest.mark.parametrize("file", ["patterns.db", "sessions.db"])
def test_garbage_is_told_and_left_as_it_is(tmp_path: Path, file: str, content: bytes) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataCorrupted, match=f"{file}.*kato check"):
        OPENERS[file](tmp_path / file)
    assert (tmp_path / file).read_bytes() == content


@pytest.mark.parametrize("file", ["patterns.db", "sessions.db"])
async def test_a_database_of_something_else(tmp_path: Path, file: str) -> None:
    edit(tmp_path / file, "CREATE TABLE other (a)")
    with pytest.raises(DataCorrupted, match="not a KATO database"):
        OPENERS[file](tmp_path / file)


async def test_a_missing_table(tmp_path: Path) -> None:
    await fill(tmp_path)
    edit(tmp_path / "patterns.db", "DROP TABLE vectors")
    with pytest.raises(DataCorrupted, match="table vectors is missing"):
        SqlitePatternStore(tmp_path / "patterns.db")
    assert [finding.problem for finding in check(tmp_path)] == ["table vectors is missing"]


async def test_pages_of_garbage_are_told_by_reads_and_writes(tmp_path: Path) -> None:
    await fill(tmp_path, 2000)
    file = tmp_path / "patterns.db"
    content = bytearray(file.read_bytes())
    # The first page holds the schema: opening works, and what comes later meets the damage.
    content[6 * 4096 :] = b"\x5a" * (len(content) - 6 * 4096)
    file.write_bytes(content)
    store = SqlitePatternStore(file)
    with pytest.raises(DataCorrupted, match=r"patterns\.db.*kato check"):
        await scanned(store, "node")
    with pytest.raises(DataCorrupted, match=r"patterns\.db.*kato check"):
        await store.insert(
            "node", [Pattern(name=f"{number:040x}", events=EVENTS) for number in range(0, 2**160, 2**150)]
        )
    await store.close()
    assert check(tmp_path)


async def test_unreadable_records_are_told(tmp_path: Path) -> None:
    await fill(tmp_path)
    edit(tmp_path / "patterns.db", "UPDATE patterns SET events = x'c1'", "UPDATE vectors SET vector = x'00'")
    edit(tmp_path / "sessions.db", "UPDATE sessions SET state = x'c1'")
    patterns = SqlitePatternStore(tmp_path / "patterns.db")
    with pytest.raises(DataCorrupted, match=r"patterns\.db"):
        await patterns.fetch("node", [pattern_name((("s0",) * 20, ("end",)))])
    await patterns.close()
    vectors = SqliteVectorStore(tmp_path / "patterns.db")
    with pytest.raises(DataCorrupted, match=r"patterns\.db"):
        await vectors.nearest("node", [1.0, 2.0], 1)
    await vectors.close()
    sessions = SqliteSessionStore(tmp_path / "sessions.db")
    with pytest.raises(DataCorrupted, match=r"sessions\.db"):
        await sessions.load("s0")
    await sessions.close()


async def test_a_row_that_vanished_under_the_store(tmp_path: Path) -> None:
    await fill(tmp_path)
    sessions = SqliteSessionStore(tmp_path / "sessions.db")
    edit(tmp_path / "sessions.db", "DELETE FROM sessions")
    with pytest.raises(DataCorrupted, match="vanished"):
        await sessions.load("s0")
    await sessions.close()


def test_a_directory_in_order_has_no_findings(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    assert check(tmp_path) == []
    assert check(str(tmp_path), name_of=pattern_name) == []


async def test_check_beside_a_running_kato(tmp_path: Path) -> None:
    await fill(tmp_path)
    with DataDirectory(tmp_path) as directory:
        store = SqlitePatternStore(directory.patterns)
        await store.insert("node", [Pattern(name=pattern_name(EVENTS), events=EVENTS)])
        assert check(tmp_path) == []
        await store.close()


@pytest.mark.parametrize(
    ("file", "statement", "problem"),
    [
        ("patterns.db", "UPDATE patterns SET events = x'c1'", "cannot be read"),
        ("patterns.db", "UPDATE patterns SET events = x'9191a161'", "its name is not that of its events"),
        ("patterns.db", "UPDATE patterns SET events = 'text'", ""),
        ("patterns.db", "UPDATE patterns SET details = x'c1'", "cannot be read"),
        ("patterns.db", "UPDATE patterns SET frequency = -1", "its frequency is -1"),
        ("patterns.db", "UPDATE patterns SET revision = 0", "its revision is 0"),
        ("patterns.db", "UPDATE nodes SET id = id + 100", "its node is not known"),
        ("patterns.db", "UPDATE vector_nodes SET id = id + 100", "its node is not known"),
        ("patterns.db", "UPDATE vector_nodes SET dimension = 3", "3 elements"),
        ("patterns.db", "UPDATE vectors SET vector = x'000000000000f87f000000000000f87f'", "finite"),
        ("sessions.db", "UPDATE sessions SET state = x'c1'", "cannot be read"),
        ("sessions.db", "UPDATE sessions SET state = 'text'", ""),
        ("sessions.db", "UPDATE sessions SET revision = 7", "do not agree"),
        ("sessions.db", "UPDATE sessions SET id = id || 'x'", "do not agree"),
    ],
)
async def test_check_finds(tmp_path: Path, file: str, statement: str, problem: str) -> None:
    await fill(tmp_path)
    edit(tmp_path / file, statement)
    findings = check(tmp_path)
    assert findings
    assert all(finding.file == file and problem in finding.problem and finding.place for finding in findings)


async def test_check_finds_damaged_and_missing_files(tmp_path: Path) -> None:
    await fill(tmp_path)
    (tmp_path / "FORMAT").write_text("KATO data format 7, written by KATO 9\n")
    (tmp_path / "patterns.db").write_bytes(b"garbage" * 1000)
    (tmp_path / "sessions.db").unlink()
    findings = check(tmp_path)
    assert [finding.file for finding in findings] == ["FORMAT", "patterns.db", "sessions.db"]
    assert not (tmp_path / "sessions.db").exists()
    (tmp_path / "FORMAT").unlink()
    assert "cannot be read" in check(tmp_path)[0].problem


async def test_check_finds_a_broken_index(tmp_path: Path) -> None:
    await fill(tmp_path)
    edit(
        tmp_path / "sessions.db",
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET sql = 'CREATE INDEX sessions_of_node ON sessions (id, node)'"
        " WHERE name = 'sessions_of_node'",
    )
    assert any("sessions_of_node" in finding.problem for finding in check(tmp_path))


async def test_findings_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(tmp_path)
    monkeypatch.setattr(check_module, "_MOST_FINDINGS", 2)
    edit(tmp_path / "patterns.db", "UPDATE patterns SET revision = 0")
    findings = check(tmp_path)
    assert len(findings) == 3
    assert "more than 2 problems" in findings[2].problem


async def test_a_negative_revision(tmp_path: Path) -> None:
    await fill(tmp_path)
    sessions = SqliteSessionStore(tmp_path / "sessions.db")
    await sessions.create(session("odd", revision=-1), 0, 0)
    await sessions.close()
    assert [finding.problem for finding in check(tmp_path)] == ["its revision is -1"]
