"""The lines of a text file with their numbers, and how much of the file has been read."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeAlias, cast

from kato.errors import BadRequest
from kato.model import Observation

Sequence: TypeAlias = tuple[Observation, ...]

GZIP = b"\x1f\x8b"


def problem(path: Path, number: int, reason: str) -> BadRequest:
    """The error for a line that cannot be understood."""
    return BadRequest(f"{path}, line {number}: {reason}", line=number)


class Lines:
    """Iterates over (number, text with line end) of a UTF-8 file, compressed or not; numbers start at 1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self._size = max(1, path.stat().st_size)
        self._raw: BinaryIO = path.open("rb")
        packed = self._raw.read(2) == GZIP
        self._raw.seek(0)
        self._content: BinaryIO = cast(BinaryIO, gzip.GzipFile(fileobj=self._raw)) if packed else self._raw

    @property
    def share(self) -> float:
        """How much of the file has been read, 0 to 1."""
        return min(1.0, self._raw.tell() / self._size)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        try:
            for line in self._content:
                self.number += 1
                text = line.decode()
                yield self.number, text.removeprefix("\ufeff") if self.number == 1 else text
        except UnicodeDecodeError as error:
            raise problem(self.path, self.number, f"not valid UTF-8 at byte {error.start + 1}") from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise problem(self.path, self.number + 1, f"the compressed file is damaged ({error})") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._content.close()
        self._raw.close()
