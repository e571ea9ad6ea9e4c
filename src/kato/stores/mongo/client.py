"""The driver's client as KATO wants it: pool, timeouts, concerns, and the index that every query uses."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

from pymongo import ASCENDING, AsyncMongoClient, ReadPreference, WriteConcern, monitoring
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.cursor import AsyncRawBatchCursor
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from kato.errors import ConfigurationError, DataDirectoryError
from kato.stores.link import Link
from kato.stores.mongo.failures import translated

T = TypeVar("T")
Document: TypeAlias = dict[str, Any]
Collection: TypeAlias = AsyncCollection[Document]

INDEX: Final = "node_name"
INDEX_KEYS: Final = [("_id.node", ASCENDING), ("_id.name", ASCENDING)]
"""Every query goes through it, in the order of names; it is also the key to shard by."""

_WRITE_CONCERN: Final = WriteConcern(w="majority", j=True, wtimeout=5_000)
_SNAPSHOT_WIRE_VERSION: Final = 13
"""MongoDB 5.0: reads from a snapshot without a transaction."""


class ClientOptions(NamedTuple):
    """How to reach the servers; times in milliseconds."""

    database: str | None = None
    application_name: str = "kato"
    min_connections: int = 10
    max_connections: int = 50
    connect_timeout: int = 5_000
    socket_timeout: int = 10_000
    server_selection_timeout: int = 5_000
    wait_queue_timeout: int = 5_000
    heartbeat: int = 10_000
    idle: int = 30_000


class Gauge(monitoring.ConnectionPoolListener):
    """Counts the connections of a client's pools."""

    def __init__(self) -> None:
        self.open = 0
        self.used = 0

    def connection_created(self, event: monitoring.ConnectionCreatedEvent) -> None:
        self.open += 1

    def connection_closed(self, event: monitoring.ConnectionClosedEvent) -> None:
        self.open -= 1

    def connection_checked_out(self, event: monitoring.ConnectionCheckedOutEvent) -> None:
        self.used += 1

    def connection_checked_in(self, event: monitoring.ConnectionCheckedInEvent) -> None:
        self.used -= 1

    def _ignore(self, event: Any) -> None:
        """Says nothing about the number of connections."""

    pool_created = pool_ready = pool_cleared = pool_closed = _ignore
    connection_ready = connection_check_out_started = connection_check_out_failed = _ignore


class Database(NamedTuple):
    """An open client and its collection of patterns, as seen by those who decide a learn and by scans."""

    client: AsyncMongoClient[Document]
    patterns: Collection
    scanned: Collection
    snapshots: bool
    """Whether the servers can read from a snapshot."""


class Reading:
    """A cursor that delivers batches of undecoded documents."""

    def __init__(self, cursor: AsyncRawBatchCursor[Document], session: AsyncClientSession | None) -> None:
        self._cursor = cursor
        self._session = session
        self._ahead: asyncio.Task[bytes | None] | None = None

    def read_ahead(self) -> asyncio.Task[bytes | None]:
        """Begin to read the next batch (None after the last); `end` stops it when nobody wants it."""
        self._ahead = asyncio.create_task(self._next())
        return self._ahead

    async def _next(self) -> bytes | None:
        # The stubs call the batches documents.
        batches = cast("AsyncIterator[bytes]", self._cursor)
        return await anext(batches, None)

    async def end(self) -> None:
        """Stop what is being read and let the server forget the cursor."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)
        # A server that cannot be told forgets it by itself after some minutes.
        with contextlib.suppress(PyMongoError, OSError):
            await self._cursor.close()
            if self._session is not None:
                await self._session.end_session()


class Client:
    """The client of one store. Nothing is connected before `open` or the first `use`."""

    def __init__(self, url: str, options: ClientOptions) -> None:
        self._url = url
        self._options = options
        self._gauge = Gauge()
        self._driver: AsyncMongoClient[Document] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._link: Link[Database] = Link("MongoDB", self._connect, self._disconnect)

    async def open(self) -> None:
        """Connect now and make sure of the index; `StorageError` when no primary lets us."""
        await self._link.get()

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Database]:
        """The database for one operation, which `close` waits for; errors inside become KATO's."""
        async with self._link.use() as database:
            with translated():
                yield database

    async def finish(self, work: Callable[[Database], Coroutine[Any, Any, T]]) -> T:
        """The result of `work`, which goes on when its caller is cancelled: half of it would help nobody."""

        async def translating(database: Database) -> T:
            with translated():
                return await work(database)

        return await self._link.finish(translating)

    @contextlib.asynccontextmanager
    async def reading(self, node: str, fields: Document, batch: int) -> AsyncIterator[Reading]:
        """All documents of a node in order of name, as of the first batch where the servers can do that."""
        database = await self._link.get()
        with translated():
            session = database.client.start_session(snapshot=True) if database.snapshots else None
            cursor = database.scanned.find_raw_batches(
                {"_id.node": node}, fields, sort=INDEX_KEYS, batch_size=batch, session=session
            )
            reading = Reading(cursor, session)
            try:
                yield reading
            finally:
                # Not awaited, so that whoever leaves early or is cancelled need not wait for the server.
                task = asyncio.create_task(reading.end())
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are open, and how many of them nobody uses."""
        return self._gauge.open, self._gauge.open - self._gauge.used

    async def close(self) -> None:
        """Finish the operations that were accepted, then disconnect."""
        await self._link.close()
        if self._driver is not None:
            await self._driver.close()

    async def _connect(self) -> Database:
        # Kept when it cannot connect: it goes on looking for its servers by itself.
        client = self._driver = self._driver or self._create()
        with translated():
            await client.admin.command("ping")
            database = self._database(client)
            await _ensure_index(database.patterns)
            return database

    def _create(self) -> AsyncMongoClient[Document]:
        options = self._options
        # What the URL says about compression is the operator's choice.
        compression: dict[str, Any] = (
            {} if "compressors=" in self._url.lower() else {"compressors": "zstd,snappy,zlib"}
        )
        try:
            with warnings.catch_warnings():
                # pymongo warns of, and leaves out, the compressors whose libraries are not installed.
                warnings.simplefilter("ignore", UserWarning)
                return AsyncMongoClient(
                    self._url,
                    appname=options.application_name,
                    minPoolSize=min(options.min_connections, options.max_connections),
                    maxPoolSize=options.max_connections,
                    maxIdleTimeMS=options.idle,
                    waitQueueTimeoutMS=options.wait_queue_timeout,
                    connectTimeoutMS=options.connect_timeout,
                    socketTimeoutMS=options.socket_timeout,
                    serverSelectionTimeoutMS=options.server_selection_timeout,
                    heartbeatFrequencyMS=options.heartbeat,
                    event_listeners=[self._gauge],
                    **compression,
                )
        except (PyMongoError, ValueError, TypeError):
            # Not chained: the driver's words quote the URL, a password among it.
            raise ConfigurationError("MongoDB: the database URL is not valid") from None

    def _database(self, client: AsyncMongoClient[Document]) -> Database:
        database = client.get_default_database("kato")
        if self._options.database is not None:
            database = client.get_database(self._options.database)
        servers = client.topology_description.server_descriptions().values()
        known = [each for each in servers if each.is_server_type_known]
        snapshots = all(
            each.max_wire_version >= _SNAPSHOT_WIRE_VERSION and each.server_type_name != "Standalone"
            for each in known
        )
        return Database(
            client,
            database.get_collection(
                "patterns",
                read_preference=ReadPreference.PRIMARY,
                read_concern=ReadConcern("majority"),
                write_concern=_WRITE_CONCERN,
            ),
            database.get_collection(
                "patterns",
                read_preference=ReadPreference.PRIMARY_PREFERRED,
                # A snapshot is always one of what a majority has.
                read_concern=ReadConcern() if snapshots else ReadConcern("majority"),
            ),
            snapshots,
        )

    async def _disconnect(self, _: Database) -> None:
        while self._ending:
            await asyncio.wait(self._ending)


async def _ensure_index(patterns: Collection) -> None:
    """Create the index unless it is there; another one of its name raises `DataDirectoryError`."""
    present = (await patterns.index_information()).get(INDEX)
    if present is None:
        await patterns.create_index(INDEX_KEYS, name=INDEX)
    elif [(field, int(direction)) for field, direction in present["key"]] != INDEX_KEYS:
        raise DataDirectoryError(
            f"MongoDB: index {INDEX!r} of collection 'patterns' is not on _id.node and _id.name; drop it"
        )
