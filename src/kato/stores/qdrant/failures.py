"""Qdrant's and its client's errors in KATO's words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import grpc  # type: ignore[import-untyped]
import httpx
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from kato.errors import DataCorrupted, KatoError, StorageError

RETRY_AFTER: Final = 1.0
"""Seconds after which a client may try again."""

_MISSING: Final = "the collection does not exist"
_STATUSES: Final = {
    401: "the server refuses the credentials",
    403: "the server refuses the credentials",
    404: _MISSING,
    408: "the server did not answer in time",
    429: "the server has too much to do",
    503: "the server is not ready",
    507: "the server is out of space",
}
_CODES: Final = {
    grpc.StatusCode.UNAUTHENTICATED: _STATUSES[401],
    grpc.StatusCode.PERMISSION_DENIED: _STATUSES[403],
    grpc.StatusCode.NOT_FOUND: _MISSING,
    grpc.StatusCode.DEADLINE_EXCEEDED: _STATUSES[408],
    grpc.StatusCode.RESOURCE_EXHAUSTED: _STATUSES[429],
    grpc.StatusCode.UNAVAILABLE: "the server cannot be reached",
}
DRIVER_ERRORS: Final = (grpc.RpcError, ApiException, QdrantException, httpx.HTTPError, OSError, ValueError)
"""All that a request may raise; local mode knows only `ValueError`."""


class Missing(StorageError):
    """The collection does not exist."""


@contextlib.contextmanager
def unless_missing() -> Iterator[None]:
    """A collection that nobody has created yet holds nothing."""
    with contextlib.suppress(Missing):
        yield


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns the driver's errors inside the block into KATO's; they never quote the URL or the server."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise translate(error) from error


def translate(error: Exception) -> KatoError:
    """The KATO error that tells what an error of the driver means."""
    cause = _cause(error)
    if cause == _MISSING:
        return Missing(f"Qdrant: {cause}", retry_after=RETRY_AFTER)
    return failure(cause)


def _cause(error: Exception) -> str:
    if isinstance(error, UnexpectedResponse):
        return _STATUSES.get(error.status_code or 0, "the operation failed")
    if isinstance(error, grpc.aio.AioRpcError):
        return _CODES.get(error.code(), "the operation failed")
    if isinstance(error, ValueError):
        # Local mode has no other errors.
        return _MISSING if "not found" in str(error) else "the request was refused"
    if isinstance(error, QdrantException):
        return "the server has too much to do"
    source = getattr(error, "source", error)
    late = isinstance(source, TimeoutError | httpx.TimeoutException)
    return "the server did not answer in time" if late else "the server cannot be reached"


def failure(cause: str) -> StorageError:
    """The error for a server that did not acknowledge."""
    return StorageError(f"Qdrant: {cause}", retry_after=RETRY_AFTER)


def damaged(reason: str) -> DataCorrupted:
    """The error for content that makes no sense."""
    return DataCorrupted(f"Qdrant: the stored vectors are damaged ({reason})")
