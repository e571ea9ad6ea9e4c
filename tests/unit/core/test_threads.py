"""Searches beside changes: every answer is the answer of one moment."""

import random
import threading
import time

from kato._core import Index
from kato.engine import matching
from kato.engine.matching import KnownPattern

from .material import COLUMNS, load, name, random_patterns

STATE = ("a", "b", "c", "d")
FIXED = [column for column in COLUMNS if column not in ("frequency", "flags", "member_frequency")]


def run(*targets: object) -> list[BaseException]:
    """Run the targets in threads until all end; what they raised."""
    raised: list[BaseException] = []

    def guarded(target: object) -> None:
        try:
            target()  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_searches_see_a_prefix_of_the_insertions() -> None:
    chance = random.Random(1)
    patterns = [(known[0], known[1], 1, 0) for known in random_patterns(chance, 3000, "abcdef", 4)]
    position = {known[0]: place for place, known in enumerate(patterns)}
    index = Index()
    finished = threading.Event()

    def write() -> None:
        try:
            for known in patterns:
                index.insert(*known)
        finally:
            finished.set()

    def read() -> None:
        seen = 0
        while not finished.is_set():
            low = len(index)
            found = index.search(STATE, 0.0, 1_000_000)
            # With threshold 0 and no limit everything is an answer: it must be the first so many patterns.
            count = len(found)
            assert max((position[held] for held in found.names), default=-1) == count - 1
            assert max(low, seen) <= count <= found.patterns == found.total_frequency
            seen = count

    assert run(write, read, read) == []
    expected = matching.ensemble(STATE, patterns, 0.3, 30)
    assert index.search(STATE, 0.3, 30).names == expected.names


def test_searches_see_a_moment_of_removals_and_insertions() -> None:
    """One writer slides a window over numbered patterns: every answer is one window."""
    width, steps = 200, 6000
    index = Index()

    def known(number: int) -> KnownPattern:
        # Every third one comes back under the same name, so that names are reused.
        events = (("a",), ("b", f"s{number % 7}"), (f"t{number % 50}",))
        return (name(number), events, 1, 0)

    for number in range(width):
        index.insert(*known(number))
    finished = threading.Event()

    def write() -> None:
        try:
            for number in range(width, steps):
                index.insert(*known(number))
                assert index.remove(name(number - width))
        finally:
            finished.set()

    def read() -> None:
        while not finished.is_set():
            found = index.search(("a", "b", "?"), 0.1, 10_000)
            numbers = sorted(int(held, 16) for held in found.names)
            assert len(numbers) in (width, width + 1)
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert found.patterns in (width, width + 1)
            assert found.local_symbols[0] == "a"
            for held, events in zip(found.names, found.events, strict=True):
                assert events == known(int(held, 16))[1]
            assert index.candidates(["a"])[0] >= name(numbers[0])

    assert run(write, read, read) == []
    assert index.totals() == (width, width, 4 * width, 59)


def test_figures_are_of_one_moment() -> None:
    """The rows hold all patterns, so their frequencies must add up to the total that is read with them."""
    index = Index()
    names = [name(number) for number in range(20)]
    for held in names:
        index.insert(held, (("a",), ("b",)), 5)
    finished = threading.Event()

    def write() -> None:
        chance = random.Random(4)
        try:
            for step in range(20_000):
                index.set_frequency(chance.choice(names), step % 9)
        finally:
            finished.set()

    def read() -> None:
        while not finished.is_set():
            found = index.search(("a", "b"), 0.5, 100)
            assert int(found.frequency.sum()) == found.total_frequency
            assert index.totals()[2] % 2 == 0

    assert run(write, read, read) == []


def test_everything_at_once() -> None:
    chance = random.Random(9)
    patterns = random_patterns(chance, 4000, "abcdefghijkl", 4)
    index = Index()
    finished = threading.Event()

    def write() -> None:
        try:
            load(index, patterns[:2000])
            for known in patterns[2000:]:
                index.insert(*known)
            for known in patterns[:3500]:
                index.remove(known[0])
        finally:
            finished.set()

    def disturb() -> None:
        number = 10**9
        while not finished.is_set():
            number += 1
            index.insert(name(number), (("a", "b"), ("c",)), 1)
            index.set_frequency(name(number), 3)
            assert index.remove(name(number))

    def read() -> None:
        while not finished.is_set():
            found = index.search(STATE, 0.2, 50)
            assert len(found) <= 50
            page = index.page(None, 20, "a", 0)
            assert page == sorted(page)
            index.gather(found.names, STATE)
            index.search_first("a", 5)
            index.vocabulary()
            index.events(patterns[0][0])
            index.symbol_statistics(STATE)

    assert run(write, disturb, read, read) == []
    left = patterns[3500:]
    expected = matching.ensemble(STATE, left, 0.2, 50)
    found = index.search(STATE, 0.2, 50)
    for column in FIXED:
        assert list(getattr(found, column)) == list(getattr(expected, column)), column
    assert index.totals()[0] == len(left)


def test_an_insert_does_not_wait_for_a_search() -> None:
    chance = random.Random(6)
    index = Index()
    load(index, random_patterns(chance, 30_000, "abcdefgh", 12))
    state = tuple(chance.choice("abcdefgh") for _ in range(60))
    finished = threading.Event()
    durations: list[float] = []
    waits: list[float] = []

    def read() -> None:
        try:
            for _ in range(5):
                begin = time.perf_counter()
                index.search(state, 0.0, 300)
                durations.append(time.perf_counter() - begin)
        finally:
            finished.set()

    def write() -> None:
        number = 10**9
        while not finished.is_set():
            number += 1
            begin = time.perf_counter()
            index.insert(name(number), (("a", "b"), ("c",)), 1)
            waits.append(time.perf_counter() - begin)
            time.sleep(0.001)

    assert run(read, write) == []
    # Many inserts fit into one search, so the searches cannot have held them up.
    assert len(waits) > len(durations)
    assert sorted(waits)[len(waits) // 2] < min(durations)
