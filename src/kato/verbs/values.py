"""Arguments as plain JSON values: what people hand over, without guessing and without losing anything.

Lists may be any sequence or iterator with an order, numbers any real number (NumPy's too), mappings any
mapping. Everything else is refused with a `ValidationError` that names the place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from numbers import Integral, Real
from typing import Any, TypeAlias

import msgspec

from kato.errors import ValidationError
from kato.model import Observation

ObservationLike: TypeAlias = Observation | Mapping[str, Any] | Iterable[str]
"""An observation as a Struct, as a mapping with the same names, or as its symbols alone."""

FIELDS = Observation.__struct_fields__
DEEPEST = 100
LONGEST_PARAMETER = 4096
_ONLY_STRINGS = ({str}, set[type]())
_NO_LIST = (str, bytes, bytearray, memoryview, Mapping, Set)


def _refused(message: str, field: str) -> ValidationError:
    return ValidationError(message, field=field, kind="type_error")


def listed(value: Any, field: str, of: str) -> list[Any]:
    """An ordered collection as a list.

    >>> listed(("a", "b"), "strings", "strings")
    ['a', 'b']
    >>> listed("ab", "strings", "strings")
    Traceback (most recent call last):
    kato.errors.ValidationError: strings: Expected a list of strings, got one str; write ['ab']
    """
    if type(value) is list:
        return value
    if isinstance(value, str):
        raise _refused(f"Expected a list of {of}, got one str; write [{_brief(value)}]", field)
    if isinstance(value, _NO_LIST) or not isinstance(value, Iterable):
        raise _refused(f"Expected a list of {of}, got {type(value).__name__}", field)
    converted = value.tolist() if hasattr(value, "tolist") else list(value)
    if not isinstance(converted, list):
        raise _refused(f"Expected a list of {of}, got a single value", field)
    return converted


def _brief(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")


def symbols(value: Any, field: str = "strings") -> list[str]:
    """The symbols of an observation."""
    found = listed(value, field, "strings")
    if set(map(type, found)) in _ONLY_STRINGS:
        return found
    return [_symbol(item, f"{field}[{number}]") for number, item in enumerate(found)]


def _symbol(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise _refused(f"Expected `str`, got `{type(value).__name__}`", field)
    return str.__str__(value)


def plain(value: Any, field: str, depth: int = 0) -> Any:
    """A value as JSON has it: mappings become dictionaries, sequences lists, NumPy's numbers numbers.

    >>> plain({"a": (1, 2.5)}, "metadata")
    {'a': [1, 2.5]}
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return _finite(float(value), field)
    if depth > DEEPEST:
        raise ValidationError(
            f"Nested more than {DEEPEST} levels deep", field=field.split("[")[0].split(".")[0]
        )
    if hasattr(value, "tolist"):
        return plain(value.tolist(), field, depth + 1)
    if isinstance(value, Mapping):
        return {_key(k, field): plain(v, f"{field}.{k}", depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{field}[{number}]", depth + 1) for number, item in enumerate(value)]
    raise _refused(f"A {type(value).__name__} is no JSON value", field)


def _finite(value: float, field: str) -> float:
    if not math.isfinite(value):
        raise ValidationError("Must be a finite number", field=field)
    return value


def _key(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise _refused(f"Keys must be `str`, got `{type(value).__name__}`", field)
    return str.__str__(value)


def mapping(value: Any, field: str) -> dict[str, Any]:
    """A mapping with names as keys."""
    if not isinstance(value, Mapping):
        raise _refused(f"Expected `object`, got `{type(value).__name__}`", field)
    found: dict[str, Any] = plain(value, field)
    return found


def observation(
    strings: Iterable[str] = (),
    vectors: Any = (),
    emotives: Mapping[str, float] | None = None,
    metadata: Mapping[str, Any] | None = None,
    unique_id: str | None = None,
    field: str = "",
) -> dict[str, Any]:
    """The body of an observation; empty parts are left out."""
    body: dict[str, Any] = {}
    if found := symbols(strings, f"{field}strings"):
        body["strings"] = found
    if rows := listed(vectors, f"{field}vectors", "vectors"):
        body["vectors"] = plain(rows, f"{field}vectors")
    if emotives is not None and (feelings := mapping(emotives, f"{field}emotives")):
        body["emotives"] = feelings
    if metadata is not None and (notes := mapping(metadata, f"{field}metadata")):
        body["metadata"] = notes
    if unique_id is not None:
        body["unique_id"] = plain(unique_id, f"{field}unique_id")
    return body


def observation_like(value: ObservationLike, field: str) -> dict[str, Any]:
    """The body of an observation given in any of its forms.

    >>> observation_like({"strings": ["a"], "emotives": {"joy": 1}}, "observations[0]")
    {'strings': ['a'], 'emotives': {'joy': 1}}
    >>> observation_like(["a", "b"], "observations[0]")
    {'strings': ['a', 'b']}
    """
    if isinstance(value, Observation):
        value = msgspec.structs.asdict(value)
    if not isinstance(value, Mapping):
        found = symbols(value, field)
        return {"strings": found} if found else {}
    unknown = [name for name in value if name not in FIELDS]
    if unknown:
        raise _refused(
            f"Unknown part of an observation; there are {', '.join(FIELDS)}", f"{field}.{unknown[0]}"
        )
    return observation(**value, field=f"{field}.")


def encoded(body: Any) -> bytes:
    """A body as JSON; text that no Unicode encoding has is refused."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        raise ValidationError(f"Text that cannot be encoded: {error.reason}", field="body") from None
    except RecursionError:
        raise ValidationError("The value is nested too deeply", field="body") from None


def parameter(value: str, field: str) -> str:
    """A text that becomes part of the address."""
    text = _symbol(value, field)
    if len(text) > LONGEST_PARAMETER:
        raise ValidationError(f"Must have at most {LONGEST_PARAMETER} characters", field=field)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValidationError(f"Text that cannot be encoded: {error.reason}", field=field) from None
    return text
