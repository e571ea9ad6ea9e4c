"""Names that depend on content only: of patterns (6.2), of vectors (3.3), of nodes (2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from kato.model import VECTOR_PREFIX

PRINTED_ELEMENTS = 1000
"""Up to this many elements a vector is named after its printed text, above it after its exact values."""
LABEL_LENGTH = 60
"""Longest processor id."""
_CLEANED = str.maketrans(dict.fromkeys('/\\. "$*<>:|?-', "_"))


def pattern_name(events: Iterable[Iterable[str]]) -> str:
    """The bare name of a pattern: 40 hex digits, the SHA-1 of the events printed as a Python list (6.2).

    Equal events have equal names on every machine; tuples and lists alike.

    >>> pattern_name([["a"], ["b"], ["c"]])
    'b98534b32c1d7489d4ce1a48724aa65aeecbdba9'
    """
    return _sha1(repr([list(event) for event in events]).encode())


def vector_name(vector: Sequence[float]) -> str:
    """The symbol that stands for a vector (3.3).

    Up to 1000 elements it is named after the text that NumPy prints for it, so values equal to 8 digits
    share a name; a longer vector is named after its exact values as little-endian doubles.

    >>> vector_name([1, 2, 3])
    'VCTR|fe5de4472f7e4d5c9cdd19cadebfa06fe3da8e43'
    """
    values = np.asarray(vector, np.float64)
    if values.size > PRINTED_ELEMENTS:
        return VECTOR_PREFIX + _sha1(values.astype("<f8").tobytes())
    text = np.array2string(
        values,
        max_line_width=75,
        precision=8,
        suppress_small=False,
        separator=" ",
        threshold=PRINTED_ELEMENTS,
        edgeitems=3,
        floatmode="maxprec",
        sign="-",
        # Given explicitly like all others, so that the process's print options cannot change names.
        formatter={},
        legacy=False,
    )
    return VECTOR_PREFIX + _sha1(text.encode())


def sum_vectors(vectors: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The element-wise sum of one or more vectors, added in the given order.

    Raises ValueError that names the positions of the vectors whose length differs from the first one's.

    >>> sum_vectors([[1, 2], [0.5, 0]])
    (1.5, 2.0)
    """
    wrong = [str(place) for place, vector in enumerate(vectors) if len(vector) != len(vectors[0])]
    if wrong:
        raise ValueError(
            f"All vectors of an observation need the same length: the first has {len(vectors[0])} elements, "
            f"other lengths at positions {', '.join(wrong)}"
        )
    total = np.asarray(vectors[0], np.float64)
    for vector in vectors[1:]:
        total = total + np.asarray(vector, np.float64)
    return tuple(total.tolist())


def processor_id(node_id: str, service_name: str) -> str:
    """The label of a node's knowledge base (2): at most 60 characters, not unique, only for showing.

    >>> processor_id("my-node.v1 x", "kato")
    'my_node_v1_x_kato'
    """
    node = node_id.translate(_CLEANED)
    base = service_name.replace("-", "_")
    label = f"{node}_{base}"
    if len(label) <= LABEL_LENGTH:
        return label
    digest = hashlib.md5(node.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()[:8]
    return f"{node[: max(0, LABEL_LENGTH - len(base) - 10)]}_{digest}_{base}"


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
