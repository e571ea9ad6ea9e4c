"""One kind of records on both sides: compared before anything is written, copied, and read again afterwards."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Final, Generic, Protocol, TypeVar

from kato.errors import BadRequest, ConcurrencyError
from kato.moving.figures import Figures, Tally
from kato.moving.joining import Step, ahead, joined
from kato.moving.shelves import Change, Record, Shelf

T = TypeVar("T")
Changing = Callable[[Sequence[Change[T]]], Awaitable[list[Record[T]]]]
NONE: Final = Tally().figures()
COMPARING: Final = "Comparing"
COPYING: Final = "Copying"
VERIFYING: Final = "Verifying"


class Watch(Protocol):
    """Is told how far a copy is."""

    def expect(self, kind: str, records: int) -> None:
        """The source holds so many more records of a kind."""
        ...

    def __call__(self, doing: str, kind: str, records: int) -> None:
        """So many more records of a kind are compared, copied or verified (`doing`)."""
        ...


class Pair(Generic[T]):
    """The same shelf on both sides.

    What the target holds with other values is in the way, unless `replace` says that `change` puts that right. A
    target that is known to be `blank` is not read before it is written.

    The methods are to be called in their order; once both sides agree nothing more is done. Then `figures` tells by
    node what they hold, `written` how many records had to be written.
    """

    def __init__(
        self,
        source: Shelf[T],
        target: Shelf[T],
        watch: Watch,
        *,
        change: Changing[T] | None = None,
        replace: bool = False,
        blank: bool = False,
    ) -> None:
        self.kind = source.kind
        self.written: Counter[str] = Counter()
        self.figures: dict[str, Figures] = {}
        self._agree = False
        self._blank = blank
        self._source = source
        self._target = target
        self._change = change
        self._replace = replace and change is not None
        self._watch = watch

    async def compare(self) -> None:
        """Find out whether both sides agree; `BadRequest` when the target holds what must not be there."""
        if self._blank:
            return
        tallies = _Tallies()
        agree = True
        async with joined(self._source, self._target) as both:
            if await both.nothing_there():
                self._blank = True
                return
            async for step in both.steps():
                obstacle = self._obstacle(step)
                if obstacle is not None:
                    raise BadRequest(f"{obstacle}; nothing was copied. {self._advice(step)}")
                agree = agree and not step.missing and not step.different
                tallies.add(step.batch)
                self._watch(COMPARING, self.kind, len(step.batch))
        if agree:
            self._agree, self.figures = True, tallies.figures()

    def _obstacle(self, step: Step[T]) -> str | None:
        """What of the target stands in the way."""
        if step.surplus is not None:
            record, why = step.surplus, ", which the source does not hold"
        elif step.different and not self._replace:
            record, why = step.different[0][0], " with other values than the source"
        else:
            return None
        return f"node {record.node}: the target holds {self.kind} {record.key}{why}"

    def _advice(self, step: Step[T]) -> str:
        changeable = step.surplus is None and self._change is not None
        return (
            f"Choose a target where the node is empty{', or overwrite with --replace' if changeable else ''}"
        )

    async def copy(self) -> None:
        """Write what the target lacks, and what it holds with other values."""
        if self._agree:
            return
        async with joined(self._source, None if self._blank else self._target) as both:
            async for step in both.steps():
                obstacle = self._obstacle(step)
                if obstacle is not None:
                    raise ConcurrencyError(f"{obstacle}; it came there during the copy")
                if step.missing:
                    self._count(await self._target.add(step.missing))
                if step.different:
                    assert self._change is not None
                    self._count(await self._change(step.different))
                self._watch(COPYING, self.kind, len(step.batch))

    def _count(self, written: Iterable[Record[T]]) -> None:
        self.written.update(record.node for record in written)

    async def verify(self) -> None:
        """Read both sides anew; `ConcurrencyError` when they differ, which names the node."""
        if self._agree:
            return
        ours, theirs = await self._tallied(self._source), await self._tallied(self._target)
        for node in sorted(ours.keys() | theirs.keys()):
            here, there = ours.get(node, NONE), theirs.get(node, NONE)
            if here != there:
                raise ConcurrencyError(
                    f"node {node}: after the copy the source holds {here.count} {self.kind}s"
                    f" (digest {here.digest}) and the target {there.count} (digest {there.digest});"
                    " something else writes to one of them, stop it and repeat the command",
                    node=node,
                )
        self.figures = ours

    async def _tallied(self, shelf: Shelf[T]) -> dict[str, Figures]:
        tallies = _Tallies()
        async with aclosing(ahead(shelf.read())) as batches:
            async for batch in batches:
                tallies.add(batch)
                self._watch(VERIFYING, self.kind, len(batch))
        return tallies.figures()


class _Tallies:
    """A tally for each node."""

    def __init__(self) -> None:
        self._tallies: defaultdict[str, Tally] = defaultdict(Tally)

    def add(self, batch: Sequence[Record[T]]) -> None:
        contents: defaultdict[str, list[bytes]] = defaultdict(list)
        for record in batch:
            contents[record.node].append(record.content)
        for node, its in contents.items():
            self._tallies[node].add(its)

    def figures(self) -> dict[str, Figures]:
        return {node: tally.figures() for node, tally in self._tallies.items()}
