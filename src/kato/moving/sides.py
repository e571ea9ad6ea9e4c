"""The two sides of a move, as a person names them: a data directory, or servers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from kato.errors import BadRequest
from kato.stores.directory import MEMORY

POSTGRES: Final = "PostgreSQL"
MONGO: Final = "MongoDB"
_PATTERNS: Final = {"postgresql": POSTGRES, "postgres": POSTGRES, "mongodb": MONGO, "mongodb+srv": MONGO}
_VECTORS: Final = ("http", "https")
_SESSIONS: Final = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PREFIX: Final = re.compile(r"prefix=([A-Za-z0-9_-]{1,100})")
_FILE: Final = "file:"


class Side(NamedTuple):
    """Where a KATO keeps its data: everything in a data directory, or each kind on a server of its own.

    `option` is how the side was named, `name` what it is called in messages, `prefix` that of Qdrant's collections if
    it was given. The URLs may hold passwords.
    """

    option: str
    name: str
    directory: Path | None = None
    patterns: str = ""
    vectors: str | None = None
    sessions: str | None = None
    prefix: str | None = None


def side(option: str, text: str, vectors: str | None = None, sessions: str | None = None) -> Side:
    """The side that `text` names, with the servers for vectors and sessions named beside it.

    Raises `BadRequest` for what KATO cannot keep its data in.

    >>> side("--from", "kato-data").name
    'kato-data'
    >>> side("--to", "postgresql://kato:secret@host/kato", sessions="redis://host").name
    'PostgreSQL'
    """
    found = _scheme(option, text)
    if found is None:
        path = text.removeprefix(_FILE)
        path = path.removeprefix("//") if path.startswith("///") else path
        if path in ("", MEMORY):
            raise BadRequest(f"{option}: {text} is not a data directory")
        for more, given in (("vectors", vectors), ("sessions", sessions)):
            if given is not None:
                raise BadRequest(f"{option}-{more}: a data directory holds its own {more}")
        return Side(option, path, Path(path))
    if found not in _PATTERNS:
        raise BadRequest(
            f"{option}: patterns cannot be kept in {found}://; give a data directory, postgresql://... or mongodb://..."
        )
    _check(f"{option}-vectors", vectors, _VECTORS)
    _check(f"{option}-sessions", sessions, _SESSIONS)
    prefix = None
    if vectors is not None and "?" in vectors:
        vectors, _, query = vectors.partition("?")
        named = _PREFIX.fullmatch(query)
        if named is None:
            raise BadRequest(f"{option}-vectors: only prefix=NAME may stand behind the question mark")
        prefix = named[1]
    return Side(option, _PATTERNS[found], None, text, vectors, sessions, prefix)


def _scheme(option: str, text: str) -> str | None:
    """What stands before `://`, None for a path."""
    if not text:
        raise BadRequest(f"{option} is empty")
    if "://" not in text or text.startswith(_FILE):
        return None
    found = _SCHEME.match(text)
    # The text itself is never quoted: it may hold a password.
    if found is None:
        raise BadRequest(f"{option}: this is neither a path nor a URL")
    return found[1].lower()


def _check(option: str, text: str | None, schemes: tuple[str, ...]) -> None:
    if text is not None and _scheme(option, text) not in schemes:
        raise BadRequest(f"{option}: must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
