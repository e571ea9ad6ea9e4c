"""Patterns in PostgreSQL 14 or newer (`pip install kato[postgres]`)."""

from kato.stores.postgres.patterns import PostgresPatternStore

__all__ = ["PostgresPatternStore"]
