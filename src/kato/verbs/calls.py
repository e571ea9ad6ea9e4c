"""One function per verb: the request it makes, and how its answer is read.

A verb that asks for a thing is answered with the thing, one that does something with the service's report of
it as a dictionary. Pages are dictionaries, with `next_cursor` for the page after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

from kato.errors import KatoError, ValidationError
from kato.presentation import STM, Predictions
from kato.verbs import values
from kato.verbs.values import ObservationLike

T = TypeVar("T")
JSON: TypeAlias = dict[str, Any]

_KEY_LENGTH = 255


class Call(NamedTuple, Generic[T]):
    """A verb with everything it says, on its way to whoever carries it out.

    `path` names what it is about, `query` narrows it down (all text, as in an address), `body` is JSON. `key`
    is the idempotency key. `read` makes the answer of the verb from the answer's JSON.
    """

    verb: str
    read: Callable[[bytes], T]
    path: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    body: bytes | None = None
    key: str | None = None


# Reading answers --------------------------------------------------------------------------------------------


def _read(body: bytes) -> JSON:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KatoError(f"The answer is not one of KATO's: {error}") from None


def _inner(name: str) -> Callable[[bytes], Any]:
    def read(body: bytes) -> Any:
        return _part(_read(body), name)

    return read


def _part(answer: JSON, name: str) -> Any:
    try:
        return answer[name]
    except KeyError:
        raise KatoError(f"The answer is not one of KATO's: it lacks {name!r}") from None


def _read_stm(body: bytes) -> STM:
    return STM(_part(_read(body), "stm"))


def _read_predictions(body: bytes) -> Predictions:
    answer = _read(body)
    return Predictions(
        _part(answer, "predictions"), _part(answer, "future_potentials"), answer.get("stale", False)
    )


# Making requests --------------------------------------------------------------------------------------------


def _query(**given: Any) -> dict[str, str]:
    found = {}
    for name, value in given.items():
        if value is not None:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            found[name] = values.parameter(text, name)
    return found


def _about(**given: str) -> dict[str, str]:
    return {name: values.parameter(value, name) for name, value in given.items()}


def _node(node_id: str, **given: Any) -> dict[str, str]:
    return {"node_id": values.parameter(node_id, "node_id"), **_query(**given)}


def _body(**given: Any) -> bytes:
    return values.encoded({name: value for name, value in given.items() if value is not None})


def _key(key: str | None) -> str | None:
    if key is not None and not (
        isinstance(key, str) and 1 <= len(key) <= _KEY_LENGTH and key.isascii() and key.isprintable()
    ):
        raise ValidationError("Must be 1 to 255 printable characters", field="Idempotency-Key")
    return key


# Sessions ---------------------------------------------------------------------------------------------------


def session(
    node_id: str | None,
    config: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
    ttl: int | None,
    session_id: str | None,
) -> Call[JSON]:
    """Open a session on a node (or on the instance's own), or look for the one of that id."""
    if session_id is not None:
        if config is not None or metadata is not None or ttl is not None:
            raise TypeError("config, metadata and ttl_seconds belong to a new session; leave session_id out")
        return info(session_id)
    body = _body(
        node_id=None if node_id is None else values.plain(node_id, "node_id"),
        config=None if config is None else values.mapping(config, "config"),
        metadata=None if metadata is None else values.mapping(metadata, "metadata"),
        ttl_seconds=values.plain(ttl, "ttl_seconds"),
    )
    return Call("create_session" if node_id is not None else "create_base_session", _read, body=body)


def checked(found: JSON, node_id: str | None) -> JSON:
    """A session that is on the node that was asked for."""
    if node_id is not None and _part(found, "node_id") != node_id:
        raise ValidationError(f"The session is on another node: {found['node_id']!r}", field="node_id")
    return found


def info(session_id: str) -> Call[JSON]:
    """What the service knows of a session."""
    return Call("info", _read, _about(session_id=session_id))


def sessions(limit: int, cursor: str | None, node_id: str | None, include_expired: bool) -> Call[JSON]:
    """A page of sessions."""
    query = _query(limit=limit, cursor=cursor, node_id=node_id, include_expired=include_expired)
    return Call("sessions", _read, query=query)


def count_sessions() -> Call[int]:
    """How many sessions are alive."""
    return Call("count_sessions", _inner("active_session_count"))


def exists(session_id: str) -> Call[bool]:
    """Whether a session is alive."""
    return Call("exists", _inner("exists"), _about(session_id=session_id))


def extend(session_id: str, ttl_seconds: int) -> Call[JSON]:
    """Set a session's time to live."""
    body = values.encoded({"ttl_seconds": values.plain(ttl_seconds, "ttl_seconds")})
    return Call("extend", _read, _about(session_id=session_id), body=body)


def delete(session_id: str) -> Call[JSON]:
    """End a session."""
    return Call("delete", _read, _about(session_id=session_id))


def config(session_id: str) -> Call[JSON]:
    """Every parameter with its value in force."""
    return Call("config", _inner("config"), _about(session_id=session_id))


def configure(session_id: str, parameters: Mapping[str, Any]) -> Call[JSON]:
    """Set parameters, all or none."""
    body = values.encoded({"config": values.mapping(parameters, "config")})
    return Call("configure", _read, _about(session_id=session_id), body=body)


# Observing, learning, predicting ----------------------------------------------------------------------------


def observe(
    session_id: str,
    strings: Iterable[str],
    vectors: Any,
    emotives: Mapping[str, float] | None,
    metadata: Mapping[str, Any] | None,
    unique_id: str | None,
    key: str | None,
) -> Call[JSON]:
    """Show one observation."""
    body = values.encoded(values.observation(strings, vectors, emotives, metadata, unique_id))
    return Call("observe", _read, _about(session_id=session_id), body=body, key=_key(key))


def observe_sequence(
    session_id: str, observations: Iterable[ObservationLike], flags: Mapping[str, bool], key: str | None
) -> Call[JSON]:
    """Show many observations."""
    items = [
        values.observation_like(item, f"observations[{number}]")
        for number, item in enumerate(values.listed(observations, "observations", "observations"))
    ]
    body = values.encoded({"observations": items} | values.mapping(flags, "flags"))
    return Call("observe_sequence", _read, _about(session_id=session_id), body=body, key=_key(key))


def learn(session_id: str, key: str | None) -> Call[JSON]:
    """Make a pattern of the STM."""
    return Call("learn", _read, _about(session_id=session_id), key=_key(key))


def stm(session_id: str) -> Call[STM]:
    """The short-term memory."""
    return Call("stm", _read_stm, _about(session_id=session_id))


def clear_stm(session_id: str) -> Call[JSON]:
    """Empty the STM."""
    return Call("clear_stm", _read, _about(session_id=session_id))


def clear_all(session_id: str) -> Call[JSON]:
    """Forget everything of the session's node."""
    return Call("clear_all", _read, _about(session_id=session_id))


def predictions(session_id: str, limit: int | None, unique_id: str | None) -> Call[Predictions]:
    """What the STM resembles."""
    query = _query(limit=limit, unique_id=unique_id)
    return Call("predictions", _read_predictions, _about(session_id=session_id), query)


def raw(call: Call[Any]) -> Call[bytes]:
    """The same call, answered with the JSON itself."""
    return Call(call.verb, bytes, call.path, call.query, call.body, call.key)


def percept_data(session_id: str) -> Call[JSON]:
    """What the session perceived last."""
    return Call("percept_data", _inner("percept_data"), _about(session_id=session_id))


def cognition_data(session_id: str) -> Call[JSON]:
    """What the session makes of it."""
    return Call("cognition_data", _inner("cognition_data"), _about(session_id=session_id))


def finalize_training(session_id: str) -> Call[JSON]:
    """Show whole-pattern figures from now on."""
    return Call("finalize_training", _read, _about(session_id=session_id))


# Long-term memory -------------------------------------------------------------------------------------------


def patterns(
    node_id: str, limit: int, cursor: str | None, symbol: str | None, min_frequency: int
) -> Call[JSON]:
    """A page of patterns."""
    query = _node(node_id, limit=limit, cursor=cursor, symbol=symbol, min_frequency=min_frequency)
    return Call("patterns", _read, query=query)


def pattern(name: str, node_id: str) -> Call[JSON]:
    """One pattern."""
    return Call("pattern", _inner("pattern"), _about(pattern_id=name), _node(node_id))


def update_pattern(name: str, node_id: str, frequency: int | None, emotives: Any) -> Call[JSON]:
    """Change a pattern."""
    body = _body(frequency=values.plain(frequency, "frequency"), emotives=values.plain(emotives, "emotives"))
    return Call("update_pattern", _inner("pattern"), _about(pattern_id=name), _node(node_id), body)


def delete_pattern(name: str, node_id: str) -> Call[JSON]:
    """Remove a pattern and all its influence."""
    return Call("delete_pattern", _read, _about(pattern_id=name), _node(node_id))


def symbols(node_id: str) -> Call[dict[str, JSON]]:
    """Frequencies of all symbols."""
    return Call("symbols", _inner("symbols"), query=_node(node_id))


def affinities(node_id: str) -> Call[dict[str, dict[str, float]]]:
    """Affinities of all symbols."""
    return Call("affinities", _inner("affinities"), query=_node(node_id))


def affinity(symbol: str, node_id: str) -> Call[dict[str, float]]:
    """Affinity of one symbol."""
    return Call("affinity", _inner("affinity"), _about(symbol=symbol), _node(node_id))


# The service ------------------------------------------------------------------------------------------------


def health() -> Call[JSON]:
    """How a service is doing."""
    return Call("health", _read)


def status() -> Call[JSON]:
    """What a service is."""
    return Call("status", _read)
