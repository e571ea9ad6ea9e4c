"""The stored form of patterns and sessions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kato.errors import DataCorrupted, ValidationError
from kato.model import Pattern, PatternRecord
from kato.stores import codec
from tests.contract.values import RICH, pattern, session

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
numbers = st.floats(allow_nan=False)
emotives = st.dictionaries(text, numbers, max_size=3)
patterns = st.builds(
    Pattern,
    name=st.binary(min_size=20, max_size=20).map(bytes.hex),
    events=st.lists(st.lists(text, max_size=3).map(tuple), max_size=4).map(tuple),
    frequency=st.integers(0, 2**40),
    emotives=st.one_of(
        st.lists(emotives, max_size=3).map(tuple),
        st.dictionaries(text, st.lists(numbers, max_size=3).map(tuple), max_size=3),
    ),
    metadata=st.dictionaries(text, st.lists(text, max_size=3).map(tuple), max_size=3),
    affinity=emotives,
    operations=st.lists(text, max_size=3).map(tuple),
    finalized=st.booleans(),
    revision=st.integers(1, 2**40),
)


@given(patterns)
def test_a_pattern_comes_back_as_it_was_and_with_the_same_bytes(stored: Pattern) -> None:
    record = codec.encode_pattern(stored)
    found = codec.decode_pattern(record, stored.revision)
    assert found == stored
    assert list(found.metadata) == list(stored.metadata)
    assert codec.encode_pattern(found) == record
    details = codec.details_of(record)
    assert details.finalized == stored.finalized
    assert details.affinity == stored.affinity
    assert details.emotives == stored.emotives


def test_details_are_empty_when_only_the_frequency_is_known() -> None:
    assert codec.encode_pattern(pattern("1", frequency=5, revision=7)).details == b""
    assert codec.encode_pattern(pattern("1", emotives={})).details != b""


def test_what_only_an_operation_wrote_is_not_decoded() -> None:
    record = codec.encode_pattern(pattern("1", operations=("op",)))
    assert codec.details_of(record._replace(details=record.details[:4])) == codec.Details()


@pytest.mark.parametrize(
    "content", [b"", b"\xc1", b"\x91\x91\x01", b"\x91\x91\xa1\xff", b"\x81\x01\x02", b"\x92\x90"]
)
def test_unreadable_events(content: bytes) -> None:
    with pytest.raises(DataCorrupted):
        codec.decode_events(content)
    with pytest.raises(DataCorrupted):
        codec.decode_pattern(PatternRecord(bytes(20), content, 1, b""))


@pytest.mark.parametrize(
    "content", [b"\xc1", b"\x90\x00", b"\x91\x07", b"\x93\xc2\x80\x91", b"\x93\xc2\x81\xa1\xff\x01\x90"]
)
def test_unreadable_details(content: bytes) -> None:
    record = PatternRecord(bytes(20), b"\x90", 1, content)
    with pytest.raises(DataCorrupted, match="kato check"):
        codec.details_of(record)
    with pytest.raises(DataCorrupted, match="kato check"):
        codec.decode_pattern(record)


def test_events() -> None:
    content = codec.encode_events(RICH.events)
    assert codec.decode_events(content) == RICH.events
    with pytest.raises(ValidationError):
        codec.encode_events((("\ud800",),))


def test_integers_of_any_size_in_metadata() -> None:
    values = [2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**100, -(10**100), True, 0]
    state = session("s", metadata={"values": values}, answers=())
    found = codec.decode_session(codec.encode_session(state))
    assert found == state
    assert codec.encode_session(found) == codec.encode_session(state)


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x80", b"\x90", codec.encode_session(session("s"))[:-1]])
def test_unreadable_sessions(content: bytes) -> None:
    with pytest.raises(DataCorrupted):
        codec.decode_session(content)


def test_an_unknown_extension_is_damage() -> None:
    state = session("s", metadata={"a": 2**70})
    content = codec.encode_session(state)
    assert codec.decode_session(content) == state
    extension = content.index(b"\xc7\x09\x01") + 2
    with pytest.raises(DataCorrupted):
        codec.decode_session(content[:extension] + b"\x02" + content[extension + 1 :])


def test_values_too_deep_to_store() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValidationError):
        codec.encode_session(session("s", metadata={"deep": deep}))
