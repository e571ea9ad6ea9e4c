"""A move: what the source holds, whether the target can take it, everything copied and verified."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from kato.errors import BadRequest, NotFound
from kato.model import SessionState
from kato.moving.copying import NONE, Pair, Watch
from kato.moving.places import Place, opened
from kato.moving.shelves import PatternShelf, SessionShelf, VectorShelf
from kato.moving.sides import Side

PATTERN: Final = PatternShelf.kind
VECTOR: Final = VectorShelf.kind
SESSION: Final = SessionShelf.kind


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
    source: Side, target: Side, choice: Choice, watch: Watch, now: float, api_key: str | None = None
) -> list[MovedNode]:
    """Make the target hold what the source holds of the wanted nodes, and read both to be sure; by node, ascending.

    Sessions that have expired at `now` are left out. `api_key` is Qdrant's. Repeating a move writes only what is
    missing. Raises `BadRequest` before anything is written when the target has no place for something, or holds
    something of these nodes that the source does not; `NotFound` when there is nothing to move; `ConcurrencyError`
    when something else writes to one of the sides.
    """
    if source.directory and target.directory and source.directory.resolve() == target.directory.resolve():
        raise BadRequest(f"{source.option} and {target.option} name the same data directory")
    async with opened(source, existing=True, api_key=api_key) as place:
        here = _wanted(place, choice)
        stock = await _stock(here, choice, now, watch)
        _find_room(stock, target)
        async with opened(target, existing=False, api_key=api_key) as place:
            pairs = await _pairs(here, _wanted(place, choice), stock, choice, now, watch)
            # The order of copying: no pattern comes before the vectors it names.
            ordered = [pair for kind in (VECTOR, PATTERN, SESSION) for pair in pairs.get(kind, ())]
            for pair in ordered:
                await pair.compare()
            unequal = [pair for pair in ordered if not pair.agree]
            for pair in unequal:
                await pair.copy()
            for pair in unequal:
                await pair.verify()
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
    pairs: dict[str, list[Pair[Any]]] = {PATTERN: []}
    for node in _either(stock, stock.patterns, await there.patterns.nodes()):
        source, target = PatternShelf(here.patterns, node), PatternShelf(there.patterns, node)
        pairs[PATTERN].append(Pair(source, target, target.change if choice.replace else None, watch))
    if here.vectors is not None and there.vectors is not None:
        nodes = _either(stock, stock.vectors, await there.vectors.nodes())
        pairs[VECTOR] = [
            Pair(VectorShelf(here.vectors, node), VectorShelf(there.vectors, node), None, watch)
            for node in nodes
        ]
    if here.sessions is not None and there.sessions is not None:
        before, after = [SessionShelf(each, stock.nodes, now) for each in (here.sessions, there.sessions)]
        pairs[SESSION] = [Pair(before, after, after.change if choice.replace else None, watch)]
    return pairs


def _either(stock: _Stock, here: Collection[str], there: Iterable[str]) -> list[str]:
    """The wanted nodes that one side or the other holds something of."""
    found = {*here, *there}
    return [node for node in stock.nodes if node in found]


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
