"""KATO over HTTP beside an echo that does nothing: rates, latencies and processor time, verb by verb."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import material
import processes
from load import UNIQUE, Client, Request, Run, errors, wrk
from options import Options, main
from report import Row, median

BUDGET_CONNECTIONS = 8
OBSERVES, P50, P99, PREDICTIONS = 8_000, 1.0, 20.0, 500
NODE_PATTERNS = 100


class Verb(NamedTuple):
    """A verb under load: how its script is prepared, and what the echo is asked instead."""

    name: str
    prepare: Callable[[Client, Options], list[Request]]
    echo: Callable[[list[Request]], list[Request]]
    what: str


def run(options: Options) -> list[Row]:
    """Every verb at every number of connections."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with processes.kato(directory / "data", directory) as kato, processes.echo(directory) as echo:
            for verb in VERBS:
                client = Client(kato.port)
                script = verb.prepare(client, options)
                client.close()
                counterpart = verb.echo(script)
                wrk(kato.base, script, BUDGET_CONNECTIONS, options.pick(2, 1, 1))
                for connections in options.pick((1, 8, 64), (8,), (2,)):
                    rows += _compare(verb, connections, kato, echo, script, counterpart, options)
    return rows


def _compare(
    verb: Verb,
    connections: int,
    kato: processes.Server,
    echo: processes.Server,
    script: list[Request],
    counterpart: list[Request],
    options: Options,
) -> list[Row]:
    """Both servers in turn, so that whatever else the machine does meets them alike."""
    seconds = options.pick(4, 2, 1)
    runs, others, cpu, cpu_echo = list[Run](), list[Run](), 0.0, 0.0
    for _ in range(options.pick(3, 3, 1)):
        before = kato.cpu_seconds()
        runs.append(wrk(kato.base, script, connections, seconds))
        cpu += kato.cpu_seconds() - before
        before = echo.cpu_seconds()
        others.append(wrk(echo.base, counterpart, connections, seconds))
        cpu_echo += echo.cpu_seconds() - before
    rate, other = median(run.rate for run in runs), median(run.rate for run in others)
    p50, p90, p99 = (median(getattr(run, name) for run in runs) for name in ("p50", "p90", "p99"))
    per_request = cpu / max(1, sum(run.requests for run in runs)) * 1000
    per_echo = cpu_echo / max(1, sum(run.requests for run in others)) * 1000
    raw = {
        "connections": connections,
        "script": verb.what,
        "runs": [asdict(run) for run in runs],
        "echo_runs": [asdict(run) for run in others],
        "cpu_ms_per_request": per_request,
        "echo_cpu_ms_per_request": per_echo,
    }
    budget = connections == BUDGET_CONNECTIONS
    observe = budget and verb.name == "observe"
    goal = OBSERVES if observe else PREDICTIONS if budget and verb.name == "predictions" else None
    label = f"{verb.name}, {connections} connections" if connections > 1 else f"{verb.name}, 1 connection"
    return [
        Row(label, rate, "requests/s", goal, note=f"CPU {per_request:.3f} ms/request", raw=raw),
        Row(
            "  beside the echo",
            rate / other,
            "x",
            1.0 if observe else None,
            note=f"echo {other:,.0f}/s, CPU {per_echo:.3f} ms",
        ),
        Row("  p50", p50, "ms", P50 if observe else None, "lower"),
        Row("  p90", p90, "ms", better="lower"),
        Row("  p99", p99, "ms", P99 if observe else None, "lower"),
        errors(runs),
    ]


# Scripts ------------------------------------------------------------------------------------------------


def _observe(client: Client, options: Options) -> list[Request]:
    """Five observes, then an empty short-term memory, over 64 sessions on 8 nodes."""
    sessions = [client.session(f"observe-{i % 8}") for i in range(options.pick(64, 64, 4))]
    script = []
    for turn in range(6):
        for number, session in enumerate(sessions):
            if turn < 5:
                body = json.dumps({"strings": material.events(number)[turn]})
                script.append(Request("POST", f"/sessions/{session}/observe", body))
            else:
                script.append(Request("POST", f"/sessions/{session}/clear-stm", "{}"))
    return script


def _stm(client: Client, options: Options) -> list[Request]:
    """The short-term memory of 64 sessions, five events each."""
    script = []
    for number in range(options.pick(64, 64, 4)):
        session = client.session("stm")
        for event in material.events(number)[:5]:
            client.call("POST", f"/sessions/{session}/observe", {"strings": event})
        script.append(Request("GET", f"/sessions/{session}/stm"))
    return script


def _learn(client: Client, options: Options) -> list[Request]:
    """Two observes and a learn, always a new pattern, over 512 sessions on 8 nodes.

    So many that no connection overtakes another on one session: a learn without its observes is refused.
    """
    sessions = [client.session(f"learn-{i % 8}") for i in range(options.pick(512, 512, 4))]
    script = [
        Request("POST", f"/sessions/{session}/observe", json.dumps({"strings": [UNIQUE, f"s{turn}"]}))
        for turn in range(2)
        for session in sessions
    ]
    return script + [Request("POST", f"/sessions/{session}/learn", "{}") for session in sessions]


def _sequence(client: Client, options: Options) -> list[Request]:
    """Five observations and a learn in one request, always a new pattern: each waits for the disk."""
    sessions = [client.session(f"sequence-{i % 8}") for i in range(options.pick(64, 64, 4))]
    observations = [{"strings": [UNIQUE if turn == 0 else f"t{turn}", f"s{turn}"]} for turn in range(5)]
    body = json.dumps({"observations": observations, "learn_at_end": True})
    return [Request("POST", f"/sessions/{session}/observe-sequence", body) for session in sessions]


def _predictions(client: Client, options: Options) -> list[Request]:
    """Predictions of 16 sessions with five events each on 4 nodes with 100 patterns each."""
    patterns = options.pick(NODE_PATTERNS, NODE_PATTERNS, 10)
    script = []
    for number in range(16):
        session = client.session(f"predictions-{number % 4}")
        for taught in range(patterns if number < 4 else 0):
            observations = [{"strings": event} for event in material.events(taught)]
            client.call(
                "POST",
                f"/sessions/{session}/observe-sequence",
                {"observations": observations, "learn_at_end": True},
            )
        for event in material.query(number, patterns):
            client.call("POST", f"/sessions/{session}/observe", {"strings": event})
        found = client.call("GET", f"/sessions/{session}/predictions")
        if not isinstance(found["predictions"], list):
            raise RuntimeError(f"no predictions: {found}")
        script.append(Request("GET", f"/sessions/{session}/predictions"))
    return script


def _bodies(script: list[Request]) -> list[Request]:
    """The same bodies for the echo."""
    return [Request("POST", "/observation", request.body) for request in script]


def _batches(script: list[Request]) -> list[Request]:
    return [Request("POST", "/batch", request.body) for request in script]


def _nothing(script: list[Request]) -> list[Request]:
    return [Request("GET", "/nothing") for _ in script]


VERBS = (
    Verb("observe", _observe, _bodies, "5 observes : 1 clear-stm, 64 sessions on 8 nodes"),
    Verb("stm", _stm, _nothing, "64 sessions, STM of 5 events"),
    Verb("learn", _learn, _bodies, "2 observes : 1 learn of a new pattern, 512 sessions on 8 nodes"),
    Verb(
        "observe-sequence",
        _sequence,
        _batches,
        "5 observations and the learn of a new pattern in each request",
    ),
    Verb("predictions", _predictions, _nothing, "16 sessions, STM of 5 events, 4 nodes of 100 patterns"),
)


if __name__ == "__main__":
    main("http", run)
