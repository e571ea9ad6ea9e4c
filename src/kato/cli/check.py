"""`kato check`: is a data directory sound?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kato.cli import output


def check(
    directory: Annotated[Path, typer.Argument(help="Data directory to look at.")],
    as_json: output.Json = False,
) -> None:
    """Verify a data directory; exit code 1 when something is wrong.

    Reads everything and changes nothing; KATO may be running on the directory.
    """
    from kato.stores.sqlite.check import check as examine

    findings = examine(directory)
    if as_json:
        listed = [finding._asdict() for finding in findings]
        output.emit({"directory": str(directory), "ok": not findings, "findings": listed})
    elif findings:
        output.table(("file", "place", "problem"), findings)
        output.say(f"{directory}: {len(findings)} problems found")
    else:
        output.say(f"{directory}: everything is sound")
    if findings:
        raise typer.Exit(1)
