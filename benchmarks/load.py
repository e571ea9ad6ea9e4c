"""Load over HTTP: the program `wrk` for rates, one plain connection for everything else."""

from __future__ import annotations

import http.client
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from report import Row

UNIQUE = "@UNIQUE@@@@@"
"""In a body: replaced by twelve characters that no other request has."""

_INSTALL = (
    "the program `wrk` is missing; on Debian and Ubuntu: apt-get install -y wrk, on macOS: brew install wrk"
)
_RESULT = re.compile(r"RESULT " + " ".join([r"(\d+)"] * 9))
_RUNS = itertools.count()
# Requests are formatted once, so that the load generator costs as little as possible on a machine it shares.
_SCRIPT = """
local requests, n, k, c = {}, 0, 0, 0
function init(args)
  for line in io.lines("%(requests)s") do
    local method, path, body = line:match("^(%%S+) (%%S+) ?(.*)$")
    if method ~= "POST" then body = nil end
    n = n + 1
    requests[n] = wrk.format(method, path, {["Content-Type"] = "application/json"}, body)
  end
end
function request()
  k = k %% n + 1
  local text = requests[k]
  if %(unique)s then
    c = c + 1
    text = text:gsub("%(mark)s", string.format("%(run)s%%07x", c))
  end
  return text
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %%d %%d %%d %%d %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9),
    latency.max, e.status, e.connect + e.read + e.write + e.timeout))
end
"""


class Request(NamedTuple):
    """One request of a script that is repeated from the beginning when it ends."""

    method: str
    path: str
    body: str = ""


@dataclass(frozen=True)
class Run:
    """What wrk measured; times in milliseconds. `refused` are answers other than 2xx, `broken` had no answer."""

    requests: int
    seconds: float
    rate: float
    p50: float
    p90: float
    p99: float
    p999: float
    longest: float
    refused: int
    broken: int


def wrk(base: str, script: Sequence[Request], connections: int, seconds: float) -> Run:
    """Send the script over and over for some seconds, each connection one request at a time."""
    program = shutil.which("wrk")
    if program is None:
        raise RuntimeError(_INSTALL)
    with tempfile.TemporaryDirectory() as directory:
        requests, lua = Path(directory, "requests.txt"), Path(directory, "script.lua")
        requests.write_text("".join(f"{r.method} {r.path} {r.body}\n" for r in script))
        values = {
            "requests": requests,
            "mark": UNIQUE,
            "run": f"{next(_RUNS) & 0xFFFFF:05x}",
            "unique": str(any(UNIQUE in r.body for r in script)).lower(),
        }
        lua.write_text(_SCRIPT % values)
        command = [program, "-t", "1", "-c", str(connections), "-d", f"{max(1, round(seconds))}s"]
        command += ["--timeout", "30s", "-s", str(lua), base]
        result = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 90, check=False)
    found = _RESULT.search(result.stdout)
    if found is None:
        raise RuntimeError(f"wrk gave no result: {(result.stdout + result.stderr)[-500:]}")
    count, duration, *latencies, refused, broken = map(int, found.groups())
    p50, p90, p99, p999, longest = (value / 1000 for value in latencies)
    rate = count / duration * 1e6
    return Run(count, duration / 1e6, rate, p50, p90, p99, p999, longest, refused, broken)


def errors(runs: Sequence[Run]) -> Row:
    """How many requests of some runs were not answered as they should be, and how; there must be none."""
    refused, broken = sum(run.refused for run in runs), sum(run.broken for run in runs)
    note = f"{refused} refused, {broken} without an answer" if refused or broken else ""
    return Row("  errors", refused + broken, "", 0, "lower", note)


class Client:
    """One connection to a server, for preparing and for looking."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._used = time.monotonic()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer; `RuntimeError` for anything but 2xx."""
        if time.monotonic() - self._used > 1:
            # Servers close connections that have been idle for some seconds.
            self._connection.close()
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        data = answer.read()
        self._used = time.monotonic()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {data[:300]!r}")
        return json.loads(data)

    def session(self, node: str, **config: Any) -> str:
        """A new session on a node; its id."""
        made = self.call("POST", "/sessions", {"node_id": node, "config": config})
        return str(made["session_id"])

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
