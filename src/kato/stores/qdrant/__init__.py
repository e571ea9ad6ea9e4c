"""Percept vectors in Qdrant 1.17 or newer (`pip install kato[qdrant]`)."""

from kato.stores.qdrant.vectors import QdrantVectorStore

__all__ = ["QdrantVectorStore"]
