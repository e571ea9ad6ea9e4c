"""The one envelope in which every surface shows an error (service.md 4.1)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from kato.errors import KatoError

LONGEST_VALUE = 100
LONGEST_MESSAGE = 1000
_LONG_RUN = re.compile(rf"(\S{{{LONGEST_VALUE}}})\S+")


class MethodNotAllowed(KatoError):
    """The path exists, but not with this method; the Allow header names those it has."""

    code = "METHOD_NOT_ALLOWED"
    status = 405


class UnsupportedMediaType(KatoError):
    """The body is declared to be something other than JSON."""

    code = "UNSUPPORTED_MEDIA_TYPE"
    status = 415


class InternalError(KatoError):
    """A defect; the log has the traceback under the same trace id."""


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong: a stable code for programs, a message for people, details for both."""

    code: str
    message: str
    details: dict[str, Any]
    trace_id: str
    timestamp: str
    path: str
    retry_after: float | None = None


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is not a success.

    `detail` repeats the message, or is the structured object that vector and configuration errors have always
    had.
    """

    error: ErrorBody
    status: int
    detail: str | dict[str, Any]


def _shortened(value: Any) -> Any:
    """Values of clients are cut: no sentence of ours has a run of 100 characters without a blank."""
    if isinstance(value, str):
        return _LONG_RUN.sub("\\1…", value)[:LONGEST_MESSAGE]
    if isinstance(value, dict):
        return {_shortened(key): _shortened(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(item) for item in value]
    return value


def answer(error: KatoError, trace_id: str, path: str) -> ErrorAnswer:
    """The envelope of an error."""
    message, details = _shortened(error.message), _shortened(error.details)
    return ErrorAnswer(
        error=ErrorBody(
            code=error.code,
            message=message,
            details=details,
            trace_id=trace_id,
            timestamp=datetime.now(UTC).isoformat(),
            path=path,
            retry_after=error.retry_after,
        ),
        status=error.status,
        detail=_detail(error, message, details),
    )


def _detail(error: KatoError, message: str, details: dict[str, Any]) -> str | dict[str, Any]:
    if error.code == "CONFIGURATION_INVALID":
        return {"error": "Configuration validation failed", **details}
    if error.code == "VECTOR_DIMENSION_ERROR":
        return {"error": message, **details}
    return message
