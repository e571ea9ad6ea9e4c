"""The recorded cases by what they need, and the replays of a run of tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.conformance import replay

CASES = replay.read_cases()
RULES = json.loads(replay.DEVIATIONS.read_text(encoding="utf8"))
ALGORITHMS = sorted(
    {case["server_settings"]["RANK_SORT_ALGO"] for case in CASES if "server_settings" in case}
)
"""Cases of each were recorded under a service with this `RANK_SORT_ALGO`."""
SETTINGS: list[dict[str, str]] = [{}, *({"RANK_SORT_ALGO": each} for each in ALGORITHMS)]
"""The settings under which cases were recorded."""
FAMILIES = list(dict.fromkeys(case["family"] for case in replay.under(CASES, {})))
"""The families that were recorded under default settings."""


def of_family(family: str) -> list[dict[str, Any]]:
    """The cases of a family that were recorded under default settings."""
    return [case for case in replay.under(CASES, {}) if case["family"] == family]


class Replays:
    """Which cases were replayed, and which wanted differences occurred."""

    def __init__(self) -> None:
        self.deviations = replay.Deviations(RULES)
        self._replayed: set[str] = set()

    def differences(self, client: replay.Caller, cases: Sequence[dict[str, Any]]) -> list[str]:
        """The unwanted differences of the cases, as text."""
        tag, found = replay.fresh_tag(), list[str]()
        for case in cases:
            found += replay.run_case(client, case, tag, self.deviations)
        self._replayed |= {case["id"] for case in cases}
        return found

    def left(self, settings: dict[str, str]) -> list[dict[str, Any]]:
        """The cases under these settings of the service that were not replayed here, but maybe in another process."""
        return [case for case in replay.under(CASES, settings) if case["id"] not in self._replayed]
