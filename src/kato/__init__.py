"""KATO: a memory that predicts.

`kato.open` gives a KATO inside this process, `kato.Client` and `kato.AsyncClient` one behind HTTP; the verbs
and the answers are the same. What is raised is in `kato.errors`.

>>> import kato
>>> with kato.open(":memory:") as memory:
...     session = memory.session("greetings")
...     _ = session.observe_sequence([["hello"], ["big"], ["world"]], learn_at_end=True)
...     _ = session.observe_sequence([["hello"], ["big"]])
...     session.predictions().best["future"]
[['world']]
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kato import errors
    from kato.client import AsyncClient, Client
    from kato.embedded import EmbeddedKato, open  # noqa: A004
    from kato.errors import KatoError
    from kato.model import Observation
    from kato.presentation import STM, Predictions
    from kato.verbs.asynchronous import AsyncSession
    from kato.verbs.sync import Session

__all__ = [
    "STM",
    "AsyncClient",
    "AsyncSession",
    "Client",
    "EmbeddedKato",
    "KatoError",
    "Observation",
    "Predictions",
    "Session",
    "errors",
    "open",
]

_HOMES = {
    "AsyncClient": "kato.client",
    "AsyncSession": "kato.verbs.asynchronous",
    "Client": "kato.client",
    "EmbeddedKato": "kato.embedded",
    "KatoError": "kato.errors",
    "Observation": "kato.model",
    "Predictions": "kato.presentation",
    "STM": "kato.presentation",
    "Session": "kato.verbs.sync",
    "open": "kato.embedded",
}


def __getattr__(name: str) -> Any:
    """Names are looked up when first used: importing one part of KATO loads no other."""
    if name in _HOMES:
        found = getattr(import_module(_HOMES[name]), name)
    elif name == "errors":
        found = import_module("kato.errors")
    elif name == "__version__":
        found = _version()
    else:
        raise AttributeError(f"module 'kato' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def _version() -> str:
    try:
        return version("kato")
    except PackageNotFoundError:
        return "unreleased"
