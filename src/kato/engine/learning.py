"""From the short-term memory to patterns: learn, merge with what is known, edit (6, 7, 9)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import msgspec

from kato.engine.naming import pattern_name
from kato.model import (
    FORGOTTEN,
    OPERATIONS_KEPT,
    Emotives,
    Events,
    Lesson,
    Pattern,
    SessionConfig,
    SessionState,
)


def average(emotives: Iterable[Mapping[str, float]]) -> Emotives:
    """For every key the arithmetic mean over the dictionaries that contain it (7.1).

    >>> average([{"happy": 4, "sad": 2}, {"happy": 6}, {"sad": 4}])
    {'happy': 5.0, 'sad': 3.0}
    """
    sums: Emotives = {}
    counts: dict[str, int] = {}
    for entry in emotives:
        for key, value in entry.items():
            sums[key] = sums.get(key, 0.0) + value
            counts[key] = counts.get(key, 0) + 1
    return {key: value / counts[key] for key, value in sums.items()}


def accumulate_metadata(metadata: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """For every key the distinct texts of its values, ascending; a text is Python's `str` (7.2).

    >>> accumulate_metadata([{"k": "x", "n": 1}, {"k": None, "n": 1}])
    {'k': ('None', 'x'), 'n': ('1',)}
    """
    texts: dict[str, list[str]] = {}
    for entry in metadata:
        for key, value in entry.items():
            texts.setdefault(key, []).append(str(value))
    return {key: tuple(sorted(set(values))) for key, values in texts.items()}


def make_lesson(
    events: Events,
    emotives: tuple[Emotives, ...],
    metadata: Sequence[Mapping[str, Any]],
    config: SessionConfig,
    operation: str,
) -> Lesson | None:
    """What an STM and its accumulators teach; None when there are fewer than two symbols (6.1)."""
    if sum(map(len, events)) <= 1:
        return None
    return Lesson(
        name=pattern_name(events),
        events=events,
        emotives=emotives,
        metadata=accumulate_metadata(metadata) if metadata else {},
        persistence=config.persistence,
        operation=operation,
    )


def learn(state: SessionState, config: SessionConfig, operation: str) -> tuple[SessionState, Lesson | None]:
    """Consume the STM: the state after it, and the lesson to be stored (6.1).

    The lesson is None when the STM had fewer than two symbols; STM and both accumulators are empty in
    either case. The deferred vectors stay: the caller stores them and clears them. `operation` identifies
    this act of learning, so that a repeated one is counted once.
    """
    after = msgspec.structs.replace(
        state,
        stm=(),
        stm_ids=(),
        observed=state.stm if state.observed is None else state.observed,
        emotives=(),
        observed_metadata=(),
    )
    return after, make_lesson(state.stm, state.emotives, state.observed_metadata, config, operation)


def first(lesson: Lesson) -> Pattern:
    """The pattern that a lesson makes when nothing of its name is known (6.3).

    >>> first(Lesson(name="x", events=(("a", "b"),), emotives=({"joy": 1.0},), operation="s-1")).affinity
    {'joy': 1.0}
    """
    return Pattern(
        name=lesson.name,
        events=lesson.events,
        emotives=lesson.emotives[-lesson.persistence :],
        metadata=lesson.metadata,
        affinity=average(lesson.emotives),
        operations=(lesson.operation,) if lesson.operation else (),
    )


def merge(pattern: Pattern, lesson: Lesson) -> Pattern:
    """The known pattern after it was learned once more (6.3, 10).

    A lesson whose operation the pattern has counted already changes nothing: the very same object comes
    back. A lesson without operation id always counts. An emotives mapping written by an update becomes a
    window first, see `emotives_window`.
    """
    if lesson.operation and lesson.operation in pattern.operations:
        return pattern
    emotives = pattern.emotives
    if lesson.emotives:
        emotives = (*emotives_window(pattern.emotives), *lesson.emotives)[-lesson.persistence :]
    affinity = dict(pattern.affinity)
    for key, value in average(lesson.emotives).items():
        affinity[key] = affinity.get(key, 0.0) + value
    metadata = dict(pattern.metadata)
    for name, texts in lesson.metadata.items():
        metadata[name] = tuple(sorted({*metadata.get(name, ()), *texts}))
    operations = (*pattern.operations, lesson.operation) if lesson.operation else pattern.operations
    return msgspec.structs.replace(
        pattern,
        frequency=pattern.frequency + 1,
        emotives=emotives,
        metadata=metadata,
        affinity=affinity,
        operations=operations[-OPERATIONS_KEPT:],
        revision=pattern.revision + 1,
    )


def forget(pattern: Pattern, operation: str) -> Pattern:
    """What remains of the record of a pattern that is deleted; `operation` identifies this act.

    >>> forget(Pattern(name="x", events=(("a", "b"),), operations=("s-1",)), "d-1").operations
    ('s-1', 'd-1')
    """
    return Pattern(
        name=pattern.name,
        events=(),
        frequency=FORGOTTEN,
        operations=(*pattern.operations, operation),
        revision=pattern.revision + 1,
    )


def emotives_window(
    emotives: Sequence[Mapping[str, float]] | Mapping[str, Sequence[float]],
) -> tuple[Emotives, ...]:
    """A pattern's stored emotives as a window of observations, latest last.

    A mapping of names to values, as an update writes it, is read as if the last value of every name had been
    observed together, the one before it together, and so on; so the average of every name stays what it was.

    >>> emotives_window({"joy": (1.0, 2.0), "fear": (3.0,)})
    ({'joy': 1.0}, {'joy': 2.0, 'fear': 3.0})
    """
    if not isinstance(emotives, Mapping):
        return tuple(map(dict, emotives))
    latest_first = zip_longest(*(tuple(reversed(values)) for values in emotives.values()))
    return tuple(
        {key: value for key, value in zip(emotives, values, strict=True) if value is not None}
        for values in reversed(list(latest_first))
    )


def shown_emotives(pattern: Pattern) -> dict[str, Any]:
    """The emotives that a prediction of this pattern shows: the window's average, or the written mapping
    (7.1)."""
    if isinstance(pattern.emotives, dict):
        return {key: list(values) for key, values in pattern.emotives.items()}
    return average(pattern.emotives)


def update(
    pattern: Pattern,
    frequency: int | None,
    emotives: Mapping[str, Sequence[float]] | Sequence[Mapping[str, float]] | None,
    persistence: int,
) -> Pattern:
    """The pattern with frequency and emotives overwritten; None leaves a part as it is (9).

    `emotives` maps names to at most `persistence` values, or lists at most `persistence` dictionaries. Raises
    ValueError with a reason for the client when a part cannot be accepted.

    >>> update(first(Lesson(name="x", events=(("a", "b"),))), 7, {"joy": [1]}, 5).emotives
    {'joy': (1.0,)}
    """
    if frequency is None and emotives is None:
        return pattern
    if frequency is not None and (type(frequency) is not int or frequency < 0):
        raise ValueError("frequency must be an integer of at least 0")
    return msgspec.structs.replace(
        pattern,
        frequency=pattern.frequency if frequency is None else frequency,
        emotives=pattern.emotives if emotives is None else _written_emotives(emotives, persistence),
        revision=pattern.revision + 1,
    )


def _written_emotives(
    emotives: Mapping[str, Sequence[float]] | Sequence[Mapping[str, float]], persistence: int
) -> dict[str, tuple[float, ...]] | tuple[Emotives, ...]:
    if isinstance(emotives, Mapping):
        lists = {key: _values(key, values, persistence) for key, values in emotives.items()}
        return {key: tuple(_number(key, value) for value in values) for key, values in lists.items()}
    window = _values("emotives", emotives, persistence)
    if not all(isinstance(entry, Mapping) for entry in window):
        raise ValueError("emotives must map names to lists of numbers, or be a list of such maps to numbers")
    return tuple({key: _number(key, value) for key, value in entry.items()} for entry in window)


def _values(name: str, values: Any, persistence: int) -> Sequence[Any]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"{name} must be a list")
    if len(values) > persistence:
        raise ValueError(f"{name} has {len(values)} entries, persistence allows {persistence}")
    return values


def _number(name: str, value: Any) -> float:
    largest = sys.float_info.max
    if isinstance(value, bool) or not isinstance(value, int | float) or not -largest <= value <= largest:
        raise ValueError(f"{name} must hold finite numbers only")
    return float(value)
