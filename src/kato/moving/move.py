"""A move: what the source holds, whether the target can take it, everything copied and verified."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec

from kato.errors import BadRequest, NotFound
from kato.model import SessionState
from kato.moving.copying import NONE, Pair, Watch
from kato.moving.places import Access, Place, opened
from kato.moving.shelves import PatternShelf, SessionShelf, VectorShelf
from kato.moving.sides import Side

PATTERN: Final = PatternShelf.kind
VECTOR: Final = VectorShelf.kind
SESSION: Final = SessionShelf.kind
PAIRS_AT_ONCE: Final = 3
"""Each reads with two connections of either side."""


class Choice(NamedTuple):
    """What of the source is wanted: which nodes (none named: all), whether with vectors and sessions.

    `replace` overwrites patterns and sessions that the target holds with other values.
    """

    nodes: tuple[str, ...] = ()
    vectors: bool = True
    sessions: bool = True
    replace: bool = False


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What both sides now hold of one kind, and how many records of it had to be written."""

    count: int
    written: int
    digest: str


class MovedNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node that both sides now hold; None for a kind that was not moved."""

    node: str
    patterns: Moved
    vectors: Moved | None
    sessions: Moved | None


class _Stock(NamedTuple):
    """What the source holds of the wanted nodes: which of them hold patterns, vectors, sessions.

    `unlearned` is a session whose latest learn is not among the patterns yet.
    """

    nodes: list[str]
    patterns: set[str]
    vectors: set[str]
    sessions: set[str]
    unlearned: SessionState | None


async def move(
    source: Side, target: Side, choice: Choice, watch: Watch, now: float, qdrant: Access
) -> list[MovedNode]:
    """Make the target hold what the source holds of the wanted nodes, and read both to be sure; by node, ascending.

    Sessions that have expired at `now` are left out. Repeating a move writes only what is
    missing. Raises `BadRequest` before anything is written when the target has no place for something, or holds
    something of these nodes that the source does not; `NotFound` when there is nothing to move; `ConcurrencyError`
    when something else writes to one of the sides.
    """
    if source.directory and target.directory and source.directory.resolve() == target.directory.resolve():
        raise BadRequest(f"{source.option} and {target.option} name the same data directory")
    async with opened(source, existing=True, qdrant=qdrant) as place:
        here = _wanted(place, choice)
        stock = await _stock(here, choice, now, watch)
        _find_room(stock, target)
        async with opened(target, existing=False, qdrant=qdrant) as place:
            pairs = await _pairs(here, _wanted(place, choice), stock, choice, now, watch)
            await _each(chain.from_iterable(pairs.values()), Pair.compare)
            # No pattern comes before the vectors that it names.
            for kind in (VECTOR, PATTERN, SESSION):
                await _each(pairs.get(kind, ()), Pair.copy)
            await _each(chain.from_iterable(pairs.values()), Pair.verify)
            return _report(stock.nodes, pairs)


def _wanted(place: Place, choice: Choice) -> Place:
    """A place with what is chosen of it."""
    return place._replace(
        vectors=place.vectors if choice.vectors else None,
        sessions=place.sessions if choice.sessions else None,
    )


async def _stock(here: Place, choice: Choice, now: float, watch: Watch) -> _Stock:
    patterns, vectors, sessions = set(await here.patterns.nodes()), set[str](), set[str]()
    unlearned: SessionState | None = None
    if here.vectors is not None:
        vectors.update(await here.vectors.nodes())
    if here.sessions is not None:
        async for batch in SessionShelf(here.sessions, choice.nodes, now).read():
            watch.expect(SESSION, len(batch))
            sessions.update(record.node for record in batch)
            unlearned = unlearned or next((each.value for each in batch if each.value.pending), None)
    found = patterns | vectors | sessions
    for node in choice.nodes:
        if node not in found:
            raise NotFound(f"{here.side.name} holds nothing of node {node}")
    if not found:
        raise NotFound(f"{here.side.name} holds nothing")
    nodes = sorted(set(choice.nodes) or found)
    for node in nodes:
        watch.expect(PATTERN, await here.patterns.count(node))
    return _Stock(nodes, patterns, vectors.intersection(nodes), sessions, unlearned)


def _find_room(stock: _Stock, target: Side) -> None:
    """Refuse what the target has no place for."""
    if target.directory is not None:
        if stock.unlearned is not None:
            raise BadRequest(
                f"session {stock.unlearned.session_id} of node {stock.unlearned.node_id} has learned something that"
                " is not among the patterns yet; read that session once through a running instance, which completes it"
            )
        return
    for kind, nodes, place in (
        ("vectors", stock.vectors, target.vectors),
        ("sessions", stock.sessions, target.sessions),
    ):
        if nodes and place is None:
            raise BadRequest(
                f"node {min(nodes)} holds {kind} and {target.name} has no place for them;"
                f" name one with {target.option}-{kind}, or leave them behind with --without-{kind}"
            )


async def _pairs(
    here: Place, there: Place, stock: _Stock, choice: Choice, now: float, watch: Watch
) -> dict[str, list[Pair[Any]]]:
    """What is to be compared, and copied where that finds a difference, of each kind that both sides keep."""
    replace = choice.replace
    pairs: dict[str, list[Pair[Any]]] = {PATTERN: []}
    held = set(await there.patterns.nodes())
    for node in _either(stock, stock.patterns, held):
        ours, theirs = PatternShelf(here.patterns, node), PatternShelf(there.patterns, node)
        pair = Pair(ours, theirs, watch, change=theirs.change, replace=replace, blank=node not in held)
        pairs[PATTERN].append(pair)
    if here.vectors is not None and there.vectors is not None:
        held = set(await there.vectors.nodes())
        pairs[VECTOR] = [
            Pair(
                VectorShelf(here.vectors, node),
                VectorShelf(there.vectors, node),
                watch,
                blank=node not in held,
            )
            for node in _either(stock, stock.vectors, held)
        ]
    if here.sessions is not None and there.sessions is not None:
        before, after = [SessionShelf(each, stock.nodes, now) for each in (here.sessions, there.sessions)]
        pairs[SESSION] = [Pair(before, after, watch, change=after.change, replace=replace)]
    return pairs


def _either(stock: _Stock, here: set[str], there: set[str]) -> list[str]:
    """The wanted nodes that one side or the other holds something of."""
    return [node for node in stock.nodes if node in here or node in there]


async def _each(pairs: Iterable[Pair[Any]], work: Callable[[Pair[Any]], Awaitable[None]]) -> None:
    """Do the work on all pairs, some at once: most nodes are small, and then it is round trips that take the time."""
    waiting = iter(pairs)

    async def some() -> None:
        for pair in waiting:
            await work(pair)

    tasks = [asyncio.create_task(some()) for _ in range(PAIRS_AT_ONCE)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _report(nodes: list[str], pairs: Mapping[str, list[Pair[Any]]]) -> list[MovedNode]:
    moved = {
        kind: {
            node: Moved(count=figures.count, written=pair.written[node], digest=figures.digest)
            for pair in its
            for node, figures in pair.figures.items()
        }
        for kind, its in pairs.items()
    }
    nothing = Moved(count=0, written=0, digest=NONE.digest)
    return [
        MovedNode(
            node=node,
            patterns=moved[PATTERN].get(node, nothing),
            vectors=moved[VECTOR].get(node, nothing) if VECTOR in moved else None,
            sessions=moved[SESSION].get(node, nothing) if SESSION in moved else None,
        )
        for node in nodes
    ]
