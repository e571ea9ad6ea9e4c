"""The verbs as HTTP requests, and the answers of a KATO service as values or errors."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import msgspec

from kato import errors
from kato.errors import KatoError
from kato.verbs.calls import Call

SERVER = "http://127.0.0.1:8000"
TIMEOUT = 35.0
"""Seconds: a little longer than a service takes to give up by itself."""

_SESSION = "/sessions/{session_id}"
_PATTERN = "/v2/patterns/{pattern_id}"

PATHS: dict[str, tuple[str, str]] = {
    "create_session": ("POST", "/sessions"),
    "create_base_session": ("POST", "/v2/sessions"),
    "sessions": ("GET", "/sessions"),
    "count_sessions": ("GET", "/sessions/count"),
    "info": ("GET", _SESSION),
    "exists": ("GET", f"{_SESSION}/exists"),
    "extend": ("POST", f"{_SESSION}/extend"),
    "delete": ("DELETE", _SESSION),
    "config": ("GET", f"{_SESSION}/config"),
    "configure": ("POST", f"{_SESSION}/config"),
    "observe": ("POST", f"{_SESSION}/observe"),
    "observe_sequence": ("POST", f"{_SESSION}/observe-sequence"),
    "learn": ("POST", f"{_SESSION}/learn"),
    "stm": ("GET", f"{_SESSION}/stm"),
    "clear_stm": ("POST", f"{_SESSION}/clear-stm"),
    "clear_all": ("POST", f"{_SESSION}/clear-all"),
    "predictions": ("GET", f"{_SESSION}/predictions"),
    "percept_data": ("GET", f"{_SESSION}/percept-data"),
    "cognition_data": ("GET", f"{_SESSION}/cognition-data"),
    "finalize_training": ("POST", f"{_SESSION}/finalize-training"),
    "patterns": ("GET", "/v2/patterns"),
    "pattern": ("GET", _PATTERN),
    "update_pattern": ("PUT", _PATTERN),
    "delete_pattern": ("DELETE", _PATTERN),
    "symbols": ("GET", "/symbols/stats"),
    "affinities": ("GET", "/symbols/affinity"),
    "affinity": ("GET", "/symbols/{symbol}/affinity"),
    "health": ("GET", "/health"),
    "status": ("GET", "/status"),
}
"""Method and path of every verb."""

CLASSES: dict[str, type[KatoError]] = {
    kind.code: kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, KatoError) and kind is not KatoError and "code" in vars(kind)
}
"""The class of every error code; a kind without a code of its own comes back as what it is a kind of."""

_BY_STATUS: dict[int, type[KatoError]] = {
    kind.status: kind
    for kind in (
        errors.NotFound,
        errors.RequestTooLarge,
        errors.ServiceUnavailable,
        errors.RequestTimeout,
    )
}


class Request(NamedTuple):
    """A call as HTTP says it."""

    method: str
    url: str
    params: dict[str, str]
    headers: dict[str, str]
    content: bytes | None


def request(call: Call[Any]) -> Request:
    """The HTTP request of a call.

    >>> from kato.verbs import calls
    >>> request(calls.affinity("a/b", "n"))[:3]
    ('GET', '/symbols/a%2Fb/affinity', {'node_id': 'n'})
    """
    method, template = PATHS[call.verb]
    headers = {} if call.body is None else {"Content-Type": "application/json"}
    if call.key is not None:
        headers["Idempotency-Key"] = call.key
    url = template.format(**{name: _segment(value) for name, value in call.path.items()})
    return Request(method, url, dict(call.query), headers, call.body)


def _segment(text: str) -> str:
    """A text as one segment of a path; dots alone would be taken for "here" and "up"."""
    return text.replace(".", "%2E") if text in (".", "..") else quote(text, safe="")


def body(call: Call[Any], response: httpx.Response) -> bytes:
    """The JSON of a successful answer; raises the error that any other answer tells of."""
    if response.is_success:
        return response.content
    told = _told(response.content)
    if told is None and call.verb == "health" and response.content.startswith(b"{"):
        # An unhealthy service says so with status 503 and the same kind of answer.
        return response.content
    raise _foreign(response) if told is None else _error(told, response.status_code)


class _Error(msgspec.Struct):
    code: str
    message: str
    details: dict[str, Any] = {}
    trace_id: str = ""
    retry_after: float | None = None


class _Envelope(msgspec.Struct):
    error: _Error


def _told(content: bytes) -> _Error | None:
    try:
        return msgspec.json.decode(content, type=_Envelope).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _error(told: _Error, status: int) -> KatoError:
    """The error that an envelope tells of, of the class that the service raised."""
    found = _blank(CLASSES.get(told.code) or _unknown(told.code, status), told.message)
    found.details = told.details
    found.retry_after = told.retry_after
    if told.trace_id:
        found.add_note(f"trace id: {told.trace_id}")
    return found


def _blank(kind: type[KatoError], message: str) -> KatoError:
    # Some classes compose their message from arguments; here it is already composed.
    found = kind.__new__(kind, message)
    KatoError.__init__(found, message)
    return found


def _unknown(code: str, status: int) -> type[KatoError]:
    return type(
        "KatoError", (KatoError,), {"code": code, "status": status, "__module__": KatoError.__module__}
    )


def _foreign(response: httpx.Response) -> KatoError:
    """Somebody between us and the service has answered, or it is no KATO at all."""
    status = response.status_code
    kind = _BY_STATUS.get(status) or _unknown(KatoError.code, status)
    return _blank(kind, f"HTTP {status} from {response.url.host}, without an answer of KATO's")


def unreachable(failure: httpx.HTTPError, base_url: str) -> KatoError:
    """The error for an answer that did not come."""
    if isinstance(failure, httpx.TimeoutException):
        return errors.RequestTimeout(f"KATO at {base_url} did not answer in time", base_url=base_url)
    return errors.ServiceUnavailable(f"KATO at {base_url} cannot be reached: {failure}", base_url=base_url)
