"""Brings a database to the schema that this version of KATO works with."""

from __future__ import annotations

from importlib import resources
from typing import Any, Final, NamedTuple

from kato.errors import DataDirectoryError

_LOCK: Final = 0x4B41_544F
"""Key of the advisory lock that lets only one instance migrate: "KATO"."""

_HISTORY: Final = (
    "CREATE TABLE kato_migrations"
    " (number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
)


class Migration(NamedTuple):
    """A step from one version of the schema to the next; applied once, in the order of numbers."""

    number: int
    name: str
    statements: str


def migrations() -> list[Migration]:
    """The steps that this version of KATO knows: the files `migrations/<number>_<name>.sql`, ascending.

    >>> [step.name for step in migrations()][:1]
    ['patterns']
    """
    files = [
        each
        for each in resources.files(__package__).joinpath("migrations").iterdir()
        if each.name.endswith(".sql")
    ]
    steps = []
    for each in sorted(files, key=lambda each: each.name):
        number, name = each.name.removesuffix(".sql").split("_", 1)
        steps.append(Migration(int(number), name, each.read_text(encoding="utf-8")))
    return steps


async def migrate(connection: Any, schema: str, timeout: float, steps: list[Migration] | None = None) -> None:
    """Apply the steps that `schema` lacks, all or none; other instances that start wait for this one.

    A database that is already there needs no right to create anything. One that a newer KATO has migrated
    raises `DataDirectoryError`: this version could not know what its records mean.
    """
    known = migrations() if steps is None else steps
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK, timeout=timeout)
        if await connection.fetchval("SELECT to_regnamespace($1) IS NULL", _quoted(schema)):
            await connection.execute(f"CREATE SCHEMA {_quoted(schema)}")
        history = f"{_quoted(schema)}.kato_migrations"
        if await connection.fetchval("SELECT to_regclass($1) IS NULL", history):
            await connection.execute(_HISTORY)
        applied = {row[0] for row in await connection.fetch(f"SELECT number FROM {history}")}
        newest = known[-1].number
        if applied and max(applied) > newest:
            raise DataDirectoryError(
                f"PostgreSQL: schema {schema!r} has version {max(applied)}, this KATO knows {newest};"
                " start the newer KATO, or point this one at another database"
            )
        for step in known:
            if step.number not in applied:
                await connection.execute(step.statements, timeout=timeout)
                insert = f"INSERT INTO {history} (number, name) VALUES ($1, $2)"
                await connection.execute(insert, step.number, step.name)


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def search_path(schema: str) -> str:
    """The value of `search_path` under which unqualified names mean those of `schema`.

    >>> search_path("kato")
    '"kato"'
    """
    return _quoted(schema)
