"""The v1 vocabulary: no session in the path, every path also below `/v1`.

The session of a call is the one its `X-Session-ID` header names, else its `session_id` cookie, else the
instance's one default session. A session that is named but unknown is an error: falling back would mix users.
"""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import Any

import msgspec
from msgspec import UNSET

from kato import answers, errors, knowledge, validation
from kato.answers import Stale, Warnings
from kato.api import v3
from kato.api.routing import Call, Handler, Route
from kato.engine import configuration
from kato.model import Events, Observation, Prediction, Predictions
from kato.results import Batch
from kato.service import Kato
from kato.validation import BatchRequest, ObservationRequest

TAG = "v1"
READ_ONLY_GENES = ("indexer_type", "id", "name")
PREDICTIONS_LEFT_OUT = (
    "final_predictions were left out: they cannot be had at the moment, ask for predictions later"
)


class V1Answer(answers.Answer, frozen=True, kw_only=True):
    """Base: every v1 answer says which processor and which session it is about."""

    processor_id: str
    session_id: str


class V1Observed(V1Answer, frozen=True, kw_only=True):
    """What one observation did; `warnings` say what of it was left out because a server did not answer."""

    status: str
    auto_learned_pattern: str | None
    time: int
    unique_id: str
    warnings: Warnings = UNSET


class V1Sequence(V1Answer, frozen=True, kw_only=True):
    """What a batch did, and what its end resembles; `stale` and `warnings` as in the single answers."""

    status: str
    observations_processed: int
    patterns_learned: tuple[str, ...]
    individual_results: tuple[V1Observed, ...]
    final_predictions: tuple[Prediction, ...]
    stale: Stale = UNSET
    warnings: Warnings = UNSET


class V1Stm(V1Answer, frozen=True, kw_only=True):
    """The short-term memory, oldest event first."""

    stm: Events


class V1Learned(V1Answer, frozen=True, kw_only=True):
    """The learned pattern; an empty name when the STM held too little."""

    pattern_name: str
    message: str


class V1Done(V1Answer, frozen=True, kw_only=True):
    """Something was done."""

    status: str
    message: str


class V1Predictions(V1Answer, frozen=True, kw_only=True):
    """Ranked predictions, best first; `stale` is true when they may lack what was learned elsewhere."""

    predictions: tuple[Prediction, ...]
    stale: Stale = UNSET


class V1Percept(V1Answer, frozen=True, kw_only=True):
    """What was perceived last."""

    percept_data: dict[str, Any]


class V1Cognition(V1Answer, frozen=True, kw_only=True):
    """What is made of it."""

    cognition_data: dict[str, Any]


class V1Pattern(V1Answer, frozen=True, kw_only=True):
    """A learned pattern."""

    pattern: knowledge.PatternBody


class V1Gene(V1Answer, frozen=True, kw_only=True):
    """The value of a gene."""

    gene_name: str
    gene_value: Any


class V1PredictionsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """With `unique_id`: of the STM right after that observation."""

    unique_id: str | None = None


# The verbs, for HTTP and for the command socket -----------------------------------------------------------


async def observe(
    kato: Kato, session_id: str, observation: Observation, key: str | None = None
) -> V1Observed:
    """Show one observation."""
    seen = await kato.observe(session_id, observation, key)
    return V1Observed(
        status="okay",
        processor_id=kato.processor_id(seen.node_id),
        session_id=session_id,
        auto_learned_pattern=seen.auto_learned_pattern,
        time=seen.time,
        unique_id=seen.unique_id,
        warnings=seen.warnings or UNSET,
    )


async def observe_sequence(kato: Kato, session_id: str, batch: Batch, key: str | None = None) -> V1Sequence:
    """Show many observations and predict from the end of them."""
    seen = await kato.observe_sequence(session_id, batch, key)
    processor_id = kato.processor_id(seen.node_id)
    final, warnings = Predictions(), seen.warnings
    if seen.final_stm_length:
        try:
            final, _ = await kato.predictions(session_id)
        except (errors.StorageError, errors.ServiceUnavailable) as error:
            if not error.retry_helps:
                raise
            # The batch is done: who was told that it failed would show it again.
            warnings = (*warnings, PREDICTIONS_LEFT_OUT)
    return V1Sequence(
        status="okay",
        processor_id=processor_id,
        session_id=session_id,
        observations_processed=len(seen.results),
        patterns_learned=seen.patterns,
        individual_results=tuple(
            V1Observed(
                status="okay",
                processor_id=processor_id,
                session_id=session_id,
                auto_learned_pattern=item.auto_learned_pattern,
                time=item.time,
                unique_id=item.unique_id,
                warnings=item.warnings or UNSET,
            )
            for item in seen.results
        ),
        final_predictions=final.predictions,
        stale=final.stale or UNSET,
        warnings=warnings or UNSET,
    )


async def stm(kato: Kato, session_id: str) -> V1Stm:
    """The short-term memory."""
    state = await kato.session(session_id)
    return V1Stm(stm=state.stm, processor_id=kato.processor_id(state.node_id), session_id=session_id)


async def learn(kato: Kato, session_id: str, key: str | None = None) -> V1Learned:
    """Make a pattern of the STM; too little in it is no error here."""
    learned = await kato.learn(session_id, key, refuse_empty=False)
    return V1Learned(
        pattern_name=learned.pattern_name,
        processor_id=kato.processor_id(learned.node_id),
        session_id=session_id,
        message=answers.learn_message(learned.pattern_name),
    )


async def clear_stm(kato: Kato, session_id: str) -> V1Done:
    """Empty the STM."""
    return _done(kato, "stm-cleared", await kato.clear_stm(session_id))


async def clear_all(kato: Kato, session_id: str) -> V1Done:
    """Forget everything of the session's node."""
    return _done(kato, "all-cleared", await kato.clear_all(session_id))


async def predictions(kato: Kato, session_id: str, unique_id: str | None = None) -> V1Predictions:
    """What the STM resembles."""
    found, state = await kato.predictions(session_id, unique_id)
    return V1Predictions(
        predictions=found.predictions,
        processor_id=kato.processor_id(state.node_id),
        session_id=session_id,
        stale=found.stale or UNSET,
    )


def _done(kato: Kato, message: str, state: Any) -> V1Done:
    return V1Done(
        status="okay",
        message=message,
        processor_id=kato.processor_id(state.node_id),
        session_id=state.session_id,
    )


# The session of a call ------------------------------------------------------------------------------------


def named_session(call: Call) -> str | None:
    """The session a call names by header or cookie."""
    header = call.headers.get(b"x-session-id")
    if header is not None:
        return header.decode("latin-1")
    cookies = call.headers.get(b"cookie")
    if cookies is None or b"session_id" not in cookies:
        return None
    try:
        cookie = SimpleCookie(cookies.decode("latin-1")).get("session_id")
    except CookieError:
        return None
    return None if cookie is None else cookie.value


async def choose_session(call: Call) -> str:
    """The session of a call, the default one if it names none."""
    call.session_id = named_session(call) or await call.kato.default_session()
    return call.session_id


# HTTP -----------------------------------------------------------------------------------------------------


async def _observe(call: Call, body: ObservationRequest) -> V1Observed:
    return await observe(call.kato, await choose_session(call), validation.observation(body), call.key)


async def _observe_sequence(call: Call, body: BatchRequest) -> V1Sequence:
    batch = validation.batch(body, call.settings.endpoint_batch_size_limit)
    return await observe_sequence(call.kato, await choose_session(call), batch, call.key)


async def _stm(call: Call) -> V1Stm:
    return await stm(call.kato, await choose_session(call))


async def _learn(call: Call) -> V1Learned:
    return await learn(call.kato, await choose_session(call), call.key)


async def _clear_stm(call: Call) -> V1Done:
    return await clear_stm(call.kato, await choose_session(call))


async def _clear_all(call: Call) -> V1Done:
    return await clear_all(call.kato, await choose_session(call))


async def _predictions(call: Call) -> V1Predictions:
    return await predictions(call.kato, await choose_session(call), call.query.unique_id)


async def _percept_data(call: Call) -> V1Percept:
    data, state = await call.kato.percept_data(await choose_session(call))
    return V1Percept(
        percept_data=data, processor_id=call.kato.processor_id(state.node_id), session_id=state.session_id
    )


async def _cognition_data(call: Call) -> V1Cognition:
    data, state = await call.kato.cognition_data(await choose_session(call))
    return V1Cognition(
        cognition_data=data, processor_id=call.kato.processor_id(state.node_id), session_id=state.session_id
    )


async def _pattern(call: Call) -> V1Pattern | knowledge.NodePatternAnswer:
    node_id = v3.named_node(call) if call.settings.enable_v2_features else None
    if node_id is not None:
        return await v3.pattern(call, node_id)
    state = await call.kato.session(await choose_session(call))
    found = await call.kato.get_pattern(state.node_id, call.parameters[0])
    return V1Pattern(
        pattern=knowledge.pattern(found),
        processor_id=call.kato.processor_id(state.node_id),
        session_id=state.session_id,
    )


async def _update_genes(call: Call, body: dict[str, Any]) -> V1Done:
    genes = validation.unwrapped(body, "genes")
    call.session_id = named_session(call) or ""
    state = await call.kato.update_genes(call.session_id or None, genes)
    call.session_id = state.session_id
    return _done(call.kato, "genes-updated", state)


async def _gene(call: Call) -> V1Gene:
    name, kato = call.parameters[0], call.kato
    state = await kato.session(await choose_session(call))
    config = kato.configuration(state)
    read_only = {
        "indexer_type": config.indexer_type,
        "id": kato.settings.processor_id,
        "name": kato.settings.processor_name,
    }
    if name not in read_only and name not in configuration.GENES:
        raise errors.GeneNotFound(f"No gene is called {name}", gene_name=name)
    value = read_only[name] if name in read_only else configuration.gene_value(name, config, state.config)
    return V1Gene(
        gene_name=name,
        gene_value=value,
        processor_id=kato.processor_id(state.node_id),
        session_id=state.session_id,
    )


def routes() -> list[Route]:
    """The v1 surface, unprefixed and below /v1."""
    return [route for prefix in ("", "/v1") for route in _routes(prefix)]


def _routes(prefix: str) -> list[Route]:
    def route(method: str, path: str, handler: Handler, answer: Any, summary: str, **more: Any) -> Route:
        return Route(
            method=method,
            path=prefix + path,
            handler=handler,
            answers=answer if isinstance(answer, tuple) else (answer,),
            summary=summary,
            tag=TAG,
            sessioned=True,
            **more,
        )

    changes = (errors.ConcurrencyError, errors.ResourceExhausted)
    prediction: dict[str, Any] = {
        "query": V1PredictionsQuery,
        "summary": "What the short-term memory resembles",
    }
    return [
        route(
            "POST",
            "/observe",
            _observe,
            V1Observed,
            "Show one observation",
            request=ObservationRequest,
            keyed=True,
            errors=(errors.VectorDimensionError, *changes),
        ),
        route(
            "POST",
            "/observe-sequence",
            _observe_sequence,
            V1Sequence,
            "Show many observations, all or none",
            request=BatchRequest,
            keyed=True,
            batch=True,
            errors=(errors.VectorDimensionError, *changes),
        ),
        *(
            route("GET", path, _stm, V1Stm, "The short-term memory")
            for path in ("/stm", "/short-term-memory")
        ),
        route("POST", "/learn", _learn, V1Learned, "Make a pattern of the STM", keyed=True, errors=changes),
        *(
            route("POST", path, _clear_stm, V1Done, "Empty the short-term memory")
            for path in ("/clear-stm", "/clear-short-term-memory")
        ),
        *(
            route("POST", path, _clear_all, V1Done, "Forget everything")
            for path in ("/clear-all", "/clear-all-memory")
        ),
        *(
            route(method, "/predictions", _predictions, V1Predictions, **prediction)
            for method in ("GET", "POST")
        ),
        route("GET", "/percept-data", _percept_data, V1Percept, "What was perceived last"),
        route("GET", "/cognition-data", _cognition_data, V1Cognition, "What is made of it"),
        route(
            "GET",
            "/pattern/{pattern_id}",
            _pattern,
            (V1Pattern, knowledge.NodePatternAnswer),
            "A pattern; with node_id (or a node header) in the v3 form, where an unknown one is no error",
            query=v3.NodeQuery,
            node_headers=True,
            errors=(errors.PatternNotFound,),
        ),
        route(
            "POST",
            "/genes/update",
            _update_genes,
            V1Done,
            "Set genes, all or none",
            request=dict[str, Any],
            errors=(errors.UnknownGene, errors.ConfigurationInvalid),
        ),
        route("GET", "/gene/{gene_name}", _gene, V1Gene, "One gene", errors=(errors.GeneNotFound,)),
    ]
