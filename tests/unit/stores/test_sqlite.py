"""What the embedded stores do beyond the contract: groups of writes, full disks, bounded logs and caches."""

from __future__ import annotations

import asyncio
import sqlite3
import struct
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from kato.errors import DataCorrupted, SessionLimitExceeded, StorageError
from kato.stores.sqlite import Database, SqlitePatternStore, SqliteSessionStore, SqliteVectorStore
from kato.stores.sqlite import connection as connection_module
from kato.stores.sqlite import patterns as patterns_module
from kato.stores.sqlite.connection import translate
from kato.stores.sqlite.vectors import NodeVectors
from tests.contract.values import NOW, name, pattern, scanned, session


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "patterns.db").use()
    yield opened
    await opened.close()


async def limit_pages(database: Database, more: int) -> None:
    """Let the file grow by `more` pages at most, as on a disk that is nearly full."""

    def work(connection: sqlite3.Connection) -> None:
        (used,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {used + more}").fetchall()

    await database.write(work)


async def test_writes_that_wait_share_one_transaction(database: Database) -> None:
    gate = threading.Event()
    commits: list[int] = []

    def first(_: sqlite3.Connection) -> None:
        gate.wait()

    def note(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO nodes (node) VALUES (?)", (b"%d" % len(commits),))
        commits.append(connection.total_changes)

    blocking = asyncio.ensure_future(database.write(first))
    waiting = [asyncio.ensure_future(database.write(note)) for _ in range(10)]
    await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    gate.set()
    await asyncio.gather(blocking, *waiting)
    assert len(commits) == 10


async def test_a_request_that_fails_does_not_harm_its_group(database: Database) -> None:
    store = SqlitePatternStore(database)

    def wrong(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO nodes (node) VALUES (?)", (b"half done",))
        connection.execute("INSERT INTO no_such_table VALUES (1)")

    def broken(_: sqlite3.Connection) -> None:
        raise ZeroDivisionError("division by zero")

    outcomes = await asyncio.gather(
        store.insert("node", [pattern("1")]),
        database.write(wrong),
        database.write(broken),
        store.insert("node", [pattern("2")]),
        return_exceptions=True,
    )
    assert outcomes[0] == outcomes[3] == set()
    assert isinstance(outcomes[1], StorageError)
    assert isinstance(outcomes[2], StorageError)
    assert isinstance(outcomes[2].__cause__, ZeroDivisionError)
    assert await store.count("node") == 2
    assert await store.nodes() == ["node"]
    await store.close()


async def test_what_fails_after_the_commit_is_told_and_wakes_the_others(database: Database) -> None:
    def after(_: None) -> None:
        raise MemoryError

    failing = asyncio.ensure_future(database.write(lambda _: None, after))
    other = asyncio.ensure_future(database.write(lambda _: 5))
    with pytest.raises(MemoryError):
        await failing
    assert await other == 5


async def test_a_full_disk_changes_nothing_and_passes(database: Database) -> None:
    store = SqlitePatternStore(database)
    await store.insert("node", [pattern("kept")])
    await limit_pages(database, 4)
    large = [pattern(f"large {number}", (("x" * 5000,),)) for number in range(20)]
    outcomes = await asyncio.gather(
        store.insert("new node", large),
        store.insert("node", [pattern("small")]),
        store.replace("node", pattern("kept", (("y" * 90_000,),), revision=2), 1),
        return_exceptions=True,
    )
    for outcome in (outcomes[0], outcomes[2]):
        assert isinstance(outcome, StorageError)
        assert "disk is full" in outcome.message
        assert outcome.retry_helps
    assert outcomes[1] == set()
    assert await store.nodes() == ["node"]
    assert await store.fetch("node", [name("kept")]) == {name("kept"): pattern("kept")}
    await limit_pages(database, 100_000)
    assert await store.insert("new node", large) == set()
    assert await store.count("new node") == 20
    await store.close()


async def test_a_full_disk_under_the_sessions(tmp_path: Path) -> None:
    store = SqliteSessionStore(tmp_path / "sessions.db")
    state = session("s", user_id="a")
    await store.create(state, 0, 0)
    (used,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {used + 2}").fetchall()
    grown = msgspec.structs.replace(state, revision=1, stm=(("x" * 50_000,),))
    outcomes = await asyncio.gather(
        store.create(session("t", user_id="b"), 0, 0),
        store.save(grown),
        store.create(session("t", user_id="c"), 0, 0),
        store.create(session("u", user_id="b"), 0, 1),
        return_exceptions=True,
    )
    assert outcomes[0] is True
    assert isinstance(outcomes[1], StorageError)
    assert outcomes[2] is False
    assert isinstance(outcomes[3], SessionLimitExceeded)
    assert await store.load("s") == state
    assert await store.count(NOW) == 2
    store._connection.execute("PRAGMA max_page_count = 1000000").fetchall()
    assert await store.save(grown) is None
    await store.close()


async def test_a_disk_that_is_full_when_nothing_else_waits(tmp_path: Path) -> None:
    store = SqliteSessionStore(tmp_path / "sessions.db")
    store._connection.execute("PRAGMA max_page_count = 1").fetchall()
    with pytest.raises(StorageError, match="disk is full"):
        await store.create(session("s", stm=(("x" * 50_000,),)), 0, 0)
    assert await store.load("s") is None
    assert await store.count(NOW) == 0
    await store.close()


async def test_the_log_stays_short_under_continuous_saving(tmp_path: Path) -> None:
    store = SqliteSessionStore(tmp_path / "sessions.db", log_bytes=2**21)
    log = tmp_path / "sessions.db-wal"
    states = [session(f"s{number}", stm=(("a", "b"),) * 10) for number in range(64)]
    for state in states:
        await store.create(state, 0, 0)
    longest = 0
    for start in range(0, 200_000, 8):
        chosen = [(start + number) % 64 for number in range(8)]
        for number in chosen:
            states[number] = msgspec.structs.replace(states[number], revision=states[number].revision + 1)
        assert await asyncio.gather(*(store.save(states[number]) for number in chosen)) == [None] * 8
        if start % 4000 == 0:
            longest = max(longest, log.stat().st_size)
    # All that was saved makes hundreds of megabytes of log.
    assert 0 < longest < 2**25
    await store.close()
    store = SqliteSessionStore(tmp_path / "sessions.db")
    for state in states:
        assert await store.load(state.session_id) == state
    await store.close()


async def test_closing_while_the_log_is_moved_saves_what_waits(tmp_path: Path) -> None:
    store = SqliteSessionStore(tmp_path / "sessions.db", log_bytes=1)
    state = session("s")
    await store.create(state, 0, 0)
    while not store._log.pausing:
        await asyncio.sleep(0)
    newer = msgspec.structs.replace(state, revision=1)
    saving = asyncio.ensure_future(store.save(newer))
    await asyncio.sleep(0)
    await store.close()
    assert await saving is None
    store = SqliteSessionStore(tmp_path / "sessions.db")
    assert await store.load("s") == newer
    await store.close()


async def test_saves_wait_while_the_rest_of_the_log_is_moved(tmp_path: Path) -> None:
    store = SqliteSessionStore(tmp_path / "sessions.db")
    state = session("s")
    await store.create(state, 0, 0)
    store._log.pausing = True
    saving = asyncio.ensure_future(store.save(msgspec.structs.replace(state, revision=1)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not saving.done()
    assert await store.load("s") == state
    store._log._resume()
    assert await saving is None
    await store.close()


async def test_stores_may_share_a_database(tmp_path: Path) -> None:
    database = Database(tmp_path / "patterns.db")
    patterns, vectors = SqlitePatternStore(database), SqliteVectorStore(database)
    await asyncio.gather(patterns.insert("node", [pattern("1")]), vectors.put("node", {"a": [1.0]}))
    await patterns.close()
    assert await vectors.nearest("node", [1.0], 1) == [("a", 0.0)]
    await vectors.close()
    await vectors.close()
    with pytest.raises(StorageError, match="is closed"):
        await patterns.count("node")
    assert [file.name for file in tmp_path.iterdir()] == ["patterns.db"]


async def test_more_scans_than_idle_readers_are_kept(database: Database) -> None:
    store = SqlitePatternStore(database)
    await store.insert("node", [pattern(str(number)) for number in range(10)])
    scans = [store.scan("node") for _ in range(9)]
    for scan in scans:
        assert len(await anext(scan)) == 10
    for scan in scans:
        assert [batch async for batch in scan] == []
    assert len(await scanned(store, "node")) == 10
    await store.close()


async def test_closing_during_a_scan(tmp_path: Path) -> None:
    store = SqlitePatternStore(tmp_path / "patterns.db")
    await store.insert("node", [pattern(str(number)) for number in range(10)])
    scan = store.scan("node")
    assert len(await anext(scan)) == 10
    await store.close()
    assert [batch async for batch in scan] == []


async def test_a_scan_of_records_too_large_for_one_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(*arguments: object, **keywords: object) -> sqlite3.Connection:
        connection = connect(*arguments, **keywords)  # type: ignore[arg-type]
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 200_000)
        return connection

    connect = connection_module.connect
    store = SqlitePatternStore(tmp_path / "patterns.db")
    stored = [pattern(str(number), (("x" * 40_000,),)) for number in range(30)]
    await store.insert("node", stored)
    monkeypatch.setattr("kato.stores.sqlite.database.connect", small)
    assert [record.name.hex() for record in await scanned(store, "node")] == sorted(
        each.name for each in stored
    )
    await store.insert("node", [pattern("huge", (("x" * 150_000,),))])
    with pytest.raises(StorageError):
        await scanned(store, "node")
    await store.close()


async def test_batches_stay_of_moderate_size(database: Database) -> None:
    store = SqlitePatternStore(database)
    await store.insert("node", [pattern(str(number), ((f"s{number}",),)) for number in range(45_000)])
    sizes = [len(batch) async for batch in store.scan("node")]
    assert sum(sizes) == 45_000
    assert max(sizes) == patterns_module._LARGEST_BATCH
    await store.close()


async def test_a_cancelled_scan_leaves_the_store_usable(database: Database) -> None:
    store = SqlitePatternStore(database)
    await store.insert("node", [pattern(str(number)) for number in range(6000)])
    task = asyncio.ensure_future(scanned(store, "node"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await scanned(store, "node")) == 6000
    await store.close()


async def test_the_vector_cache_is_bounded(tmp_path: Path) -> None:
    store = SqliteVectorStore(tmp_path / "patterns.db", cache_bytes=50_000)
    for node in range(10):
        await store.put(f"n{node}", {f"v{number}": [float(number), float(node)] for number in range(100)})
        await store.nearest(f"n{node}", [0.0, 0.0], 1)
    assert sum(held.bytes for held in store._cache.values()) <= 50_000
    assert next(reversed(store._cache)) == b"n9"
    await store.put("n9", {f"w{number}": [0.0, 0.0] for number in range(1000)})
    assert list(store._cache) == [b"n9"]
    assert await store.nearest("n0", [5.0, 0.0], 1) == [("v5", 0.0)]
    await store.close()


async def test_puts_while_a_node_is_loaded(tmp_path: Path) -> None:
    store = SqliteVectorStore(tmp_path / "patterns.db")
    for node in range(20):
        key = f"n{node}"
        await store.put(key, {"first": [1.0]})
        await asyncio.gather(
            store.nearest(key, [0.0], 1),
            store.put(key, {"second": [2.0]}),
            store.nearest(f"empty {key}", [0.0], 1),
        )
        assert await store.nearest(key, [0.0], 9) == [("first", 1.0), ("second", 2.0)]
        await asyncio.gather(
            store.nearest(f"late {key}", [0.0], 1), store.put(f"late {key}", {"second": [2.0]})
        )
        assert await store.nearest(f"late {key}", [0.0], 9) == [("second", 2.0)]
        load = asyncio.ensure_future(store.nearest(f"early {key}", [0.0], 1))
        await asyncio.gather(store.drop(f"early {key}"), load)
    await store.close()


async def test_what_is_put_while_loading_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteVectorStore(tmp_path / "patterns.db")
    loaded, go_on = asyncio.Event(), asyncio.Event()
    read = store._database.read

    async def slow(work: object) -> object:
        rows = await read(work)  # type: ignore[arg-type, var-annotated]
        loaded.set()
        await go_on.wait()
        return rows

    monkeypatch.setattr(store._database, "read", slow)
    search = asyncio.ensure_future(store.nearest("node", [0.0], 5))
    await loaded.wait()
    await store.put("node", {"a": [1.0]})
    go_on.set()
    assert await search == [("a", 1.0)]
    loaded.clear()
    go_on.clear()
    store._cache.clear()
    search = asyncio.ensure_future(store.nearest("node", [0.0], 5))
    await loaded.wait()
    await store.drop("node")
    go_on.set()
    assert await search == []
    await store.close()


async def test_distances_beyond_double_range_are_infinite(tmp_path: Path) -> None:
    store = SqliteVectorStore(tmp_path / "patterns.db")
    await store.put("node", {"far": [1e300], "near": [0.0]})
    assert await store.nearest("node", [-1e300], 2) == [("far", float("inf")), ("near", float("inf"))]
    await store.close()


def test_a_matrix_grows_and_the_first_vector_of_a_name_stays() -> None:
    held = NodeVectors([], 1)
    content = struct.pack("<d", 1.0)
    for number in range(100):
        held.append([(f"v{number}", content), (f"v{number}", bytes(8))])
        held.append([(f"v{number}", bytes(8))])
    assert held.names == [f"v{number}" for number in range(100)]
    assert held.nearest(np.zeros(1), 100) == [(each, 1.0) for each in sorted(held.names)]


async def test_both_stores_in_memory_keep_to_themselves() -> None:
    first, second = SqlitePatternStore(":memory:"), SqlitePatternStore(":memory:")
    await first.insert("node", [pattern("1")])
    assert await second.nodes() == []
    await first.close()
    await second.close()


def test_a_store_cannot_be_created_where_there_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        Database(tmp_path / "missing" / "patterns.db")


def test_leftovers_of_an_interrupted_creation_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "sessions.db.new").write_bytes(b"half a file")
    store = SqliteSessionStore(tmp_path / "sessions.db")
    asyncio.run(store.close())
    assert [file.name for file in tmp_path.iterdir()] == ["sessions.db"]


def test_a_rename_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(connection_module.os, "rename", refuse)
    with pytest.raises(StorageError, match="No space left"):
        Database(tmp_path / "patterns.db")


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (sqlite3.SQLITE_FULL, StorageError, "disk is full"),
        (sqlite3.SQLITE_READONLY, StorageError, "read-only"),
        (sqlite3.SQLITE_IOERR | (2 << 8), StorageError, "disk failed"),
        (sqlite3.SQLITE_BUSY, StorageError, "another process"),
        (sqlite3.SQLITE_CORRUPT, DataCorrupted, "kato check"),
        (sqlite3.SQLITE_NOTADB, DataCorrupted, "kato check"),
        (sqlite3.SQLITE_ERROR, StorageError, "patterns.db: reason"),
        (None, StorageError, "patterns.db: reason"),
    ],
)
def test_errors_are_told_in_words(code: int | None, kind: type[StorageError], words: str) -> None:
    error = sqlite3.OperationalError("reason")
    if code is not None:
        error.sqlite_errorcode = code
    told = translate(error, "patterns.db")
    assert type(told) is kind
    assert words in told.message
    assert "patterns.db" in told.message


async def test_a_loop_that_ended_does_not_stop_the_writer(tmp_path: Path) -> None:
    database = Database(tmp_path / "patterns.db").use()
    gate = threading.Event()

    async def leave() -> None:
        asyncio.ensure_future(database.write(lambda _: gate.wait()))  # noqa: RUF006 - left behind on purpose
        await asyncio.sleep(0)

    await asyncio.to_thread(asyncio.run, leave())
    gate.set()
    assert await database.write(lambda _: 1) == 1
    await database.close()


async def test_a_rollback_that_failed_is_made_up_for(database: Database) -> None:
    database._writer._connection.execute("BEGIN")
    database._writer._connection.execute("INSERT INTO nodes (node) VALUES (x'00')")
    assert await database.write(lambda connection: connection.total_changes) == 1
    statement = "SELECT count(*) FROM nodes"
    assert await database.read(lambda connection: connection.execute(statement).fetchone()) == (0,)
