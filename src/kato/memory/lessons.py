"""What lessons make of the records they are for, each act of learning counted once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from kato.engine import learning
from kato.model import OPERATIONS_KEPT, Lesson, Pattern

Repeatable: TypeAlias = Callable[[Sequence[str]], Awaitable[dict[str, bool]]]
"""Tells of some operations whether they may yet be done once more; says nothing of those it does not know."""
OPERATIONS_SPARE: Final = 16
"""So many operations beyond `OPERATIONS_KEPT` may gather until it is asked which of them are over."""


def announced(groups: Mapping[str, Sequence[Lesson]]) -> list[tuple[str, str]]:
    """The (pattern name, operation) pairs of lessons grouped by name."""
    return [
        (name, operation)
        for name, group in groups.items()
        for operation in dict.fromkeys(lesson.operation for lesson in group)
    ]


def taught(lessons: Sequence[Lesson]) -> Pattern:
    """The new pattern that lessons of one name make."""
    first = learning.first(lessons[0])
    if len(lessons) == 1:
        return first
    return msgspec.structs.replace(merged(first, lessons[1:], counted=()), revision=1)


def merged(old: Pattern, lessons: Sequence[Lesson], counted: Sequence[str] | None = None) -> Pattern:
    """`old` with those lessons that it has not counted yet; `old` itself when there are none.

    Lessons of one operation count together: whether they have been counted is asked of the record as it was, so a
    request that teaches one pattern a thousand times needs one of the remembered ids only. A forgotten pattern begins
    anew, except that what was counted before it was deleted stays counted.
    """
    counted = old.operations if counted is None else counted
    fresh = [lesson for lesson in lessons if not lesson.operation or lesson.operation not in counted]
    if not fresh:
        return old
    new = old
    for lesson in fresh:
        uncounted = msgspec.structs.replace(lesson, operation="")
        new = learning.first(uncounted) if new.forgotten else learning.merge(new, uncounted)
    operations = dict.fromkeys((*old.operations, *(lesson.operation for lesson in fresh if lesson.operation)))
    return msgspec.structs.replace(new, operations=tuple(operations), revision=old.revision + 1)


async def remembered(pattern: Pattern, repeatable: Repeatable) -> Pattern:
    """`pattern` without the operations that are over, except the latest; `repeatable` is asked now and then only."""
    if len(pattern.operations) <= OPERATIONS_KEPT + OPERATIONS_SPARE:
        return pattern
    earlier, latest = pattern.operations[:-OPERATIONS_KEPT], pattern.operations[-OPERATIONS_KEPT:]
    known = await repeatable(earlier)
    kept = (*(operation for operation in earlier if known.get(operation)), *latest)
    return msgspec.structs.replace(pattern, operations=kept)


async def uncounted(pattern: Pattern, lessons: Sequence[Lesson], repeatable: Repeatable) -> list[Lesson]:
    """Those lessons that the record of their pattern, as it was read, may not have counted.

    A record that remembers as many operations as it must may have forgotten that it has counted one. It forgets only
    those that may not be repeated any more: one that may now has not been forgotten before.
    """
    if len(pattern.operations) < OPERATIONS_KEPT:
        return list(lessons)
    unknown = {lesson.operation for lesson in lessons} - {"", *pattern.operations}
    known = await repeatable(sorted(unknown)) if unknown else {}
    return [lesson for lesson in lessons if known.get(lesson.operation, True)]


async def nobody_knows(operations: Sequence[str]) -> dict[str, bool]:
    """Where nobody knows, the latest operations must do."""
    return {}
