"""The digest tells any difference, and nothing else."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kato.model import Answer, Observation, Pattern, Pending, SessionState
from kato.moving.figures import Figures, Tally
from kato.moving.shelves import Record, pattern_record, session_record, vector_record
from kato.stores.codec import decode_pattern, decode_session, encode_pattern, encode_session
from tests.contract.values import RICH, name, pattern, session

TEXT = st.text("aé日\0", max_size=3)
NUMBERS = st.floats(allow_nan=False)
EMOTIVES = st.dictionaries(TEXT, NUMBERS, max_size=3)
EVENTS = st.lists(st.lists(TEXT, max_size=3).map(tuple), max_size=4).map(tuple)
PATTERN_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "name": TEXT.map(name),
    "events": EVENTS,
    "frequency": st.integers(0, 2**63 - 1),
    "emotives": st.lists(EMOTIVES, max_size=3).map(tuple)
    | st.dictionaries(TEXT, st.lists(NUMBERS, max_size=3).map(tuple), max_size=3),
    "metadata": st.dictionaries(TEXT, st.lists(TEXT, max_size=3).map(tuple), max_size=3),
    "affinity": EMOTIVES,
    "operations": st.lists(TEXT, max_size=3).map(tuple),
    "finalized": st.booleans(),
    "revision": st.integers(1, 2**63 - 1),
}
VECTORS = st.tuples(TEXT, st.lists(NUMBERS, max_size=4).map(tuple))
TIMES = st.floats(0, 1e10)
JSON = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | NUMBERS | TEXT, max_size=3)
SESSION_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "session_id": TEXT,
    "node_id": TEXT,
    "user_id": st.none() | TEXT,
    "created_at": TIMES,
    "last_accessed": TIMES,
    "expires_at": TIMES,
    "ttl_seconds": st.integers(1, 86_400),
    "metadata": JSON,
    "config": JSON,
    "stm": EVENTS,
    "stm_ids": st.lists(TEXT, max_size=2).map(tuple),
    "observed": st.none() | EVENTS,
    "emotives": st.lists(EMOTIVES, max_size=2).map(tuple),
    "observed_metadata": st.lists(JSON, max_size=2).map(tuple),
    "time": st.integers(0, 2**40),
    "percept": st.none() | st.builds(Observation, strings=st.lists(TEXT, max_size=2).map(tuple)),
    "vectors": st.lists(VECTORS, max_size=2).map(tuple),
    "pending": st.none() | st.builds(Pending, claimed=st.booleans()),
    "answers": st.lists(
        st.builds(Answer, TEXT, st.binary(max_size=3), st.binary(max_size=3), TIMES), max_size=2
    ).map(tuple),
    "access_count": st.integers(0, 2**40),
    "changes": st.integers(0, 2**40),
    "revision": st.integers(0, 2**40),
}
SIMPLE = [pattern_record("n", pattern(str(number), frequency=number)) for number in range(6)]


def digest_of(*batches: list[Record[Any]]) -> Figures:
    tally = Tally()
    for batch in batches:
        tally.add([record.content for record in batch])
    return tally.figures()


def spelled(value: Any) -> str:
    """A value with everything that tells it from others: the order of keys, the sign of zero, ints from floats."""
    return repr(value)


def test_every_field_is_tried() -> None:
    assert set(PATTERN_FIELDS) == set(Pattern.__struct_fields__)
    assert set(SESSION_FIELDS) == set(SessionState.__struct_fields__)


@pytest.mark.parametrize("field", sorted(PATTERN_FIELDS))
@given(st.data())
def test_any_change_of_a_pattern_changes_it(field: str, data: st.DataObject) -> None:
    one, other = (msgspec.structs.replace(RICH, **{field: data.draw(PATTERN_FIELDS[field])}) for _ in "ab")
    records = [pattern_record("n", each) for each in (one, other)]
    same = digest_of(records[:1]) == digest_of(records[1:])
    assert same == (spelled(one) == spelled(other))
    assert pattern_record("n", decode_pattern(encode_pattern(one), one.revision)) == records[0]


@pytest.mark.parametrize("field", sorted(SESSION_FIELDS))
@given(st.data())
def test_any_change_of_a_session_changes_it(field: str, data: st.DataObject) -> None:
    one, other = (
        msgspec.structs.replace(session("s"), **{field: data.draw(SESSION_FIELDS[field])}) for _ in "ab"
    )
    records = [session_record(each) for each in (one, other)]
    same = digest_of(records[:1]) == digest_of(records[1:])
    assert same == (spelled(one) == spelled(other))
    assert session_record(decode_session(encode_session(one))) == records[0]


@given(VECTORS, VECTORS)
def test_any_change_of_a_vector_changes_it(
    vector: tuple[str, tuple[float, ...]], other: tuple[str, tuple[float, ...]]
) -> None:
    same = digest_of([vector_record("n", *vector)]) == digest_of([vector_record("n", *other)])
    assert same == (spelled(vector) == spelled(other))


@given(st.lists(st.sampled_from(SIMPLE), max_size=6), st.lists(st.integers(0, 6), max_size=4))
def test_borders_of_batches_do_not_matter(records: list[Record[Pattern]], cuts: list[int]) -> None:
    borders = [0, *sorted(cuts), len(records)]
    parts = [records[start:end] for start, end in pairwise(borders)]
    assert digest_of(*parts) == digest_of(records)
    assert digest_of(records).count == len(records)


@given(st.permutations(SIMPLE), st.integers(0, 5))
def test_none_may_be_missing_doubled_or_elsewhere(records: list[Record[Pattern]], place: int) -> None:
    without = [*records[:place], *records[place + 1 :]]
    for other in (without, [*records, records[place]], [*without, records[place]]):
        assert (digest_of(other) == digest_of(records)) == (other == records)


def test_what_it_is() -> None:
    assert Tally().figures() == Figures(0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    simple = Pattern(name="0f" * 20, events=(("a", "b"), ("c",)), revision=2)
    # Operators may have written it down: it stays what it is from version to version.
    digest = "01b5ad9653cec4ca7d13938a1c01c783086daa2f278e91033feb7c3234a85625"
    assert digest_of([pattern_record("n", simple)]).digest == digest
