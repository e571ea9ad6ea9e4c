"""Calls answered inside the process: decoded and checked as HTTP does it, carried out, encoded alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import msgspec

from kato import answers, knowledge, validation
from kato.answers import Answer
from kato.service import Kato
from kato.verbs.calls import Call

T = TypeVar("T")

EXTENSION = 3600
Handler: TypeAlias = Callable[[Kato, Call[Any]], Awaitable[Answer]]

_encode = msgspec.json.Encoder().encode
_observation = validation.decoder(validation.ObservationRequest)
_batch = validation.decoder(validation.BatchRequest)
_new_session = validation.decoder(validation.NodeSessionRequest)
_new_base_session = validation.decoder(validation.SessionRequest)
_parameters = validation.decoder(dict[str, Any])
_extension = validation.decoder(validation.ExtendRequest)
_pattern_update = validation.decoder(validation.PatternUpdate)


async def answer(kato: Kato, call: Call[Any]) -> bytes:
    """The JSON of the answer to a call; raises `kato.errors`."""
    return _encode(await HANDLERS[call.verb](kato, call))


def _id(call: Call[Any]) -> str:
    return call.path["session_id"]


def _body(kato: Kato, call: Call[Any], decode: Callable[[bytes], T]) -> T:
    body = call.body or b""
    validation.check_size(len(body), kato.settings.max_request_size)
    return decode(body)


def _key(call: Call[Any]) -> str | None:
    return validation.idempotency_key(None if call.key is None else call.key.encode())


def _node(kato: Kato, query: validation.OwnerQuery) -> str:
    return validation.owner(query.node_id, "node_id") or kato.settings.base


def _asked_node(kato: Kato, call: Call[Any]) -> str:
    return _node(kato, validation.query(validation.OwnerQuery, dict(call.query)))


# Sessions ---------------------------------------------------------------------------------------------------


async def _create_session(kato: Kato, call: Call[Any]) -> Answer:
    body = _body(kato, call, _new_session)
    return await _create(kato, validation.owner(body.node_id, "node_id"), body)


async def _create_base_session(kato: Kato, call: Call[Any]) -> Answer:
    return await _create(kato, None, _body(kato, call, _new_base_session))


async def _create(
    kato: Kato, node_id: str | None, body: validation.SessionRequest | validation.NodeSessionRequest
) -> Answer:
    state = await kato.create_session(
        node_id,
        metadata=validation.session_metadata(body.metadata),
        ttl_seconds=body.ttl_seconds,
        config=validation.unwrapped(body.config or {}, "config"),
    )
    return answers.session(kato, state)


async def _sessions(kato: Kato, call: Call[Any]) -> Answer:
    query = validation.query(validation.ListQuery, dict(call.query))
    page = await kato.list_sessions(query.limit, query.cursor, query.node_id, query.include_expired)
    return answers.sessions(kato, page)


async def _count_sessions(kato: Kato, _call: Call[Any]) -> Answer:
    return answers.SessionCountAnswer(active_session_count=await kato.count_sessions())


async def _info(kato: Kato, call: Call[Any]) -> Answer:
    return answers.session(kato, await kato.session(_id(call)))


async def _exists(kato: Kato, call: Call[Any]) -> Answer:
    return answers.existence(_id(call), await kato.exists(_id(call)))


async def _extend(kato: Kato, call: Call[Any]) -> Answer:
    body = _body(kato, call, _extension)
    return answers.extended(await kato.extend(_id(call), body.ttl_seconds or EXTENSION))


async def _delete(kato: Kato, call: Call[Any]) -> Answer:
    await kato.delete_session(_id(call))
    return answers.DeletedAnswer(status="deleted", session_id=_id(call))


async def _config(kato: Kato, call: Call[Any]) -> Answer:
    return answers.config(kato, await kato.session(_id(call)))


async def _configure(kato: Kato, call: Call[Any]) -> Answer:
    values = validation.unwrapped(_body(kato, call, _parameters), "config")
    return answers.configured(await kato.configure(_id(call), values))


# Observing, learning, predicting ----------------------------------------------------------------------------


async def _observe(kato: Kato, call: Call[Any]) -> Answer:
    shown = validation.observation(_body(kato, call, _observation))
    return answers.observed(kato, await kato.observe(_id(call), shown, _key(call)))


async def _observe_sequence(kato: Kato, call: Call[Any]) -> Answer:
    batch = validation.batch(_body(kato, call, _batch), kato.settings.endpoint_batch_size_limit)
    return answers.sequence(kato, await kato.observe_sequence(_id(call), batch, _key(call)))


async def _learn(kato: Kato, call: Call[Any]) -> Answer:
    return answers.learned(kato, await kato.learn(_id(call), _key(call)))


async def _stm(kato: Kato, call: Call[Any]) -> Answer:
    return answers.stm(await kato.session(_id(call)))


async def _clear_stm(kato: Kato, call: Call[Any]) -> Answer:
    return answers.cleared(await kato.clear_stm(_id(call)), "stm")


async def _clear_all(kato: Kato, call: Call[Any]) -> Answer:
    return answers.cleared(await kato.clear_all(_id(call)), "all")


async def _predictions(kato: Kato, call: Call[Any]) -> Answer:
    query = validation.query(validation.PredictionsQuery, dict(call.query))
    found, state = await kato.predictions(_id(call), query.unique_id)
    return answers.predictions(found, state, query.limit)


async def _percept_data(kato: Kato, call: Call[Any]) -> Answer:
    return answers.percept(*await kato.percept_data(_id(call)))


async def _cognition_data(kato: Kato, call: Call[Any]) -> Answer:
    return answers.cognition(*await kato.cognition_data(_id(call)))


async def _finalize_training(kato: Kato, call: Call[Any]) -> Answer:
    return answers.finalized(*await kato.finalize_training(_id(call)))


# Long-term memory -------------------------------------------------------------------------------------------


async def _patterns(kato: Kato, call: Call[Any]) -> Answer:
    query = validation.query(validation.PageQuery, dict(call.query))
    node = _node(kato, query)
    page = await kato.list_patterns(node, query.limit, query.cursor, query.symbol, query.min_frequency)
    return knowledge.patterns(page, node)


async def _pattern(kato: Kato, call: Call[Any]) -> Answer:
    node = _asked_node(kato, call)
    return knowledge.node_pattern(kato, await kato.get_pattern(node, call.path["pattern_id"]), node)


async def _update_pattern(kato: Kato, call: Call[Any]) -> Answer:
    node, body = _asked_node(kato, call), _body(kato, call, _pattern_update)
    changed = await kato.update_pattern(
        node, call.path["pattern_id"], frequency=body.frequency, emotives=body.emotives
    )
    return knowledge.node_pattern(kato, changed, node)


async def _delete_pattern(kato: Kato, call: Call[Any]) -> Answer:
    node = _asked_node(kato, call)
    return knowledge.pattern_deleted(await kato.delete_pattern(node, call.path["pattern_id"]), node)


async def _symbols(kato: Kato, call: Call[Any]) -> Answer:
    node = _asked_node(kato, call)
    return knowledge.symbols(node, *await kato.symbol_statistics(node))


async def _affinities(kato: Kato, call: Call[Any]) -> Answer:
    node = _asked_node(kato, call)
    return knowledge.affinities(node, *await kato.affinities(node))


async def _affinity(kato: Kato, call: Call[Any]) -> Answer:
    node, symbol = _asked_node(kato, call), call.path["symbol"]
    return knowledge.affinity(node, symbol, *await kato.affinity(node, symbol))


HANDLERS: dict[str, Handler] = {
    "create_session": _create_session,
    "create_base_session": _create_base_session,
    "sessions": _sessions,
    "count_sessions": _count_sessions,
    "info": _info,
    "exists": _exists,
    "extend": _extend,
    "delete": _delete,
    "config": _config,
    "configure": _configure,
    "observe": _observe,
    "observe_sequence": _observe_sequence,
    "learn": _learn,
    "stm": _stm,
    "clear_stm": _clear_stm,
    "clear_all": _clear_all,
    "predictions": _predictions,
    "percept_data": _percept_data,
    "cognition_data": _cognition_data,
    "finalize_training": _finalize_training,
    "patterns": _patterns,
    "pattern": _pattern,
    "update_pattern": _update_pattern,
    "delete_pattern": _delete_pattern,
    "symbols": _symbols,
    "affinities": _affinities,
    "affinity": _affinity,
}
"""Who answers which verb."""
