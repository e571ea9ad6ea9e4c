"""The stored form of patterns and sessions: MessagePack, the same bytes for the same value on every machine.

Mappings keep the order of their keys, so a value that was stored and read again answers a client with the
very bytes it would have answered before. Text that UTF-8 cannot express is refused with `ValidationError`,
bytes that cannot be read with `DataCorrupted`.

>>> from kato.model import Pattern
>>> record = encode_pattern(Pattern(name="0f" * 20, events=(("a", "b"), ("c",)), frequency=3))
>>> record.events, record.details
(b'\\x92\\x92\\xa1a\\xa1b\\x91\\xa1c', b'')
>>> decode_pattern(record).events
(('a', 'b'), ('c',))
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kato.errors import DataCorrupted, ValidationError
from kato.model import Emotives, Events, Pattern, PatternRecord, SessionState


class Details(msgspec.Struct, array_like=True, frozen=True):
    """What opening a node needs of a record beside its events: the first elements of the stored details."""

    finalized: bool = False
    affinity: Emotives = {}
    emotives: tuple[Emotives, ...] | dict[str, tuple[float, ...]] = ()


class _AllDetails(Details, array_like=True, frozen=True):
    """The stored details in full."""

    metadata: dict[str, tuple[str, ...]] = {}
    operations: tuple[str, ...] = ()


_BIG_INTEGER: Final = 1
"""Extension type of an integer beyond 64 bits: JSON metadata may hold it, MessagePack has no form."""

NAME_BYTES: Final = 20
_NO_DETAILS: Final = Details()


def _read_extension(kind: int, content: memoryview) -> int:
    if kind != _BIG_INTEGER:
        raise ValueError(f"unknown extension type {kind}")
    return int.from_bytes(content, "little", signed=True)


_encoder: Final = msgspec.msgpack.Encoder()
_events_decoder: Final = msgspec.msgpack.Decoder(Events)
_details_decoder: Final = msgspec.msgpack.Decoder(Details)
_all_details_decoder: Final = msgspec.msgpack.Decoder(_AllDetails)
_session_decoder: Final = msgspec.msgpack.Decoder(SessionState, ext_hook=_read_extension)

# What a record starts with whose affinity and emotives are empty and that is not finalized: most records
# that carry nothing but the operation that wrote them. Seeing it in the bytes saves decoding them, a
# million times per open.
_PLAIN_PREFIX: Final = _encoder.encode(_AllDetails())[:4]


def utf8(text: str, field: str) -> bytes:
    """`text` as UTF-8; a lone surrogate raises `ValidationError` for `field`.

    >>> utf8("naïve", "node_id")
    b'na\\xc3\\xafve'
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValidationError("is not valid Unicode text", field=field, kind="string_unicode") from error


def name_bytes(name: str) -> bytes | None:
    """The 20 bytes of a pattern name, None for a text that names no pattern.

    >>> name_bytes("00" * 20) == bytes(20), name_bytes("PTRN|00")
    (True, None)
    """
    if len(name) != 2 * NAME_BYTES:
        return None
    try:
        content = bytes.fromhex(name)
    except ValueError:
        return None
    # fromhex also takes blanks and capitals; two spellings of one record would be two names for its clients.
    return content if content.hex() == name else None


def encode_events(events: Events) -> bytes:
    """The MessagePack array of arrays of strings of `events`."""
    return _encode(events, "events")


def decode_events(content: bytes) -> Events:
    """The events in `content`; `DataCorrupted` when it holds anything else."""
    try:
        return _events_decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataCorrupted(f"stored events cannot be read ({error}); `kato check` says where") from error


def encode_pattern(pattern: Pattern) -> PatternRecord:
    """The stored form of `pattern`, without its revision, which every store keeps beside it.

    A name that is not the 40 lower-case hexadecimal digits of a SHA-1 raises `ValidationError`.
    """
    name = name_bytes(pattern.name)
    if name is None:
        raise ValidationError("is not a pattern name (40 lower-case hexadecimal digits)", field="name")
    return PatternRecord(name, encode_events(pattern.events), pattern.frequency, _encode_details(pattern))


def _encode_details(pattern: Pattern) -> bytes:
    if (
        pattern.emotives == ()
        and not pattern.operations
        and not pattern.metadata
        and not pattern.affinity
        and not pattern.finalized
    ):
        return b""
    details = _AllDetails(
        finalized=pattern.finalized,
        affinity=pattern.affinity,
        emotives=pattern.emotives,
        metadata=pattern.metadata,
        operations=pattern.operations,
    )
    return _encode(details, "pattern")


def decode_pattern(record: PatternRecord, revision: int = 1) -> Pattern:
    """The pattern of a stored record; `DataCorrupted` when its bytes cannot be read."""
    events = decode_events(record.events)
    name = record.name.hex()
    if not record.details:
        return Pattern(name=name, events=events, frequency=record.frequency, revision=revision)
    try:
        details = _all_details_decoder.decode(record.details)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataCorrupted(f"pattern {name} cannot be read ({error}); `kato check` says where") from error
    return Pattern(
        name=name,
        events=events,
        frequency=record.frequency,
        emotives=details.emotives,
        metadata=details.metadata,
        affinity=details.affinity,
        operations=details.operations,
        finalized=details.finalized,
        revision=revision,
    )


def details_of(record: PatternRecord) -> Details:
    """What opening a node needs of a scanned record; cheap for records that have no details.

    >>> details_of(PatternRecord(bytes(20), b"\\x90", 1, b"")).finalized
    False
    """
    content = record.details
    if not content or content.startswith(_PLAIN_PREFIX):
        return _NO_DETAILS
    try:
        return _details_decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataCorrupted(
            f"pattern {record.name.hex()} cannot be read ({error}); `kato check` says where"
        ) from error


def encode_session(state: SessionState) -> bytes:
    """The stored form of a session; `ValidationError` for a value that no store can keep."""
    return _encode(state, "session")


def decode_session(content: bytes) -> SessionState:
    """The session in `content`; `DataCorrupted` when its bytes cannot be read."""
    try:
        return _session_decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise DataCorrupted(f"a stored session cannot be read ({error}); `kato check` says where") from error


def _encode(value: Any, field: str) -> bytes:
    try:
        try:
            return _encoder.encode(value)
        except OverflowError:
            return _encoder.encode(_without_big_integers(msgspec.to_builtins(value, builtin_types=(bytes,))))
    except UnicodeEncodeError as error:
        raise ValidationError(
            "holds text that is not valid Unicode", field=field, kind="string_unicode"
        ) from error
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ValidationError(f"holds a value that cannot be stored: {error}", field=field) from error


def _without_big_integers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_big_integers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_big_integers(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        size = value.bit_length() // 8 + 1
        return msgspec.msgpack.Ext(_BIG_INTEGER, value.to_bytes(size, "little", signed=True))
    return value
