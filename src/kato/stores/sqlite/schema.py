"""The tables of the embedded stores."""

from __future__ import annotations

from typing import Final, NamedTuple


class Schema(NamedTuple):
    """The tables of one database file; `application` marks the file as being of this kind."""

    application: int
    statements: tuple[str, ...]
    tables: tuple[str, ...]


# A row of `patterns` lives in the tree that is ordered by node and name: a scan in the order of names reads
# the file once, and nothing else has to be written for a new pattern. Ids of nodes are never used again
# (AUTOINCREMENT), so what was dropped cannot come back under a node of the same name.
PATTERNS: Final = Schema(
    0x4B41_0001,
    (
        "CREATE TABLE nodes (id INTEGER PRIMARY KEY AUTOINCREMENT, node BLOB NOT NULL UNIQUE)",
        "CREATE TABLE patterns (node INTEGER NOT NULL, name BLOB NOT NULL, frequency INTEGER NOT NULL,"
        " revision INTEGER NOT NULL, events BLOB NOT NULL, details BLOB NOT NULL,"
        " PRIMARY KEY (node, name)) WITHOUT ROWID",
        "CREATE TABLE vector_nodes (id INTEGER PRIMARY KEY AUTOINCREMENT, node BLOB NOT NULL UNIQUE,"
        " dimension INTEGER NOT NULL)",
        "CREATE TABLE vectors (node INTEGER NOT NULL, name BLOB NOT NULL, vector BLOB NOT NULL,"
        " PRIMARY KEY (node, name)) WITHOUT ROWID",
    ),
    ("nodes", "patterns", "vector_nodes", "vectors"),
)

# Sessions are changed by row number: no key has to be searched, and the indexes hold only what a save
# leaves alone.
SESSIONS: Final = Schema(
    0x4B41_0002,
    (
        "CREATE TABLE sessions (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
        " node TEXT NOT NULL, user TEXT,"
        " created_at REAL NOT NULL, expires_at REAL NOT NULL, revision INTEGER NOT NULL,"
        " state BLOB NOT NULL)",
        "CREATE INDEX sessions_of_node ON sessions (node, id)",
        "CREATE TABLE tombstones (id TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID",
    ),
    ("sessions", "tombstones"),
)
