"""What people hand over, as JSON; and the examples of the Python API."""

from __future__ import annotations

import doctest
import enum
import importlib
from collections import OrderedDict, deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import kato
from kato.errors import ValidationError
from kato.verbs import calls, values


class Text(str):
    pass


class Colour(str, enum.Enum):  # noqa: UP042 - the older kind prints otherwise
    RED = "red"


@pytest.mark.parametrize(
    "module",
    ["kato", "kato.embedded", "kato.verbs.sync", "kato.verbs.values", "kato.verbs.calls", "kato.client.http"],
)
def test_examples_run(module: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(module))
    assert not failed


@pytest.mark.parametrize(
    ("given", "symbols"),
    [
        (("a", "b"), ["a", "b"]),
        ((s for s in "ab"), ["a", "b"]),
        (deque(["a"]), ["a"]),
        (np.array(["a", "b"]), ["a", "b"]),
        ([np.str_("a"), Text("b"), Colour.RED], ["a", "b", "red"]),
        ([], []),
    ],
)
def test_symbols(given: Any, symbols: list[str]) -> None:
    found = values.symbols(given)
    assert found == symbols
    assert {type(symbol) for symbol in found} <= {str}


@pytest.mark.parametrize(
    "given", ["ab", b"ab", {"a"}, frozenset("a"), {"a": 1}, 5, None, np.array("a"), [b"a"], [1]]
)
def test_no_symbols(given: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        values.symbols(given)
    assert refused.value.details["validation_errors"][0]["field"].startswith("strings")


def test_plain_values() -> None:
    given = OrderedDict(
        a=np.float32(0.5),
        b=np.int64(3),
        c=np.array([[1, 2], [3, 4]]),
        d=(True, None, np.bool_(False)),
        e=Fraction(1, 4),
    )
    assert values.plain(given, "metadata") == {
        "a": 0.5,
        "b": 3,
        "c": [[1, 2], [3, 4]],
        "d": [True, None, False],
        "e": 0.25,
    }


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({"a": [1, float("nan")]}, "metadata.a[1]", "finite"),
        ({"a": {1, 2}}, "metadata.a", "set is no JSON"),
        ({"a": b"x"}, "metadata.a", "bytes is no JSON"),
        ({"a": Decimal(1)}, "metadata.a", "Decimal is no JSON"),
        ({1: 2}, "metadata", "Keys must be"),
    ],
)
def test_what_json_does_not_have(given: Any, field: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as refused:
        values.plain(given, "metadata")
    assert refused.value.details["validation_errors"][0]["field"] == field


def test_a_value_that_holds_itself() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValidationError, match="levels deep"):
        values.plain(endless, "metadata")
    with pytest.raises(ValidationError, match="too deeply"):
        values.encoded(endless)


def test_observations_in_every_form() -> None:
    whole = kato.Observation(
        strings=("a",), vectors=((1.0,),), emotives={"joy": 1.0}, metadata={"k": "v"}, unique_id="u"
    )
    body = {
        "strings": ["a"],
        "vectors": [[1.0]],
        "emotives": {"joy": 1.0},
        "metadata": {"k": "v"},
        "unique_id": "u",
    }
    assert values.observation_like(whole, "o") == body
    assert values.observation_like(body, "o") == body
    assert values.observation_like(kato.Observation(), "o") == {}
    assert values.observation_like((), "o") == {}
    assert values.observation(emotives={}, metadata={}) == {}
    with pytest.raises(ValidationError, match=r"o\.string: Unknown part"):
        values.observation_like({"string": ["a"]}, "o")


def test_parameters() -> None:
    with pytest.raises(ValidationError, match="encoded"):
        values.parameter("\ud800", "symbol")
    with pytest.raises(ValidationError, match="at most 4096"):
        values.parameter("x" * 4097, "symbol")
    with pytest.raises(ValidationError, match="Expected `str`"):
        calls.symbols(5)  # type: ignore[arg-type]
    assert calls.sessions(5, None, None, True).query == {"limit": "5", "include_expired": "true"}


def test_names_of_the_package() -> None:
    assert set(kato.__all__) <= set(dir(kato))
    for name in kato.__all__:
        assert getattr(kato, name) is not None
    assert kato.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kato.nothing
    assert kato.errors.KatoError is kato.KatoError


def test_the_version_of_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise kato.PackageNotFoundError(name)

    monkeypatch.setattr(kato, "version", missing)
    assert kato._version() == "unreleased"
