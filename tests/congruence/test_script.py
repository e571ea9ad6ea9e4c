"""The scripted conversations go the same way with every KATO."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

import msgspec
import pytest

from tests.congruence.script import SCRIPTS
from tests.congruence.speakers import agree


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_every_step_has_the_same_answer(
    katos: dict[str, Any], script: Callable[[Any], Iterator[Any]]
) -> None:
    conversations = zip_longest(*(script(memory) for memory in katos.values()))
    for answers in conversations:
        agree(dict(zip(katos, answers, strict=True)))
        # What people read is equal too, and it is JSON: the same types, in the same order.
        assert len({repr(answer) for answer in answers}) == 1


def test_the_raw_answer_is_the_answer(katos: dict[str, Any]) -> None:
    for memory in katos.values():
        session = memory.session("raw")
        session.observe_sequence([["a"], ["b"], ["c"]], learn_at_end=True)
        session.observe(["a", "b"])
        raw = msgspec.json.decode(session.predictions_json())
        assert raw["predictions"] == session.predictions()
        assert raw["future_potentials"] == session.predictions().future_potentials
        assert raw["count"] == 1
