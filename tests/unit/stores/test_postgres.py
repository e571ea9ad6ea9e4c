"""What PostgreSQL adds to the contract: sessions of the server, its failures, and how they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from kato.errors import ConfigurationError, DataCorrupted, DataDirectoryError, StorageError, ValidationError
from kato.stores.postgres import PostgresPatternStore
from kato.stores.postgres.schema import Migration, migrate, migrations
from tests.contract.values import name, pattern, scanned
from tests.support import postgres
from tests.support.postgres import GUARDED_PASSWORD, GUARDED_USER, PostgresServer


def store_of(url: str, schema: str = "kato", **options: Any) -> PostgresPatternStore:
    return PostgresPatternStore(url, schema=schema, **{"min_connections": 1, "max_connections": 5, **options})


@pytest.fixture
def schema() -> str:
    return postgres.fresh_schema()


@pytest.fixture
async def store(schema: str) -> AsyncIterator[PostgresPatternStore]:
    opened = store_of(postgres.shared().url, schema)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def other(schema: str) -> AsyncIterator[Any]:
    """A connection of somebody else to the same schema."""
    connection = await asyncpg.connect(
        postgres.shared().url, server_settings={"search_path": f'"{schema}"', "application_name": "other"}
    )
    yield connection
    await connection.close()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that the test may harm."""
    with postgres.postgres() as server:
        yield server


async def waiting(connection: Any, application: str, statements: int = 1) -> None:
    """Return when that many statements of `application` wait for a lock."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'"
        " AND pid <> pg_backend_pid()"
    )
    async with asyncio.timeout(10):
        while await connection.fetchval(query, application) != statements:
            await asyncio.sleep(0)


async def test_every_connection_waits_for_the_disk(schema: str) -> None:
    url = postgres.shared().url + "?synchronous_commit=off&application_name=url"
    store = store_of(url, schema, application_name="kato-test")
    async with store._pool.borrow() as connection:
        for setting, value in (
            ("synchronous_commit", "on"),
            ("default_transaction_isolation", "read committed"),
            ("application_name", "kato-test"),
        ):
            assert await connection.fetchval("SELECT current_setting($1)", setting) == value
    await store.close()


async def test_nothing_is_connected_before_the_first_use(schema: str) -> None:
    store = store_of(postgres.shared().url, schema, min_connections=3)
    assert store.connections == (0, 0)
    await store.ping()
    assert store.connections == (3, 3)
    await store.close()


async def test_instances_that_start_together_migrate_once(schema: str, other: Any) -> None:
    stores = [store_of(postgres.shared().url, schema) for _ in range(5)]
    await asyncio.gather(*(each.open() for each in stores))
    assert await asyncio.gather(*(each.insert("n", [pattern("1")]) for each in stores)) != [set()] * 5
    applied = [tuple(row) for row in await other.fetch("SELECT number, name FROM kato_migrations")]
    assert applied == [(step.number, step.name) for step in migrations()]
    for each in stores:
        await each.close()


async def test_a_schema_of_a_newer_kato_is_refused(
    store: PostgresPatternStore, schema: str, other: Any
) -> None:
    await other.execute("INSERT INTO kato_migrations VALUES (999, 'future')")
    newer = store_of(postgres.shared().url, schema)
    with pytest.raises(DataDirectoryError, match="version 999"):
        await newer.open()
    await newer.close()


async def test_a_step_is_applied_wholly_or_not(store: PostgresPatternStore, schema: str, other: Any) -> None:
    steps = [*migrations(), Migration(900, "broken", "CREATE TABLE more (a integer); SELECT 1 / 0")]
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(other, schema, 10.0, steps)
    assert await other.fetchval("SELECT to_regclass('more')") is None
    steps[-1] = Migration(900, "mended", "CREATE TABLE more (a integer); CREATE TABLE most (a integer)")
    await migrate(other, schema, 10.0, steps)
    await migrate(other, schema, 10.0, steps)
    assert await other.fetchval("SELECT count(*) FROM most") == 0
    assert await other.fetchval("SELECT name FROM kato_migrations WHERE number = 900") == "mended"


async def test_a_role_that_may_only_use_the_tables(
    store: PostgresPatternStore, schema: str, other: Any
) -> None:
    password = GUARDED_PASSWORD.replace("'", "''")
    await other.execute(
        f"DROP ROLE IF EXISTS {GUARDED_USER}; CREATE ROLE {GUARDED_USER} LOGIN PASSWORD '{password}';"
        f' GRANT USAGE ON SCHEMA "{schema}" TO {GUARDED_USER};'
        f" GRANT SELECT ON kato_migrations TO {GUARDED_USER};"
        f" GRANT SELECT, INSERT ON patterns TO {GUARDED_USER}"
    )
    url = postgres.shared().url.replace("kato@", f"{GUARDED_USER}:{quote(GUARDED_PASSWORD, safe='')}@")
    guarded = store_of(url, schema)
    assert await guarded.insert("node", [pattern("1")]) == set()
    with pytest.raises(StorageError, match="privilege"):
        await guarded.delete("node", name("1"))
    await guarded.close()
    for wrong, words in (
        (url.replace("guarded%2Frole", "wrong"), "credentials"),
        (url + "x", "does not exist"),
    ):
        refused = store_of(wrong, schema)
        with pytest.raises(StorageError, match=words) as caught:
            await refused.open()
        assert caught.value.retry_after
        assert "wrong" not in caught.value.message + repr(refused)
        await refused.close()
    await other.execute(f"DROP OWNED BY {GUARDED_USER}; DROP ROLE {GUARDED_USER}")


@pytest.mark.parametrize(
    "url", ["postgresql://u:s3cret@h:port/d", "mysql://u:s3cret@h/d", "postgresql://[s3cret"]
)
async def test_a_wrong_url_is_told_without_quoting_it(url: str) -> None:
    store = store_of(url)
    with pytest.raises(ConfigurationError, match="URL") as caught:
        await store.open()
    assert "s3cret" not in caught.value.message + repr(store)
    assert caught.value.__cause__ is None
    await store.close()


@pytest.mark.parametrize(
    ("fields", "node"),
    [({"frequency": 2**63}, "node"), ({"revision": -(2**63) - 1}, "node"), ({}, "x" * 2049)],
)
async def test_values_that_postgresql_cannot_hold(
    store: PostgresPatternStore, fields: dict[str, int], node: str
) -> None:
    with pytest.raises(ValidationError):
        await store.insert(node, [pattern("2"), pattern("1", **fields)])
    with pytest.raises(ValidationError):
        await store.replace(node, pattern("1", **fields), 1)
    assert await store.nodes() == []


@pytest.mark.parametrize("column", ["events", "details"])
async def test_damaged_records(store: PostgresPatternStore, other: Any, column: str) -> None:
    await store.insert("node", [pattern("1")])
    await other.execute(f"UPDATE patterns SET {column} = '\\xc1'")
    with pytest.raises(DataCorrupted):
        await store.fetch("node", [name("1")])
    await other.execute("DROP TABLE patterns")
    with pytest.raises(DataCorrupted, match="42P01"):
        await store.fetch("node", [name("1")])


async def test_a_lock_that_others_hold_costs_no_more_than_the_timeout(schema: str, other: Any) -> None:
    store = store_of(postgres.shared().url, schema, command_timeout=0.2, application_name="impatient")
    await store.insert("node", [pattern("1")])
    async with other.transaction():
        await other.execute("UPDATE patterns SET frequency = 5")
        with pytest.raises(StorageError, match="in time"):
            await store.replace("node", pattern("1", frequency=2, revision=2), 1)
        # The server stops the statement, so that it does not come to effect much later.
        await waiting(other, "impatient", 0)
    await store.close()
    assert await other.fetchval("SELECT frequency FROM patterns") == 5


async def test_no_connection_is_free(schema: str, other: Any) -> None:
    store = store_of(
        postgres.shared().url, schema, max_connections=1, acquire_timeout=0.2, application_name="single"
    )
    await store.insert("node", [pattern("1")])
    async with other.transaction():
        await other.execute("UPDATE patterns SET frequency = 5")
        blocked = asyncio.ensure_future(store.delete("node", name("1")))
        await waiting(other, "single")
        with pytest.raises(StorageError, match="in time"):
            await store.ping()
    assert await blocked
    await store.ping()
    await store.close()


async def test_a_cancelled_write_leaves_its_connection_to_others(schema: str, other: Any) -> None:
    store = store_of(postgres.shared().url, schema, max_connections=1, application_name="cancelled")
    await store.insert("node", [pattern("1")])
    async with other.transaction():
        await other.execute("UPDATE patterns SET frequency = 5")
        blocked = asyncio.ensure_future(store.delete("node", name("1")))
        await waiting(other, "cancelled")
        blocked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await blocked
        assert await store.count("node") == 1
    await store.close()


async def test_a_deadlock_is_survived(schema: str, other: Any) -> None:
    # Of the two, the store is the one that looks for a circle, and not before the circle is there.
    await other.execute("SET deadlock_timeout = '1min'")
    store = store_of(postgres.shared().url + "?deadlock_timeout=2s", schema, application_name="deadlock")
    first, second = sorted((pattern("1"), pattern("2")), key=lambda each: each.name)
    await store.insert("node", [first, second])
    change = "UPDATE patterns SET frequency = 5 WHERE name = $1"
    async with other.transaction():
        await other.execute(change, bytes.fromhex(second.name))
        # Takes the first record and waits for the second; the server finds the circle and undoes this drop.
        dropping = asyncio.ensure_future(store.drop("node"))
        await waiting(other, "deadlock")
        await other.execute(change, bytes.fromhex(first.name))
    assert await dropping == 2
    await store.close()


async def test_errors_of_the_server_that_are_no_deadlock_are_not_repeated(
    store: PostgresPatternStore, other: Any
) -> None:
    await other.execute("ALTER TABLE patterns ADD CHECK (frequency < 5)")
    with pytest.raises(StorageError, match="SQLSTATE 23514"):
        await store.insert("node", [pattern("1"), pattern("2", frequency=5)])
    assert await store.count("node") == 0


async def test_batches_of_large_records_are_small(store: PostgresPatternStore) -> None:
    large = [pattern(str(number), (("x" * 100_000 + str(number),),)) for number in range(300)]
    small = [pattern(f"small {number}") for number in range(3_000)]
    await store.insert("node", large + small)
    sizes = [len(batch) async for batch in store.scan("node")]
    assert sum(sizes) == 3_300
    assert len(sizes) > 5


async def test_a_cancelled_scan_leaves_its_connection_to_others(schema: str) -> None:
    store = store_of(postgres.shared().url, schema, max_connections=1)
    await store.insert("node", [pattern(str(number)) for number in range(3_000)])
    arrived = asyncio.Event()

    async def consume() -> None:
        async for _ in store.scan("node"):
            arrived.set()

    consumer = asyncio.ensure_future(consume())
    await arrived.wait()
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    assert len(await scanned(store, "node")) == 3_000
    assert store.connections[0] == 1
    await store.close()


async def test_close_ends_scans(schema: str) -> None:
    store = store_of(postgres.shared().url, schema)
    await store.insert("node", [pattern(str(number)) for number in range(20_000)])
    scan = store.scan("node")
    await anext(scan)
    await store.close()
    with pytest.raises(StorageError):
        async for _ in scan:
            pass


async def test_a_server_that_stands_still_then_dies_then_returns(own_server: PostgresServer) -> None:
    store = store_of(own_server.url, command_timeout=0.3, connect_timeout=0.3, acquire_timeout=0.3)
    await store.insert("node", [pattern("1")])
    own_server.pause()
    try:
        for _ in range(2):
            with pytest.raises(StorageError, match="in time"):
                await store.insert("node", [pattern("2")])
    finally:
        own_server.resume()
    assert await store.insert("node", [pattern("1")]) == {name("1")}
    own_server.kill9()
    for _ in range(3):
        with pytest.raises(StorageError):
            await store.fetch("node", [name("1")])
    await asyncio.to_thread(own_server.start)
    assert set(await store.fetch("node", [name("1")])) == {name("1")}
    await store.close()
    # Nobody listens: what was never connected says so at once.
    own_server.stop()
    fresh = store_of(own_server.url)
    with pytest.raises(StorageError, match="reached"):
        await fresh.open()
    await fresh.close()


async def test_what_was_acknowledged_survives_the_loss_of_the_primary(own_server: PostgresServer) -> None:
    standby = own_server.replica()
    try:
        hosts = f"127.0.0.1:{own_server.port},127.0.0.1:{standby.port}"
        store = store_of(f"postgresql://{postgres.USER}@{hosts}/postgres")
        for number in range(20):
            await store.insert("node", [pattern(str(number))])
        own_server.kill9()
        with pytest.raises(StorageError):
            await store.insert("node", [pattern("late")])
        await asyncio.to_thread(standby.promote)
        assert await store.count("node") == 20
        assert await store.insert("node", [pattern("late")]) == set()
        await store.close()
    finally:
        standby.remove()


async def test_a_primary_that_became_read_only_is_left(own_server: PostgresServer) -> None:
    store = store_of(own_server.url)
    await store.insert("node", [pattern("1")])
    own_server.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    own_server.sql("SELECT pg_reload_conf()")
    query = "SELECT current_setting('default_transaction_read_only')"
    async with store._pool.borrow() as connection:
        while await connection.fetchval(query) == "off":
            await asyncio.sleep(0)
    with pytest.raises(StorageError, match="read-only"):
        await store.delete("node", name("1"))
    # Its other connections are given up too; new ones want a server that accepts writes.
    with pytest.raises(StorageError):
        await store.ping()
    await store.close()
