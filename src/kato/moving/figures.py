"""What tells whether two stores hold the same records."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec


class Figures(msgspec.Struct, frozen=True):
    """How many records there are, and the SHA-256 (64 hexadecimal digits) over all of them in their order."""

    count: int
    digest: str


class Tally:
    """Adds up records, however they come in batches.

    Each record is one MessagePack value, which says where it ends: no other records make the same digest by being
    cut elsewhere.

    >>> one, two = Tally(), Tally()
    >>> one.add([b"\\x01", b"\\x02"])
    >>> two.add([b"\\x01"])
    >>> two.add([b"\\x02"])
    >>> one.figures() == two.figures()
    True
    """

    def __init__(self) -> None:
        self._count = 0
        self._digest = hashlib.sha256()

    def add(self, contents: Sequence[bytes]) -> None:
        """Add the canonical bytes of records that follow those added before."""
        self._count += len(contents)
        self._digest.update(b"".join(contents))

    def figures(self) -> Figures:
        """The figures of all that was added so far."""
        return Figures(self._count, self._digest.hexdigest())
