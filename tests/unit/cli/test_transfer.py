from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import pytest

import kato as package
from kato import bootstrap, settings
from kato.engine.learning import forget
from tests.unit.cli.running import kato


@pytest.fixture
def rich(tmp_path: Path) -> Path:
    """A data directory whose node holds everything a pattern can have."""
    data = tmp_path / "rich"
    observation = {
        "strings": ["naïve", "日本", "\U0001f600", 'a "quoted" \\ one'],
        "emotives": {"joy": 0.1, "fear": 1e-300},
        "metadata": {"who": ["ann"], "n": 1},
    }
    with package.open(data) as memory:
        session = memory.session("n")
        session.observe_sequence([observation, ["b"]], learn_at_end=True)
        session.observe_sequence([{"strings": ["v"], "vectors": [[0.1, math.pi]]}, ["w"]], learn_at_end=True)
        session.observe_sequence([{"vectors": [[1e-5, 1e9]]}, ["w"]], learn_at_end=True)
        session.finalize_training()
        session.observe_sequence([["a"], ["b"]], learn_at_end=True)
        name = memory.patterns("n", symbol="b")["patterns"][0]["name"]
        memory.update_pattern(name, "n", frequency=0, emotives={"joy": [1.0, 2.5]})
    return data


def test_export_import_export_gives_the_same_bytes(rich: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    ran = kato("export", first, "--node", "n", "--data", rich, "--json")
    assert ran.json == {"node": "n", "file": str(first), "patterns": 4, "vectors": 2}
    ran = kato("import", first, "--node", "other", "--data", tmp_path / "new", "--json")
    assert ran.json == {"node": "other", "file": str(first), "patterns": 4, "unchanged": 0, "vectors": 2}
    assert kato("export", second, "--node", "other", "--data", tmp_path / "new").code == 0
    assert first.read_bytes() == second.read_bytes()
    lines = [json.loads(line) for line in first.read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {"format": "kato-node", "version": 1, "vectors": 2, "patterns": 4}
    assert [line["name"] for line in lines[3:]] == sorted(line["name"] for line in lines[3:])
    assert {line["finalized"] for line in lines[3:]} == {True, False}
    assert max(line["revision"] for line in lines[3:]) > 1
    assert not list(tmp_path.glob("*.new"))


def test_an_imported_node_predicts_the_same(rich: Path, tmp_path: Path) -> None:
    kato("export", tmp_path / "x", "--node", "n", "--data", rich)
    kato("import", tmp_path / "x", "--node", "n", "--data", tmp_path / "new")
    line = '[{"strings": ["v"], "vectors": [[0.1, 3.0]]}, ["b"]]'
    answers = [
        kato("predict", "--stdin", "--json", "--node", "n", "--data", data, stdin=line).json
        for data in (rich, tmp_path / "new")
    ]
    assert answers[0]["predictions"]
    assert answers[0] == answers[1]


def test_a_repeated_import_changes_nothing(rich: Path, tmp_path: Path) -> None:
    kato("export", tmp_path / "x", "--node", "n", "--data", rich)
    words = ["import", tmp_path / "x", "--node", "n", "--data", rich]
    assert (
        kato(*words).out == "Imported 0 patterns and 2 vectors into node n; 4 patterns were there already.\n"
    )
    assert kato(*words, "--replace", "--json").json["unchanged"] == 4


def test_other_values_are_overwritten_only_on_request(rich: Path, tmp_path: Path) -> None:
    kato("export", tmp_path / "x", "--node", "n", "--data", rich)
    with package.open(rich) as memory:
        name = memory.patterns("n", limit=1)["patterns"][0]["name"]
        memory.update_pattern(name, "n", frequency=77)
    ran = kato("import", tmp_path / "x", "--node", "n", "--data", rich)
    assert ran.code == 1
    assert "with other values; nothing was imported" in ran.err
    assert (
        kato("import", tmp_path / "x", "--node", "n", "--data", rich, "--replace", "--json").json["patterns"]
        == 1
    )
    kato("export", tmp_path / "y", "--node", "n", "--data", rich)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_an_import_puts_patterns_in_the_place_of_forgotten_ones(rich: Path, tmp_path: Path) -> None:
    kato("export", tmp_path / "x", "--node", "n", "--data", rich)
    kato("import", tmp_path / "x", "--node", "n", "--data", tmp_path / "new")

    async def forget_one() -> None:
        async with bootstrap.running(settings.load(kato_data=str(tmp_path / "new"))) as running:
            patterns = running.memory.patterns
            ((record, *_),) = [batch async for batch in patterns.scan("n")]
            (old,) = (await patterns.fetch("n", [record.name.hex()])).values()
            assert await patterns.replace("n", forget(old, "deletion"), old.revision)

    asyncio.run(forget_one())
    kato("export", tmp_path / "less", "--node", "n", "--data", tmp_path / "new")
    less, whole = ((tmp_path / name).read_text().splitlines() for name in ("less", "x"))
    assert len(less) == len(whole) - 1
    ran = kato("import", tmp_path / "x", "--node", "n", "--data", tmp_path / "new", "--json")
    assert (ran.json["patterns"], ran.json["unchanged"]) == (1, len(less) - 1 - ran.json["vectors"])
    kato("export", tmp_path / "again", "--node", "n", "--data", tmp_path / "new")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "x").read_bytes()


def test_export_to_stdout(rich: Path, tmp_path: Path) -> None:
    kato("export", tmp_path / "x", "--node", "n", "--data", rich)
    assert kato("export", "-", "--node", "n", "--data", rich).out == (tmp_path / "x").read_text(
        encoding="utf-8"
    )


def test_an_empty_node_is_told(rich: Path, tmp_path: Path) -> None:
    ran = kato("export", tmp_path / "x", "--data", rich)
    assert ran.code == 1
    assert "node kato holds nothing" in ran.err
    assert not (tmp_path / "x").exists()


def test_vectors_of_another_dimension_are_refused(rich: Path, tmp_path: Path) -> None:
    kato("export", tmp_path / "x", "--node", "n", "--data", rich)
    with package.open(tmp_path / "new") as memory:
        memory.learn_many("n", [[{"vectors": [[1.0, 2.0, 3.0]]}, ["a"]]], "x")
    ran = kato("import", tmp_path / "x", "--node", "n", "--data", tmp_path / "new")
    assert ran.code == 1
    assert "vectors of another dimension" in ran.err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda lines: [], "line 1: this is not a file that `kato export` has written"),
        (lambda lines: ['{"format":"x","version":1,"vectors":0,"patterns":0}'], "line 1: this is not a file"),
        (
            lambda lines: [lines[0].replace('"version":1', '"version":2'), *lines[1:]],
            "the export has version 2",
        ),
        (lambda lines: lines[:-1], "the file ends after 2 vectors and 3 patterns"),
        (lambda lines: [*lines, lines[-1]], "not in ascending order of name"),
        (lambda lines: [*lines[:-1], lines[-1][:-9]], "line 7"),
        (
            lambda lines: [*lines[:3], lines[3].replace('"events":[["', '"events":[["!'), *lines[4:]],
            "line 4: the name",
        ),
        (
            lambda lines: [lines[0], '{"vector":"v","values":[1]}', *lines[2:]],
            "line 3: expected a vector of 1",
        ),
    ],
)
def test_a_wrong_file_changes_nothing(rich: Path, tmp_path: Path, change: object, reason: str) -> None:
    path = tmp_path / "x"
    kato("export", path, "--node", "n", "--data", rich)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert callable(change)
    path.write_text("".join(line + "\n" for line in change(lines)), encoding="utf-8")
    ran = kato("import", path, "--node", "n", "--data", tmp_path / "new")
    assert ran.code == 1
    assert reason in ran.err
    assert kato("patterns", "list", "--node", "n", "--data", tmp_path / "new", "--json").json["total"] == 0
