"""MongoDB's and pymongo's errors in KATO's words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from bson.errors import InvalidBSON, InvalidDocument
from pymongo import errors

from kato.errors import DataCorrupted, KatoError, StorageError, ValidationError

RETRY_AFTER: Final = 1.0
"""Seconds after which a client may try again: about as long as an election takes at best."""

DUPLICATE_KEY: Final = 11000

# The most specific class first. The driver's own words stay out of messages: they may quote options.
_CAUSES: Final = (
    (errors.WTimeoutError, "a majority of the servers did not confirm the write in time"),
    (errors.WriteConcernError, "a majority of the servers could not confirm the write"),
    (errors.WaitQueueTimeoutError, "no connection of the pool became free in time"),
    (errors.ServerSelectionTimeoutError, "no server that could serve this was found in time"),
    (errors.NotPrimaryError, "the server is not the primary any more"),
    (errors.NetworkTimeout, "the server did not answer in time"),
    (errors.ExecutionTimeout, "the server did not answer in time"),
    (errors.ConnectionFailure, "the server cannot be reached"),
    (errors.ConfigurationError, "the server does not fit the settings, or is older than MongoDB 4.4"),
    (errors.InvalidOperation, "the connection was closed"),
    (OSError, "the server cannot be reached"),
)
_REFUSALS: Final = {
    13: "the user lacks a privilege",
    18: "the server refuses the credentials",
    8000: "the server refuses the credentials",
}
_DRIVER_ERRORS: Final = (errors.PyMongoError, InvalidBSON, InvalidDocument, OverflowError, OSError)


def translate(error: Exception) -> KatoError:
    """The KATO error that tells what an error of the driver means; never quotes the URL or the server."""
    if isinstance(error, InvalidBSON):
        return damaged("a document cannot be read")
    if isinstance(error, InvalidDocument | OverflowError):
        return ValidationError("holds a number beyond 64 bits or is too large", field="patterns")
    for kind, cause in _CAUSES:
        if isinstance(error, kind):
            return failure(cause)
    if isinstance(error, errors.OperationFailure):
        return failure(_REFUSALS.get(error.code or 0, f"the operation failed (code {error.code})"))
    return failure("the operation failed")


def failure(cause: str) -> StorageError:
    """The error for an operation that the server did not acknowledge."""
    return StorageError(f"MongoDB: {cause}", retry_after=RETRY_AFTER)


def damaged(reason: str) -> DataCorrupted:
    """The error for a database whose content makes no sense."""
    return DataCorrupted(f"MongoDB: the stored patterns are damaged ({reason}); restore a backup")


def refused_as_duplicates(error: errors.BulkWriteError) -> list[int]:
    """The positions of the documents that an unordered insert found already there.

    Raises `StorageError` when anything else went wrong too: codes tell that, not every server counts right.
    """
    if error.details.get("writeConcernErrors"):
        raise failure("a majority of the servers did not confirm the write") from error
    problems = error.details.get("writeErrors", [])
    other = {each["code"] for each in problems} - {DUPLICATE_KEY}
    if other or not problems:
        raise failure(f"the insert failed (codes {sorted(other)})") from error
    return [each["index"] for each in problems]


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns the driver's errors inside the block into KATO's."""
    try:
        yield
    except _DRIVER_ERRORS as error:
        raise translate(error) from error
