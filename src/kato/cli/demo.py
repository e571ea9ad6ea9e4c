"""`kato demo`: learn an event log of support tickets, predict what comes next, and explain one prediction."""

from __future__ import annotations

import csv
import io
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

import kato
from kato.cli import nextevent, output, tickets
from kato.cli.predict import NAME_SHOWN
from kato.embedded import EmbeddedKato
from kato.model import Observation
from kato.presentation import Predictions
from kato.verbs.sync import Session

NODE = "tickets"
OPERATION = "demo:tickets"
HELD_OUT = 5
"""Every fifth closed case is held out and not learned."""
SHORTEST = 2
"""Predictions are made from this many activities on."""
CASES_SHOWN = 5
ROWS_SHOWN = 5
CONFIG = {"recall_threshold": 0.1}

Cases = dict[str, list[str]]


def demo(
    data: Annotated[
        str | None, typer.Option(help="Data directory to keep what is learned.  [default: a temporary one]")
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Learn 300 closed support tickets, predict what comes next in running ones, explain one prediction.

    Shows which learned cases a prediction rests on, with which evidence, and how often KATO is right on
    closed tickets that it has not learned. Repeating it on the same directory changes nothing.
    """
    closed, running = _cases()
    learned = {case: closed[case] for number, case in enumerate(closed) if number % HELD_OUT}
    held_out = {case: closed[case] for case in closed if case not in learned}
    with _directory(data) as directory, kato.open(directory) as memory:
        sequences = [_observations(case, activities) for case, activities in learned.items()]
        names = memory.learn_many(NODE, sequences, OPERATION)
        session = memory.session(NODE, config=CONFIG)
        forecasts = {case: _forecast(session, activities) for case, activities in running.items()}
        explained = _most_telling(running, forecasts)
        document = {
            "learned": {"cases": len(learned), "patterns": len(set(names)), "node": NODE},
            "running": [_running(case, running[case], found) for case, found in forecasts.items()],
            "explained": _explained(memory, explained, running[explained], forecasts[explained]),
            "accuracy": _accuracy(session, held_out, learned),
        }
        session.delete()
    if as_json:
        output.emit(document)
    else:
        _print(document, data)


@contextmanager
def _directory(data: str | None) -> Iterator[str]:
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="kato-demo-") as directory:
        yield str(Path(directory) / "data")


def _cases() -> tuple[Cases, Cases]:
    """Closed cases and running ones, by the order of their opening."""
    cases: Cases = {}
    for row in csv.DictReader(io.StringIO(tickets.text())):
        cases.setdefault(row["case"], []).append(row["activity"])
    closed = {case: activities for case, activities in cases.items() if activities[-1] == tickets.CLOSED}
    return closed, {case: activities for case, activities in cases.items() if case not in closed}


def _observations(case: str, activities: Sequence[str]) -> list[Observation]:
    """A case as KATO learns it: one event per activity; the pattern's metadata will name the case."""
    return [
        Observation(strings=(activity,), metadata={} if place else {"case": case})
        for place, activity in enumerate(activities)
    ]


def _events(activities: Sequence[str]) -> list[list[str]]:
    return [[activity] for activity in activities]


def _forecast(session: Session, activities: Sequence[str]) -> Predictions:
    session.clear_stm()
    session.observe_sequence(_events(activities))
    return session.predictions()


def _running(case: str, activities: list[str], found: Predictions) -> dict[str, Any]:
    votes = nextevent.votes(found, _events(activities))
    return {
        "case": case,
        "activities": activities,
        "next": [{"activity": vote.event[0], "share": vote.share} for vote in votes if vote.event][:2],
    }


def _most_telling(running: Cases, forecasts: dict[str, Predictions]) -> str:
    """The running case with the most missing steps among its best predictions; the longest of several."""

    def telling(case: str) -> tuple[int, int]:
        missing = sum(any(prediction["missing"]) for prediction in forecasts[case][:ROWS_SHOWN])
        return missing, len(running[case])

    return max(running, key=telling)


def _explained(memory: EmbeddedKato, case: str, activities: list[str], found: Predictions) -> dict[str, Any]:
    rows = []
    for prediction in found[:ROWS_SHOWN]:
        pattern = memory.pattern(prediction["name"], NODE)
        rows.append(
            {
                **prediction,
                "cases": pattern["metadata"].get("case", []),
                "vote": nextevent.weight(prediction, _events(activities)),
            }
        )
    return {"case": case, "activities": activities, "resembling": len(found), "predictions": rows}


def _accuracy(session: Session, held_out: Cases, learned: Cases) -> dict[str, Any]:
    """How often the most supported next activity was the right one, beside two simpler guesses."""
    usual = Counter(activity for activities in learned.values() for activity in activities[1:])
    after: dict[str, Counter[str]] = {}
    for activities in learned.values():
        for activity, following in pairwise(activities):
            after.setdefault(activity, Counter())[following] += 1
    right = Counter[str]()
    asked = 0
    for activities in held_out.values():
        for length in range(SHORTEST, len(activities)):
            truth = activities[length]
            found = _forecast(session, activities[:length])
            asked += 1
            right["kato"] += nextevent.best(found, _events(activities[:length])) == (truth,)
            right["last activity alone"] += after[activities[length - 1]].most_common(1)[0][0] == truth
            right["most frequent activity"] += usual.most_common(1)[0][0] == truth
    return {
        "cases": len(held_out),
        "predictions": asked,
        "right": {name: count / asked for name, count in right.items()},
    }


def _print(document: dict[str, Any], data: str | None) -> None:
    learned, explained = document["learned"], document["explained"]
    output.say(f"Learned {learned['cases']} closed tickets: {learned['patterns']} different patterns.\n")
    output.say("What happens next in the running tickets?")
    rows = []
    for case in document["running"]:
        first, second = (case["next"] + [None, None])[:2]
        rows.append((case["case"], case["activities"][-1], *_guess(first), *_guess(second)))
    output.table(("ticket", "latest activity", "next", "#share", "or", "#share"), rows)
    output.say(f"\nWhy? Ticket {explained['case']} so far: {' → '.join(explained['activities'])}")
    output.say(f"{explained['resembling']} learned patterns resemble it. The best, with their evidence:")
    output.table(
        ("pattern", "#learned", "#matches", "#evidence", "#confidence", "#snr", "missing", "then comes"),
        map(_reason, explained["predictions"]),
    )
    decisive = max(explained["predictions"], key=lambda row: row["vote"])
    others = [row for row in explained["predictions"] if row is not decisive and any(row["missing"])]
    for row in (decisive, *others[:1]):
        output.say(f"\nPattern {row['name'][:NAME_SHOWN]} in words:")
        for line in _words(row):
            output.say(f"  - {line}")
    _print_accuracy(document["accuracy"])
    if data is not None:
        output.say(f"\nIt is all kept in {data}; look around: kato patterns list --node {NODE} --data {data}")


def _guess(guess: dict[str, Any] | None) -> tuple[str, str]:
    return (guess["activity"], f"{guess['share']:.0%}") if guess else ("", "")


def _reason(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        row["name"][:NAME_SHOWN],
        f"{row['frequency']}x",
        f"{len(row['matches'])} of {row['length']}",
        f"{row['evidence']:.2f}",
        f"{row['confidence']:.2f}",
        f"{row['snr']:.2f}",
        _listed(row["missing"]),
        row["future"][0][0] if row["future"] else "(the end)",
    )


def _words(row: dict[str, Any]) -> Iterator[str]:
    cases = row["cases"]
    more = f" and {len(cases) - CASES_SHOWN} more" if len(cases) > CASES_SHOWN else ""
    times = "once" if row["frequency"] == 1 else f"{row['frequency']} times"
    yield f"learned {times}, from {', '.join(cases[:CASES_SHOWN])}{more}"
    yield (
        f"{len(row['matches'])} of its {row['length']} activities were observed in this order "
        f"(evidence {row['evidence']:.2f}): {', '.join(row['matches'])}"
    )
    if any(row["missing"]):
        yield f"missing, though the pattern has it between them: {_listed(row['missing'])}"
    if any(row["extras"]):
        yield f"observed, though the pattern does not have it there: {_listed(row['extras'])}"
    future = " → ".join(event[0] for event in row["future"])
    yield f"still to come: {future}" if future else "nothing is to come: the pattern ends here"


def _listed(events: Sequence[Sequence[str]]) -> str:
    return ", ".join(symbol for event in events for symbol in event)


def _print_accuracy(accuracy: dict[str, Any]) -> None:
    output.say(
        f"\nHow good is that? {accuracy['predictions']} next activities of {accuracy['cases']} closed "
        "tickets that were not learned:"
    )
    rows = [(name, f"{share:.1%}") for name, share in accuracy["right"].items()]
    output.table(("guess by", "#right"), rows)
