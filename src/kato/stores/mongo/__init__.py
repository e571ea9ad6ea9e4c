"""Patterns in MongoDB 4.4 or newer, a replica set or a sharded cluster (`pip install kato[mongo]`)."""

from kato.stores.mongo.patterns import MongoPatternStore

__all__ = ["MongoPatternStore"]
