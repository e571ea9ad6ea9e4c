"""The data directory: where the embedded stores keep their files, for one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kato.errors import DataDirectoryError

FORMAT: Final = 1
"""Version of everything in the directory; a KATO that writes it differently counts it up."""

MEMORY: Final = ":memory:"
FORMAT_FILE: Final = "FORMAT"
LOCK_FILE: Final = "LOCK"
PATTERNS_FILE: Final = "patterns.db"
SESSIONS_FILE: Final = "sessions.db"

OPTION: Final = "--data / KATO_DATA"
"""How a person chooses a data directory, as most messages tell it."""

_FORMAT_LINE: Final = re.compile(r"KATO data format (\d+), written by KATO (\S+)\n?")


class DataDirectory:
    """Holds a data directory: created if need be, locked against other processes until `close`.

    `:memory:` stands for no directory at all; the stores then live in memory and end with the process.
    Every obstacle (in use, not writable, of another format version) raises `DataDirectoryError`, whose message says by
    which `option` another one is chosen.

    >>> with DataDirectory(":memory:") as directory:
    ...     directory.patterns
    ':memory:'
    """

    def __init__(self, path: str | Path, option: str = OPTION) -> None:
        self.path: Path | None = None if str(path) == MEMORY else Path(path)
        self._lock: int | None = None
        if self.path is None:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.path, option)
            _check_format(self.path, option)
        except OSError as error:
            self.close()
            raise DataDirectoryError(
                f"the data directory {self.path} cannot be used: {error.strerror or error}; "
                f"make it writable or choose another with {option}"
            ) from error
        except DataDirectoryError:
            self.close()
            raise

    @property
    def patterns(self) -> str:
        """Where the pattern and vector stores keep their data: a file path or `:memory:`."""
        return self._file(PATTERNS_FILE)

    @property
    def sessions(self) -> str:
        """Where the session store keeps its data: a file path or `:memory:`."""
        return self._file(SESSIONS_FILE)

    def _file(self, name: str) -> str:
        return MEMORY if self.path is None else str(self.path / name)

    def close(self) -> None:
        """Let other processes have the directory; closing twice is harmless."""
        if self._lock is not None:
            # The file stays: removing it would let a waiting process lock a file that a third one no longer
            # sees.
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lock(path: Path, option: str) -> int:
    """The open descriptor of the locked lock file; the kernel lets go of it however the process ends."""
    descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise DataDirectoryError(
            f"the data directory {path} is in use by another KATO process (pid {owner}); "
            f"stop it or choose another with {option}"
        ) from error
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_format(path: Path, option: str) -> None:
    try:
        content = (path / FORMAT_FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        _start_format(path, option)
        return
    problem = format_problem(path, content, option)
    if problem:
        raise DataDirectoryError(problem)


def format_problem(path: Path, content: str, option: str = OPTION) -> str | None:
    """What is wrong with the content of a FORMAT file, and what to do; None when it is right."""
    line = _FORMAT_LINE.fullmatch(content)
    if line is None:
        return (
            f"the data directory {path} has a damaged {FORMAT_FILE} file; "
            f"restore it from a backup or choose another directory with {option}"
        )
    if int(line[1]) != FORMAT:
        return (
            f"the data directory {path} has format {line[1]}, written by KATO {line[2]}; this is KATO "
            f"{_version()}, which uses format {FORMAT}. Start it with KATO {line[2]}, "
            f"or choose another directory with {option}"
        )
    return None


def _start_format(path: Path, option: str) -> None:
    for name in (PATTERNS_FILE, SESSIONS_FILE):
        if (path / name).exists():
            raise DataDirectoryError(
                f"the data directory {path} holds {name} but no {FORMAT_FILE} file; "
                f"restore it from a backup or choose another directory with {option}"
            )
    # Written beside and renamed, so that a crash leaves either no FORMAT file or a whole one.
    fresh = path / f"{FORMAT_FILE}.new"
    with fresh.open("w", encoding="utf-8") as file:
        file.write(f"KATO data format {FORMAT}, written by KATO {_version()}\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path / FORMAT_FILE)
    sync_directory(path)


def sync_directory(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _version() -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("kato")
    return "unreleased"
