"""PostgreSQL's and asyncpg's errors in KATO's words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import asyncpg

from kato.errors import DataCorrupted, KatoError, StorageError, ValidationError

RETRY_AFTER: Final = 1.0
"""Seconds after which a client may try again: about as long as a failover or a restart takes at best."""

_CAUSES: Final = {
    "08": "the connection failed",
    "25": "the server is read-only at the moment",
    "28": "the server refuses the credentials",
    "3D": "the database does not exist",
    "40": "the transaction was rolled back because of others",
    "53": "the server is out of resources",
    "55": "a needed object is locked or not ready",
    "57": "the server cancelled the operation or is shutting down",
    "58": "the server's system failed",
}
"""What a class of SQLSTATEs means. The server's own words stay out of messages: they may quote settings."""

_DAMAGE: Final = {"XX001", "XX002", "42P01", "42703", "42804"}
"""Corrupted data or index; a table, a column or a type that the schema promises is missing."""
_FORBIDDEN: Final = "42501"
_DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    EOFError,
)
_REPEATABLE: Final = {"40001", "40P01"}


def translate(error: Exception) -> KatoError:
    """The KATO error that tells what an error of the driver means; never quotes the URL or the server."""
    if isinstance(error, asyncpg.PostgresError):
        return _translate_state(error.sqlstate or "")
    if isinstance(error, TimeoutError):
        return _failure("the server did not answer in time")
    if isinstance(error, OSError | EOFError):
        return _failure("the server cannot be reached")
    return _failure("the connection was lost")


def _translate_state(state: str) -> KatoError:
    if state in _DAMAGE:
        return damaged(f"SQLSTATE {state}")
    if state.startswith("22"):
        return ValidationError("holds a number beyond 64 bits", field="patterns")
    if state == _FORBIDDEN:
        return _failure("the user lacks a privilege", state)
    return _failure(_CAUSES.get(state[:2], "the operation failed"), state)


def _failure(cause: str, state: str = "") -> StorageError:
    suffix = f" (SQLSTATE {state})" if state else ""
    return StorageError(f"PostgreSQL: {cause}{suffix}", retry_after=RETRY_AFTER)


def damaged(reason: str) -> DataCorrupted:
    """The error for a database whose content makes no sense."""
    return DataCorrupted(f"PostgreSQL: the stored patterns are damaged ({reason}); restore a backup")


def rolled_back(error: Exception) -> bool:
    """Whether the server undid the whole transaction because of others, so that it may simply be repeated."""
    return isinstance(error, asyncpg.PostgresError) and error.sqlstate in _REPEATABLE


def demoted(error: BaseException) -> bool:
    """Whether the server is no longer the primary, so that its other connections are of no use either."""
    return isinstance(error, asyncpg.ReadOnlySQLTransactionError)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns the driver's errors inside the block into KATO's."""
    try:
        yield
    except _DRIVER_ERRORS as error:
        raise translate(error) from error
