"""Patterns in MongoDB: one document each, changed one at a time, durable on a majority of the servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from bson import decode_all
from pymongo.errors import BulkWriteError

from kato.errors import KatoError, ValidationError
from kato.model import Pattern, PatternRecord
from kato.stores.codec import decode_pattern, encode_pattern, name_bytes, utf8
from kato.stores.mongo.client import INDEX_KEYS, Client, ClientOptions, Collection, Document
from kato.stores.mongo.failures import damaged, refused_as_duplicates

_BATCH: Final = 2_000
"""Documents per batch of a scan: decoding them keeps the event loop busy for a few milliseconds."""
_NAMES: Final = 1_000
"""Names per query."""
_DROPPED: Final = 5_000
"""Documents per delete of a drop, so that each is done well within the socket's timeout."""
_DOCUMENT_BYTES: Final = 2**24 - 2**14
"""MongoDB's limit of 16 MiB, with room for the fields around a pattern's content."""
_SCANNED: Final = {"_id.node": 0, "revision": 0}


class MongoPatternStore:
    """A `PatternStore` in the MongoDB at `url` (`mongodb://user:password@host,host/database?options`).

    The collection `patterns` of `database` (else the URL's, else `kato`) has one document per pattern,
    `{_id: {node, name}, frequency, revision, events, details}`: the name in hexadecimal digits, events and
    details as the MessagePack of `kato.stores.codec`, because every store must give back the same bytes.
    Constructing the store does not touch the network: `open`, or the first use, connects and makes sure of
    the index.

    Writes are confirmed by a majority's journals (`w=majority, j=true, wtimeout=5000`), whatever the URL
    says. An `insert` of several patterns writes each by itself: when it fails some of them may be there. A
    scan is consistent from MongoDB 5.0 on; on older servers what changes during it may be seen or not.
    Everything that the servers or the way to them do wrong is a `StorageError`. Neither messages nor `repr`
    show the URL. Timeouts are in milliseconds; `retryWrites` is the URL's choice.
    """

    def __init__(
        self,
        url: str,
        *,
        database: str | None = None,
        application_name: str = "kato",
        min_connections: int = 10,
        max_connections: int = 50,
        connect_timeout: int = 5_000,
        socket_timeout: int = 10_000,
        server_selection_timeout: int = 5_000,
        wait_queue_timeout: int = 5_000,
        heartbeat: int = 10_000,
        idle: int = 30_000,
    ) -> None:
        options = ClientOptions(
            database=database,
            application_name=application_name,
            min_connections=min_connections,
            max_connections=max_connections,
            connect_timeout=connect_timeout,
            socket_timeout=socket_timeout,
            server_selection_timeout=server_selection_timeout,
            wait_queue_timeout=wait_queue_timeout,
            heartbeat=heartbeat,
            idle=idle,
        )
        self._client = Client(url, options)

    async def open(self) -> None:
        """Connect and make sure of the index now; without it the first use does.

        Raises `StorageError` when no primary can be reached or it refuses, `DataDirectoryError` when the
        index's name is taken by another one.
        """
        await self._client.open()

    async def ping(self) -> None:
        """One round trip to the primary; `StorageError` when it does not answer."""
        async with self._client.use() as database:
            await database.client.admin.command("ping")

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are open, and how many of them nobody uses."""
        return self._client.connections

    async def insert(self, node: str, patterns: Sequence[Pattern]) -> set[str]:
        """Add patterns that are not there yet, durable on return; returns the names already there."""
        utf8(node, "node_id")
        documents = [_document(node, pattern) for pattern in patterns]
        if len({pattern.name for pattern in patterns}) < len(documents):
            raise ValidationError("names one pattern twice", field="patterns")
        if not documents:
            return set()
        return await self._client.finish(lambda database: _insert(database.patterns, documents))

    async def replace(self, node: str, pattern: Pattern, revision: int) -> bool:
        """Put `pattern` in place of the record of its name if that still has `revision`; False when not."""
        utf8(node, "node_id")
        changed = _document(node, pattern)
        del changed["_id"]
        async with self._client.use() as database:
            wanted = {**_one(node, pattern.name), "revision": revision}
            result = await database.patterns.update_one(wanted, {"$set": changed})
        return result.matched_count == 1

    async def fetch(self, node: str, names: Sequence[str]) -> dict[str, Pattern]:
        """The records of those names that exist."""
        utf8(node, "node_id")
        wanted = sorted({name for name in names if name_bytes(name) is not None})
        found = {}
        if wanted:
            async with self._client.use() as database:
                for start in range(0, len(wanted), _NAMES):
                    part = {"_id.node": node, "_id.name": {"$in": wanted[start : start + _NAMES]}}
                    async for document in database.patterns.find(part):
                        pattern = _pattern(document)
                        found[pattern.name] = pattern
        return found

    async def delete(self, node: str, name: str, revision: int | None = None) -> bool:
        """Remove a record, with a `revision` only if it still has that; False when there was none to remove."""
        utf8(node, "node_id")
        if name_bytes(name) is None:
            return False
        wanted = _one(node, name) if revision is None else {**_one(node, name), "revision": revision}
        async with self._client.use() as database:
            result = await database.patterns.delete_one(wanted)
        return result.deleted_count == 1

    async def scan(self, node: str) -> AsyncIterator[list[PatternRecord]]:
        """All records of a node in batches, in ascending order of name, consistent as of the first batch."""
        utf8(node, "node_id")
        async with self._client.reading(node, _SCANNED, _BATCH) as reading:
            upcoming = reading.read_ahead()
            while (content := await upcoming) is not None:
                # The server works on the next batch while the caller does on this one.
                upcoming = reading.read_ahead()
                if batch := _records(decode_all(content)):
                    yield batch

    async def drop(self, node: str) -> int:
        """Remove all records of a node; returns how many there were. What is learned meanwhile may stay."""
        utf8(node, "node_id")
        return await self._client.finish(lambda database: _drop(database.patterns, node))

    async def nodes(self) -> list[str]:
        """The ids of all nodes that hold at least one record, ascending."""
        # Sorted by the first field of the index and grouped by it alone, so servers jump from node to node.
        stages: list[Document] = [{"$sort": {"_id.node": 1}}, {"$group": {"_id": "$_id.node"}}]
        async with self._client.use() as database:
            found = await database.patterns.aggregate(stages)
            return sorted([document["_id"] async for document in found])

    async def count(self, node: str) -> int:
        """How many patterns the node holds."""
        utf8(node, "node_id")
        async with self._client.use() as database:
            return int(await database.patterns.count_documents({"_id.node": node, "frequency": {"$gte": 0}}))

    async def close(self) -> None:
        """Finish what was accepted and release every connection."""
        await self._client.close()


async def _insert(patterns: Collection, documents: list[Document]) -> set[str]:
    try:
        await patterns.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        return {documents[position]["_id"]["name"] for position in refused_as_duplicates(error)}
    return set()


async def _drop(patterns: Collection, node: str) -> int:
    removed = 0
    after: str | None = ""
    while after is not None:
        border = await _name_after(patterns, node, after, _DROPPED - 1)
        names = {"$gt": after} if border is None else {"$gt": after, "$lte": border}
        result = await patterns.delete_many({"_id.node": node, "_id.name": names})
        removed += result.deleted_count
        after = border
    return removed


async def _name_after(patterns: Collection, node: str, after: str, skipped: int) -> str | None:
    """The name that follows `skipped` others after `after`, None when there are not so many."""
    names = {"_id.node": node, "_id.name": {"$gt": after}}
    found = patterns.find(names, {"_id.name": 1}, sort=INDEX_KEYS, skip=skipped, limit=1)
    documents = await found.to_list()
    return documents[0]["_id"]["name"] if documents else None


def _one(node: str, name: str) -> Document:
    """The filter for one record; the second condition tells a sharded cluster where it is."""
    return {"_id": {"node": node, "name": name}, "_id.node": node}


def _document(node: str, pattern: Pattern) -> Document:
    record = encode_pattern(pattern)
    if len(record.events) + len(record.details) > _DOCUMENT_BYTES:
        raise ValidationError("is larger than MongoDB can store (16 MiB)", field="pattern")
    return {
        "_id": {"node": node, "name": pattern.name},
        "frequency": record.frequency,
        "revision": pattern.revision,
        "events": record.events,
        "details": record.details,
    }


def _pattern(document: Document) -> Pattern:
    (record,) = _records([document])
    try:
        return decode_pattern(record, int(document["revision"]))
    except KatoError as error:
        raise damaged(error.message) from error
    except (LookupError, TypeError, ValueError) as error:
        raise damaged(f"a field is missing or of the wrong type: {error}") from error


def _records(documents: Iterable[Document]) -> list[PatternRecord]:
    try:
        return [
            PatternRecord(
                bytes.fromhex(document["_id"]["name"]),
                document["events"],
                int(document["frequency"]),
                document["details"],
            )
            for document in documents
        ]
    except (LookupError, TypeError, ValueError) as error:
        raise damaged(f"a field is missing or of the wrong type: {error}") from error
