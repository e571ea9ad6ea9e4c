"""Writes the reference pages that follow from the code: command line, HTTP, settings, session configuration.

    python docs/reference/generate.py

A test fails when a page is not what this script writes, or when something in the code is not described here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import typer.main
from pydantic import AliasChoices

from kato.api.app import create_app
from kato.cli.main import app
from kato.engine.configuration import PARAMETERS, RANK_METRICS
from kato.model import FilterName, SessionConfig
from kato.settings import Settings

HERE = Path(__file__).parent

SETTINGS = {
    "processor_id": "Name of the instance; also the node of clients that name none.",
    "processor_name": "A name to show.",
    "kato_cluster_id": "Node id shared by the replicas of one deployment, instead of `PROCESSOR_ID`.",
    "host": "Address to listen on. There is no authentication: see [operate](../how-to/operate.md).",
    "port": "Port to listen on; 0 takes any free one.",
    "workers": "Number of processes. The embedded store allows one.",
    "log_level": "`DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`.",
    "log_format": "`human` or `json` (one object per line).",
    "kato_data": "Data directory of the embedded store; `:memory:` keeps nothing.",
    "kato_store": "`embedded`: one process, all data in `KATO_DATA`. `postgres` (needs `DATABASE_URL`) or `mongo` "
    "(needs `MONGO_BASE_URL`): patterns there, sessions in Redis (needs `REDIS_URL`), vectors in Qdrant (needs "
    "`QDRANT_HOST` or `KATO_VECTORS=off`), shared by any number of instances. The variables of the servers are "
    "not looked at by the embedded store.",
    "kato_vectors": "`off`: vectors are refused, and nothing is needed to keep them.",
    "database_url": "PostgreSQL: `postgresql://user:password@host[,host]/database`.",
    "kato_database_pool_size": "Most connections to PostgreSQL.",
    "mongo_base_url": "MongoDB: `mongodb://user:password@host,host/database?options`.",
    "mongo_pool_size": "Most connections to each MongoDB server.",
    "mongo_min_pool_size": "Connections to each MongoDB server that are kept open.",
    "mongo_connect_timeout": "Milliseconds to connect to MongoDB.",
    "mongo_socket_timeout": "Milliseconds to wait for an answer of MongoDB.",
    "mongo_server_selection_timeout": "Milliseconds to find MongoDB's primary.",
    "mongo_wait_queue_timeout": "Milliseconds to wait for a free connection to MongoDB.",
    "mongo_max_idle_time": "Milliseconds after which an unused connection to MongoDB is closed.",
    "redis_url": "Redis: `redis://`, `rediss://` (TLS), `unix://`, or `redis+sentinel://host,host/master/0`.",
    "redis_max_connections": "Most connections to Redis.",
    "redis_min_connections": "Connections to Redis that are opened at the start.",
    "redis_connect_timeout": "Seconds to connect to Redis.",
    "redis_socket_timeout": "Seconds to wait for an answer of Redis.",
    "qdrant_host": "Name or address of Qdrant.",
    "qdrant_port": "Qdrant's REST port.",
    "qdrant_grpc_port": "Qdrant's gRPC port.",
    "qdrant_prefer_grpc": "Whether data travel to Qdrant by gRPC.",
    "qdrant_https": "Whether Qdrant is reached by TLS.",
    "qdrant_api_key": "Qdrant's API key.",
    "qdrant_timeout": "Seconds a request to Qdrant may take.",
    "qdrant_pool_size": "Most requests to Qdrant at once.",
    "qdrant_collection_prefix": "What the names of KATO's collections begin with; deployments that share a Qdrant "
    "need different ones.",
    "kato_vector_exact": "`false`: Qdrant searches its graph, quicker, and may miss some of the nearest.",
    "kato_database_failure_threshold": "Failures of PostgreSQL in a row after which it is left alone for a while.",
    "kato_database_recovery_timeout": "Seconds for which PostgreSQL is then left alone.",
    "mongo_failure_threshold": "Failures of MongoDB in a row after which it is left alone for a while.",
    "mongo_recovery_timeout": "Seconds for which MongoDB is then left alone.",
    "qdrant_failure_threshold": "Failures of Qdrant in a row after which it is left alone for a while.",
    "qdrant_recovery_timeout": "Seconds for which Qdrant is then left alone.",
    "redis_failure_threshold": "Failures of Redis in a row after which it is left alone for a while.",
    "redis_recovery_timeout": "Seconds for which Redis is then left alone.",
    "retry_max_attempts": "How often an operation of a server is tried, within `REQUEST_TIMEOUT`.",
    "retry_base_delay": "Seconds before a write is tried again, doubled each time; reads and Redis: a tenth.",
    "retry_max_delay": "Most seconds between two tries of a write; of reads and Redis: a tenth.",
    "health_check_interval": "Seconds between two looks at each server; `5` and `5s` are the same.",
    "enable_v2_features": "`false`: only v1 is served.",
    "docs_enabled": "Whether `/docs`, `/redoc` and `/openapi.json` are served.",
    "session_ttl": "Seconds a session lives without use, when it does not say itself.",
    "session_auto_extend": "Whether use prolongs a session.",
    "session_cleanup_interval": "Seconds between two removals of expired sessions.",
    "max_sessions": "Most live sessions; 0: no limit.",
    "max_sessions_per_user": "Most live sessions of one user or node; 0: no limit.",
    "max_stm_size": "Most events in a short-term memory; the oldest make room.",
    "max_session_memory_bytes": "Largest stored session; beyond it an observation is refused.",
    "kato_index_memory": "Most bytes of indexes held in memory, 0 for no limit; the one used longest ago is closed.",
    "max_processors": "Most nodes held in memory; the one used longest ago is closed.",
    "max_request_size": "Largest body of a request, in bytes.",
    "request_timeout": "Seconds a request may take.",
    "endpoint_batch_size_limit": "Most observations in one request.",
    "endpoint_batch_timeout": "Seconds a batch may take.",
    "graceful_shutdown_timeout": "Seconds for running requests when the server stops.",
    "vector_dimension": "Length that all vectors must have; unset: that of a node's first vector.",
    "websocket_max_connections": "Most open WebSockets.",
    "websocket_max_message_size": "Largest WebSocket message, in bytes.",
    "websocket_ping_interval": "Seconds between two pings of the server.",
    "websocket_ping_timeout": "Seconds to wait for the answer to a ping.",
}
"""What each setting means; those not named here are defaults of a session parameter of the same name."""

PARAMETER_MEANINGS = {
    "max_pattern_length": "Events after which the STM is learned by itself; 0: only on request.",
    "persistence": "How many observations' emotives a pattern keeps.",
    "recall_threshold": "Smallest similarity of a pattern. At 0 all patterns are returned, matching or not.",
    "indexer_type": "Accepted for older clients; no effect.",
    "max_predictions": "Most predictions in an answer. All sums run over three times as many patterns.",
    "sort_symbols": "Whether the symbols of an event are sorted.",
    "process_predictions": "Whether cognition data include predictions; a request for them always does.",
    "use_token_matching": "Compare whole symbols; `false`: compare characters.",
    "stm_mode": "After automatic learning `CLEAR` empties the STM, `ROLLING` keeps all but its first event.",
    "rank_sort_algo": "Metric to rank by, the largest first: "
    + ", ".join(f"`{name}`" for name in RANK_METRICS)
    + ".",
    "fuzzy_token_threshold": "Likeness from which two symbols count as the same; unset: they must be equal.",
    "affinity_emotive": "Emotive by whose affinity symbols are weighted; unset: no weighting.",
    "filter_pipeline": "Filters that narrow the candidates, in order: "
    + ", ".join(f"`{name}`" for name in get_args(FilterName))
    + ".",
    "length_min_ratio": "`length`: shortest pattern, as a share of the state's length.",
    "length_max_ratio": "`length`: longest pattern, as a multiple of the state's length.",
    "jaccard_threshold": "`jaccard`: smallest share of common symbols.",
    "jaccard_min_overlap": "`jaccard`: fewest common symbols.",
    "minhash_threshold": "`minhash`: smallest share of common symbols, computed exactly.",
    "minhash_bands": "Accepted; no effect, because `minhash` is answered exactly.",
    "minhash_rows": "Accepted; no effect.",
    "minhash_num_hashes": "Accepted; no effect.",
    "bloom_false_positive_rate": "Accepted; no effect, because `bloom` is answered exactly.",
    "max_candidates_per_stage": "Accepted; no effect.",
    "enable_filter_metrics": "Accepted; no effect.",
}
"""What each session parameter does."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def shown(value: Any) -> str:
    """A default as operators and clients write it."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list):
        return "empty" if not value else "`" + ",".join(map(str, value)) + "`"
    return f"`{value}`"


def settings() -> str:
    """The page about settings."""
    rows, defaults = [], []
    for name, field in Settings.model_fields.items():
        choices = (
            field.validation_alias.choices
            if isinstance(field.validation_alias, AliasChoices)
            else [name.upper()]
        )
        first, *others = map(str, choices)
        names = f"`{first}`" + "".join(f", `{other}`" for other in others)
        if name in PARAMETERS:
            defaults.append((names, shown(field.default), f"[`{name}`](configuration.md)"))
        else:
            rows.append((names, shown(field.default), SETTINGS[name]))
    return (
        "# Settings\n\n"
        "Settings are environment variables; options of `kato serve` win over them. A value that cannot\n"
        "be used stops the start and names the variable. `kato.open` takes the settings of a process as\n"
        "keywords, in lower case, and does not read the environment.\n\n"
        + table(("variable", "default", "meaning"), rows)
        + "\n## Defaults of sessions\n\nThese are the values of sessions that set nothing themselves.\n\n"
        + table(("variable", "default", "parameter"), defaults)
    )


def configuration() -> str:
    """The page about session parameters."""
    defaults = SessionConfig()
    rows = [
        (f"`{name}`", limits(check), shown(getattr(defaults, name)), PARAMETER_MEANINGS[name])
        for name, check in PARAMETERS.items()
    ]
    return (
        "# Session configuration\n\n"
        "Every session has its own configuration. Give it when the session is opened (`config`), change\n"
        "it with `POST /sessions/{id}/config` or `session.configure(...)`, all values or none. `null`\n"
        "returns a parameter to its default. Changes act on the next call and touch nothing that has been\n"
        "learned. Unknown names are ignored. The defaults below can be changed for a whole server by\n"
        "[settings](settings.md).\n\n" + table(("parameter", "allowed", "default", "meaning"), rows)
    )


def limits(check: Callable[[Any], Any]) -> str:
    """What a parameter may be, in the words of its own refusal."""
    try:
        check(object())
    except ValueError as error:
        text = str(error).removeprefix("Must be ")
        return "a rank metric" if text.startswith("one of: potential") else text
    return "anything"


def http() -> str:
    """The page about HTTP, from the OpenAPI document."""
    document = create_app(Settings(KATO_DATA=":memory:")).openapi()
    parts = [
        "# HTTP\n\n"
        "A running server describes itself completely at `/openapi.json`, `/docs` and `/redoc`. This page\n"
        "lists the paths. Bodies are JSON with `Content-Type: application/json`. Success is always 200.\n\n"
        "The three vocabularies are three sets of names for the same memory: what is learned through one\n"
        "is seen through the others. `user_id` (v2) and `node_id` (v3) are the same thing.\n\n"
        "`Idempotency-Key` on observe, observe-sequence and learn: a repeated request with the same key\n"
        "gets the first answer again and is not applied twice. Every answer carries `X-Trace-ID`.\n"
    ]
    by_tag: dict[str, list[tuple[str, str, str]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tag = operation["tags"][0]
            errors = ", ".join(code for code in sorted(operation["responses"]) if code.startswith("4"))
            if path.startswith("/v1/") or (tag == "monitoring" and path.startswith("/v2/")):
                continue
            by_tag.setdefault(tag, []).append((f"`{method.upper()} {path}`", operation["summary"], errors))
    about = {tag["name"]: tag["description"] for tag in document["tags"]}
    notes = {
        "v1": " Each path also exists below `/v1`.",
        "monitoring": " Each path also exists below `/v1` and `/v2`.",
    }
    for tag, rows in by_tag.items():
        parts.append(f"\n## {tag[0].upper()}{tag[1:]}\n\n{about[tag]}{notes.get(tag, '')}\n\n")
        parts.append(table(("request", "meaning", "client errors"), rows))
    parts.append(
        "\n## WebSockets\n\n"
        + table(
            ("path", "meaning"),
            (
                (
                    "`/ws`, `/v1/ws`, `/v2/sessions/{session_id}/ws`",
                    'Commands: frames `{"type", "payload", "id"}`.',
                ),
                (
                    "`/ws/events`, `/v2/ws/events`",
                    "Events: sessions created, updated, ended; patterns learned; heartbeat.",
                ),
            ),
        )
        + "\n## Errors\n\n"
        "Every error has the same form, here and in WebSocket frames:\n\n"
        "```json\n"
        '{"error": {"code": "SESSION_NOT_FOUND", "message": "...", "details": {}, "trace_id": "...",\n'
        '           "timestamp": "...", "path": "/..."}, "status": 404, "detail": "..."}\n'
        "```\n\n"
        "A wrong request is a 4xx that names the field in `details.validation_errors` and has changed\n"
        "nothing. `retry_after` (and the header `Retry-After`) is there when trying again helps.\n"
        "\n## When a server is down\n\n"
        "Two fields are in an answer only while something is amiss behind KATO:\n\n"
        + table(
            ("field", "answers of", "meaning"),
            (
                (
                    "`warnings`",
                    "observe, observe-sequence (each item, and all together)",
                    "Sentences that say what was left out because a server did not answer.",
                ),
                (
                    "`stale`: true",
                    "predictions, cognition-data (inside `cognition_data`), v1 observe-sequence, symbols, "
                    "affinities, the list of patterns",
                    "What other instances taught may be missing.",
                ),
            ),
        )
        + "\n[Operate](../how-to/operate.md#when-a-server-is-down) says what goes on without which server.\n"
    )
    return "".join(parts)


def cli() -> str:
    """The page about the command line."""
    parts = [
        "# Command line\n\n"
        "Commands print tables for people; with `--json` they print one JSON document, or one on each\n"
        "line. Errors are one sentence on stderr. Exit codes: 0 success, 1 error, 2 wrong usage.\n\n"
        "`--data` names a data directory that no server is using; `--url` a running server instead.\n"
        "Settings such as `KATO_DATA` and `RECALL_THRESHOLD` are read from the\n"
        "[environment](settings.md).\n"
    ]
    group: Any = typer.main.get_command(app)
    for path, command in commands(group, "kato"):
        usage = [parameter.metavar or str(parameter.name).upper() for parameter in arguments(command)]
        parts.append(
            f"\n## {path}\n\n`{' '.join([path, '[OPTIONS]', *usage])}`\n\n{_paragraphs(command.help)}\n\n"
        )
        rows = [
            (
                ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts)),
                _cell(parameter.help),
            )
            for parameter in command.params
            if parameter.param_type_name == "option" and parameter.name != "help"
        ]
        parts.append(table(("option", "meaning"), rows))
    return "".join(parts)


def commands(group: Any, prefix: str) -> Iterable[tuple[str, Any]]:
    """Every command with its full name, groups opened."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def arguments(command: Any) -> list[Any]:
    """The positional parameters of a command."""
    return [parameter for parameter in command.params if parameter.param_type_name == "argument"]


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli,
    "configuration.md": configuration,
    "http.md": http,
    "settings.md": settings,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
        print(HERE / name)
