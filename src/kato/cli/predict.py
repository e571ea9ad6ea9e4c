"""`kato predict`: what do these events resemble, and what comes next?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from kato.cli import output, target
from kato.cli.reading import jsonl
from kato.errors import BadRequest, ValidationError
from kato.model import Observation
from kato.presentation import Predictions

COLUMNS = (
    "pattern",
    "#potential",
    "#similarity",
    "#evidence",
    "#confidence",
    "#frequency",
    "present",
    "missing",
    "future",
)
NAME_SHOWN = 8


def predict(
    events: Annotated[
        list[str] | None,
        typer.Argument(metavar="EVENT...", help="Events in order; symbols separated by commas."),
    ] = None,
    node: target.Node = None,
    data: target.Data = None,
    url: target.Url = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Smallest similarity of a pattern (recall_threshold).  [default: 0.1]"),
    ] = None,
    rank: Annotated[str | None, typer.Option(help="Metric to rank by.  [default: potential]")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many predictions to print.")] = 10,
    stdin: Annotated[
        bool,
        typer.Option("--stdin", help="Read sequences from stdin, one JSON array of events on each line."),
    ] = False,
    as_json: output.Json = False,
) -> None:
    """Predict from a sequence of events: the learned patterns it resembles, and what they add up to."""
    if bool(events) == stdin:
        raise BadRequest("give events as arguments, or --stdin and sequences on stdin")
    sequences = _from_stdin() if stdin else [_from_arguments(events or [])]
    config = {"recall_threshold": threshold, "rank_sort_algo": rank}
    with target.opened(data, url) as memory:
        session = memory.session(node, config={k: v for k, v in config.items() if v is not None})
        try:
            for sequence in sequences:
                session.clear_stm()
                session.observe_sequence(sequence)
                _show(sequence, session.predictions(limit=limit), limit, as_json)
        finally:
            session.delete()


def _from_arguments(events: list[str]) -> list[Observation]:
    return [Observation(strings=tuple(filter(None, event.split(",")))) for event in events]


def _from_stdin() -> list[Sequence[Observation]]:
    sequences: list[Sequence[Observation]] = []
    for number, line in enumerate(sys.stdin, 1):
        if line.strip():
            try:
                sequences.append(jsonl.sequence(line.strip()))
            except ValidationError as error:
                raise BadRequest(f"stdin, line {number}: {error.message}", line=number) from None
    return sequences


def _show(sequence: Sequence[Observation], found: Predictions, limit: int, as_json: bool) -> None:
    futures = found.future_potentials
    if as_json:
        events = [list(observation.strings) for observation in sequence]
        output.emit({"events": events, "predictions": list(found), "future_potentials": futures})
        return
    if not found:
        output.say("Nothing that has been learned resembles these events.")
        return
    output.table(COLUMNS, map(row, found))
    if futures:
        output.say("")
        shown = [
            (
                output.events(future["future"]),
                f"{future['aggregate_potential']:.1%}",
                future["supporting_patterns"],
            )
            for future in futures[:limit]
        ]
        output.table(("future", "#share", "#patterns"), shown)


def row(prediction: dict[str, Any]) -> tuple[Any, ...]:
    """The cells of a prediction."""
    return (
        prediction["name"][:NAME_SHOWN],
        prediction["potential"],
        prediction["similarity"],
        prediction["evidence"],
        prediction["confidence"],
        prediction["frequency"],
        output.events(prediction["present"]),
        output.events(prediction["missing"]) if any(prediction["missing"]) else "",
        output.events(prediction["future"]),
    )
