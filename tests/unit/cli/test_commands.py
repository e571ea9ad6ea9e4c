from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kato as package
from kato.cli import bench, check, main, nextevent, output, predict, serve, tickets
from kato.settings import Settings
from tests.support.server import serving
from tests.unit.cli.running import kato

ROOT = Path(__file__).parents[3]


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    """A data directory whose node `n` knows three sequences."""
    data = tmp_path / "data"
    with package.open(data) as memory:
        memory.learn_many(
            "n", [[["a"], ["b", "x"], ["c"]], [["a"], ["b"], ["d"]], [["a"], ["b"], ["d"]]], "first"
        )
    return data


# main -----------------------------------------------------------------------------------------------------------


def test_version() -> None:
    assert kato("--version").out == f"kato {package.__version__}\n"


def test_an_unpacked_source_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise main.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(main.metadata, "version", missing)
    assert main.version() == "unreleased"


def test_without_a_command_the_help_is_shown() -> None:
    ran = kato()
    assert ran.code == 2
    assert all(
        name in ran.out + ran.err for name in ("serve", "learn", "predict", "patterns", "export", "demo")
    )


@pytest.mark.parametrize("words", [["brew"], ["learn"], ["learn", "nothing-here"], ["patterns", "show"]])
def test_wrong_usage_ends_with_two(words: list[str]) -> None:
    ran = kato(*words)
    assert ran.code == 2
    assert "Traceback" not in ran.err


def test_every_command_has_json() -> None:
    for words in (
        ["serve"], ["learn"], ["predict"], ["export"], ["import"], ["check"], ["bench"], ["demo"],
        ["patterns", "list"], ["patterns", "show"], ["patterns", "delete"],
    ):  # fmt: skip
        assert "--json" in kato(*words, "--help").out, words


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECALL_THRESHOLD", "2")
    ran = kato("patterns", "list")
    assert ran.code == 1
    assert ran.err.startswith("kato: Wrong settings: RECALL_THRESHOLD")


def test_an_error_of_the_system_is_one_sentence(tmp_path: Path, learned: Path) -> None:
    ran = kato("export", tmp_path / "no" / "such" / "file", "--node", "n", "--data", learned)
    assert ran.code == 1
    assert ran.err == f"kato: {tmp_path}/no/such/file.new: No such file or directory\n"


def test_a_directory_in_use_is_told(learned: Path) -> None:
    with package.open(learned):
        ran = kato("patterns", "list", "--data", learned)
    assert ran.code == 1
    assert "is in use by another KATO process" in ran.err


def test_a_reader_that_has_seen_enough_is_no_error(learned: Path) -> None:
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "tests.support.serve",
        "patterns",
        "list",
        "--data",
        str(learned),
    ]
    with subprocess.Popen(
        [*command, "--node", "n", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1


# output -----------------------------------------------------------------------------------------------------------


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", "#number"), [("\x1b[2Jä\n", 1), ("[bold]", 0.5), (None, None)])
    assert capsys.readouterr().out == "name        number\n\\x1b[2Jä\\n       1\n[bold]      0.5000\n\n"


def test_tables_have_a_fixed_width_away_from_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    assert output.console().width == output.WIDTH


# serve ------------------------------------------------------------------------------------------------------------


def test_serve_hands_its_options_over(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Settings] = []
    monkeypatch.setattr("kato.api.server.serve", given.append)
    assert kato("serve", "--host", "::1", "--port", 81, "--data", "d", "--workers", 2, "--json").code == 0
    assert kato("serve").code == 0
    first, second = given
    assert (first.host, first.port, first.kato_data, first.workers, first.log_format) == (
        "::1",
        81,
        "d",
        2,
        "json",
    )
    assert (second.host, second.port, second.kato_data, second.log_format) == (
        "127.0.0.1", 8000, "./kato-data", "human",
    )  # fmt: skip
    assert serve.serve.__doc__


# predict ----------------------------------------------------------------------------------------------------------


def test_predictions_as_a_table(learned: Path) -> None:
    ran = kato("predict", "--node", "n", "--data", learned, "a", "b")
    head, first, second, blank, futures, *rows = ran.out.splitlines()
    assert head.split() == [name.removeprefix("#") for name in predict.COLUMNS]
    assert first.split()[1:] == ["3.6667", "0.8000", "0.6667", "1.0000", "2", "a", "→", "b", "d"]
    assert second.split()[5:] == ["1", "a", "→", "b,x", "·", "→", "x", "c"]
    assert not blank
    assert futures.split() == ["future", "share", "patterns"]
    assert [row.split()[0] for row in rows] == ["d", "c"]


def test_predictions_as_json_equal_the_api(learned: Path) -> None:
    document = kato("predict", "--node", "n", "--data", learned, "--json", "a", "b,x").json
    with package.open(learned) as memory:
        session = memory.session("n")
        session.observe_sequence([["a"], ["b", "x"]])
        found = session.predictions()
        assert memory.count_sessions() == 1
    assert document == {
        "events": [["a"], ["b", "x"]],
        "predictions": list(found),
        "future_potentials": found.future_potentials,
    }


def test_many_sequences_come_through_stdin(learned: Path) -> None:
    lines = '[["a"],["b"]]\n\n[{"strings": ["a"]}, ["zzz"]]\n[["q"]]\n'
    words = ["predict", "--node", "n", "--data", learned, "--stdin"]
    answers = [json.loads(line) for line in kato(*words, "--json", stdin=lines).out.splitlines()]
    assert [len(answer["predictions"]) for answer in answers] == [2, 2, 0]
    assert kato(*words, stdin='[["q"]]').out == "Nothing that has been learned resembles these events.\n"
    ran = kato(*words, stdin='[["a"]]\n{"strings": []}\n')
    assert ran.code == 1
    assert ran.err.startswith("kato: stdin, line 2: expected an observation")


def test_threshold_rank_and_limit(learned: Path) -> None:
    words = ["predict", "--node", "n", "--data", learned, "--json", "a", "b"]
    assert len(kato(*words, "--threshold", 0.75).json["predictions"]) == 1
    assert len(kato(*words, "--limit", 1).json["predictions"]) == 1
    assert kato(*words, "--rank", "frequency").json["predictions"][0]["frequency"] == 2
    ran = kato(*words, "--rank", "beauty")
    assert ran.code == 1
    assert "rank_sort_algo" in ran.err


def test_events_or_stdin_but_not_both_nor_none() -> None:
    for words in ([], ["a", "--stdin"]):
        ran = kato("predict", *words)
        assert ran.code == 1
        assert "give events as arguments, or --stdin" in ran.err


def test_a_pattern_may_have_no_future(learned: Path) -> None:
    assert (
        "future  "
        not in kato("predict", "--node", "n", "--data", learned, "a", "b,x", "c").out.splitlines()[-1]
    )


# patterns ---------------------------------------------------------------------------------------------------------


def test_patterns_are_listed_by_frequency_or_name(learned: Path) -> None:
    words = ["patterns", "list", "--node", "n", "--data", learned]
    by_frequency = kato(*words, "--json").json
    assert [item["frequency"] for item in by_frequency["patterns"]] == [2, 1]
    assert by_frequency["total"] == 2
    names = [item["name"] for item in kato(*words, "--order", "name", "--json").json["patterns"]]
    assert names == sorted(names)
    assert kato(*words, "--symbol", "x").out.splitlines()[-1] == "1 of 2 patterns of node n"
    assert len(kato(*words, "--min-frequency", 2, "--json").json["patterns"]) == 1
    assert len(kato(*words, "--order", "name", "--limit", 1, "--json").json["patterns"]) == 1


def test_patterns_are_listed_page_by_page(learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kato.cli.patterns.PAGE", 1)
    assert len(kato("patterns", "list", "--node", "n", "--data", learned, "--json").json["patterns"]) == 2


def test_a_pattern_is_shown_by_any_form_of_its_name(learned: Path) -> None:
    (item, *_) = kato("patterns", "list", "--node", "n", "--data", learned, "--json").json["patterns"]
    bare = item["name"].removeprefix("PTRN|")
    for name in (bare, item["name"], bare[:8], bare[:8].upper(), "PTRN|" + bare[:12]):
        assert kato("patterns", "show", name, "--node", "n", "--data", learned, "--json").json == item
    shown = kato("patterns", "show", bare, "--node", "n", "--data", learned).out
    assert "events     a → b → d" in shown
    assert "emotives   none" in shown


def test_emotives_and_metadata_are_shown(tmp_path: Path) -> None:
    with package.open(tmp_path / "d") as memory:
        observation = {"strings": ["a", "b"], "emotives": {"joy": 1.5}, "metadata": {"who": "ann"}}
        memory.learn_many("n", [[observation]], "x")
        name = memory.patterns("n")["patterns"][0]["name"]
    shown = kato("patterns", "show", name, "--node", "n", "--data", tmp_path / "d").out
    assert '[{"joy":1.5}]' in shown
    assert "metadata who  ann" in shown


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("zebra", "is not the beginning of a pattern's name"),
        ("0" * 39, "node n has no pattern"),
        ("0" * 40, "not found"),
        ("PTRN|", "is not the beginning"),
    ],
)
def test_unknown_patterns_are_told(learned: Path, name: str, reason: str) -> None:
    ran = kato("patterns", "show", name, "--node", "n", "--data", learned)
    assert ran.code == 1
    assert reason in ran.err


def test_an_ambiguous_name_is_told(tmp_path: Path) -> None:
    with package.open(tmp_path / "d") as memory:
        memory.learn_many("n", [[["a"], [str(number)]] for number in range(20)], "x")
        first = [item["name"].removeprefix("PTRN|")[0] for item in memory.patterns("n")["patterns"]]
    double = next(digit for digit in first if first.count(digit) > 1)
    ran = kato("patterns", "show", double, "--node", "n", "--data", tmp_path / "d")
    assert ran.code == 1
    assert "give more of the name" in ran.err


def test_patterns_are_deleted_all_or_none(learned: Path) -> None:
    words = ["--node", "n", "--data", learned]
    names = [item["name"] for item in kato("patterns", "list", *words, "--json").json["patterns"]]
    ran = kato("patterns", "delete", names[0], "0" * 40, *words)
    assert ran.code == 1
    assert kato("patterns", "list", *words, "--json").json["total"] == 2
    assert kato("patterns", "delete", names[0], names[0], *words).out == "Deleted 1 pattern of node n.\n"
    assert kato("patterns", "delete", names[1], *words, "--json").json == {"node": "n", "deleted": [names[1]]}
    assert "0 of 0 patterns" in kato("patterns", "list", *words).out


def test_a_server_answers_the_same(learned: Path) -> None:
    where = ["--data", learned]
    local = [
        kato("patterns", "list", "--node", "n", *where).out,
        kato("predict", "--node", "n", *where, "a", "b", "--json").out,
    ]
    with serving(learned) as server:
        where = ["--url", server.url]
        assert [
            kato("patterns", "list", "--node", "n", *where).out,
            kato("predict", "--node", "n", *where, "a", "b", "--json").out,
        ] == local
        assert kato("patterns", "list", *where).out.endswith("0 of 0 patterns of node kato\n")


# check ------------------------------------------------------------------------------------------------------------


def test_a_sound_directory(learned: Path) -> None:
    assert kato("check", learned).out == f"{learned}: everything is sound\n"
    assert kato("check", learned, "--json").json == {"directory": str(learned), "ok": True, "findings": []}


def test_a_damaged_directory(learned: Path) -> None:
    (learned / "sessions.db").write_bytes(b"rubbish" * 1000)
    ran = kato("check", learned)
    assert ran.code == 1
    assert "sessions.db" in ran.out
    assert ran.out.endswith("problems found\n")
    found = kato("check", learned, "--json")
    assert found.code == 1
    assert not found.json["ok"]
    assert set(found.json["findings"][0]) == {"file", "place", "problem"}
    assert check.check.__doc__


# bench ------------------------------------------------------------------------------------------------------------


def test_bench_measures() -> None:
    figures = kato("bench", "--patterns", 200, "--json").json
    assert figures["patterns"] == 200
    assert [row["threshold"] for row in figures["predictions"]] == list(bench.THRESHOLDS)
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in figures["predictions"])
    assert "patterns learned" in kato("bench", "--patterns", 100).out


def test_all_benchmarks_are_run_where_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[list[str]] = []

    def run(command: list[str], check: bool) -> Any:
        ran.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(bench.subprocess, "run", run)
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "src" / "kato" / "cli" / "bench.py"))
    assert "not installed from it" in kato("bench", "--full").err
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "run.py").touch()
    assert kato("bench", "--full").code == 3
    assert ran == [[sys.executable, str(tmp_path / "benchmarks" / "run.py")]]


# demo -------------------------------------------------------------------------------------------------------------


def test_the_example_file_is_what_its_generator_writes() -> None:
    assert (ROOT / "examples" / "tickets.csv").read_text(encoding="utf-8") == tickets.text()


def test_the_log_has_what_its_description_promises() -> None:
    cases: dict[str, list[str]] = {}
    for row in tickets.rows():
        cases.setdefault(row.case, []).append(row.activity)
    closed = [activities for activities in cases.values() if activities[-1] == tickets.CLOSED]
    assert len(cases) == tickets.CASES
    assert len(cases) - len(closed) == tickets.RUNNING
    assert any(activities.count("Install fix") > 1 for activities in closed)
    assert any("Escalate" in activities for activities in closed)
    assert any("Reopen ticket" in activities for activities in closed)
    assert any(not any(a.startswith("Classify") for a in activities) for activities in closed)
    assert any("Install fix" in activities and "Test fix" not in activities for activities in closed)


def test_demo_twice_on_one_directory_learns_once(tmp_path: Path) -> None:
    documents = [kato("demo", "--data", tmp_path / "d", "--json").json for _ in range(2)]
    assert documents[0] == documents[1]
    (document, _) = documents
    assert document["learned"]["cases"] == 300
    assert len(document["running"]) == tickets.RUNNING
    assert document["accuracy"]["right"]["kato"] > document["accuracy"]["right"]["most frequent activity"]
    explained = document["explained"]["predictions"]
    assert all(len(row["cases"]) == row["frequency"] for row in explained)
    assert any(any(row["missing"]) for row in explained)


def test_demo_tells_its_story() -> None:
    out = kato("demo").out
    for part in ("Learned 300 closed tickets", "Why? Ticket T", "missing, though", "still to come", "right"):
        assert part in out
    assert "is all kept in" not in out
    assert "is all kept in kept" in kato("demo", "--data", "kept").out


# nextevent --------------------------------------------------------------------------------------------------------


def _prediction(future: list[list[str]], matches: list[str], frequency: int = 1) -> dict[str, Any]:
    return {"future": future, "matches": matches, "frequency": frequency, "confidence": 0.5}


def test_votes_add_up_and_end_counts_when_asked_for() -> None:
    rows = [
        _prediction([["c"], ["d"]], ["a", "b"], 3),
        _prediction([["c"]], ["a", "b"]),
        _prediction([], ["a", "b"], 5),
        _prediction([["e"]], [], 100),
    ]
    observed = [["a"], ["b"]]
    assert [vote.event for vote in nextevent.votes(rows, observed)] == [(), ("c",), ("e",)]
    assert sum(vote.share for vote in nextevent.votes(rows, observed)) == pytest.approx(1.0)
    assert nextevent.best(rows, observed) == ("c",)
    assert nextevent.best(rows, observed, end=True) == ()
    assert nextevent.best([], observed) is None


def test_a_vote_for_what_should_have_come_earlier_hardly_counts() -> None:
    current, stale = _prediction([["c"]], ["b"]), _prediction([["d"]], ["a"], 100)
    assert nextevent.best([current, stale], [["a"], ["b"]]) == ("c",)
    assert nextevent.best([stale], [["a"], ["b"]]) == ("d",)


def test_votes_without_weight_have_no_share() -> None:
    assert nextevent.votes([_prediction([["c"]], [])], [["a"]]) == [nextevent.Vote(("c",), 0.0)]
