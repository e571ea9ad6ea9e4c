"""The vector store of a KATO that does without vectors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from kato.errors import BadRequest


class NoVectors:
    """Holds nothing, and says so to whoever asks for more: vectors are refused, never silently forgotten.

    >>> import asyncio
    >>> asyncio.run(NoVectors().put("node", {}))
    []
    """

    async def put(self, node: str, vectors: Mapping[str, Sequence[float]]) -> list[str]:
        """Refuse vectors with `BadRequest`."""
        if vectors:
            raise _refusal()
        return []

    async def nearest(self, node: str, vector: Sequence[float], k: int) -> list[tuple[str, float]]:
        """Refuse to compare with `BadRequest`: an answer would look as if there were nothing similar."""
        raise _refusal()

    def scan(self, node: str) -> AsyncIterator[list[tuple[str, tuple[float, ...]]]]:
        """All vectors: none."""
        return _Nothing()

    async def drop(self, node: str) -> None:
        """Remove all vectors: there are none."""

    async def nodes(self) -> list[str]:
        """The nodes that hold vectors: none."""
        return []

    async def close(self) -> None:
        """Nothing is open."""


class _Nothing(AsyncIterator[list[tuple[str, tuple[float, ...]]]]):
    async def __anext__(self) -> list[tuple[str, tuple[float, ...]]]:
        raise StopAsyncIteration


def _refusal() -> BadRequest:
    return BadRequest("Observations with vectors are not accepted: this KATO runs with KATO_VECTORS=off")
