"""Figures a process counts while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Counters:
    """Plain counters since the start; incremented on the event loop only."""

    observations: int = 0
    patterns_learned: int = 0
    predictions: int = 0
    requests: int = 0
    request_errors: int = 0
    sessions_created: int = 0
    sessions_deleted: int = 0
    sessions_expired: int = 0
    trims: int = 0
    errors_by_code: dict[str, int] = field(default_factory=dict)

    def error(self, code: str) -> None:
        """Count an answer that is not a success."""
        self.request_errors += 1
        self.errors_by_code[code] = self.errors_by_code.get(code, 0) + 1
