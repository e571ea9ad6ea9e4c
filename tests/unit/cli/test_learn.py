from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import kato as package
from kato.cli import learn, progress
from kato.cli.reading import Format
from tests.support.server import serving
from tests.unit.cli.running import kato

BASKETS = "1 -1 2 -1 -2\n1 -1 3 -1 -2\n1 -1 2 -1 -2\n4 -1 -2\n"


@pytest.fixture
def baskets(tmp_path: Path) -> Path:
    path = tmp_path / "baskets.spmf"
    path.write_text(BASKETS, encoding="utf-8")
    return path


def _frequencies(data: Path, node: str = "n") -> dict[str, int]:
    listed = kato("patterns", "list", "--data", data, "--node", node, "--limit", 100_000, "--json").json
    return {item["name"]: item["frequency"] for item in listed["patterns"]}


def test_a_file_is_learned_once(baskets: Path, tmp_path: Path) -> None:
    first = kato("learn", baskets, "--node", "n", "--data", tmp_path / "d")
    assert first.code == 0
    assert first.out.startswith("Learned 4 sequences in ")
    assert "1 sequences hold a single symbol" in first.out
    assert sorted(_frequencies(tmp_path / "d").values()) == [1, 2]
    second = kato("learn", baskets, "--node", "n", "--data", tmp_path / "d")
    assert second.out == f"{baskets} has been learned already (4 sequences); --again learns it once more.\n"
    assert sorted(_frequencies(tmp_path / "d").values()) == [1, 2]


def test_again_and_other_options_learn_it_once_more(baskets: Path, tmp_path: Path) -> None:
    for words in ([], ["--again"], ["--again", "--batch", 1]):
        report = kato("learn", baskets, "--node", "n", "--data", tmp_path / "d", "--json", *words).json
        assert report["sequences"] == 4
        assert not report["already_learned"]
        assert report["too_short"] == 1
    assert sorted(_frequencies(tmp_path / "d").values()) == [3, 6]
    assert kato("learn", baskets, "--node", "m", "--data", tmp_path / "d", "--json").json["sequences"] == 4


def test_without_a_node_the_own_one_is_taught(baskets: Path) -> None:
    assert kato("learn", baskets, "--json").json["node"] == "kato"
    assert Path("kato-data").is_dir()
    assert "of node kato" in kato("patterns", "list").out


def test_memory_keeps_no_note(baskets: Path) -> None:
    for _ in range(2):
        assert kato("learn", baskets, "--data", ":memory:", "--json").json["sequences"] == 4


def test_empty_file_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.touch()
    assert kato("learn", path, "--json").json["sequences"] == 0
    assert kato("learn", path, "--json").json["already_learned"]


def test_long_sequences_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_STM_SIZE", "3")
    path = tmp_path / "long.jsonl"
    path.write_text('[["a"],["b"],["c"],["d"]]\n[["a"],["b"]]\n', encoding="utf-8")
    assert "1 sequences have more than 3 events: only the latest 3 were learned." in kato("learn", path).out
    assert "b → c → d" in kato("patterns", "list").out


def test_csv_can_keep_the_cases(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("case,activity\nx,a\nx,b\ny,a\ny,b\n", encoding="utf-8")
    assert kato("learn", path, "--keep-cases").code == 0
    (pattern,) = kato("patterns", "list", "--json").json["patterns"]
    assert pattern["metadata"] == {"case": ["x", "y"]}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--case-column", "x"], 1, "columns can be chosen for CSV only"),
        (["--url", "http://127.0.0.1:1", "--batch", "17"], 1, "must not exceed 16"),
        (["--url", "http://127.0.0.1:1", "--data", "d"], 1, "either --data or --url"),
        (["--batch", "0"], 2, "--batch"),
        (["--format", "xes"], 2, "--format"),
        (["--node", "a\nb"], 1, "control characters"),
    ],
)
def test_wrong_use_is_told(baskets: Path, words: Sequence[str], code: int, message: str) -> None:
    ran = kato("learn", baskets, *words)
    assert ran.code == code
    assert message in " ".join(ran.err.split())
    assert "Traceback" not in ran.err


def test_a_damaged_note_is_told(baskets: Path, tmp_path: Path) -> None:
    assert kato("learn", baskets, "--data", tmp_path / "d").code == 0
    (note,) = (tmp_path / "d" / progress.FOLDER).iterdir()
    note.write_text("{", encoding="utf-8")
    ran = kato("learn", baskets, "--data", tmp_path / "d")
    assert ran.code == 1
    assert f"the progress note {tmp_path}/d/learned/{note.name} is damaged" in ran.err


def test_an_error_in_the_middle_keeps_what_was_learned_and_goes_on_after_repair(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('[["a"],["b"]]\n[["a"],["c"]]\n[["a"],[1]]\n', encoding="utf-8")
    ran = kato("learn", path, "--batch", 1, "--node", "n", "--data", tmp_path / "d")
    assert ran.code == 1
    assert "line 3" in ran.err
    assert len(_frequencies(tmp_path / "d")) == 2


# Interruptions ------------------------------------------------------------------------------------------------


def _many(path: Path, count: int = 3000) -> Path:
    choose = random.Random(5)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(
                " -1 ".join(str(choose.randrange(9)) for _ in range(choose.randrange(1, 5))) + " -1 -2\n"
            )
    return path


def test_killed_at_any_moment_nothing_is_counted_twice(tmp_path: Path) -> None:
    path = _many(tmp_path / "many.spmf")
    assert kato("learn", path, "--node", "n", "--data", tmp_path / "whole").code == 0
    command = [sys.executable, "-m", "tests.support.serve", "learn", str(path), "--node", "n"]
    command += ["--data", str(tmp_path / "d"), "--json"]
    notes = tmp_path / "d" / progress.FOLDER
    choose, killed, reached = random.Random(7), 0, [0]
    for number in range(8):
        # The batch size of the first run stays in force, whatever later runs ask for.
        process = subprocess.Popen(
            [*command, "--batch", "40" if number == 0 else "300"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
            text=True,
        )
        deadline = time.monotonic() + 60
        while process.poll() is None and not _further(notes, reached[-1]) and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(choose.random() * 0.05)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        out, err = process.communicate(timeout=60)
        reached.append(_sequences(notes))
        if process.returncode == 0:
            assert json.loads(out)["resumed_after"] > 0
            break
        assert process.returncode == -signal.SIGKILL, err
    assert killed >= 3
    assert reached == sorted(reached)
    assert kato("learn", path, "--node", "n", "--data", tmp_path / "d").code == 0
    assert _frequencies(tmp_path / "d") == _frequencies(tmp_path / "whole")


def _sequences(notes: Path) -> int:
    return max((json.loads(note.read_bytes())["sequences"] for note in notes.glob("*.json")), default=0)


def _further(notes: Path, before: int) -> bool:
    return notes.is_dir() and _sequences(notes) > before


def test_a_batch_that_was_stored_but_not_noted_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _many(tmp_path / "many.spmf", 300)
    assert kato("learn", path, "--node", "n", "--data", tmp_path / "whole").code == 0
    written = progress.Notebook.write

    def lost(book: progress.Notebook, note: progress.Note) -> None:
        if note.batches == 2:
            raise OSError(28, "No space left on device", "note")
        written(book, note)

    with monkeypatch.context() as patched:
        patched.setattr(progress.Notebook, "write", lost)
        ran = kato("learn", path, "--node", "n", "--data", tmp_path / "d", "--batch", 100)
    assert ran.code == 1
    assert ran.err == "kato: note: No space left on device\n"
    ran = kato("learn", path, "--node", "n", "--data", tmp_path / "d")
    assert "Went on after 100 sequences" in ran.out
    assert _frequencies(tmp_path / "d") == _frequencies(tmp_path / "whole")


# Servers --------------------------------------------------------------------------------------------------------


def test_a_server_is_taught_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _many(tmp_path / "many.spmf", 100)
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps([[str(number % 7)] for number in range(2500)]) + "\n", encoding="utf-8")
    for file in (path, long):
        assert kato("learn", file, "--node", "n", "--data", tmp_path / "whole").code == 0
    written = progress.Notebook.write

    def lost(book: progress.Notebook, note: progress.Note) -> None:
        if note.batches == 3:
            raise OSError(28, "No space left on device")
        written(book, note)

    with serving(tmp_path / "served") as server:
        with monkeypatch.context() as patched:
            patched.setattr(progress.Notebook, "write", lost)
            assert kato("learn", path, "--node", "n", "--url", server.url).code == 1
        report = kato("learn", path, "--node", "n", "--url", server.url, "--json").json
        assert report["resumed_after"] == 2 * learn.REMOTE_BATCH
        assert kato("learn", path, "--node", "n", "--url", server.url, "--json").json["already_learned"]
        assert kato("learn", long, "--node", "n", "--url", server.url, "--json").json["cut"] == 1
        assert kato("learn", long, "--url", server.url, "--json").json["node"] is None
    assert _frequencies(tmp_path / "served") == _frequencies(tmp_path / "whole")


def test_an_expired_session_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _many(tmp_path / "many.spmf", 100)
    written = progress.Notebook.write
    sessions: list[str | None] = []

    def lost(book: progress.Notebook, note: progress.Note) -> None:
        written(book, note)
        sessions.append(note.session)
        if note.batches == 1:
            raise OSError(28, "No space left on device")

    with serving(tmp_path / "served") as server:
        with monkeypatch.context() as patched:
            patched.setattr(progress.Notebook, "write", lost)
            assert kato("learn", path, "--node", "n", "--url", server.url).code == 1
        with package.Client(server.url) as client:
            client.session(session_id=sessions[-1]).delete()
        ran = kato("learn", path, "--node", "n", "--url", server.url)
        assert ran.code == 1
        assert "has expired after 16 sequences" in ran.err
        assert kato("learn", path, "--node", "n", "--url", server.url, "--again").code == 0


def test_no_server_is_told(baskets: Path) -> None:
    ran = kato("learn", baskets, "--url", "http://127.0.0.1:9")
    assert ran.code == 1
    assert ran.err.startswith("kato: ")


def test_notes_about_servers_are_kept_with_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", os.sep + "home-of-somebody")
    assert learn._state_folder() == Path("/home-of-somebody/.local/state/kato/learned")


def test_keys_depend_on_content_and_options(baskets: Path, tmp_path: Path) -> None:
    copy: Any = tmp_path / "copy.spmf"
    copy.write_bytes(baskets.read_bytes())
    assert progress.key(baskets, "n") == progress.key(copy, "n")
    assert (
        len({progress.key(baskets, *options) for options in (["n"], ["m"], ["n", ""], ["nm"], ["n", "m"])})
        == 5
    )
    assert Format.AUTO.value == "auto"
