"""What clients read of long-term memory: patterns, symbols, affinities; the wire shapes of all vocabularies."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET

from kato import model
from kato.answers import Answer, Stale
from kato.results import PatternPage
from kato.service import Kato


class PatternBody(Answer, frozen=True, kw_only=True):
    """A learned pattern; emotives are the window of the latest observations, or what an update wrote."""

    name: str
    pattern_data: model.Events
    length: int
    frequency: int
    emotives: tuple[model.Emotives, ...] | dict[str, tuple[float, ...]]
    metadata: dict[str, tuple[str, ...]]


class PatternFound(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A pattern with a status, or the message that there is none."""

    status: str
    pattern: PatternBody | None = None
    message: str | None = None


class NodePatternAnswer(Answer, frozen=True, kw_only=True):
    """A pattern of a node, or that it has none of that name."""

    pattern: PatternFound
    node_id: str


class PatternListAnswer(Answer, frozen=True, kw_only=True):
    """A page of patterns in ascending order of name; `total` counts all of the node."""

    patterns: tuple[PatternBody, ...]
    count: int
    total: int
    next_cursor: str | None
    user_id: str
    node_id: str
    stale: Stale = UNSET


class PatternAnswer(Answer, frozen=True, kw_only=True):
    """A pattern and whose it is."""

    pattern: PatternBody
    user_id: str
    node_id: str
    processor_id: str


class PatternDeletedAnswer(Answer, frozen=True, kw_only=True):
    """The pattern and all its influence are gone."""

    status: str
    pattern_name: str
    user_id: str
    node_id: str


class SymbolsAnswer(Answer, frozen=True, kw_only=True):
    """Every symbol the node has learned."""

    symbols: dict[str, model.SymbolStatistics]
    node_id: str
    stale: Stale = UNSET


class AffinitiesAnswer(Answer, frozen=True, kw_only=True):
    """The affinity of every symbol that has one."""

    affinities: dict[str, model.Emotives]
    node_id: str
    stale: Stale = UNSET


class AffinityAnswer(Answer, frozen=True, kw_only=True):
    """The summed emotives of one symbol."""

    symbol: str
    affinity: model.Emotives
    node_id: str
    stale: Stale = UNSET


# From results ---------------------------------------------------------------------------------------------


def pattern(found: model.Pattern) -> PatternBody:
    """A pattern with its full name."""
    return PatternBody(
        name=model.PATTERN_PREFIX + found.name,
        pattern_data=found.events,
        length=found.length,
        frequency=found.frequency,
        emotives=found.emotives,
        metadata=found.metadata,
    )


def pattern_found(found: model.Pattern | None, asked: str, node_id: str) -> NodePatternAnswer:
    """A pattern the way v3 shows it: one that is not there is no error."""
    inner = (
        PatternFound(status="error", message=f"Pattern {asked} not found")
        if found is None
        else PatternFound(status="okay", pattern=pattern(found))
    )
    return NodePatternAnswer(pattern=inner, node_id=node_id)


def patterns(page: PatternPage, node_id: str) -> PatternListAnswer:
    """A page of patterns."""
    return PatternListAnswer(
        patterns=tuple(pattern(found) for found in page.patterns),
        count=len(page.patterns),
        total=page.total,
        next_cursor=page.cursor,
        user_id=node_id,
        node_id=node_id,
        stale=page.stale or UNSET,
    )


def node_pattern(kato: Kato, found: model.Pattern, node_id: str) -> PatternAnswer:
    """A pattern and whose it is."""
    return PatternAnswer(
        pattern=pattern(found), user_id=node_id, node_id=node_id, processor_id=kato.processor_id(node_id)
    )


def pattern_deleted(bare: str, node_id: str) -> PatternDeletedAnswer:
    """The answer to a removal, by the bare name."""
    return PatternDeletedAnswer(
        status="deleted", pattern_name=model.PATTERN_PREFIX + bare, user_id=node_id, node_id=node_id
    )


def symbols(node_id: str, found: Sequence[model.SymbolStatistics], stale: bool) -> SymbolsAnswer:
    """Symbol statistics by symbol."""
    by_name = {figures.name: figures for figures in found}
    return SymbolsAnswer(symbols=by_name, node_id=node_id, stale=stale or UNSET)


def affinities(node_id: str, found: dict[str, model.Emotives], stale: bool) -> AffinitiesAnswer:
    """The affinities of all symbols."""
    return AffinitiesAnswer(affinities=found, node_id=node_id, stale=stale or UNSET)


def affinity(node_id: str, symbol: str, found: model.Emotives, stale: bool) -> AffinityAnswer:
    """The affinity of one symbol."""
    return AffinityAnswer(symbol=symbol, affinity=found, node_id=node_id, stale=stale or UNSET)
