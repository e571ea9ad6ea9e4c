"""The stored form of vectors in Qdrant: points that carry the exact elements in their payload."""

from __future__ import annotations

import base64
import hashlib
import uuid
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from kato.stores.qdrant.failures import damaged

LARGEST_ELEMENT: Final = 1e15
"""Beyond it squares would soon leave what single precision can hold: candidates are chosen by clipped elements."""


def point_id(*parts: str) -> str:
    """An id that depends on nothing but the parts."""
    digest = hashlib.blake2b(digest_size=16)
    for content in (part.encode() for part in parts):
        digest.update(len(content).to_bytes(8))
        digest.update(content)
    return str(uuid.UUID(bytes=digest.digest()))


def point(node: str, life: str, name: str, content: NDArray[np.float64]) -> models.PointStruct:
    """A vector as it is stored."""
    payload = {
        "node": node,
        "life": life,
        "name": name,
        "vector": base64.b64encode(content.tobytes()).decode(),
    }
    return models.PointStruct(id=point_id(node, life, name), vector=single(content), payload=payload)


def single(content: NDArray[np.float64]) -> list[float]:
    """What Qdrant computes with instead of the elements."""
    clipped: list[float] = np.clip(np.nan_to_num(content), -LARGEST_ELEMENT, LARGEST_ELEMENT).tolist()
    return clipped


def decode(payload: dict[str, Any] | None, dimension: int) -> tuple[str, NDArray[np.float64]]:
    """Name and exact elements of a point; `DataCorrupted` when they cannot be read."""
    try:
        found = payload or {}
        content = np.frombuffer(base64.b64decode(found["vector"]), dtype="<f8")
        if len(content) == dimension:
            return name_of(found), content
    except (KeyError, TypeError, ValueError) as error:
        raise damaged("a vector cannot be read") from error
    raise damaged("a vector has another dimension than its node")


def name_of(payload: dict[str, Any] | None) -> str:
    """The name in a point's payload."""
    try:
        return str((payload or {})["name"])
    except KeyError as error:
        raise damaged("a vector has no name") from error


def out_of_reach(score: float, wanted: NDArray[np.float64]) -> float:
    """A distance below which no vector lies whose distance in single precision is at least `score`."""
    rounding = 2.0**-22 + len(wanted) * 2.0**-28
    return score - rounding * (2 * float(np.linalg.norm(single(wanted))) + score)


def having(field: str, value: str) -> models.Filter:
    """The points whose `field` is `value`."""
    return models.Filter(must=[models.FieldCondition(key=field, match=models.MatchValue(value=value))])
