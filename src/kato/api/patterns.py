"""Long-term memory, readable and editable: `/v2/patterns`."""

from __future__ import annotations

from typing import Any

from kato import errors, knowledge, validation
from kato.api.routing import Call, Route
from kato.model import Pattern
from kato.validation import OwnerQuery, PageQuery, PatternUpdate

TAG = "v2 patterns"


def _node(call: Call) -> str:
    query: OwnerQuery = call.query
    if query.user_id is not None:
        return validation.owner(query.user_id, "user_id") or ""
    return validation.owner(query.node_id, "node_id") or call.settings.base


def _shown(call: Call, found: Pattern, node_id: str) -> knowledge.PatternAnswer:
    return knowledge.node_pattern(call.kato, found, node_id)


async def page(call: Call) -> knowledge.PatternListAnswer:
    """A page of patterns."""
    query, node_id = call.query, _node(call)
    found = await call.kato.list_patterns(
        node_id, query.limit, query.cursor, query.symbol, query.min_frequency
    )
    return knowledge.patterns(found, node_id)


async def show(call: Call) -> knowledge.PatternAnswer:
    """One pattern."""
    node_id = _node(call)
    return _shown(call, await call.kato.get_pattern(node_id, call.parameters[0]), node_id)


async def update(call: Call, body: PatternUpdate) -> knowledge.PatternAnswer:
    """Change a pattern."""
    node_id = _node(call)
    changed = await call.kato.update_pattern(
        node_id, call.parameters[0], frequency=body.frequency, emotives=body.emotives
    )
    return _shown(call, changed, node_id)


async def delete(call: Call) -> knowledge.PatternDeletedAnswer:
    """Remove a pattern."""
    node_id = _node(call)
    bare = await call.kato.delete_pattern(node_id, call.parameters[0])
    return knowledge.pattern_deleted(bare, node_id)


def routes() -> list[Route]:
    """List, show, change, remove."""
    one = "/v2/patterns/{pattern_id}"
    missing: dict[str, Any] = {"tag": TAG, "query": OwnerQuery, "errors": (errors.PatternNotFound,)}
    return [
        Route(
            method="GET",
            path="/v2/patterns",
            handler=page,
            answers=(knowledge.PatternListAnswer,),
            summary="List the patterns of a node",
            tag=TAG,
            query=PageQuery,
        ),
        Route(
            method="GET",
            path=one,
            handler=show,
            answers=(knowledge.PatternAnswer,),
            summary="Show a pattern",
            **missing,
        ),
        *(
            Route(
                method=method,
                path=one,
                handler=update,
                answers=(knowledge.PatternAnswer,),
                summary="Change the frequency or the emotives of a pattern",
                request=PatternUpdate,
                **missing,
            )
            for method in ("PUT", "PATCH")
        ),
        Route(
            method="DELETE",
            path=one,
            handler=delete,
            answers=(knowledge.PatternDeletedAnswer,),
            summary="Remove a pattern and all its influence",
            **missing,
        ),
    ]
