"""Where a command works: on a data directory in this process, or on a running server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, TypeAlias, cast

import typer

import kato
from kato import settings
from kato.embedded import EmbeddedKato, Options
from kato.errors import BadRequest

Data = Annotated[str | None, typer.Option(help="Data directory.  [default: KATO_DATA or ./kato-data]")]
Url = Annotated[str | None, typer.Option(help="Address of a running KATO, instead of a data directory.")]
Node = Annotated[
    str | None, typer.Option(help="Node, the owner of a long-term memory.  [default: the instance's own]")
]
Memory: TypeAlias = EmbeddedKato | kato.Client


@contextmanager
def opened(data: str | None, url: str | None) -> Iterator[Memory]:
    """The memory a command works on; `--data` and `--url` exclude each other."""
    if url is not None:
        if data is not None:
            raise BadRequest("give either --data or --url, not both")
        with kato.Client(url) as client:
            yield client
        return
    chosen = settings.load(kato_data=data)
    with kato.open(chosen.kato_data, **options(chosen)) as embedded:
        yield embedded


def options(chosen: settings.Settings) -> Options:
    """The settings of the environment for an embedded KATO: the command behaves as the server would."""
    return cast(Options, {name: getattr(chosen, name) for name in Options.__annotations__})


def node_of(memory: Memory, node: str | None) -> str:
    """The node a command is about; without one given, the instance's own."""
    if node is not None:
        return node
    session = memory.session()
    session.delete()
    return session.node_id
