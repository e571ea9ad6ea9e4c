"""What a client may send: the request types with their limits (service.md 1.1), decoded straight from bytes.

A refusal is always a `ValidationError` that names the field the way a client writes it: `strings[3]`,
`observations[2].strings[0]`, `emotives.joy`.
"""

from __future__ import annotations

import bisect
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from kato.errors import RequestTooLarge, ValidationError
from kato.model import Observation
from kato.results import Batch

T = TypeVar("T")

SYMBOLS = 1000
SYMBOL_LENGTH = 1024
VECTORS = 64
EMOTIVES = 256
NESTING = 32
SESSION_METADATA_BYTES = 64 * 1024
OWNER_LENGTH = 256
LARGEST_NUMBER = 1e100
"""Sums and squares of any number of such values stay finite."""
LARGEST_INTEGER = 2**64 - 1
SMALLEST_INTEGER = -(2**63)

Symbol = Annotated[
    str, Meta(max_length=SYMBOL_LENGTH, extra_json_schema={"pattern": "^[^\\u0000]*$"}, description="No NUL.")
]
Symbols = Annotated[tuple[Symbol, ...], Meta(max_length=SYMBOLS)]
OwnerId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=OWNER_LENGTH,
        extra_json_schema={"pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"},
        description="Names the long-term memory; no control characters.",
    ),
]
Number = Annotated[float, Meta(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]
Seconds = Annotated[int, Meta(ge=1, le=86_400)]
UniqueId = Annotated[str, Meta(min_length=1, max_length=256)]

UNFINISHED = "The JSON ends too early, or holds half of a surrogate pair"

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_KEY = re.compile(rb"[\x20-\x7e]{1,255}")
_AT = re.compile(r"(?s)(.*) - at `(\$.*)`")
_BYTE = re.compile(r"(.*) \(byte (\d+)\)")


class ObservationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the client shows at one moment. Every part may be left out."""

    strings: Symbols = ()
    vectors: Annotated[tuple[tuple[Number, ...], ...], Meta(max_length=VECTORS)] = ()
    emotives: Annotated[dict[str, Number], Meta(max_length=EMOTIVES)] = {}
    metadata: dict[str, Any] = {}
    unique_id: UniqueId | None = None


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Observations in order, taken all or none, and what to learn from them."""

    observations: tuple[ObservationRequest, ...]
    learn_after_each: bool = False
    learn_at_end: bool = False
    clear_stm_between: bool = False


class SessionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A new session (v2); without `user_id` it uses the instance's own memory."""

    user_id: OwnerId | None = None
    metadata: dict[str, Any] | None = None
    ttl_seconds: Seconds | None = None
    config: dict[str, Any] | None = None


class NodeSessionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A new session (v3) on the long-term memory `node_id`."""

    node_id: OwnerId
    metadata: dict[str, Any] | None = None
    ttl_seconds: Seconds | None = None
    config: dict[str, Any] | None = None


class ExtendRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A new time to live, counted from now."""

    ttl_seconds: Seconds | None = None


class PatternUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """New values of a pattern; parts left out stay as they are."""

    frequency: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    emotives: (
        Annotated[dict[str, Sequence[Number]], Meta(max_length=EMOTIVES)]
        | tuple[dict[str, Number], ...]
        | None
    ) = None


class ListQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions, and how many at once. `node_id` and `user_id` mean the same."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: Annotated[str, Meta(max_length=128)] | None = None
    node_id: OwnerId | None = None
    user_id: OwnerId | None = None
    include_expired: bool = False


class PredictionsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """At most `limit` predictions; with `unique_id`, of the STM right after that observation."""

    limit: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    unique_id: str | None = None


class ExtendQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A new time to live in seconds, counted from now."""

    ttl_seconds: Seconds | None = None


class OwnerQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Whose memory; without it, the instance's own. `node_id` and `user_id` mean the same."""

    user_id: OwnerId | None = None
    node_id: OwnerId | None = None


class PageQuery(OwnerQuery, frozen=True, kw_only=True):
    """Which patterns, and how many at once; `cursor` is the `next_cursor` of the page before."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: Annotated[str, Meta(pattern="^[0-9a-f]{40}$")] | None = None
    symbol: Annotated[str, Meta(max_length=SYMBOL_LENGTH)] | None = None
    min_frequency: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0


# Decoding ---------------------------------------------------------------------------------------------------------


def decoder(kind: type[T]) -> Callable[[bytes], T]:
    """A function from JSON bytes to a value of `kind` that raises `ValidationError` for anything else."""
    decode = msgspec.json.Decoder(kind).decode

    def decoded(body: bytes) -> T:
        try:
            return decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise refusal(error, body, kind) from None

    return decoded


def refusal(error: Exception, body: bytes, kind: Any) -> ValidationError:
    """Why `body` is not a JSON value of `kind`, with the field or the position that is at fault."""
    if isinstance(error, msgspec.ValidationError):
        message, place = _split(str(error))
        if "[...]" in place:
            place = _located(place, body, kind)
        return ValidationError(
            message, field=place, kind="type_error" if "Expected" in message else "value_error"
        )
    if isinstance(error, RecursionError):
        return ValidationError("The JSON is nested too deeply", kind="json_too_deep")
    if isinstance(error, UnicodeDecodeError):
        return ValidationError("The body is not valid UTF-8", kind="json_invalid")
    match = _BYTE.fullmatch(str(error))
    text, position = (match[1], int(match[2])) if match else (UNFINISHED, len(body))
    if not body.strip():
        return ValidationError("A JSON body is required", field="body", kind="missing")
    return ValidationError(
        f"{text[0].upper()}{text[1:]} at byte {position}",
        kind="json_invalid",
        position=position,
    )


def _split(text: str) -> tuple[str, str]:
    match = _AT.fullmatch(text)
    if match is None:
        missing = re.fullmatch("Object missing required field `(.*)`", text)
        return ("This field is required", missing[1]) if missing else (text, "body")
    message, place = match[1], match[2].removeprefix("$").removeprefix(".")
    missing = re.fullmatch("Object missing required field `(.*)`", message)
    if missing:
        return "This field is required", f"{place}.{missing[1]}" if place else missing[1]
    return message, place or "body"


def _located(place: str, body: bytes, kind: Any) -> str:
    """Name the key where msgspec says `[...]`: the first one without which the value would be right."""
    before, _, after = place.partition("[...]")
    try:
        document = json.loads(body, parse_float=_finite, parse_int=_finite)
        holder = document
        *way, last = re.findall(r"[^.\[\]]+", before)
        for step in way:
            holder = holder[int(step)] if isinstance(holder, list) else holder[step]
        last = int(last) if isinstance(holder, list) else last
        items = list(holder[last].items())
    except (ValueError, LookupError, RecursionError):
        return before

    def refused(count: int) -> bool:
        holder[last] = dict(items[:count])
        try:
            msgspec.convert(document, kind)
        except msgspec.ValidationError:
            return True
        return False

    if not refused(len(items)):
        return before
    count = bisect.bisect_left(range(len(items) + 1), True, key=refused)
    return f"{before}.{items[count - 1][0]}{after.replace('[...]', '')}"


def _finite(digits: str) -> float | int | None:
    """A number as JSON has it; None, which is never right, when no double can hold it."""
    value = float(digits)
    if not math.isfinite(value):
        return None
    return value if "." in digits or "e" in digits or "E" in digits or len(digits) > 300 else int(digits)


def query(kind: type[T], values: dict[str, str]) -> T:
    """The query parameters as a value of `kind`."""
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        message, place = _split(str(error))
        raise ValidationError(message, field=place, kind="type_error") from None


# What types alone cannot say --------------------------------------------------------------------------------------


def observation(request: ObservationRequest, field: str = "") -> Observation:
    """The observation a client sent, after the checks that types cannot express."""
    for number, symbol in enumerate(request.strings):
        if "\x00" in symbol:
            raise ValidationError("A symbol must not contain NUL", field=f"{field}strings[{number}]")
    for number, vector in enumerate(request.vectors):
        if not vector:
            raise ValidationError("A vector must not be empty", field=f"{field}vectors[{number}]")
    if request.metadata:
        plain(request.metadata, f"{field}metadata")
    return Observation(
        strings=request.strings,
        vectors=request.vectors,
        emotives=request.emotives,
        metadata=request.metadata,
        unique_id=request.unique_id,
    )


def batch(request: BatchRequest, limit: int) -> Batch:
    """The batch a client sent: every item is checked before the first is applied."""
    if len(request.observations) > limit:
        raise ValidationError(
            f"At most {limit} observations in one request, got {len(request.observations)}",
            field="observations",
        )
    return Batch(
        observations=tuple(
            observation(item, f"observations[{number}].") for number, item in enumerate(request.observations)
        ),
        learn_after_each=request.learn_after_each,
        learn_at_end=request.learn_at_end,
        clear_stm_between=request.clear_stm_between,
    )


def plain(value: Any, field: str) -> None:
    """Refuse free-form JSON that no store could hold: nested too deeply, or integers beyond 64 bits."""
    try:
        _plain(value, field, 0)
    except RecursionError:
        raise ValidationError(f"Nested more than {NESTING} levels deep", field=field) from None


def _plain(value: Any, field: str, depth: int) -> None:
    if depth > NESTING:
        raise RecursionError
    if isinstance(value, dict):
        for key, item in value.items():
            _plain(item, f"{field}.{key}", depth + 1)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _plain(item, f"{field}[{number}]", depth + 1)
    elif type(value) is int and not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
        raise ValidationError("Integers must fit in 64 bits", field=field)


def owner(value: str | None, field: str) -> str | None:
    """A node or user id without control characters."""
    if value is None:
        return None
    if not 1 <= len(value) <= OWNER_LENGTH:
        raise ValidationError(f"Must have 1 to {OWNER_LENGTH} characters", field=field)
    if _CONTROL.search(value):
        raise ValidationError("Must not contain control characters", field=field)
    return value


def session_metadata(metadata: dict[str, Any] | None) -> dict[str, Any]:
    """A session's metadata within its size."""
    if not metadata:
        return {}
    plain(metadata, "metadata")
    if len(msgspec.json.encode(metadata)) > SESSION_METADATA_BYTES:
        raise ValidationError(f"Must not exceed {SESSION_METADATA_BYTES} bytes as JSON", field="metadata")
    return metadata


def unwrapped(body: dict[str, Any], name: str) -> dict[str, Any]:
    """`{"config": {...}}` or the bare object."""
    inner = body.get(name, body)
    if not isinstance(inner, dict):
        raise ValidationError("Expected `object`", field=name, kind="type_error")
    plain(inner, name)
    return inner


def idempotency_key(header: bytes | None) -> str | None:
    """The key under which a repeated request gets its first answer again."""
    if header is None:
        return None
    if not _KEY.fullmatch(header):
        raise ValidationError("Must be 1 to 255 printable characters", field="Idempotency-Key")
    return header.decode("ascii")


def check_size(size: int, limit: int) -> None:
    """Refuse a body that is longer than allowed."""
    if size > limit:
        raise RequestTooLarge(f"The body must not exceed {limit} bytes", limit_bytes=limit)
