"""How far a file has been learned: a durable note, from which an interrupted `kato learn` goes on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from kato.errors import StorageError
from kato.stores.directory import sync_directory

FOLDER = "learned"
READ_BYTES = 1 << 20


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about learning one file in one way.

    `batch` is the number of sequences learned together; it stays what it was when the run began, because the
    ids under which batches are counted depend on it. `run` counts how often the file has been begun.
    """

    file: str
    node: str
    run: int = 1
    batch: int
    batches: int = 0
    sequences: int = 0
    patterns: int = 0
    finished: bool = False
    session: str | None = None


class Notebook:
    """The note of one file, learned with certain options, in a directory.

    `key` tells files with different content or options apart; `operation` gives the id under which a batch
    counts once, however often it is repeated.
    """

    def __init__(self, directory: Path | None, key: str) -> None:
        self.key = key
        self._path = None if directory is None else directory / f"{key}.json"

    def read(self) -> Note | None:
        """The note as it was last written; None when there is none."""
        if self._path is None or not self._path.exists():
            return None
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Note)
        except msgspec.MsgspecError:
            raise StorageError(
                f"the progress note {self._path} is damaged; without it the file is learned from its start"
            ) from None

    def write(self, note: Note) -> None:
        """Replace the note; durable on return, and never half written."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(note))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self._path)
        sync_directory(self._path.parent)

    def operation(self, note: Note, number: int) -> str:
        """The id of a batch."""
        return f"learn:{self.key}:{note.run}:{number}"


def key(path: Path, *options: str) -> str:
    """32 digits that stand for the content of a file and the options it is learned with."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while content := file.read(READ_BYTES):
            digest.update(content)
    digest.update(msgspec.json.encode(options))
    return digest.hexdigest()[:32]
