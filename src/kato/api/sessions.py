"""The session surface: one set of handlers, spoken in two vocabularies (v2 and v3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from kato import answers, errors, validation
from kato.api.routing import Call, Route
from kato.validation import (
    BatchRequest,
    ExtendQuery,
    ExtendRequest,
    ListQuery,
    NodeSessionRequest,
    ObservationRequest,
    PredictionsQuery,
    SessionRequest,
)

EXTENSION = 3600


@dataclass(frozen=True)
class Vocabulary:
    """What differs between the session surfaces: where they are, and their words."""

    prefix: str
    tag: str
    observed: str
    creation: type[SessionRequest] | type[NodeSessionRequest]


async def create(call: Call, body: SessionRequest | NodeSessionRequest) -> answers.SessionAnswer:
    """Open a session."""
    named = body.node_id if isinstance(body, NodeSessionRequest) else body.user_id
    field = "node_id" if isinstance(body, NodeSessionRequest) else "user_id"
    state = await call.kato.create_session(
        validation.owner(named, field),
        metadata=validation.session_metadata(body.metadata),
        ttl_seconds=body.ttl_seconds,
        config=validation.unwrapped(body.config or {}, "config"),
    )
    call.session_id = state.session_id
    return answers.session(call.kato, state)


async def create_default(call: Call, body: SessionRequest | None) -> answers.SessionAnswer:
    """Open a session; without a body, on the instance's own memory."""
    return await create(call, body or SessionRequest())


async def list_all(call: Call) -> answers.SessionListAnswer:
    """A page of sessions."""
    query: ListQuery = call.query
    owner = validation.owner(query.node_id, "node_id") or validation.owner(query.user_id, "user_id")
    page = await call.kato.list_sessions(query.limit, query.cursor, owner, query.include_expired)
    return answers.sessions(call.kato, page)


async def count(call: Call) -> answers.SessionCountAnswer:
    """How many sessions are alive."""
    return answers.SessionCountAnswer(active_session_count=await call.kato.count_sessions())


async def show(call: Call) -> answers.SessionAnswer:
    """One session."""
    return answers.session(call.kato, await call.kato.session(call.session_id))


async def delete(call: Call) -> answers.DeletedAnswer:
    """End a session."""
    await call.kato.delete_session(call.session_id)
    return answers.DeletedAnswer(status="deleted", session_id=call.session_id)


async def extend(call: Call, body: ExtendRequest | None) -> answers.ExtendedAnswer:
    """Prolong a session; the query wins over the body."""
    seconds = call.query.ttl_seconds or (body and body.ttl_seconds) or EXTENSION
    return answers.extended(await call.kato.extend(call.session_id, seconds))


async def exists(call: Call) -> answers.ExistsAnswer:
    """Look without prolonging."""
    return answers.existence(call.session_id, await call.kato.exists(call.session_id))


async def config(call: Call) -> answers.ConfigAnswer:
    """The configuration in force."""
    return answers.config(call.kato, await call.kato.session(call.session_id))


async def configure(call: Call, body: dict[str, Any]) -> answers.ConfiguredAnswer:
    """Set configuration values, all or none."""
    return answers.configured(
        await call.kato.configure(call.session_id, validation.unwrapped(body, "config"))
    )


async def observe(word: str, call: Call, body: ObservationRequest) -> answers.ObserveAnswer:
    """Show one observation."""
    result = await call.kato.observe(call.session_id, validation.observation(body), call.key)
    return answers.observed(call.kato, result, word)


async def observe_sequence(word: str, call: Call, body: BatchRequest) -> answers.SequenceAnswer:
    """Show many observations."""
    batch = validation.batch(body, call.settings.endpoint_batch_size_limit)
    return answers.sequence(
        call.kato, await call.kato.observe_sequence(call.session_id, batch, call.key), word
    )


async def stm(call: Call) -> answers.StmAnswer:
    """The short-term memory."""
    return answers.stm(await call.kato.session(call.session_id))


async def learn(call: Call) -> answers.LearnAnswer:
    """Make a pattern of the STM."""
    return answers.learned(call.kato, await call.kato.learn(call.session_id, call.key))


async def clear_stm(call: Call) -> answers.ClearAnswer:
    """Empty the STM."""
    return answers.cleared(await call.kato.clear_stm(call.session_id), "stm")


async def clear_all(call: Call) -> answers.ClearAnswer:
    """Forget everything of the session's node."""
    return answers.cleared(await call.kato.clear_all(call.session_id), "all")


async def predictions(call: Call) -> answers.PredictionsAnswer:
    """What the STM resembles."""
    found, state = await call.kato.predictions(call.session_id, call.query.unique_id)
    return answers.predictions(found, state, call.query.limit)


async def percept_data(call: Call) -> answers.PerceptAnswer:
    """What was perceived last."""
    return answers.percept(*await call.kato.percept_data(call.session_id))


async def cognition_data(call: Call) -> answers.CognitionAnswer:
    """What the session makes of it."""
    return answers.cognition(*await call.kato.cognition_data(call.session_id))


async def finalize_training(call: Call) -> answers.FinalizedAnswer:
    """Show whole-pattern figures from now on."""
    return answers.finalized(*await call.kato.finalize_training(call.session_id))


def routes(vocabulary: Vocabulary) -> list[Route]:
    """The session surface in one vocabulary."""
    tag, word, root = vocabulary.tag, vocabulary.observed, vocabulary.prefix
    one = root + "/{session_id}"

    def route(method: str, path: str, handler: Any, answer: Any, summary: str, **more: Any) -> Route:
        return Route(
            method=method, path=path, handler=handler, answers=(answer,), summary=summary, tag=tag, **more
        )

    bare = vocabulary.creation is SessionRequest
    configuration: dict[str, Any] = {"request": dict[str, Any], "errors": (errors.ConfigurationInvalid,)}
    return [
        route(
            "POST",
            root,
            create_default if bare else create,
            answers.SessionAnswer,
            "Open a session",
            optional_body=bare,
            request=vocabulary.creation,
            errors=(errors.SessionLimitExceeded, errors.ConfigurationInvalid),
        ),
        route("GET", root, list_all, answers.SessionListAnswer, "List sessions", query=ListQuery),
        route("GET", f"{root}/count", count, answers.SessionCountAnswer, "Count live sessions"),
        route("GET", one, show, answers.SessionAnswer, "Show a session"),
        route("DELETE", one, delete, answers.DeletedAnswer, "End a session"),
        route(
            "POST",
            f"{one}/extend",
            extend,
            answers.ExtendedAnswer,
            "Prolong a session from now",
            query=ExtendQuery,
            request=ExtendRequest,
            optional_body=True,
        ),
        route("GET", f"{one}/exists", exists, answers.ExistsAnswer, "Whether a session is alive"),
        route("GET", f"{one}/config", config, answers.ConfigAnswer, "The configuration in force"),
        *(
            route(
                method,
                f"{one}/config",
                configure,
                answers.ConfiguredAnswer,
                "Set configuration",
                **configuration,
            )
            for method in ("POST", "PUT")
        ),
        route(
            "POST",
            f"{one}/observe",
            partial(observe, word),
            answers.ObserveAnswer,
            "Show the session one observation",
            request=ObservationRequest,
            keyed=True,
            errors=(errors.VectorDimensionError, errors.ConcurrencyError, errors.ResourceExhausted),
        ),
        route(
            "POST",
            f"{one}/observe-sequence",
            partial(observe_sequence, word),
            answers.SequenceAnswer,
            "Show the session many observations, all or none",
            request=BatchRequest,
            keyed=True,
            batch=True,
            errors=(errors.VectorDimensionError, errors.ConcurrencyError, errors.ResourceExhausted),
        ),
        route("GET", f"{one}/stm", stm, answers.StmAnswer, "The short-term memory"),
        route(
            "POST",
            f"{one}/learn",
            learn,
            answers.LearnAnswer,
            "Make a pattern of the short-term memory",
            keyed=True,
            errors=(errors.EmptySTM, errors.ConcurrencyError),
        ),
        route("POST", f"{one}/clear-stm", clear_stm, answers.ClearAnswer, "Empty the short-term memory"),
        route("POST", f"{one}/clear-all", clear_all, answers.ClearAnswer, "Forget everything of the node"),
        route(
            "GET",
            f"{one}/predictions",
            predictions,
            answers.PredictionsAnswer,
            "What the short-term memory resembles",
            query=PredictionsQuery,
        ),
        route("GET", f"{one}/percept-data", percept_data, answers.PerceptAnswer, "What was perceived last"),
        route(
            "GET", f"{one}/cognition-data", cognition_data, answers.CognitionAnswer, "What the session thinks"
        ),
        route(
            "POST",
            f"{one}/finalize-training",
            finalize_training,
            answers.FinalizedAnswer,
            "Show whole-pattern figures from now on",
        ),
    ]
