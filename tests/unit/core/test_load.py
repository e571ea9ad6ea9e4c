"""Loading patterns in stored form."""

import random

import msgspec
import pytest

from kato._core import Index
from kato.engine import matching

from .material import assert_equal, index_of, load, name, random_patterns, random_state

GOOD = msgspec.msgpack.encode([["a", "b"], ["c"]])


def load_one(index: Index, events: bytes, number: int = 1) -> None:
    index.load([bytes.fromhex(name(number))], [events], [1], [0])


def test_loaded_patterns_are_like_inserted_ones() -> None:
    chance = random.Random(2)
    patterns = random_patterns(chance, 500, "abcdefghij", 8)
    loaded = Index()
    for start in range(0, 500, 130):
        load(loaded, patterns[start : start + 130])
    assert loaded.totals() == index_of(patterns).totals()
    for threshold in (0.0, 0.3):
        state = random_state(chance, "abcdefghij", patterns, 9)
        assert_equal(loaded.search(state, threshold, 20), matching.ensemble(state, patterns, threshold, 20))


@pytest.mark.parametrize("size", [1, 31, 32, 255, 256, 65535, 65536])
def test_strings_of_every_header(size: int) -> None:
    index = Index()
    load_one(index, msgspec.msgpack.encode([["é" * (size // 2) + "x" * (size % 2)]]))
    assert index.events(name(1)) == (("é" * (size // 2) + "x" * (size % 2),),)


@pytest.mark.parametrize("size", [15, 16, 65535, 65536])
def test_arrays_of_every_header(size: int) -> None:
    events = [["a"]] * (size - 1) + [["b"] * size]
    index = Index()
    load_one(index, msgspec.msgpack.encode(events))
    found = index.events(name(1))
    assert found is not None
    assert len(found) == size
    assert len(found[-1]) == size


@pytest.mark.parametrize(
    "events",
    [
        b"",
        b"\xc0",
        msgspec.msgpack.encode([]),
        msgspec.msgpack.encode([[]]),
        msgspec.msgpack.encode([["a"], []]),
        msgspec.msgpack.encode(["a"]),
        msgspec.msgpack.encode([[1]]),
        msgspec.msgpack.encode([[b"a"]]),
        msgspec.msgpack.encode({"a": 1}),
        GOOD + b"\0",
        *[GOOD[:end] for end in range(len(GOOD))],
        b"\xdd\xff\xff\xff\xff\x91\xa1a",
        b"\x91\x91\xdb\xff\xff\xff\xffa",
        b"\x91\x91\xd9",
        *[
            b"\x91\x91" + bytes([0xA0 + len(text)]) + text
            for text in (b"\x80", b"\xc3", b"\xc0\x80", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80")
        ],
        b"\x91\x91\xa9abcdefgh\xff",
        b"\x91\x91\xa3\xe1\x80a",
    ],
)
def test_malformed_events(events: bytes) -> None:
    index = Index()
    load_one(index, GOOD)
    with pytest.raises(ValueError, match=r"\w"):
        index.load(
            [bytes.fromhex(name(number)) for number in (2, 3)],
            [msgspec.msgpack.encode([["z"]]), events],
            [1, 1],
            [0, 0],
        )
    assert index.totals() == (1, 1, 3, 3)
    assert index.vocabulary() == ["a", "b", "c"]


def test_refused_batches_leave_nothing() -> None:
    index = Index()
    load_one(index, GOOD)
    two, three = bytes.fromhex(name(2)), bytes.fromhex(name(3))
    refused = [
        ([two, bytes.fromhex(name(1))], [GOOD, GOOD], [1, 1], [0, 0]),
        ([three, two, three], [GOOD] * 3, [1] * 3, [0] * 3),
        ([two, two[:19]], [GOOD, GOOD], [1, 1], [0, 0]),
        ([two], [GOOD, GOOD], [1], [0]),
        ([two], [GOOD], [1, 1], [0]),
        ([two], [GOOD], [1], []),
        ([two], [GOOD], [-1], [0]),
        ([two], [GOOD], [1], [256]),
    ]
    for columns in refused:
        with pytest.raises(ValueError, match=r"\w"):
            index.load(*columns)
    with pytest.raises(TypeError):
        index.load(["name"], [GOOD], [1], [0])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        index.load([two], [GOOD], ["1"], [0])  # type: ignore[list-item]
    assert index.totals() == (1, 1, 3, 3)
    index.load([], [], [], [])
    assert len(index) == 1
