"""The v3 vocabulary: `/sessions` and `/symbols`, owners are called `node_id` and must be given."""

from __future__ import annotations

import msgspec

from kato import knowledge, validation
from kato.api import sessions
from kato.api.routing import Call, Route
from kato.errors import PatternNotFound
from kato.validation import NodeSessionRequest, OwnerId

VOCABULARY = sessions.Vocabulary(
    prefix="/sessions", tag="v3 sessions", observed="okay", creation=NodeSessionRequest
)
DEFAULT_NODE = "default_node"
TEST_PREFIX = "test_"


class NodeQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The node asked about; without it, the headers `X-Test-ID` and `X-Node-ID` count."""

    node_id: OwnerId | None = None


def named_node(call: Call) -> str | None:
    """The node a request names: query, `X-Test-ID` (prefixed `test_`), `X-Node-ID`."""
    if call.query.node_id is not None:
        return validation.owner(call.query.node_id, "node_id")
    test = call.header(b"x-test-id")
    if test is not None:
        return validation.owner(TEST_PREFIX + test, "X-Test-ID")
    return validation.owner(call.header(b"x-node-id"), "X-Node-ID")


def _node(call: Call) -> str:
    return named_node(call) or DEFAULT_NODE


async def pattern(call: Call, node_id: str) -> knowledge.NodePatternAnswer:
    """A pattern; one that is not there is an answer, not an error."""
    asked = call.parameters[0]
    try:
        found = await call.kato.get_pattern(node_id, asked)
    except PatternNotFound:
        return knowledge.pattern_found(None, asked, node_id)
    return knowledge.pattern_found(found, asked, node_id)


async def symbols(call: Call) -> knowledge.SymbolsAnswer:
    """Frequencies of all symbols."""
    node_id = _node(call)
    return knowledge.symbols(node_id, *await call.kato.symbol_statistics(node_id))


async def affinities(call: Call) -> knowledge.AffinitiesAnswer:
    """Affinities of all symbols."""
    node_id = _node(call)
    return knowledge.affinities(node_id, *await call.kato.affinities(node_id))


async def affinity(call: Call) -> knowledge.AffinityAnswer:
    """Affinity of one symbol."""
    node_id, symbol = _node(call), call.parameters[0]
    return knowledge.affinity(node_id, symbol, *await call.kato.affinity(node_id, symbol))


def routes() -> list[Route]:
    """Sessions and symbols."""
    symbol_routes = (
        ("/symbols/stats", symbols, knowledge.SymbolsAnswer, "Frequencies of all symbols of a node"),
        ("/symbols/affinity", affinities, knowledge.AffinitiesAnswer, "Affinities of all symbols of a node"),
        ("/symbols/{symbol}/affinity", affinity, knowledge.AffinityAnswer, "Affinity of one symbol"),
    )
    return [
        *sessions.routes(VOCABULARY),
        *(
            Route(
                method="GET",
                path=path,
                handler=handler,
                answers=(answer,),
                summary=summary,
                tag="v3 symbols",
                query=NodeQuery,
                node_headers=True,
            )
            for path, handler, answer, summary in symbol_routes
        ),
    ]
