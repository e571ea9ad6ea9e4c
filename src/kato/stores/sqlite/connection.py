"""Opening SQLite files so that damage is noticed, and telling SQLite's errors in KATO's words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from kato.errors import DataCorrupted, KatoError, StorageError
from kato.stores.directory import MEMORY, sync_directory
from kato.stores.sqlite.schema import Schema

_DAMAGE: Final = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_SCHEMA,
    sqlite3.SQLITE_MISMATCH,
}
_CAUSES: Final = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the file is read-only",
    sqlite3.SQLITE_IOERR: "reading or writing the disk failed",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_BUSY: "another process uses the file",
    sqlite3.SQLITE_LOCKED: "another process uses the file",
    sqlite3.SQLITE_NOMEM: "out of memory",
}


def translate(error: sqlite3.Error, path: str) -> KatoError:
    """The KATO error that tells what an error of SQLite means for the file at `path`."""
    # The lower byte is the kind of error, the rest only refines it.
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in _DAMAGE:
        return damaged(path, str(error))
    cause = _CAUSES.get(code)
    return StorageError(f"{path}: {cause} ({error})" if cause else f"{path}: {error}")


def explain(error: Exception, path: str) -> KatoError:
    """The KATO error for whatever went wrong while the file at `path` was written."""
    if isinstance(error, KatoError):
        return error
    reason = translate(error, path) if isinstance(error, sqlite3.Error) else StorageError(f"{path}: {error}")
    reason.__cause__ = error
    return reason


def damaged(path: str, reason: str) -> DataCorrupted:
    """The error for a file whose content makes no sense."""
    return DataCorrupted(f"{path} is damaged ({reason}); run `kato check` to see where, or restore a backup")


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """Turns SQLite's errors inside the block into KATO's."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error


def connect(
    path: str, synchronous: str, checkpoint_pages: int = 0, cache_bytes: int = 2**23
) -> sqlite3.Connection:
    """A connection in explicit-transaction mode, for use by one thread at a time.

    `checkpoint_pages` is the length of the write-ahead log at which a commit moves it into the file; 0:
    never.
    """
    connection = sqlite3.connect(
        path, timeout=10.0, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA cache_size = {-(cache_bytes // 1024)}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages}")
        # After a burst the log is cut back to this length when it is started anew.
        connection.execute(f"PRAGMA journal_size_limit = {2**26}")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_first(
    path: str, schema: Schema, synchronous: str, checkpoint_pages: int = 0, cache_bytes: int = 2**23
) -> sqlite3.Connection:
    """The connection that opens a database: creates the file if there is none, checks it if there is.

    Raises `DataCorrupted` for a file that is not a database of this schema; it is left exactly as it is.
    """
    with translated(path):
        if path == MEMORY:
            connection = connect(path, synchronous, checkpoint_pages, cache_bytes)
            _create_tables(connection, schema)
            return connection
        if not Path(path).exists():
            _create_file(Path(path), schema)
        elif Path(path).stat().st_size == 0:
            # SQLite would take an empty file for a new database. Ours are never empty: they appear by
            # renaming.
            raise damaged(path, "the file is empty")
        connection = connect(path, synchronous, checkpoint_pages, cache_bytes)
        try:
            problem = schema_problem(connection, schema)
            if problem:
                raise damaged(path, problem)
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection


def schema_problem(connection: sqlite3.Connection, schema: Schema) -> str | None:
    """Why the open file is not a database of this schema, None when it is."""
    if connection.execute("PRAGMA application_id").fetchone() != (schema.application,):
        return "it is not a KATO database of this kind"
    present = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    missing = [table for table in schema.tables if table not in present]
    return f"table {missing[0]} is missing" if missing else None


def _create_tables(connection: sqlite3.Connection, schema: Schema) -> None:
    connection.execute("BEGIN")
    for statement in schema.statements:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {schema.application}")
    connection.execute("COMMIT")


def _create_file(path: Path, schema: Schema) -> None:
    """A whole new database or none: built beside and renamed, so that no crash leaves half a file."""
    fresh = path.with_name(path.name + ".new")
    try:
        for leftover in (fresh, fresh.with_name(fresh.name + "-journal")):
            leftover.unlink(missing_ok=True)
        with contextlib.closing(connect(str(fresh), "FULL")) as connection:
            _create_tables(connection, schema)
        os.rename(fresh, path)
        sync_directory(path.parent)
    except OSError as error:
        raise StorageError(f"{path} cannot be created: {error.strerror or error}") from error
