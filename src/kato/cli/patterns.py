"""`kato patterns`: look at what a node has learned, and take things out of it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from string import hexdigits
from typing import Annotated, Any

import msgspec
import typer

from kato.cli import output, target
from kato.cli.predict import NAME_SHOWN
from kato.errors import BadRequest, PatternNotFound
from kato.model import PATTERN_PREFIX

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, show and delete learned patterns.")
Name = Annotated[str, typer.Argument(help="Name of the pattern, or as much of it as only one begins with.")]
NAME_LENGTH = 40
PAGE = 1000


class Order(StrEnum):
    """What comes first in a list."""

    FREQUENCY = "frequency"
    NAME = "name"


@app.command("list")
def list_(
    node: target.Node = None,
    data: target.Data = None,
    url: target.Url = None,
    symbol: Annotated[str | None, typer.Option(help="Only patterns that hold this symbol.")] = None,
    min_frequency: Annotated[int, typer.Option(min=0, help="Only patterns learned at least so often.")] = 0,
    order: Annotated[Order, typer.Option(help="Most frequent first, or by name.")] = Order.FREQUENCY,
    limit: Annotated[int, typer.Option(min=1, help="How many to print.")] = 20,
    as_json: output.Json = False,
) -> None:
    """List the patterns of a node. By frequency, the whole node is read."""
    with target.opened(data, url) as memory:
        node_id = target.node_of(memory, node)
        found = _patterns(memory, node_id, symbol, min_frequency)
        if order is Order.FREQUENCY:
            listed = heapq.nsmallest(limit, found, key=lambda item: (-item["frequency"], item["name"]))
        else:
            listed = list(islice(found, limit))
        total = memory.patterns(node_id, limit=1)["total"]
    if as_json:
        output.emit({"node": node_id, "total": total, "patterns": listed})
        return
    rows = (
        (_short(item["name"]), item["frequency"], item["length"], output.events(item["pattern_data"]))
        for item in listed
    )
    output.table(("pattern", "#frequency", "#symbols", "events"), rows)
    output.say(f"{len(listed)} of {total} patterns of node {node_id}")


@app.command("show")
def show(
    name: Name,
    node: target.Node = None,
    data: target.Data = None,
    url: target.Url = None,
    as_json: output.Json = False,
) -> None:
    """Show everything that is known about a pattern."""
    with target.opened(data, url) as memory:
        node_id = target.node_of(memory, node)
        found = memory.pattern(_full(memory, node_id, name), node_id)
    if as_json:
        output.emit(found)
        return
    rows = [
        ("name", found["name"]),
        ("events", output.events(found["pattern_data"])),
        ("symbols", found["length"]),
        ("frequency", found["frequency"]),
        ("emotives", msgspec.json.encode(found["emotives"]).decode() if found["emotives"] else "none"),
        *((f"metadata {key}", ", ".join(texts)) for key, texts in found["metadata"].items()),
    ]
    output.table(("", ""), rows)


@app.command("delete")
def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of the patterns.")],
    node: target.Node = None,
    data: target.Data = None,
    url: target.Url = None,
    as_json: output.Json = False,
) -> None:
    """Delete patterns with all their influence on predictions."""
    deleted = []
    with target.opened(data, url) as memory:
        node_id = target.node_of(memory, node)
        # All names are looked up first, so that a mistyped one stops the command before anything is gone.
        full = [_full(memory, node_id, name) for name in names]
        for name in dict.fromkeys(full):
            memory.delete_pattern(name, node_id)
            deleted.append(name)
    if as_json:
        output.emit({"node": node_id, "deleted": deleted})
    else:
        output.say(f"Deleted {len(deleted)} pattern{'' if len(deleted) == 1 else 's'} of node {node_id}.")


def _patterns(
    memory: target.Memory, node: str, symbol: str | None, min_frequency: int
) -> Iterator[dict[str, Any]]:
    cursor = None
    while True:
        page = memory.patterns(node, limit=PAGE, cursor=cursor, symbol=symbol, min_frequency=min_frequency)
        yield from page["patterns"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _full(memory: target.Memory, node: str, name: str) -> str:
    """The full name for one that may have been shortened, as in tables; it must fit exactly one pattern."""
    bare = name.removeprefix(PATTERN_PREFIX).lower()
    if len(bare) >= NAME_LENGTH:
        return str(memory.pattern(bare, node)["name"])
    if not bare or not set(bare) <= set(hexdigits):
        raise PatternNotFound(f"{name} is not the beginning of a pattern's name", pattern_name=name)
    # Pages begin after a name: the one just before every name that begins so.
    before = int(bare.ljust(NAME_LENGTH, "0"), 16) - 1
    cursor = None if before < 0 else f"{before:0{NAME_LENGTH}x}"
    page = memory.patterns(node, limit=2, cursor=cursor)["patterns"]
    fitting = [str(item["name"]) for item in page if _bare(item["name"]).startswith(bare)]
    if not fitting:
        raise PatternNotFound(f"node {node} has no pattern {name}", pattern_name=name)
    if len(fitting) > 1:
        raise BadRequest(f"several patterns of node {node} begin with {name}; give more of the name")
    return fitting[0]


def _bare(name: str) -> str:
    return name.removeprefix(PATTERN_PREFIX)


def _short(name: str) -> str:
    return _bare(name)[:NAME_SHOWN]
