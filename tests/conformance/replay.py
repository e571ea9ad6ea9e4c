#!/usr/bin/env python3
"""Replay recorded conformance cases against a running service (standard library only).

    python3 replay.py --base-url http://127.0.0.1:8000 [--family basic,dup] [--all] [-v]

Prints one line per failed case and a summary per family; exit status 0 when every case passes and every rule of
`deviations.json` was needed. Cases recorded under other service settings than `--server-settings` are left out.

A difference may be wanted. `deviations.json` is a list of rules, each
`{"register", "family", "op", "field", "why"}`: the number in behaviour.md 15 (or the part of design.md), the family
of cases, the operation, the last name in the path of the difference, and one sentence. `when` narrows a rule further
to steps that `CONDITIONS` describes.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import itertools
import json
import math
import socket
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

HERE = Path(__file__).parent
CASES = HERE / "cases.jsonl.gz"
DEVIATIONS = HERE / "deviations.json"
TOLERANCE = 1e-9
VOLATILE = {
    "session_id",
    "unique_id",
    "processor_id",
    "node_id",
    "created_at",
    "expires_at",
    "time_ms",
    "timestamp",
    "message",
    "ttl_seconds",
    "trace_id",
    "request_id",
    "error_id",
}
Difference = tuple[str, str]


class Caller(Protocol):
    """Asks the service; answers with status and JSON body."""

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]: ...


class Client:
    """One connection, opened again when the server has closed it."""

    def __init__(self, base_url: str, timeout: float = 30) -> None:
        parts = urllib.parse.urlsplit(base_url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        try:
            return self._call(method, path, body)
        except (http.client.HTTPException, OSError):
            self.close()
            return self._call(method, path, body)

    def _call(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._address, timeout=self._timeout)
            self._connection.connect()
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        self._connection.request(method, path, data, headers)
        answer = self._connection.getresponse()
        raw = answer.read()
        try:
            return answer.status, json.loads(raw)
        except ValueError:
            return answer.status, {"_raw": raw.decode("utf8", "replace")}

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


# Comparing


def scrub(value: Any) -> Any:
    """`value` without what differs from run to run."""
    if isinstance(value, dict):
        return {key: scrub(item) for key, item in value.items() if key not in VOLATILE}
    return [scrub(item) for item in value] if isinstance(value, list) else value


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def differ(want: Any, got: Any, at: str = "") -> list[Difference]:
    """Differences as (path, text). Additional keys in `got` and expected keys with an underscore do not count."""
    if is_number(want) and is_number(got):
        same = math.isclose(want, got, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        return [] if same else [(at, f"want {want!r} got {got!r}")]
    if isinstance(want, dict) and isinstance(got, dict):
        found: list[Difference] = []
        for key in want:
            if not key.startswith("_"):
                place = f"{at}.{key}"
                found += differ(want[key], got[key], place) if key in got else [(place, "missing")]
        return found
    if isinstance(want, list) and isinstance(got, list):
        if len(want) != len(got):
            return [(at, f"want {len(want)} items, got {len(got)}")]
        pairs = enumerate(zip(want, got, strict=True))
        return [difference for n, (a, b) in pairs for difference in differ(a, b, f"{at}[{n}]")]
    return [] if want == got and type(want) is type(got) else [(at, f"want {want!r} got {got!r}")]


def keyed(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: json.dumps(row.get(key), sort_keys=True))


def ordered_by(rows: list[dict[str, Any]], key: str, at: str) -> list[Difference]:
    values = [row.get(key) for row in rows]
    for a, b in itertools.pairwise(values):
        if is_number(a) and is_number(b) and b > a + TOLERANCE:  # type: ignore[operator]
            return [(at, f"not in descending order of {key}")]
    return []


def names(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row.get("name", "") for row in rows)


def check_predictions(
    step: dict[str, Any], want: dict[str, Any], got: dict[str, Any], at: str
) -> list[Difference]:
    expected, given, place = want.get("predictions", []), got.get("predictions"), at + ".predictions"
    if given is None:
        return [(place, "missing")]
    if step.get("unstable"):
        counts = f"want {len(expected)} predictions, got {len(given)}"
        return [] if len(expected) == len(given) else [(place, counts)]
    if names(expected) != names(given):
        missing = sorted(set(names(expected)) - set(names(given)))[:2]
        extra = sorted(set(names(given)) - set(names(expected)))[:2]
        text = f"different patterns: want {len(expected)} got {len(given)}; missing {missing} extra {extra}"
        return [(place, text)]
    found = []
    if step.get("unordered_ties"):
        found += ordered_by(given, step.get("rank_key", "potential"), place)
        expected, given = keyed(expected, "name"), keyed(given, "name")
    found += differ(expected, given, place)
    return found + check_futures(want, got, at) + differ(without_lists(want), without_lists(got), at)


def check_futures(want: dict[str, Any], got: dict[str, Any], at: str) -> list[Difference]:
    expected, given, place = (
        want.get("future_potentials"),
        got.get("future_potentials"),
        at + ".future_potentials",
    )
    if not isinstance(expected, list):
        return []
    if not isinstance(given, list):
        return [(place, "missing")]
    order = ordered_by(given, "aggregate_potential", place)
    return order + differ(keyed(expected, "future"), keyed(given, "future"), place)


def without_lists(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key not in ("predictions", "future_potentials")}


def check(step: dict[str, Any], status: int, got: Any, at: str) -> list[Difference]:
    """How an answer differs from the recorded one."""
    if status != step["status"]:
        return [(at + ".status", f"want status {step['status']} got {status} {json.dumps(got)[:160]}")]
    if step.get("status_only"):
        return []
    want, got = step["expect"], scrub(got)
    if step["op"] == "predictions" and status == 200:
        return check_predictions(step, want, got, at)
    if step["op"] == "cognition" and status == 200:
        expected, given = dict(want["cognition_data"]), dict(got.get("cognition_data", {}))
        first = {"predictions": expected.pop("predictions", [])}
        second = {"predictions": given.pop("predictions", [])}
        return check_predictions(step, first, second, at) + differ(expected, given, at)
    return differ(want, got, at)


# Wanted differences


def _recorded(step: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = step["expect"].get("predictions", [])
    return found


CONDITIONS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "the state is one symbol": lambda step: any("pattern_data" in row for row in _recorded(step)),
    "nothing is predicted": lambda step: not _recorded(step),
    "the state has several symbols": lambda step: any("sequence" in row for row in _recorded(step)),
}


class Deviations:
    """The rules, and how often each was needed."""

    def __init__(self, rules: list[dict[str, Any]]) -> None:
        self.rules = rules
        self.used = [0] * len(rules)
        for rule in rules:
            assert {"register", "family", "op", "field", "why"} <= set(rule), rule
            assert "*" not in rule["field"], rule
            assert rule["why"], rule
            assert rule.get("when") in (None, *CONDITIONS), rule

    def covers(self, family: str, step: dict[str, Any], path: str) -> bool:
        field = path.rsplit(".", 1)[-1].split("[")[0]
        for n, rule in enumerate(self.rules):
            if (
                rule["family"] in ("*", family)
                and rule["op"] in ("*", step["op"])
                and rule["field"] == field
                and ("when" not in rule or CONDITIONS[rule["when"]](step))
            ):
                self.used[n] += 1
                return True
        return False

    def unused(self) -> list[dict[str, Any]]:
        return [rule for rule, count in zip(self.rules, self.used, strict=True) if not count]


# Replaying


def read_cases(path: Path = CASES) -> list[dict[str, Any]]:
    """All recorded cases; the file may be compressed."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf8") as lines:
        return [json.loads(line) for line in lines]


def under(cases: Iterable[dict[str, Any]], settings: dict[str, str]) -> list[dict[str, Any]]:
    """The cases that were recorded under exactly these settings of the service."""
    return [case for case in cases if case.get("server_settings", {}) == settings]


def steps(client: Caller, case: dict[str, Any], tag: str) -> Iterator[tuple[int, dict[str, Any], int, Any]]:
    """Run a case on a node of its own; yields (number, step, status, answer)."""
    node = f"conf_{tag}_{case['id'].replace('-', '_')}"
    sessions: list[str] = []
    try:
        for _ in range(case["sessions"]):
            status, answer = client.call("POST", "/sessions", {"node_id": node, "config": case["config"]})
            if status != 200:
                raise ValueError(f"create session: status {status} {json.dumps(answer)[:200]}")
            sessions.append(answer["session_id"])
        for number, step in enumerate(case["steps"]):
            session = sessions[step.get("session", 0)]
            path = step["http"]["path"].replace("{session_id}", session).replace("{node_id}", node)
            status, answer = client.call(step["http"]["method"], path, step["http"].get("body"))
            text = json.dumps(answer).replace(node, "{node_id}").replace(session, "{session_id}")
            yield number, step, status, json.loads(text)
    finally:
        if sessions:
            client.call("POST", f"/sessions/{sessions[0]}/clear-all", {})
        for session in sessions:
            client.call("DELETE", f"/sessions/{session}")


def run_case(client: Caller, case: dict[str, Any], tag: str, deviations: Deviations) -> list[str]:
    """The unwanted differences of a case, as text."""
    found = []
    for number, step, status, answer in steps(client, case, tag):
        for path, text in check(step, status, answer, f"step {number} {step['op']}"):
            if not deviations.covers(case["family"], step, path):
                found.append(f"{case['id']}: {path}: {text}")
    return found


def fresh_tag() -> str:
    """A part of node names that was never used before."""
    return format(time.time_ns() & 0xFFFFFFFFFF, "x")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--cases", type=Path, default=CASES)
    parser.add_argument("--deviations", type=Path, default=DEVIATIONS)
    parser.add_argument("--family", default="", help="only these families, separated by commas")
    parser.add_argument("--id", default="", help="only this case")
    parser.add_argument("--server-settings", default="{}", help="the service's settings, as a JSON object")
    parser.add_argument("--timeout", type=float, default=30)
    parser.add_argument("--all", action="store_true", help="every difference of a case, not only the first")
    parser.add_argument("-v", "--verbose", action="store_true", help="name the cases that pass, too")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    deviations = Deviations(json.loads(options.deviations.read_text(encoding="utf8")))
    families = set(filter(None, options.family.split(",")))
    recorded = read_cases(options.cases)
    cases = [
        case
        for case in under(recorded, json.loads(options.server_settings))
        if (not families or case["family"] in families) and options.id in ("", case["id"])
    ]
    client, tag, counts = Client(options.base_url, options.timeout), fresh_tag(), dict[str, list[int]]()
    for case in cases:
        found = run_case(client, case, tag, deviations)
        counts.setdefault(case["family"], [0, 0])[bool(found)] += 1
        for text in found if options.all else found[:1]:
            print(f"FAIL {text}")
        if options.verbose and not found:
            print(f"ok   {case['id']}")
    for family, (passed, failed) in counts.items():
        print(f"{family:8s} pass {passed:4d}  fail {failed:4d}")
    partly = len(cases) < len(recorded)
    for rule in [] if partly else deviations.unused():
        print(f"unused: {rule}")
    passed, failed = (sum(column) for column in zip(*counts.values(), strict=True)) if counts else (0, 0)
    print(f"TOTAL    pass {passed:4d}  fail {failed:4d}  (left out: {len(recorded) - len(cases)})")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
