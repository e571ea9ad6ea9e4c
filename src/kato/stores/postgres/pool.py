"""Connections to PostgreSQL: borrowed for one operation, given back in any case."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, NamedTuple, TypeAlias, TypeVar

import asyncpg

from kato.errors import ConfigurationError
from kato.stores.link import Link
from kato.stores.postgres.failures import demoted, translated
from kato.stores.postgres.schema import migrate, search_path

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
_Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


class PoolOptions(NamedTuple):
    """How to reach the server; times in seconds.

    `command_timeout` bounds a statement of one operation, `bulk_timeout` one that may concern a whole node
    (removing it, counting it, a migration). `acquire_timeout` bounds the wait for a free connection.
    """

    schema: str = "kato"
    application_name: str = "kato"
    min_connections: int = 10
    max_connections: int = 50
    command_timeout: float = 10.0
    bulk_timeout: float = 300.0
    connect_timeout: float = 5.0
    acquire_timeout: float = 5.0
    idle_seconds: float = 30.0


class Snapshot:
    """A connection whose transaction sees the database as it was when it began."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._ahead: asyncio.Future[Any] | None = None
        self._transaction = connection.transaction(isolation="repeatable_read", readonly=True)

    async def begin(self) -> None:
        """Begin the transaction; the snapshot is taken by the first query."""
        await self._transaction.start()
        # A million records are sorted here, and other statements sort nothing that is large.
        await self.connection.execute("SET LOCAL work_mem = '64MB'")

    def read_ahead(self, reading: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Begin `reading` on this connection; when the caller loses interest, `end` stops it."""
        upcoming = asyncio.ensure_future(reading)
        upcoming.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._ahead = upcoming
        return upcoming

    async def end(self) -> None:
        """Stop what is being read, then end the transaction."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.wait([self._ahead])
        await self._transaction.rollback()


class Pool:
    """The connections of one store. Nothing is connected before `open` or the first `borrow`."""

    def __init__(self, url: str, options: PoolOptions) -> None:
        self.options = options
        self._url = url
        self._link: Link[_Pool] = Link("PostgreSQL", self._connect, self._disconnect)
        self._returning: set[asyncio.Task[None]] = set()
        self._snapshots: set[Snapshot] = set()

    async def open(self) -> None:
        """Connect now and bring the schema up to date; `StorageError` when the server does not let us."""
        await self._link.get()

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are open, and how many of them nobody uses."""
        pool = self._link.made
        return (pool.get_size(), pool.get_idle_size()) if pool is not None else (0, 0)

    @contextlib.asynccontextmanager
    async def borrow(self) -> AsyncIterator[Connection]:
        """A connection for one operation, which `close` waits for; errors inside become KATO's."""
        async with self._link.use() as pool:
            with translated():
                connection = await pool.acquire(timeout=self.options.acquire_timeout)
                try:
                    yield connection
                except BaseException as error:
                    if demoted(error):
                        await pool.expire_connections()
                    self._return_later(pool, connection)
                    raise
                # What was done is done, whatever becomes of the connection.
                with contextlib.suppress(Exception):
                    await pool.release(connection, timeout=self.options.connect_timeout)

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """A connection inside a read-only snapshot, which `close` takes away; errors inside become KATO's."""
        with translated():
            pool = await self._link.get()
            connection = await pool.acquire(timeout=self.options.acquire_timeout)
            snapshot = Snapshot(connection)
            self._snapshots.add(snapshot)
            try:
                await snapshot.begin()
                yield snapshot
            finally:
                # Not awaited, so that whoever leaves early or is cancelled need not wait for the server.
                self._return_later(pool, connection, snapshot)

    def _return_later(self, pool: _Pool, connection: Connection, snapshot: Snapshot | None = None) -> None:
        task = asyncio.get_running_loop().create_task(self._return(pool, connection, snapshot))
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def _return(self, pool: _Pool, connection: Connection, snapshot: Snapshot | None) -> None:
        limit = self.options.connect_timeout
        with contextlib.suppress(Exception):
            try:
                if snapshot is not None:
                    self._snapshots.discard(snapshot)
                    await asyncio.wait_for(snapshot.end(), limit)
            except Exception:
                # Whatever it was, such a connection is not used again.
                connection.terminate()
                raise
            finally:
                # Waits until the server has stopped a statement whose caller has gone; if it does not,
                # asyncpg drops the connection.
                await pool.release(connection, timeout=limit)

    async def _connect(self) -> _Pool:
        with translated():
            pool = self._create()
            try:
                await _first_connections(pool)
                async with pool.acquire(timeout=self.options.acquire_timeout) as connection:
                    await migrate(connection, self.options.schema, self.options.bulk_timeout)
            except BaseException:
                pool.terminate()
                raise
            return pool

    def _create(self) -> _Pool:
        return asyncpg.create_pool(
            self._url,
            min_size=min(self.options.min_connections, self.options.max_connections),
            max_size=self.options.max_connections,
            max_inactive_connection_lifetime=self.options.idle_seconds,
            command_timeout=self.options.command_timeout,
            timeout=self.options.connect_timeout,
            # After a failover the URL's other hosts are tried until one accepts writes.
            target_session_attrs=asyncpg.connect_utils.SessionAttribute.read_write,
            reset=_keep,
            server_settings=self._server_settings(),
        )

    def _server_settings(self) -> dict[str, str]:
        # Given when a connection starts, they win over the URL and the server's defaults.
        return {
            "application_name": self.options.application_name,
            "search_path": search_path(self.options.schema),
            "synchronous_commit": "on",
            "default_transaction_isolation": "read committed",
            "jit": "off",
            # A client that vanished without a word keeps no lock and no snapshot for long.
            "tcp_keepalives_idle": "30",
            "tcp_keepalives_interval": "10",
            "tcp_keepalives_count": "3",
        }

    async def _disconnect(self, pool: _Pool) -> None:
        while self._returning:
            await asyncio.wait(self._returning)
        for snapshot in self._snapshots:
            snapshot.connection.terminate()
        try:
            await asyncio.wait_for(pool.close(), self.options.connect_timeout)
        except Exception:  # noqa: BLE001 - there is nothing left that a polite goodbye could save
            pool.terminate()

    async def close(self) -> None:
        """Finish the operations that were accepted, end the scans, disconnect."""
        await self._link.close()


async def _first_connections(pool: _Pool) -> None:
    try:
        await pool
    except ValueError:
        # Not chained: the driver's words quote the URL, a password among it.
        raise ConfigurationError("PostgreSQL: the database URL is not valid") from None


async def _keep(connection: Any) -> None:
    """No statement of ours changes a session, so a connection that comes back is as good as new.

    asyncpg's own reset would cost every operation a second round trip.
    """
