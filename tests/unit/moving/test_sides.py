"""What a person may name, and what the refusals show."""

from __future__ import annotations

from pathlib import Path

import pytest

from kato.errors import BadRequest
from kato.moving.sides import Side, side


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("kato-data", "kato-data"),
        ("/var/lib/kato", "/var/lib/kato"),
        ("file:kato-data", "kato-data"),
        ("file:/var/kato", "/var/kato"),
        ("file:///var/kato", "/var/kato"),
        ("strange:name", "strange:name"),
    ],
)
def test_a_directory(text: str, path: str) -> None:
    assert side("--from", text) == Side("--from", path, Path(path))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("postgresql://u:s3cret@host/db", "PostgreSQL"),
        ("postgres://host/db", "PostgreSQL"),
        ("POSTGRESQL://host/db", "PostgreSQL"),
        ("mongodb://host", "MongoDB"),
        ("mongodb+srv://host", "MongoDB"),
    ],
)
def test_a_server(text: str, name: str) -> None:
    found = side("--to", text, "https://qdrant:6333", "rediss+sentinel://a,b/m/0")
    assert found == Side("--to", name, None, text, "https://qdrant:6333", "rediss+sentinel://a,b/m/0")


def test_a_prefix_of_collections() -> None:
    found = side("--to", "mongodb://host", "http://qdrant:6333?prefix=my_own-1")
    assert (found.vectors, found.prefix) == ("http://qdrant:6333", "my_own-1")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("",), "--from is empty"),
        (("file:",), "--from: file: is not a data directory"),
        ((":memory:",), "--from: :memory: is not a data directory"),
        (("redis://:s3cret@host",), "--from: patterns cannot be kept in redis://; give a data directory, "),
        (("s3cret s3cret://host",), "--from: this is neither a path nor a URL"),
        (("dir", "http://q"), "--from-vectors: a data directory holds its own vectors"),
        (("dir", None, "redis://r"), "--from-sessions: a data directory holds its own sessions"),
        (("mongodb://h", "qdrant:6333"), "--from-vectors: must begin with http:// or https://"),
        (("mongodb://h", "http://h?key=s3cret"), "--from-vectors: only prefix=NAME may stand behind"),
        (("mongodb://h", "http://h?prefix="), "--from-vectors: only prefix=NAME may stand behind"),
        (("mongodb://h", ""), "--from-vectors is empty"),
        (("mongodb://h", None, "http://:s3cret@h"), "--from-sessions: must begin with redis:// or rediss://"),
    ],
)
def test_what_makes_no_sense(given: tuple[str, ...], reason: str) -> None:
    with pytest.raises(BadRequest) as refused:
        side("--from", *given)
    assert refused.value.message.startswith(reason)
    assert "s3cret" not in refused.value.message
