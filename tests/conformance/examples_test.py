"""Every behaviour example runs through the engine; what differs from the recording is listed, exactly."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.examples_driver import Node, Session

HERE = Path(__file__).parent
CONTENT = json.loads(gzip.decompress((HERE / "examples.json.gz").read_bytes()))
EXAMPLES: dict[str, dict[str, Any]] = {example["name"]: example for example in CONTENT["examples"]}
DEVIATIONS: list[dict[str, Any]] = json.loads((HERE / "example_deviations.json").read_text("utf-8"))
TOLERANCE: float = CONTENT["float_tolerance"]


def different_fields(want: Any, got: Any, field: str = "") -> set[str]:
    """Names of the innermost fields that differ.

    "" stands for the whole value, when it is no object or has another number of items; "order" for rows in
    another order, which are then compared by name.
    """
    if isinstance(want, dict) and isinstance(got, dict):
        found: set[str] = set()
        for key, value in want.items():
            found |= different_fields(value, got[key], key) if key in got else {key}
        return found
    if isinstance(want, list) and isinstance(got, list):
        if len(want) != len(got):
            return {field}
        names = [row["name"] for row in want if isinstance(row, dict) and "name" in row]
        if names and names != [row["name"] for row in got]:
            want, got = (sorted(rows, key=lambda row: str(row["name"])) for rows in (want, got))
            return {"order"} | different_fields(want, got, field)
        return set().union(*(different_fields(a, b, field) for a, b in zip(want, got, strict=True)))
    if isinstance(want, float | int) and not isinstance(want, bool) and isinstance(got, float | int):
        return set() if math.isclose(want, got, rel_tol=TOLERANCE, abs_tol=TOLERANCE) else {field}
    return set() if want == got and type(want) is type(got) else {field}


def run(example: dict[str, Any]) -> dict[int, set[str]]:
    """Play an example; the differing fields of every step that differs."""
    nodes: dict[str, Node] = {}
    sessions: dict[str, Session] = {}
    if example["steps"][0]["op"] != "session":
        sessions["s1"] = Session(nodes.setdefault("", Node()), example["config"])
    differences = {}
    for number, step in enumerate(example["steps"]):
        if step["op"] == "session":
            node = nodes.setdefault(step["args"]["node_id"], Node())
            sessions[step["args"]["session"]] = Session(node, example["config"])
            continue
        got = getattr(sessions[step.get("session", "s1")], step["op"])(**step["args"])
        if "result" not in step:
            continue
        want = step.get("recommended", step["result"])
        if step.get("unordered"):
            want, got = (sorted(rows, key=lambda row: str(row["name"])) for rows in (want, got))
        if found := different_fields(want, got):
            differences[number] = found
    return differences


@pytest.mark.parametrize("name", EXAMPLES)
def test_differs_from_the_recording_exactly_as_listed(name: str) -> None:
    listed = {entry["step"]: set(entry["fields"]) for entry in DEVIATIONS if entry["example"] == name}
    assert run(EXAMPLES[name]) == listed


def test_all_examples_are_there() -> None:
    assert len(EXAMPLES) == 72


def test_every_deviation_names_its_reason() -> None:
    for entry in DEVIATIONS:
        assert entry["example"] in EXAMPLES
        assert entry["register"]
        assert entry["why"]
