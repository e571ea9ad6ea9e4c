"""KATO inside a process: opening, closing, threads, forks, bulk learning."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import kato
from kato import bootstrap, embedded, errors
from kato.answering import HANDLERS
from kato.client.http import PATHS
from kato.settings import Settings, SettingsError

THREADS = 8
EACH = 25


@pytest.fixture
def memory() -> Iterator[kato.EmbeddedKato]:
    with kato.open(":memory:") as opened:
        yield opened


def together(work: Callable[[int], Any]) -> list[Any]:
    """What `work(0)` to `work(7)` return, begun at the same moment in a thread each."""
    gate = threading.Barrier(THREADS)

    def begin(number: int) -> Any:
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(begin, range(THREADS)))


# Threads ----------------------------------------------------------------------------------------------------


def test_threads_on_one_session_lose_nothing(memory: kato.EmbeddedKato) -> None:
    session = memory.session("one")

    def observe(number: int) -> list[int]:
        return [session.observe([f"{number}-{turn}"])["stm_length"] for turn in range(EACH)]

    lengths = sorted(length for answers in together(observe) for length in answers)
    assert lengths == list(range(1, THREADS * EACH + 1))
    stm = session.stm()
    assert len(stm) == len({tuple(event) for event in stm}) == THREADS * EACH
    for number in range(THREADS):
        mine = [symbol for (symbol,) in stm if symbol.startswith(f"{number}-")]
        assert mine == [f"{number}-{turn}" for turn in range(EACH)]
    assert session.info()["time"] == THREADS * EACH


def test_threads_with_sessions_of_their_own_count_exactly(memory: kato.EmbeddedKato) -> None:
    def converse(number: int) -> None:
        for turn in range(EACH):
            session = memory.session("many")
            session.observe_sequence([["shared"], ["end"]], learn_at_end=True)
            session.observe_sequence([["own"], [f"{number}-{turn}"]], learn_at_end=True)
            session.observe(["shared"])
            assert any(p["future"] == [["end"]] for p in session.predictions())

    together(converse)
    assert memory.count_sessions() == THREADS * EACH
    page = memory.patterns("many", limit=1000)
    assert page["total"] == THREADS * EACH + 1
    assert max(pattern["frequency"] for pattern in page["patterns"]) == THREADS * EACH
    assert memory.symbols("many")["shared"]["frequency"] == THREADS * EACH
    assert memory.symbols("many")["own"]["pattern_member_frequency"] == THREADS * EACH


# Opening and closing ----------------------------------------------------------------------------------------


def test_what_was_learned_is_there_after_closing(tmp_path: Path) -> None:
    with kato.open(tmp_path / "data") as memory:
        session = memory.session("n")
        session.observe_sequence([["a"], ["b"]], learn_at_end=True)
        session.observe(["a"])
        before = session.predictions_json()
    with kato.open(tmp_path / "data") as memory:
        assert memory.session(session_id=session.id).stm() == [["a"]]
        assert memory.session(session_id=session.id).predictions_json() == before


def test_closing_twice_is_harmless_and_a_closed_kato_says_so() -> None:
    memory = kato.open(":memory:")
    session = memory.session("n")
    memory.close()
    memory.close()
    with pytest.raises(errors.ServiceUnavailable, match="closed"):
        session.stm()
    with pytest.raises(errors.ServiceUnavailable, match="closed"):
        memory.learn_many("n", [[["a"], ["b"]]])


def test_closing_from_many_threads_waits_for_what_has_begun(tmp_path: Path) -> None:
    memory = kato.open(tmp_path / "data")
    session = memory.session("n")
    acknowledged: list[int] = []

    def use(number: int) -> None:
        try:
            while number:
                acknowledged.append(session.observe(["x"])["stm_length"])
        except errors.ServiceUnavailable:
            return
        while not acknowledged:
            os.sched_yield()
        memory.close()

    together(use)
    with kato.open(tmp_path / "data") as again:
        assert len(again.session(session_id=session.id).stm()) == min(max(acknowledged), 1000)
    assert sorted(acknowledged) == list(range(1, len(acknowledged) + 1))


def test_the_directory_belongs_to_one(tmp_path: Path) -> None:
    with kato.open(tmp_path / "data"), pytest.raises(errors.DataDirectoryError, match="in use"):
        kato.open(tmp_path / "data")


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.DataDirectoryError, match="cannot be used"):
        kato.open(tmp_path / "file")


def test_an_error_while_closing_is_raised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = kato.open(":memory:")
    close = bootstrap.Kato.close

    async def failing(service: Any) -> None:
        await close(service)
        raise errors.StorageError("the disk is gone")

    monkeypatch.setattr(bootstrap.Kato, "close", failing)
    with pytest.raises(errors.StorageError, match="gone"):
        memory.close()
    memory.close()


def test_a_lost_kato_is_noticed_and_ended(tmp_path: Path) -> None:
    lost = [kato.open(tmp_path / "data")]
    thread = lost[0]._host._thread
    with pytest.warns(ResourceWarning, match=r"EmbeddedKato\(.*never closed"):
        lost.clear()
    gc.collect()
    thread.join()
    kato.open(tmp_path / "data").close()


def test_a_program_that_forgets_to_close_ends_and_keeps_everything(tmp_path: Path) -> None:
    program = """if True:
        import sys, kato
        memory = kato.open(sys.argv[1])
        session = memory.session("n")
        session.observe_sequence([["a"], ["b"]], learn_at_end=True)
        print(session.id)
    """
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, check=True, text=True, timeout=60
    )
    with kato.open(tmp_path) as memory:
        assert memory.patterns("n")["total"] == 1
        assert memory.session(session_id=done.stdout.strip()).exists()


def test_a_forked_child_is_told(tmp_path: Path) -> None:
    program = """if True:
        import os, sys, kato
        memory = kato.open(sys.argv[1])
        session = memory.session("n")
        child = os.fork()
        if not child:
            try:
                session.stm()
            except kato.errors.ServiceUnavailable as error:
                memory.close()
                os._exit(7 if "another process" in str(error) else 1)
            os._exit(2)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), session.stm() == [])
        memory.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, check=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["7", "True"]


def test_fork_is_recognised_by_the_process(
    memory: kato.EmbeddedKato, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = memory.session("n")
    with monkeypatch.context() as patched:
        patched.setattr(embedded.os, "getpid", lambda: -1)
        with pytest.raises(errors.ServiceUnavailable, match="another process"):
            session.stm()
        memory._host.close()
    assert session.stm() == []


def test_an_interrupted_caller_gives_the_work_up(memory: kato.EmbeddedKato) -> None:
    future = memory._host.begin(lambda service: service.count_sessions())
    assert future.result() == 0

    class Interrupted(BaseException):
        pass

    class Impatient:
        cancelled = False

        def result(self) -> Any:
            raise Interrupted

        def cancel(self) -> None:
            self.cancelled = True

    impatient = Impatient()
    memory._host.begin = lambda work: impatient  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(Interrupted):
        memory.count_sessions()
    assert impatient.cancelled
    del memory._host.begin  # type: ignore[method-assign]


def test_an_interrupted_opening_closes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Impatient(embedded.Future[Any]):
        def result(self, timeout: float | None = None) -> Any:
            raise KeyboardInterrupt

    before = set(threading.enumerate())
    with monkeypatch.context() as patched:
        patched.setattr(embedded, "Future", Impatient)
        with pytest.raises(KeyboardInterrupt):
            kato.open(tmp_path / "data")
    for thread in set(threading.enumerate()) - before:
        thread.join()
    kato.open(tmp_path / "data").close()


# Settings ---------------------------------------------------------------------------------------------------


def test_settings_are_given_by_keyword() -> None:
    with kato.open(
        ":memory:",
        recall_threshold=0.3,
        filter_pipeline=("length",),
        processor_id="me",
        endpoint_batch_size_limit=1,
    ) as memory:
        session = memory.session()
        assert session.node_id == "me"
        assert session.config()["recall_threshold"] == 0.3
        assert session.config()["filter_pipeline"] == ["length"]
        with pytest.raises(errors.ValidationError, match="At most 1 observations"):
            session.observe_sequence([["a"], ["b"]])


def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECALL_THRESHOLD", "0.9")
    monkeypatch.setenv("PORT", "no port")
    with kato.open(":memory:") as memory:
        assert memory.session().config()["recall_threshold"] == 0.1


def test_wrong_settings_are_named() -> None:
    with pytest.raises(SettingsError, match=r"(?i)recall_threshold.*got 7"):
        kato.open(":memory:", recall_threshold=7)
    with pytest.raises(TypeError, match="did you mean 'recall_threshold'"):
        kato.open(":memory:", recal_threshold=0.3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="there are processor_id"):
        kato.open(":memory:", port=8000)  # type: ignore[call-arg]


def test_every_option_is_a_setting() -> None:
    assert set(embedded.Options.__annotations__) <= set(Settings.model_fields)


def test_every_verb_is_answered_everywhere() -> None:
    assert set(PATHS) == set(HANDLERS) | {"health", "status"}


# Sessions ---------------------------------------------------------------------------------------------------


def test_leaving_a_session_does_not_end_it(memory: kato.EmbeddedKato) -> None:
    with memory.session("n") as session:
        session.observe(["a"])
    assert session.stm() == [["a"]]
    assert repr(session) == f"Session({session.id!r}, node_id='n')"
    assert repr(memory) == "EmbeddedKato(':memory:')"


def test_a_session_found_again_takes_nothing_new(memory: kato.EmbeddedKato) -> None:
    session = memory.session("n")
    assert memory.session("n", session_id=session.id).node_id == "n"
    with pytest.raises(TypeError, match="belong to a new session"):
        memory.session(session_id=session.id, ttl_seconds=5)


def test_the_limit_of_a_request_holds() -> None:
    with kato.open(":memory:", max_request_size=1024) as memory:
        session = memory.session()
        with pytest.raises(errors.RequestTooLarge):
            session.observe(["x" * 1000, "y" * 1000])
        assert session.stm() == []


# Bulk learning ----------------------------------------------------------------------------------------------


def test_learn_many_equals_single_learning(memory: kato.EmbeddedKato) -> None:
    sequences = [
        [["b", "a"], ["c"]],
        [{"strings": ["a"], "emotives": {"joy": 1.0}}, kato.Observation(strings=("d",))],
        (("b", "a"), ["c"]),
        [["alone"]],
        [],
        [["é", "a"], {"vectors": [[1.0, 2.0]], "strings": ["v"], "metadata": {"n": 1}}],
    ]
    names = memory.learn_many("bulk", sequences)
    for sequence in sequences:
        session = memory.session("single")
        session.observe_sequence(sequence)
        if session.stm():
            session.learn()
    bulk, single = memory.patterns("bulk"), memory.patterns("single")
    assert bulk["patterns"] == single["patterns"]
    assert [bool(name) for name in names] == [True, True, True, False, False, True]
    assert names[0] == names[2]
    assert memory.symbols("bulk") == memory.symbols("single")
    assert memory.affinities("bulk") == memory.affinities("single")


def test_learn_many_reads_a_generator_batch_by_batch(memory: kato.EmbeddedKato) -> None:
    count = embedded.BATCH * 2 + 1
    names = memory.learn_many("n", ([["start"], [str(number)]] for number in range(count)))
    assert len(set(names)) == count
    assert memory.patterns("n", limit=1)["total"] == count
    assert memory.learn_many("n", []) == []


def test_learn_many_goes_on_after_an_interruption(memory: kato.EmbeddedKato) -> None:
    count = embedded.BATCH * 2 + 3

    def source(until: int) -> Iterator[list[list[str]]]:
        for number in range(count):
            if number == until:
                raise ConnectionError("the source is gone")
            yield [["same"], ["again"]]

    with pytest.raises(ConnectionError) as interrupted:
        memory.learn_many("n", source(embedded.BATCH + 2), "import-1")
    assert interrupted.value.__notes__ == [f"{embedded.BATCH} sequences are learned (operation 'import-1')"]
    names = memory.learn_many("n", source(-1), "import-1", skip=embedded.BATCH)
    assert len(names) == count - embedded.BATCH
    (pattern,) = memory.patterns("n")["patterns"]
    assert pattern["frequency"] == count
    # The same call once more is counted no second time.
    memory.learn_many("n", source(-1), "import-1")
    assert memory.patterns("n")["patterns"][0]["frequency"] == count


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        ("abc", "Expected a list of observations"),
        (["abc"], r"observations\[0\]: Expected a list of strings"),
        ([["a"], ["x\x00"]], r"observations\[1\]\.strings\[0\]: A symbol must not contain NUL"),
        ([["a"], ["x" * 1025]], r"observations\[1\]\.strings\[0\]"),
        ([["a"], ["\ud800"]], "cannot be encoded"),
        ([["a"], {"emotives": {"joy": "x"}}], r"observations\[1\]\.emotives"),
        ([["a"], {"vectors": [[1.0], [1.0, 2.0]]}], "2 elements"),
    ],
)
def test_learn_many_refuses_what_a_session_refuses(
    memory: kato.EmbeddedKato, sequence: Any, message: str
) -> None:
    with pytest.raises(errors.KatoError, match=message) as refused:
        memory.learn_many("n", [[["a"], ["b"]], sequence])
    assert refused.value.details["sequence_index"] == 1
    assert refused.value.__notes__[0].startswith("0 sequences are learned")
    assert memory.patterns("n")["total"] == 0


def test_learn_many_refuses_a_bad_node(memory: kato.EmbeddedKato) -> None:
    with pytest.raises(errors.ValidationError, match="control characters"):
        memory.learn_many("tab\t", [[["a"], ["b"]]])
    assert len(memory.learn_many(None, [[["a"], ["b"]]])) == 1
    assert memory.patterns("kato")["total"] == 1
