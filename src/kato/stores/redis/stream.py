"""What learners are about to change, told to all instances: one bounded Redis stream per node.

The stream carries names, never truth. Whoever cannot follow it (it was trimmed, lost, or another server answers)
learns just that, and reads the node's patterns anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from kato.errors import StorageError, ValidationError
from kato.stores.codec import utf8
from kato.stores.redis.client import RedisClient
from kato.stores.redis.failures import damaged
from kato.stores.redis.script import Script

MAX_LENGTH: Final = 100_000
"""About how many appends a stream keeps."""
KEPT_SECONDS: Final = 7 * 86_400.0
"""A node nobody taught for so long loses its stream; its readers then read the node anew, once."""
LOOKBACK_SECONDS: Final = 60.0
"""Longer than a request may last: who appended earlier has written its pattern, or never will."""
_ENTRIES_AT_ONCE: Final = 1000
_READ_AT_ONCE: Final = 10_000
_UNREAD: Final = "*"
"""Marks a position whose own entry is still to be read."""

_POSITION: Final = Script("""
-- KEYS: stream. ARGV: lookback, time to keep
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if #last == 0 then
  local anchor = redis.call('XADD', KEYS[1], '*', '', '')
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {anchor, ''}
end
local moment = tonumber(string.match(last[1][1], '^%d+')) - tonumber(ARGV[1])
local before = redis.call('XREVRANGE', KEYS[1], string.format('%.0f', math.max(0, moment)), '-', 'COUNT', 1)
if #before > 0 then return {before[1][1], ''} end
return {redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1], '*'}
""")
"""A position is always an entry that exists, so that its loss can be noticed: an empty stream gets an anchor."""


class Tail(NamedTuple):
    """What came after a position: (pattern name, operation id) in the order of appending, and where that ends.

    When `complete` is False something may be missing: the caller must read the node's patterns anew, and go on from
    `position`, which was taken before that.
    """

    entries: list[tuple[str, str]]
    complete: bool
    position: str


class RedisStream:
    """The feeds of all nodes, below the keys `{prefix}:node:{node}:changes`.

    A learner appends what it is going to write before it writes. A reader takes a `position` before it reads the
    node's patterns and follows from there by `tail`; positions are opaque. The stream is cut at about `max_length`
    appends and goes `kept_seconds` after the last one. `lookback_seconds` must exceed the time between an append and
    the write that it announces.

    Shares its client's pipelines: a `tail` and the load of a session in one turn of the event loop take one round
    trip. All failures are `StorageError`.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        prefix: str = "kato",
        max_length: int = MAX_LENGTH,
        kept_seconds: float = KEPT_SECONDS,
        lookback_seconds: float = LOOKBACK_SECONDS,
    ) -> None:
        self._client = client.use()
        self._prefix = f"{prefix}:node:".encode()
        self._max_length = max_length
        self._kept = int(kept_seconds * 1000)
        self._lookback = int(lookback_seconds * 1000)
        self._closed = False

    async def append(self, node: str, entries: Sequence[tuple[str, str]]) -> str:
        """Tell of changes as (pattern name, operation id), at least one; returns the position after them.

        On return every `tail` that is asked for from now on delivers them. Names must not be empty.
        """
        key = self._key(node)
        fields = [utf8(text, "entries") for entry in entries for text in entry]
        if not fields or b"" in fields[::2]:
            raise ValidationError("must name at least one pattern", field="entries")
        step = 2 * _ENTRIES_AT_ONCE
        replies = await asyncio.gather(
            *(
                self._client.ask(
                    "XADD", key, "MAXLEN", "~", self._max_length, "*", *fields[start : start + step]
                )
                for start in range(0, len(fields), step)
            ),
            self._client.ask("PEXPIRE", key, self._kept),
        )
        last = replies[-2]
        return f"{last.value.decode()}@{last.server}"

    async def position(self, node: str) -> str:
        """Where to follow the feed from after reading the node's patterns; take it before reading them.

        It lies so far back that whoever appended earlier has written its patterns, so some of what follows may be
        known already.
        """
        reply = await self._client.call(_POSITION, (self._key(node),), self._lookback, self._kept)
        entry, mark = reply.value
        return f"{entry.decode()}{mark.decode()}@{reply.server}"

    async def tail(self, node: str, after: str) -> Tail:
        """What was appended after the position `after`, in one round trip unless much has come."""
        key = self._key(node)
        entry, _, server = after.partition("@")
        unread, entry = entry.endswith(_UNREAD), entry.removesuffix(_UNREAD)
        found: list[tuple[str, str]] = []
        while True:
            reply = await self._client.ask("XRANGE", key, entry, "+", "COUNT", _READ_AT_ONCE)
            rows: list[Any] = reply.value
            if reply.server != server or not rows or rows[0][0].decode() != entry:
                return Tail([], False, await self.position(node))
            for _, fields in rows if unread else rows[1:]:
                found += _read(fields)
            entry, unread = rows[-1][0].decode(), False
            if len(rows) < _READ_AT_ONCE:
                return Tail(found, True, f"{entry}@{server}")

    def _key(self, node: str) -> bytes:
        if self._closed:
            raise StorageError("Redis: the feed is closed")
        return self._prefix + utf8(node, "node_id") + b":changes"

    async def close(self) -> None:
        """Finish what was accepted and release the client."""
        if not self._closed:
            self._closed = True
            await self._client.close()


def _read(fields: list[bytes]) -> list[tuple[str, str]]:
    try:
        texts = [field.decode() for field in fields]
    except UnicodeDecodeError as error:
        raise damaged("an entry of a feed is not text") from error
    return [(name, operation) for name, operation in zip(texts[::2], texts[1::2], strict=True) if name]
