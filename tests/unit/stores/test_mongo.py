"""What MongoDB adds to the contract: what is asked of the servers, and how their failures are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pymongo
import pytest
from bson import Int64

from kato.errors import ConfigurationError, DataCorrupted, DataDirectoryError, StorageError, ValidationError
from kato.model import Pattern
from kato.stores.mongo import MongoPatternStore
from kato.stores.mongo import client as client_module
from tests.contract.values import name, pattern, scanned
from tests.support import mongo
from tests.support.mongo_script import ScriptedMongo, cursor, scripted
from tests.support.waiting import until

MAJORITY = {"w": "majority", "j": True, "wtimeout": 5000}
SECRET = "s3cret"


def store_of(url: str, **options: Any) -> MongoPatternStore:
    options = {
        "min_connections": 0,
        "max_connections": 4,
        "server_selection_timeout": 1_500,
        "socket_timeout": 300,
        "connect_timeout": 300,
        "wait_queue_timeout": 200,
        **options,
    }
    return MongoPatternStore(url, **options)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedMongo]:
    async with scripted() as running:
        yield running


@pytest.fixture
async def told(server: ScriptedMongo) -> AsyncIterator[MongoPatternStore]:
    """A store on the scripted server."""
    store = store_of(server.url)
    yield store
    await store.close()


@pytest.fixture
async def real() -> AsyncIterator[tuple[MongoPatternStore, Any]]:
    """A store on the shared server, and its collection as another client sees it."""
    url, database = mongo.shared().url, mongo.fresh_database()
    store = store_of(url, database=database, socket_timeout=10_000)
    async with pymongo.AsyncMongoClient[dict[str, Any]](url) as other:
        yield store, other[database]["patterns"]
    await store.close()


def test_a_real_replica_set_takes_part() -> None:
    assert mongo.real_url()


async def test_writes_ask_for_a_majority_whatever_the_url_says(server: ScriptedMongo) -> None:
    store = store_of(server.url + "&w=0&journal=false&readPreference=secondary&readConcernLevel=local")
    server.answers["update"] = {"n": 1, "nModified": 1, "ok": 1}
    server.answers["delete"] = {"n": 1, "ok": 1}
    assert await store.insert("node", [pattern("1")]) == set()
    assert await store.replace("node", pattern("1", revision=2), 1)
    assert await store.delete("node", name("1"))
    await store.close()
    for command in ("createIndexes", "insert", "update", "delete"):
        (sent,) = server.sent(command)
        assert sent["writeConcern"] == MAJORITY
    (update,) = server.sent("update")[0]["updates"]
    assert update["q"] == {"_id": {"node": "node", "name": name("1")}, "_id.node": "node", "revision": 1}
    assert not update.get("upsert")
    assert server.sent("insert")[0]["ordered"] is False


async def test_reads_that_decide_a_learn_ask_the_primary_for_what_a_majority_has(
    server: ScriptedMongo, told: MongoPatternStore
) -> None:
    assert await told.fetch("node", [name("1")]) == {}
    (find,) = server.sent("find")
    assert find["readConcern"] == {"level": "majority"}
    assert "$readPreference" not in find or find["$readPreference"]["mode"] == "primary"
    assert find["filter"] == {"_id.node": "node", "_id.name": {"$in": [name("1")]}}


def document(text: str) -> dict[str, Any]:
    return {
        "_id": {"name": name(text)},
        "frequency": Int64(2**40),
        "events": b"\x91\x91\xa1a",
        "details": b"",
    }


async def test_a_scan_reads_from_a_snapshot(server: ScriptedMongo, told: MongoPatternStore) -> None:
    first, second = sorted(("1", "2"), key=name)
    server.answers["find"] = cursor([document(first)], 7)
    server.answers["getMore"] = [cursor([document(second)], 7, "nextBatch"), cursor([], 0, "nextBatch")]
    records = await scanned(told, "node")
    assert [record.name.hex() for record in records] == [name(first), name(second)]
    assert [type(record.frequency) for record in records] == [int, int]
    (find,) = server.sent("find")
    assert find["readConcern"]["level"] == "snapshot"
    assert find["$readPreference"] == {"mode": "primaryPreferred"}
    assert find["sort"] == {"_id.node": 1, "_id.name": 1}
    assert {str(each["lsid"]) for each in server.sent("getMore")} == {str(find["lsid"])}


@pytest.mark.parametrize("hello", [{"maxWireVersion": 9}, {"maxWireVersion": 21, "setName": None}])
async def test_servers_without_snapshots_are_read_without(hello: dict[str, Any]) -> None:
    async with scripted(**hello) as server:
        store = store_of(server.url.replace("replicaSet=rs", "directConnection=true"))
        server.answers["find"] = cursor([document("1")])
        assert len(await scanned(store, "node")) == 1
        (find,) = server.sent("find")
        assert find["readConcern"] == {"level": "majority"}
        await store.close()


async def test_a_scan_that_is_left_lets_the_server_forget_the_cursor(
    server: ScriptedMongo, told: MongoPatternStore
) -> None:
    server.answers["find"] = cursor([document("1")], 7)
    server.answers["getMore"] = cursor([document("2")], 7, "nextBatch")
    scan = told.scan("node")
    assert len(await anext(scan)) == 1
    await scan.aclose()  # type: ignore[attr-defined]
    await until(lambda: bool(server.sent("killCursors")))


async def test_a_cut_during_a_scan(server: ScriptedMongo, told: MongoPatternStore) -> None:
    server.answers["find"] = cursor([document("1")], 7)
    server.answers["getMore"] = "cut"
    with pytest.raises(StorageError):
        await scanned(told, "node")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"ok": 0, "code": 10107, "errmsg": SECRET}, "not the primary"),
        ({"ok": 0, "code": 13, "errmsg": SECRET}, "privilege"),
        ({"ok": 0, "code": 18, "errmsg": SECRET}, "credentials"),
        ({"ok": 0, "code": 50, "errmsg": SECRET}, "in time"),
        ({"ok": 0, "code": 14, "errmsg": SECRET}, "code 14"),
        ({"ok": 1, "n": 1, "writeConcernError": {"code": 64, "errmsg": SECRET}}, "majority"),
        ({"ok": 1, "n": 1, "writeConcernError": {"code": 100, "errmsg": SECRET}}, "majority"),
        ({"ok": 1, "n": 0, "writeErrors": [{"index": 0, "code": 121, "errmsg": SECRET}]}, "code"),
        ("cut", "cannot be reached"),
        ("silence", "in time"),
    ],
)
async def test_what_is_not_acknowledged_is_an_error(
    server: ScriptedMongo, told: MongoPatternStore, answer: Any, words: str
) -> None:
    await told.open()
    server.answers.update(insert=answer, update=answer)
    for call in (
        told.insert("node", [pattern("1")]),
        told.replace("node", pattern("1", revision=2), 1),
    ):
        with pytest.raises(StorageError, match=words) as caught:
            await call
        assert SECRET not in caught.value.message
        assert caught.value.retry_after


async def test_known_names_beside_an_unconfirmed_write(
    server: ScriptedMongo, told: MongoPatternStore
) -> None:
    duplicate = {"index": 1, "code": 11000, "errmsg": "E11000"}
    server.answers["insert"] = {"ok": 1, "n": 1, "writeErrors": [duplicate]}
    assert await told.insert("node", [pattern("1"), pattern("2")]) == {name("2")}
    server.answers["insert"]["writeConcernError"] = {"code": 64, "errmsg": "waiting"}
    with pytest.raises(StorageError):
        await told.insert("node", [pattern("1"), pattern("2")])


async def test_an_index_of_that_name_on_other_fields(server: ScriptedMongo, told: MongoPatternStore) -> None:
    server.answers["listIndexes"] = cursor([{"name": client_module.INDEX, "key": {"frequency": 1}, "v": 2}])
    with pytest.raises(DataDirectoryError, match="node_name"):
        await told.open()
    assert server.sent("createIndexes") == []


async def test_an_index_that_is_there_is_not_created(server: ScriptedMongo, told: MongoPatternStore) -> None:
    key = {"_id.node": 1, "_id.name": 1.0}
    server.answers["listIndexes"] = cursor([{"name": client_module.INDEX, "key": key, "v": 2}])
    await told.open()
    assert server.sent("createIndexes") == []


async def test_a_server_that_is_too_old() -> None:
    async with scripted(maxWireVersion=8) as server:
        store = store_of(server.url)
        with pytest.raises(StorageError, match=r"MongoDB 4\.4"):
            await store.open()
        await store.close()


@pytest.mark.parametrize(
    "url", ["mongodb://u:s3cret@:x", "http://u:s3cret@host", "mongodb://u:s3c:ret@h/?w=q%"]
)
async def test_a_wrong_url_is_told_without_quoting_it(url: str) -> None:
    store = store_of(url)
    with pytest.raises(ConfigurationError) as caught:
        await store.open()
    assert "s3c" not in caught.value.message + repr(store)
    assert caught.value.__cause__ is None
    await store.close()


# pymongo forgets the socket of a connection attempt that its own `close` interrupts.
@pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")
async def test_nobody_listens_and_then_somebody_does() -> None:
    server = mongo.MongoServer().start()
    server.kill9()
    store = store_of(server.url, server_selection_timeout=600)
    try:
        for _ in range(2):
            with pytest.raises(StorageError, match="found in time"):
                await store.fetch("node", [name("1")])
        server.start()
        assert await store.fetch("node", [name("1")]) == {}
    finally:
        await store.close()
        server.stop()


@pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")
async def test_an_unreachable_server_is_told_without_quoting_the_url(server: ScriptedMongo) -> None:
    await server.stop()
    store = store_of(server.url.replace("127", f"user:{SECRET}@127"), server_selection_timeout=100)
    with pytest.raises(StorageError) as caught:
        await store.ping()
    assert SECRET not in caught.value.message + str(caught.value.__cause__)
    await store.close()


@pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")
async def test_a_killed_server_and_its_return() -> None:
    server = mongo.MongoServer().start()
    store = store_of(server.url, server_selection_timeout=1_000)
    try:
        await store.insert("node", [pattern("1")])
        server.kill9()
        with pytest.raises(StorageError):
            await store.ping()
        server.start()
        await store.ping()
        assert await store.insert("node", [pattern("1")]) == set()
    finally:
        await store.close()
        server.stop()


async def test_the_database_of_the_url_and_the_compression(server: ScriptedMongo) -> None:
    for url, database in ((server.url, "kato"), (server.url.replace("/?", "/other?"), "other")):
        store = store_of(url + "&compressors=zlib")
        await store.count("node")
        assert server.sent("aggregate")[-1]["$db"] == database
        await store.close()


async def test_no_connection_is_free(server: ScriptedMongo) -> None:
    store = store_of(server.url, max_connections=1, socket_timeout=5_000)
    await store.open()
    server.answers["aggregate"] = "silence"
    holding = asyncio.ensure_future(store.count("node"))
    await until(lambda: bool(server.sent("aggregate")))
    assert store.connections == (1, 0)
    with pytest.raises(StorageError, match="free"):
        await store.ping()
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    await store.ping()
    await store.close()


async def test_connections_are_counted(real: tuple[MongoPatternStore, Any]) -> None:
    store, _ = real
    assert store.connections == (0, 0)
    await store.ping()
    opened, idle = store.connections
    assert opened == idle >= 1


async def test_a_drop_of_many(real: tuple[MongoPatternStore, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kato.stores.mongo.patterns._DROPPED", 100)
    store, _ = real
    await store.insert("node", [pattern(str(number)) for number in range(350)])
    await store.insert("other", [pattern("1")])
    assert await store.drop("node") == 350
    assert await store.nodes() == ["other"]


async def test_a_cancelled_drop_goes_on_and_close_waits(
    real: tuple[MongoPatternStore, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kato.stores.mongo.patterns._DROPPED", 10)
    store, collection = real
    await store.insert("node", [pattern(str(number)) for number in range(300)])
    dropping = asyncio.ensure_future(store.drop("node"))
    await asyncio.sleep(0)
    dropping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dropping
    await store.close()
    assert await collection.count_documents({}) == 0


async def test_values_that_mongodb_cannot_hold(real: tuple[MongoPatternStore, Any]) -> None:
    store, _ = real
    for wrong in (pattern("1", frequency=2**63), pattern("1", (("x" * 2**24,),))):
        with pytest.raises(ValidationError):
            await store.insert("node", [pattern("2"), wrong])
        with pytest.raises(ValidationError):
            await store.replace("node", wrong, 1)


async def test_records_are_documents_that_can_be_read(real: tuple[MongoPatternStore, Any]) -> None:
    store, collection = real
    await store.insert("$set.a", [Pattern(name="0f" * 20, events=(("a",),), frequency=3)])
    assert await collection.find_one() == {
        "_id": {"node": "$set.a", "name": "0f" * 20},
        "frequency": 3,
        "revision": 1,
        "events": b"\x91\x91\xa1a",
        "details": b"",
    }


@pytest.mark.parametrize(
    ("change", "scan_sees_it"),
    [
        ({"$set": {"events": b"\xc1"}}, False),
        ({"$set": {"events": "text"}}, False),
        ({"$set": {"details": b"\xc1"}}, False),
        ({"$unset": {"revision": 1}}, False),
        ({"$unset": {"events": 1}}, True),
        ({"$set": {"frequency": "many"}}, True),
    ],
)
async def test_a_damaged_document(
    real: tuple[MongoPatternStore, Any], change: dict[str, Any], scan_sees_it: bool
) -> None:
    store, collection = real
    await store.insert("node", [pattern("1")])
    await collection.update_one({}, change)
    with pytest.raises(DataCorrupted):
        await store.fetch("node", [name("1")])
    if scan_sees_it:
        with pytest.raises(DataCorrupted):
            await scanned(store, "node")
