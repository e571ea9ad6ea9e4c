"""The embedded stores: SQLite files in one data directory, no server needed."""

from kato.stores.sqlite.database import Database
from kato.stores.sqlite.patterns import SqlitePatternStore
from kato.stores.sqlite.sessions import SqliteSessionStore
from kato.stores.sqlite.vectors import SqliteVectorStore

__all__ = ["Database", "SqlitePatternStore", "SqliteSessionStore", "SqliteVectorStore"]
