"""An event log of support tickets, made up but life-like, and the same on every machine.

No real log may be given away freely, so KATO's demo brings its own. It looks as it does for these reasons:

* **Kinds of tickets.** A password, a software fault, a broken device and a request for access are handled in
  different ways. What comes next depends on the kind, so on an activity that may lie several steps back.
* **A happy path.** Most tickets of a kind run alike. That is what a memory of whole cases is good at: the
  same pattern is learned many times and its frequency counts.
* **Rework.** A fix fails its test and is done again, sometimes twice. The same activities come again, so the
  last activity alone does not say what comes next.
* **Waiting loops.** The customer is asked and answers, at any time before the work begins.
* **Escalations.** Some tickets go to the specialists, who look at the fault again.
* **Missing steps.** Now and then nobody classifies the ticket, or a test is skipped. A prediction shows such
  a step as *missing*.
* **Running cases.** The latest tickets are not closed yet: these are the ones to predict.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

CASES = 400
RUNNING = 24
SEED = 20260105
HEADER = ("case", "activity", "time", "team")
CLOSED = "Close ticket"

_MASK = (1 << 64) - 1
_START = datetime(2026, 1, 5, 8, 0)
_TEAMS = {
    "Open ticket": "customer",
    "Answer question": "customer",
    "Confirm solution": "customer",
    "Classify password": "front desk",
    "Classify software": "front desk",
    "Classify device": "front desk",
    "Classify access": "front desk",
    "Ask customer": "front desk",
    "Reset password": "front desk",
    "Close ticket": "front desk",
    "Escalate": "front desk",
    "Reopen ticket": "customer",
    "Approve request": "management",
    "Reject request": "management",
    "Grant access": "operations",
    "Order part": "operations",
    "Receive part": "operations",
    "Replace part": "operations",
    "Inspect device": "operations",
    "Analyse fault": "developers",
    "Install fix": "developers",
    "Test fix": "developers",
    "Analyse as specialist": "specialists",
}


class Row(NamedTuple):
    """One event of the log."""

    case: str
    activity: str
    time: str
    team: str


class Random:
    """splitmix64: tiny, and independent of the interpreter's own generator."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def _next(self) -> int:
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        value = self._state
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
        return value ^ (value >> 31)

    def below(self, limit: int) -> int:
        """An integer from 0 to `limit` - 1.

        >>> Random(1).below(6) in range(6)
        True
        """
        return (self._next() >> 11) * limit >> 53

    def chance(self, percent: int) -> bool:
        """True in `percent` of 100 cases."""
        return self.below(100) < percent


def rows(cases: int = CASES, running: int = RUNNING, seed: int = SEED) -> list[Row]:
    """The events of the log in order of time; the last `running` of its `cases` are not closed."""
    log: list[Row] = []
    opened = _START
    for number in range(cases):
        random = Random(seed * 0x100000001B3 ^ number * 0xD1342543DE82EF95)
        activities = list(_case(random))
        if number >= cases - running:
            # At least two activities show what kind of ticket it is, and at least the closing is to come.
            activities = activities[: 2 + random.below(len(activities) - 3)]
        opened += timedelta(minutes=7 + random.below(50))
        moment = opened
        for activity in activities:
            log.append(Row(f"T{number + 1:04}", activity, moment.isoformat(), _TEAMS[activity]))
            moment += timedelta(minutes=5 + random.below(240))
    return sorted(log, key=lambda row: (row.time, row.case))


def text() -> str:
    """The log as CSV."""
    return "".join(",".join(row) + "\n" for row in (HEADER, *rows()))


def _case(random: Random) -> Iterator[str]:
    yield "Open ticket"
    kind = ("password", "password", "software", "software", "software", "device", "access")[random.below(7)]
    if not random.chance(6):
        yield f"Classify {kind}"
    while random.chance(18):
        yield "Ask customer"
        yield "Answer question"
    yield from {"password": _password, "software": _software, "device": _device, "access": _access}[kind](
        random
    )
    yield CLOSED


def _password(random: Random) -> Iterator[str]:
    yield "Reset password"
    if not random.chance(25):
        yield "Confirm solution"


def _software(random: Random) -> Iterator[str]:
    yield "Analyse fault"
    if random.chance(20):
        yield "Escalate"
        yield "Analyse as specialist"
    yield from _fix(random)
    if random.chance(60):
        yield "Confirm solution"
        if random.chance(8):
            yield "Reopen ticket"
            yield "Analyse as specialist"
            yield from _fix(random)


def _fix(random: Random) -> Iterator[str]:
    while True:
        yield "Install fix"
        if not random.chance(7):
            yield "Test fix"
        if not random.chance(20):
            return


def _device(random: Random) -> Iterator[str]:
    yield "Inspect device"
    if random.chance(75):
        yield "Order part"
        yield "Receive part"
        yield "Replace part"
    else:
        yield "Install fix"
    if not random.chance(10):
        yield "Test fix"
    yield "Confirm solution"


def _access(random: Random) -> Iterator[str]:
    if random.chance(70):
        yield "Approve request"
        yield "Grant access"
        yield "Confirm solution"
    else:
        yield "Reject request"
