"""Runs commands in this process and keeps what they print."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from typer.testing import CliRunner

from kato.cli.main import app


class Ran(NamedTuple):
    """The end of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What a command with --json has printed."""
        return json.loads(self.out)


def kato(*words: object, stdin: str | None = None) -> Ran:
    """Run `kato` with these words; exceptions that no command expects are raised."""
    result = CliRunner().invoke(app, [str(word) for word in words], input=stdin, catch_exceptions=False)
    return Ran(result.exit_code, result.stdout, result.stderr)
