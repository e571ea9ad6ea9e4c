from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

import kato as package
from kato.cli.copy import _Bar
from kato.model import Lesson, Pending
from kato.moving.copying import COPYING, VERIFYING
from kato.stores.directory import DataDirectory
from kato.stores.redis import RedisSessionStore
from tests.contract.values import session as session_of
from tests.support import postgres
from tests.support.moving import EXPIRED, NODES, Servers, answers, environment, fill, servers
from tests.unit.cli.running import Ran, kato


@pytest.fixture
def sessions(tmp_path: Path) -> list[str]:
    return fill(tmp_path / "data")


@pytest.fixture
def fresh() -> Iterator[Servers]:
    with servers() as found:
        yield found


def copied(*words: object) -> Ran:
    ran = kato("copy", *words)
    assert ran.code == 0, ran.err
    return ran


def exported(directory: object, tmp_path: Path) -> list[bytes]:
    """The exports of the nodes that have patterns."""
    found = []
    for node in NODES[:2]:
        assert kato("export", tmp_path / "export", "--node", node, "--data", directory).code == 0
        found.append((tmp_path / "export").read_bytes())
    return found


def test_all_stores_in_a_circle(
    sessions: list[str], fresh: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = exported("data", tmp_path)
    first = ["--to", fresh.postgres, "--to-sessions", fresh.redis[0], "--to-vectors", fresh.qdrant[0].url]
    second = ["--to", fresh.mongo, "--to-sessions", fresh.redis[1], "--to-vectors", fresh.qdrant[1].url]
    stages = [
        ["--from", "data", *first],
        [*[word.replace("--to", "--from") for word in first], *second],
        [*[word.replace("--to", "--from") for word in second], "--to", "again"],
    ]
    reports = [copied(*words, "--json").json["nodes"] for words in stages]
    assert reports[0] == reports[1] == reports[2]
    assert [each["node"] for each in reports[0]] == sorted(NODES)
    assert [each["patterns"]["count"] for each in reports[0]] == [4, 40, 0]
    assert [each["vectors"]["count"] for each in reports[0]] == [2, 0, 0]
    assert [each["sessions"]["written"] for each in reports[0]] == [1, 1, 1]
    assert exported("again", tmp_path) == before
    settings = [
        {"KATO_DATA": "data"},
        environment(fresh.postgres, fresh.redis[0], fresh.qdrant[0]),
        environment(fresh.mongo, fresh.redis[1], fresh.qdrant[1]),
        {"KATO_DATA": "again"},
    ]
    predicted = [answers(each, sessions) for each in settings]
    assert predicted[0] == predicted[1] == predicted[2] == predicted[3]
    assert all(b'"missing"' in each for each in predicted[0][:2])


def test_collections_of_another_prefix(
    sessions: list[str], fresh: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ["--to", fresh.postgres, "--without-sessions"]
    copied("--from", "data", *place, "--to-vectors", fresh.qdrant[0].url + "?prefix=one")
    monkeypatch.setenv("QDRANT_COLLECTION_PREFIX", "two")
    both = ["--from", fresh.postgres, "--to", fresh.mongo, "--to-vectors", fresh.qdrant[0].url]
    nodes = copied(*both, "--from-vectors", fresh.qdrant[0].url + "?prefix=one", "--json").json["nodes"]
    assert nodes[0]["vectors"]["written"] == 2
    names = {each.name for each in fresh.qdrant[0].client.get_collections().collections}
    assert names == {
        f"{prefix}_{kind}" for prefix in ("one", "two") for kind in ("vector_nodes", "vectors_2")
    }


def test_what_is_learned_after_a_copy_is_the_same(sessions: list[str], tmp_path: Path) -> None:
    copied("--from", "data", "--to", "copy")
    for directory in ("data", "copy"):
        with package.open(directory) as memory:
            for session in [memory.session(session_id=each) for each in sessions]:
                session.observe(["later"], emotives={"joy": 3.0}, metadata={"who": ["bob"]})
                session.learn()
                session.observe_sequence([["a"], ["b"]], learn_at_end=True)
    assert exported("data", tmp_path) == exported("copy", tmp_path)


def refused(*words: object) -> str:
    """The sentence with which a copy ends."""
    ran = kato("copy", *words)
    assert ran.code == 1
    assert ran.out == ""
    assert "s3cret" not in ran.err
    return ran.err.removeprefix("kato: ").rstrip()


NOWHERE = "postgresql://user:s3cret@127.0.0.1:1/kato"


def test_what_is_printed_for_people(sessions: list[str]) -> None:
    ran = copied("--from", "data", "--to", "copy")
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[0] == ["node", "kind", "records", "written", "SHA-256"]
    kinds = [(line[0], line[1], line[2], line[3]) for line in lines[1:-1]]
    assert kinds == [
        ("n", "patterns", "4", "4"),
        ("n", "vectors", "2", "2"),
        ("n", "sessions", "1", "1"),
        ("n-é🧠", "patterns", "40", "40"),
        ("n-é🧠", "sessions", "1", "1"),
        ("watching", "sessions", "1", "1"),
    ]
    assert all(len(line[4]) == 64 for line in lines[1:-1])
    assert ran.out.splitlines()[-1].startswith("Copied 49 records from data to copy in ")
    again = copied("--from", "file:data", "--to", "file:copy").out
    assert again.splitlines()[-1] == "copy held everything already; both sides agree."
    assert [line.split()[3] for line in again.splitlines()[1:-1]] == ["0"] * 6


def test_expired_sessions_are_left_out(sessions: list[str]) -> None:
    copied("--from", "data", "--to", "copy")
    with package.open("copy") as memory:
        listed = memory.sessions(include_expired=True)["sessions"]
    assert sorted(each["session_id"] for each in listed) == sorted(sessions)
    assert EXPIRED not in sessions


def test_only_some_nodes(sessions: list[str]) -> None:
    ran = copied("--from", "data", "--to", "copy", "--node", "watching", "--node", "n", "--json")
    assert [each["node"] for each in ran.json["nodes"]] == ["n", "watching"]
    with package.open("copy") as memory:
        assert memory.count_sessions() == 2
        assert memory.patterns("n-é🧠")["total"] == 0
    assert copied("--from", "data", "--to", "copy", "--json").json["nodes"][1]["patterns"]["written"] == 40


def test_what_has_no_place_is_refused_before_the_target_is_touched(sessions: list[str]) -> None:
    reason = (
        "node n holds {0} and PostgreSQL has no place for them; name one with --to-{0}, or leave them behind"
    )
    assert refused("--from", "data", "--to", NOWHERE).startswith(reason.format("vectors"))
    words = ("--from", "data", "--to", NOWHERE, "--without-vectors")
    assert refused(*words).startswith(reason.format("sessions"))
    assert refused(*words, "--node", "watching").startswith("node watching holds sessions")
    for kind in ("vectors", "sessions"):
        both = ("--from", "data", "--to", NOWHERE, f"--to-{kind}", "x", f"--without-{kind}")
        assert refused(*both) == f"give either --to-{kind} or --without-{kind}, not both"


def test_patterns_alone(sessions: list[str], fresh: Servers, tmp_path: Path) -> None:
    words = ["--without-vectors", "--without-sessions"]
    ran = copied("--from", "data", "--to", fresh.postgres, *words)
    assert ran.out.splitlines()[-3:-1] == ["Vectors were not copied.", "Sessions were not copied."]
    # A server whose vectors and sessions are not named is taken for its patterns.
    node = copied("--from", fresh.postgres, "--to", "copy", "--json").json["nodes"][0]
    assert (node["patterns"]["count"], node["vectors"], node["sessions"]) == (4, None, None)
    with package.open("copy") as memory:
        assert memory.count_sessions() == 0
    node = copied("--from", "data", "--to", "other", *words, "--json").json["nodes"][0]
    assert (node["patterns"]["count"], node["vectors"], node["sessions"]) == (4, None, None)


def test_a_target_with_something_else_is_left_alone(sessions: list[str], tmp_path: Path) -> None:
    copied("--from", "data", "--to", "copy")
    with package.open("data") as memory:
        name = memory.patterns("n", limit=1)["patterns"][0]["name"].removeprefix("PTRN|")
        memory.update_pattern(name, "n", frequency=77)
        memory.learn_many("n-é🧠", [[["one"], ["more"]]], "more")
    before = exported("copy", tmp_path)
    reason = (
        f"node n: the target holds pattern {name} with other values than the source; nothing was copied. "
    )
    assert refused("--from", "data", "--to", "copy").startswith(reason)
    assert exported("copy", tmp_path) == before
    ran = copied("--from", "data", "--to", "copy", "--replace", "--json")
    assert [each["patterns"]["written"] for each in ran.json["nodes"]] == [1, 1, 0]
    assert exported("copy", tmp_path) == exported("data", tmp_path)
    with package.open("data") as memory:
        memory.delete_pattern(name, "n")
    reason = f"node n: the target holds pattern {name}, which the source does not hold; nothing was copied. "
    for words in ((), ("--replace",)):
        assert refused("--from", "data", "--to", "copy", *words).startswith(reason)
    # What is in the way of one node does not matter to another one.
    copied("--from", "data", "--to", "copy", "--node", "n-é🧠")


def test_a_session_that_went_on_is_refused_or_replaced(sessions: list[str]) -> None:
    copied("--from", "data", "--to", "copy")
    with package.open("data") as memory:
        memory.session(session_id=sessions[1]).observe(["on"])
    assert refused("--from", "data", "--to", "copy").startswith(
        f"node n-é🧠: the target holds session {sessions[1]} with other values than the source"
    )
    copied("--from", "data", "--to", "copy", "--replace")
    with package.open("copy") as memory:
        assert memory.session(session_id=sessions[1]).stm()[-1] == ["on"]
    with package.open("data") as memory:
        memory.session(session_id=sessions[1]).delete()
    assert f"the target holds session {sessions[1]}, which the source does not hold" in refused(
        "--from", "data", "--to", "copy", "--replace"
    )


def test_vectors_of_a_name_are_never_replaced(tmp_path: Path) -> None:
    for directory, value in (("data", 1e-9), ("copy", 2e-9)):
        with package.open(directory) as memory:
            # Equal in the eight digits that make the name.
            memory.learn_many("n", [[{"vectors": [[0.5, 1.0 + value]]}, ["a"]]], "x")
    for words in ((), ("--replace",)):
        sentence = refused("--from", "data", "--to", "copy", *words)
        assert sentence.startswith("node n: the target holds vector VCTR|")
        assert sentence.endswith("nothing was copied. Choose a target where the node is empty")


def test_a_directory_must_be_there_and_free(sessions: list[str], tmp_path: Path) -> None:
    assert refused("--from", "nothing", "--to", "copy") == "--from: nothing is not a data directory"
    assert not Path("nothing").exists()
    assert refused("--from", "data", "--to", "./data") == "--from and --to name the same data directory"
    with DataDirectory("data"):
        sentence = refused("--from", "data", "--to", "copy")
    assert sentence.startswith("--from: the data directory data is in use by another KATO process (pid ")
    with DataDirectory("copy"):
        sentence = refused("--from", "data", "--to", "copy")
    assert sentence.startswith("--to: the data directory copy is in use by another KATO process (pid ")
    assert sentence.endswith("; stop it or choose another with --to")


def test_there_must_be_something_to_copy(sessions: list[str]) -> None:
    with package.open("empty"):
        pass
    assert refused("--from", "empty", "--to", "copy") == "empty holds nothing"
    assert refused("--from", "data", "--to", "copy", "--node", "x") == "data holds nothing of node x"
    assert not Path("copy").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--to", NOWHERE], "--to: PostgreSQL: the server cannot be reached"),
        (["--to", "postgresql://u:s3cret@host:port/x"], "--to: PostgreSQL: the database URL is not valid"),
        (["--to", "mongodb://u:s3cret@a:b"], "--to: MongoDB: the database URL is not valid"),
        (["--to", "s3cret@://host"], "--to: this is neither a path nor a URL"),
    ],
)
def test_no_message_shows_a_password(sessions: list[str], words: list[str], sentence: str) -> None:
    assert refused("--from", "data", *words, "--without-vectors", "--without-sessions") == sentence


def test_servers_beside_the_patterns_are_named_when_they_fail(sessions: list[str], fresh: Servers) -> None:
    words = ("--from", "data", "--to", fresh.postgres)
    sentence = refused(*words, "--to-vectors", "http://127.0.0.1:1", "--without-sessions")
    assert sentence == "--to-vectors: Qdrant: the server cannot be reached"
    sentence = refused(*words, "--to-sessions", "redis://:s3cret@127.0.0.1:1", "--without-vectors")
    assert sentence == "--to-sessions: Redis: the server cannot be reached"
    sentence = refused(*words, "--to-vectors", "http://s3cret:[", "--without-sessions")
    assert sentence == "--to-vectors: Qdrant: the URL is not valid"


@pytest.mark.parametrize(
    ("words", "driver", "extra"),
    [
        (["--to", NOWHERE], "asyncpg", "postgres"),
        (["--to", "mongodb://127.0.0.1:1"], "bson", "mongo"),
    ],
)
def test_a_driver_that_is_not_installed_is_named(
    sessions: list[str], words: list[str], driver: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith(("kato.stores.postgres", "kato.stores.mongo", driver)):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, driver, None)
    assert refused("--from", "data", *words, "--without-vectors", "--without-sessions") == (
        f"--to: the driver '{driver}' is not installed; pip install 'kato[{extra}]' installs all that is needed"
    )


def test_a_learn_under_way_does_not_get_lost_in_a_directory(sessions: list[str], fresh: Servers) -> None:
    copied("--from", "data", "--to", fresh.postgres, "--without-vectors", "--to-sessions", fresh.redis[0])
    lesson = Lesson(name="0f" * 20, events=(("a",), ("b",)), operation="o")
    state = session_of("teaching", node_id="n", pending=Pending((lesson,)))

    async def teach() -> None:
        store = RedisSessionStore(fresh.redis[0])
        await store.create(state, 0, 0)
        await store.close()

    asyncio.run(teach())
    source = ["--from", fresh.postgres, "--from-sessions", fresh.redis[0]]
    sentence = refused(*source, "--to", "copy")
    assert sentence.startswith(
        "session teaching of node n has learned something that is not among the patterns"
    )
    assert not Path("copy").exists()
    copied(*source, "--to", fresh.mongo, "--to-sessions", fresh.redis[1])
    copied(*source, "--to", "copy", "--without-sessions")


def test_interference_is_noticed(
    sessions: list[str], fresh: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something else changes the target between the copy and the verification."""
    told = _Bar.__call__
    change = "UPDATE kato.patterns SET revision = revision + 1 WHERE frequency = 2"

    def interfering(bar: _Bar, doing: str, kind: str, records: int) -> None:
        if (doing, kind) == (COPYING, "session"):
            postgres.shared().sql(change, fresh.postgres.rpartition("/")[2])
        told(bar, doing, kind, records)

    monkeypatch.setattr(_Bar, "__call__", interfering)
    sentence = refused(
        "--from", "data", "--to", fresh.postgres, "--without-vectors", "--to-sessions", fresh.redis[0]
    )
    assert sentence.startswith("node n: after the copy the source holds 4 patterns (digest ")
    assert sentence.endswith("something else writes to one of them, stop it and repeat the command")


def test_a_bar_for_people() -> None:
    shown = io.StringIO()
    columns = (
        TextColumn("{task.description}"),
        TextColumn("{task.percentage:.0f}"),
        TextColumn("{task.fields[done]}"),
    )
    console = Console(file=shown, force_terminal=True, width=80)
    with Progress(*columns, console=console) as progress:
        bar = _Bar(progress)
        bar.expect("pattern", 30)
        bar.expect("session", 10)
        bar(COPYING, "pattern", 30)
        progress.refresh()
        bar(COPYING, "session", 10)
        progress.refresh()
        bar(VERIFYING, "pattern", 60)
        progress.refresh()
    text = shown.getvalue()
    for line in ("Copying 75 30 patterns", "Copying 100 10 sessions", "Verifying 75 60 patterns"):
        assert line in text
