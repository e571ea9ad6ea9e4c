"""Redis' and redis-py's errors in KATO's words."""

from __future__ import annotations

import re
from typing import Final

from redis import exceptions

from kato.errors import DataCorrupted, KatoError, StorageError

RETRY_AFTER: Final = 1.0
"""Seconds after which a client may try again: about as long as a failover or a restart takes at best."""

_CAUSES: Final = {
    "READONLY": "the server is a replica and accepts no writes",
    "MOVED": "the server has moved",
    "MASTERDOWN": "the server has lost its master",
    "CLUSTERDOWN": "the cluster is down",
    "LOADING": "the server is still loading its data",
    "OOM": "the server is out of memory",
    "MISCONF": "the server cannot write to its disk",
    "NOREPLICAS": "too few replicas are connected",
    "BUSY": "the server is busy with a script",
    "NOPERM": "the user lacks a permission",
    "NOAUTH": "the server wants a password",
    "WRONGPASS": "the server refuses the credentials",
}
"""What the codes of the server's errors mean. Its own words stay out of messages: they may quote what was sent."""
_ELSEWHERE: Final = {"READONLY", "MOVED", "MASTERDOWN", "CLUSTERDOWN"}
_CODE: Final = re.compile(r"\b[A-Z]{3,}\b")


def translate(error: BaseException) -> KatoError:
    """The KATO error that tells what an error of the driver means; never quotes the URL or the server."""
    if isinstance(error, KatoError):
        return error
    if isinstance(error, TimeoutError | exceptions.TimeoutError):
        return failure("the server did not answer in time")
    if isinstance(error, exceptions.AuthenticationError):
        return failure("the server refuses the credentials")
    if isinstance(error, exceptions.BusyLoadingError):
        return failure(_CAUSES["LOADING"])
    if isinstance(error, exceptions.ResponseError):
        return _refused(_codes(error))
    if isinstance(error, OSError | exceptions.ConnectionError):
        return failure("the server cannot be reached")
    return failure("the connection was lost")


def _refused(codes: list[str]) -> KatoError:
    if "WRONGTYPE" in codes:
        return damaged("a key holds something else than KATO put there")
    return failure(next((_CAUSES[code] for code in codes if code in _CAUSES), "the operation failed"))


def _codes(error: exceptions.ResponseError) -> list[str]:
    # An error inside a script begins, depending on the server's version, with the script's own words.
    return [str(getattr(error, "status_code", None) or ""), *_CODE.findall(str(error))]


def elsewhere(error: BaseException) -> bool:
    """Whether the server is no longer the one to talk to, so that every connection to it is to be replaced."""
    return isinstance(error, exceptions.ResponseError) and not _ELSEWHERE.isdisjoint(_codes(error))


def failure(cause: str) -> StorageError:
    """The error for a server that did not acknowledge."""
    return StorageError(f"Redis: {cause}", retry_after=RETRY_AFTER)


def damaged(reason: str) -> DataCorrupted:
    """The error for content that makes no sense."""
    return DataCorrupted(f"Redis: the stored data are damaged ({reason})")
