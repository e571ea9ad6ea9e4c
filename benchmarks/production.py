"""Several workers and instances on Redis and PostgreSQL, beside the embedded store in the same run.

Everything shares the machine: the load generator, Redis and PostgreSQL take what the workers could have. So beside each
rate stands the rate per worker core: requests in a second of the workers' processor time.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import material
import processes
import serving
from load import Client, Request, Run, errors, wrk
from options import Options, main
from report import Row, median

sys.path.append(str(Path(__file__).parents[1]))
from tests.support import postgres, redis

PER_CORE, P50 = 2_500, 2.0
CONNECTIONS = (8, 64)
BYTES_BUDGET = 10 * 1024
OBSERVES = 3


def run(options: Options) -> list[Row]:
    """Embedded, one worker, two workers; many sessions over two instances; what one more instance costs."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, _servers() as environment:
        directory = Path(name)
        with processes.kato(directory / "data", directory) as server:
            rows += _rates("embedded, 1 worker", server, 1, options)
        for workers in (1, 2):
            settings = {**environment, "WORKERS": str(workers)}
            with processes.instance(workers, settings, directory) as server:
                label = f"Redis + PostgreSQL, {workers} worker{'s' * (workers > 1)}"
                rows += _rates(label, server, workers, options)
        rows += _many_sessions(environment, directory, options)
        rows += _one_more(environment, directory, options)
    return rows


@contextlib.contextmanager
def _servers() -> Iterator[dict[str, str]]:
    """Redis with an append-only file and PostgreSQL with its defaults for durability, and how to reach them."""
    with redis.redis(durable=True) as cache, postgres.postgres() as database:
        yield {
            "KATO_STORE": "postgres",
            "DATABASE_URL": database.url,
            "REDIS_URL": cache.url,
            "KATO_VECTORS": "false",
            "MAX_SESSIONS": "0",
            "KATO_CLUSTER_ID": f"bench-{uuid.uuid4().hex}",
        }


def _rates(label: str, server: processes.Server, workers: int, options: Options) -> list[Row]:
    """Observes and learns, at a few and at many connections."""
    rows: list[Row] = []
    for verb in serving.VERBS:
        if verb.name not in ("observe", "learn"):
            continue
        client = Client(server.port)
        script = verb.prepare(client, options)
        client.close()
        wrk(server.base, script, CONNECTIONS[0], options.pick(2, 1, 1))
        for connections in options.pick(CONNECTIONS, CONNECTIONS[:1], (2,)):
            rows += _measured(label, verb.name, server, workers, script, connections, options)
    return rows


def _measured(
    label: str,
    verb: str,
    server: processes.Server,
    workers: int,
    script: list[Request],
    connections: int,
    options: Options,
) -> list[Row]:
    runs, used = list[Run](), 0.0
    for _ in range(options.pick(3, 3, 1)):
        before = server.cpu_seconds()
        runs.append(wrk(server.base, script, connections, options.pick(4, 2, 1)))
        used += server.cpu_seconds() - before
    rate = median(run.rate for run in runs)
    per_core = sum(run.requests for run in runs) / max(used, 1e-9)
    budgeted = verb == "observe" and "Redis" in label and not options.tiny
    p50, p99 = median(run.p50 for run in runs), median(run.p99 for run in runs)
    return [
        Row(
            f"{label}: {verb}, {connections} connections",
            rate,
            "requests/s",
            note=f"p99 {p99:.2f} ms, {workers} worker(s)",
            raw={"runs": [asdict(run) for run in runs], "worker_cpu_seconds": used},
        ),
        Row("  per worker core", per_core, "requests/s", PER_CORE if budgeted else None),
        Row("  p50", p50, "ms", P50 if budgeted and connections == CONNECTIONS[0] else None, "lower"),
        errors(runs),
    ]


# Two instances ----------------------------------------------------------------------------------------


def _many_sessions(environment: dict[str, str], directory: Path, options: Options) -> list[Row]:
    """Ten thousand sessions, each created on one of two instances and used on both."""
    wanted = options.pick(10_000, 2_000, 20)
    with (
        processes.instance(3, environment, directory) as one,
        processes.instance(4, environment, directory) as other,
    ):
        clients = [Client(one.port), Client(other.port)]
        before = one.resident_bytes() + other.resident_bytes()
        begin = time.perf_counter()
        ids = [clients[number % 2].session(f"many-{number % 8}") for number in range(wanted)]
        created = wanted / (time.perf_counter() - begin)
        for turn in range(OBSERVES):
            for number, session in enumerate(ids):
                body = {"strings": material.events(number)[turn]}
                clients[(number + turn) % 2].call("POST", f"/sessions/{session}/observe", body)
        grown = (one.resident_bytes() + other.resident_bytes() - before) / wanted
        wrong = sum(
            len(clients[number % 2].call("GET", f"/sessions/{session}/stm")["stm"]) != OBSERVES
            for number, session in enumerate(ids[:: max(1, wanted // 1000)])
        )
        for client in clients:
            client.close()
        observe = json.dumps({"strings": ["a", "b"]})
        script = [
            Request("POST", f"/sessions/{session}/{verb}", body)
            for verb, body in (("observe", observe), ("clear-stm", "{}"))
            for session in ids
        ]
        seconds = options.pick(4, 2, 1)
        runs = [
            wrk(each.base, script, CONNECTIONS[0], seconds) for each in (one, other) * options.pick(2, 1, 1)
        ]
    return [
        Row(
            f"two instances: memory of each of {wanted:,} sessions, both together",
            grown,
            "bytes",
            None if options.tiny else 2 * BYTES_BUDGET,
            "lower",
        ),
        Row("  created, one connection to each", created, "sessions/s"),
        Row("  that do not show what both instances were shown", wrong, "sessions", 0, "lower"),
        Row(
            f"  observes dealt over all sessions, {CONNECTIONS[0]} connections to one instance",
            median(run.rate for run in runs),
            "requests/s",
            raw={"runs": [asdict(run) for run in runs]},
        ),
        errors(runs),
    ]


def _one_more(environment: dict[str, str], directory: Path, options: Options) -> list[Row]:
    """The same load on one instance, alone and beside another that follows every learn."""
    learn = next(verb for verb in serving.VERBS if verb.name == "learn")
    seconds = options.pick(4, 2, 1)
    with processes.instance(5, environment, directory) as one:
        client = Client(one.port)
        script = learn.prepare(client, options)
        client.close()
        wrk(one.base, script, CONNECTIONS[0], options.pick(2, 1, 1))
        alone = [wrk(one.base, script, CONNECTIONS[0], seconds) for _ in range(options.pick(3, 2, 1))]
        with processes.instance(6, environment, directory) as other:
            idle = other.resident_bytes()
            client = Client(other.port)
            for node in range(8):
                # From now on it holds these nodes, and reads what is learned there before it predicts.
                session = client.session(f"learn-{node}")
                client.call("POST", f"/sessions/{session}/observe", {"strings": ["a", "b"]})
                client.call("GET", f"/sessions/{session}/predictions")
            beside, used = list[Run](), other.cpu_seconds()
            for _ in range(options.pick(3, 2, 1)):
                beside.append(wrk(one.base, script, CONNECTIONS[0], seconds))
            used = other.cpu_seconds() - used
            begin = time.perf_counter()
            client.call("GET", f"/sessions/{session}/predictions")
            caught_up = time.perf_counter() - begin
            client.close()
            start = other.start_seconds
    rate, before = median(run.rate for run in beside), median(run.rate for run in alone)
    return [
        Row("one more instance: memory when idle", idle / 2**20, "MiB", better="lower"),
        Row("  until it is ready", start, "s", better="lower"),
        Row(
            "  learns on the other one, beside the rate without it", rate / before, "x", note=f"{rate:,.0f}/s"
        ),
        Row("  its processor time while the other one learns", used, "s", better="lower"),
        Row("  its first prediction after all that", caught_up * 1000, "ms", better="lower"),
    ]


if __name__ == "__main__":
    main("production", run)
