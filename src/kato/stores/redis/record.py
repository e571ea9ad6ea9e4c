"""The stored form of a session in Redis: a head that scripts compare without reading MessagePack, then the state.

The head is 48 bytes: revision (8), time of creation (8), digest of node and user (8), token of the write (16),
expiry (8), numbers in network order. The first 16 bytes say which state it is; the expiry may be moved alone, so it
is the head's that counts.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

import msgspec

from kato.model import SessionState
from kato.stores.codec import decode_session
from kato.stores.redis.failures import damaged

HEAD_BYTES: Final = 48
TOKEN_BYTES: Final = 16
EXPIRY: Final = struct.Struct(">d")
_IDENTITY: Final = struct.Struct(">Qd")
_LENGTH: Final = struct.Struct(">I")


def identity(revision: int, created_at: float) -> bytes:
    """What tells one state of a session from every other: the beginning of its record.

    >>> identity(1, 0.0).hex()
    '00000000000000010000000000000000'
    """
    return _IDENTITY.pack(revision, created_at)


def owner_of(node: bytes, user: bytes) -> bytes:
    """The node, with its length before it, and the name of the user's index."""
    return _LENGTH.pack(len(node)) + node + user


def encode(state: SessionState, content: bytes, owner: bytes, token: bytes) -> bytes:
    """The record of `state`, whose stored form is `content`, written under `token` (16 bytes)."""
    digest = hashlib.blake2b(owner, digest_size=8).digest()
    head = identity(state.revision, state.created_at) + digest + token + EXPIRY.pack(state.expires_at)
    return head + content


def decode(record: bytes) -> SessionState:
    """The state of a record; `DataCorrupted` when it cannot be read."""
    if len(record) < HEAD_BYTES:
        raise damaged("a session's record is too short")
    state = decode_session(record[HEAD_BYTES:])
    (expires_at,) = EXPIRY.unpack_from(record, HEAD_BYTES - EXPIRY.size)
    return prolonged(state, expires_at)


def prolonged(state: SessionState, expires_at: float) -> SessionState:
    """`state` itself if it lives as long as `expires_at`, else the state that does."""
    if state.expires_at >= expires_at:
        return state
    return msgspec.structs.replace(state, expires_at=expires_at)
