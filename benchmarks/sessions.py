"""Ten thousand live sessions, each used: memory, pace, and a restart with them."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import material
import processes
from kato.model import Events
from load import Client, Request, errors, wrk
from options import Options, main
from report import Row, median

BYTES_BUDGET = 10 * 1024
WARM_SESSIONS = 64
OBSERVES = 3
CONNECTIONS = 8


def run(options: Options) -> list[Row]:
    """All figures of many sessions, over HTTP."""
    # The sessions that warm the server up count against the default limit of 10,000 until they are deleted.
    wanted = options.pick(10_000, 2_000, 20)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with processes.kato(directory / "data", directory) as server:
            rows, ids = _live(server, wanted, options)
            stopped = server
        again = processes.kato(directory / "data", directory)
        with again:
            rows += _restarted(stopped, again, ids)
    return rows


def _live(server: processes.Server, wanted: int, options: Options) -> tuple[list[Row], list[str]]:
    client = Client(server.port)
    warm = [client.session("warm") for _ in range(min(WARM_SESSIONS, wanted))]
    wrk(server.base, _observes(warm), CONNECTIONS, options.pick(5, 3, 1))
    for session in warm:
        client.call("DELETE", f"/sessions/{session}")
    before = server.resident_bytes()

    begin = time.perf_counter()
    ids = [client.session(f"many-{number % 8}") for number in range(wanted)]
    created = wanted / (time.perf_counter() - begin)
    stm_bytes = 0
    for number, session in enumerate(ids):
        events = material.events(number)[:OBSERVES]
        stm_bytes += _size(events)
        for event in events:
            client.call("POST", f"/sessions/{session}/observe", {"strings": event})
    grown = server.resident_bytes() - before
    beyond = (grown - stm_bytes) / wanted

    runs = [
        wrk(server.base, _observes(ids), CONNECTIONS, options.pick(5, 3, 1))
        for _ in range(options.pick(3, 2, 1))
    ]
    after = (server.resident_bytes() - before) / wanted
    alive = client.call("GET", "/sessions/count") if wanted else {}
    client.close()
    p50, p99 = median(run.p50 for run in runs), median(run.p99 for run in runs)
    return [
        Row(
            f"memory of each of {wanted:,} used sessions beyond its STM",
            beyond,
            "bytes",
            None if options.tiny else BYTES_BUDGET,
            "lower",
            f"growth of the server {grown / wanted:,.0f} bytes a session, STM {stm_bytes / wanted:,.0f}",
            {"grown_bytes": grown, "stm_bytes": stm_bytes, "sessions": wanted, "count": alive},
        ),
        Row("  growth per session after more observes under load", after, "bytes", better="lower"),
        Row("sessions created, one connection", created, "sessions/s"),
        Row(
            f"observes dealt over all sessions, {CONNECTIONS} connections",
            median(run.rate for run in runs),
            "requests/s",
            note=f"p50 {p50:.2f} ms, p99 {p99:.2f} ms",
            raw={"runs": [asdict(run) for run in runs]},
        ),
        errors(runs),
    ], ids


def _restarted(stopped: processes.Server, server: processes.Server, ids: list[str]) -> list[Row]:
    client = Client(server.port)
    begin = time.perf_counter()
    for session in ids:
        client.call("GET", f"/sessions/{session}/stm")
    reached = len(ids) / (time.perf_counter() - begin)
    client.close()
    return [
        Row("stopping with all sessions", stopped.stop_seconds, "s", better="lower"),
        Row("starting with all sessions, until the first answer", server.start_seconds, "s", better="lower"),
        Row(
            "sessions read after the restart, one connection",
            reached,
            "sessions/s",
            note="every one was there",
        ),
    ]


def _observes(ids: list[str]) -> list[Request]:
    """Each session observes twice and forgets once, so that none grows without end."""
    observe = json.dumps({"strings": ["a", "b"]})
    return [
        Request("POST", f"/sessions/{session}/{verb}", body)
        for verb, body in (("observe", observe), ("clear-stm", "{}"), ("observe", observe))
        for session in ids
    ]


def _size(events: Events) -> int:
    """Memory of a short-term memory: its tuples and strings."""
    return sys.getsizeof(events) + sum(sys.getsizeof(e) + sum(map(sys.getsizeof, e)) for e in events)


if __name__ == "__main__":
    main("sessions", run)
