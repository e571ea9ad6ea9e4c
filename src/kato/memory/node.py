"""The long-term memory of one node: its compiled index and its records in the store, kept in step."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar

import msgspec

from kato import errors
from kato.engine import learning, metrics, predicting
from kato.memory.contents import Contents
from kato.memory.feed import CHANGED, EVERYTHING, LEARNED, UNAVAILABLE, Entry, Follower
from kato.memory.forgotten import Forgotten
from kato.memory.lessons import Repeatable, announced, merged, nobody_knows, remembered, taught, uncounted
from kato.memory.recall import recall
from kato.memory.turns import Turns
from kato.model import (
    PATTERN_PREFIX,
    Emotives,
    Events,
    Lesson,
    Pattern,
    Predictions,
    SessionConfig,
    SymbolStatistics,
    Totals,
)
from kato.results import PatternPage
from kato.stores.ports import PatternStore

T = TypeVar("T")
QUICK_PATTERNS = 2000
"""Up to this many patterns a search is quicker than handing it to a thread."""
MERGE_ATTEMPTS = 50
FINALIZE_BATCH = 500


class Node:
    """Everything one node has learned.

    The store holds the truth: a change is written first and then applied to the index, and changes of one pattern
    take turns, so the index always equals what is stored. Searches run on the index alone.

    Where other instances change the same patterns, `follower` tells them and learns of theirs. The verbs that are
    coroutines look there before they answer; the others answer from the index as the last `refresh` left it.
    `available` tells whether the store is known to answer, `searches` limits how many of the searches that take a
    thread are under way, `repeatable` tells which learns may yet be done once more.
    """

    def __init__(
        self,
        node_id: str,
        store: PatternStore,
        threads: Executor,
        follower: Follower | None = None,
        available: Callable[[], bool] = lambda: True,
        searches: AbstractAsyncContextManager[None] | None = None,
        repeatable: Repeatable = nobody_knows,
    ) -> None:
        self.node_id = node_id
        self.users = 0
        self._store = store
        self._threads = threads
        self._turns = Turns()
        self._follower = follower
        self._available = available
        self._searches = searches or nullcontext()
        self._repeatable = repeatable
        self._behind = False
        self._forgotten = Forgotten()
        self._contents = Contents()
        self._touched: set[str] | None = None

    async def open(self) -> None:
        """Read all records of the store into the index."""
        if self._follower is not None:
            await self._follower.begin()
        self._contents = await self._stored()

    async def _stored(self) -> Contents:
        loop, contents = asyncio.get_running_loop(), Contents()
        async for batch in self._store.scan(self.node_id):
            await loop.run_in_executor(self._threads, contents.load, batch)
        if contents.forgotten:
            for pattern in (await self._store.fetch(self.node_id, contents.forgotten)).values():
                if pattern.forgotten:
                    self._forgotten.add(pattern)
        return contents

    @property
    def stale(self) -> bool:
        """Whether answers may lack what others taught: the latest look failed, or the store does not answer."""
        return self._behind or not self._available()

    def memory_bytes(self) -> int:
        """Bytes the index of this node holds."""
        return self._contents.index.memory_bytes()

    def __len__(self) -> int:
        return len(self._contents.index)

    # In step with other instances ----------------------------------------------------------------

    async def refresh(self) -> bool:
        """See every change that was acknowledged anywhere before this call; False when that cannot be known."""
        if self._follower is None:
            return True
        self.users += 1
        try:
            await self._follower.refresh(self)
            in_step = True
        except UNAVAILABLE:
            in_step = False
        finally:
            self.users -= 1
        self._behind = not in_step
        return in_step

    async def _require_refresh(self, *, complete: bool) -> None:
        # Never inside a turn: what is looked up there waits for that turn.
        if self._follower is not None:
            await self._follower.refresh(self, complete=complete)

    async def renew(self, names: Sequence[str]) -> dict[str, Pattern]:
        """Make the index agree with the store on some names; returns their records."""
        self.users += 1
        try:
            async with self._turns.of(names):
                found = await self._store.fetch(self.node_id, names)
                for name in names:
                    if name in found:
                        self._apply(found[name])
                    else:
                        self._remove(name)
                return found
        finally:
            self.users -= 1

    async def reread(self) -> None:
        """Build the index anew from the store; until it is ready everybody goes on with the old one."""
        self.users += 1
        try:
            replaced = False
            while not replaced:
                old, self._touched = self._contents, set()
                new = await self._stored()
                async with self._turns.alone():
                    # Otherwise everything was dropped meanwhile, and `new` may hold what is gone.
                    replaced = self._contents is old
                    if replaced:
                        await self._transfer(sorted(self._touched), new)
                        self._contents = new
        finally:
            self._touched = None
            self.users -= 1

    async def _transfer(self, names: Sequence[str], contents: Contents) -> None:
        """What changed here while `contents` were read."""
        found = await self._store.fetch(self.node_id, names)
        for name in names:
            if name in found:
                contents.apply(found[name])
            else:
                contents.remove(name)

    async def settled(self) -> None:
        """Wait until nothing is being looked up."""
        if self._follower is not None:
            await self._follower.finish()

    def _announcing(self, kind: str, changes: Sequence[Entry]) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._follower is None else self._follower.announcing(kind, changes)

    def _removing(self, name: str) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._follower is None else self._follower.removing(name)

    # Learning --------------------------------------------------------------------------------

    async def learn(self, lessons: Sequence[Lesson]) -> dict[str, Pattern]:
        """Make lessons durable and known, each counted exactly once; returns the patterns as they are now by name."""
        return await self._uninterrupted(self._learn(lessons))

    async def _learn(self, lessons: Sequence[Lesson]) -> dict[str, Pattern]:
        by_name: dict[str, list[Lesson]] = {}
        for lesson in lessons:
            by_name.setdefault(lesson.name, []).append(lesson)
        # What the index does not know yet is found when it is inserted.
        await self._require_refresh(complete=False)
        async with self._turns.of(by_name):
            pending, done = by_name, dict[str, Pattern]()
            for _ in range(MERGE_ATTEMPTS):
                done |= await self._write(pending)
                pending = {name: group for name, group in pending.items() if name not in done}
                if not pending:
                    return done
        raise errors.ConcurrencyError("The pattern kept changing while it was learned", retry_after=1)

    async def _write(self, groups: dict[str, list[Lesson]]) -> dict[str, Pattern]:
        """One attempt to store every group of lessons; returns the patterns that are stored now.

        What is stored is in the index at once, also when storing the rest fails.
        """
        stored: dict[str, Pattern] = {}

        def keep(pattern: Pattern) -> None:
            stored[pattern.name] = pattern
            self._apply(pattern)

        known = await self._store.fetch(
            self.node_id, [name for name in groups if name in self._contents.index]
        )
        # Told in every attempt, also of what is counted already: whoever acknowledges a learn has announced it
        # just before, and after seeing that it was still to be done.
        told = [] if self._follower is None else announced(groups)
        async with self._announcing(LEARNED, told):
            fresh = [taught(group) for name, group in groups.items() if name not in known]
            clashes = await self._store.insert(self.node_id, fresh) if fresh else set[str]()
            for pattern in fresh:
                if pattern.name not in clashes:
                    keep(pattern)
            known |= await self._store.fetch(self.node_id, sorted(clashes)) if clashes else {}

            async def merge(old: Pattern) -> None:
                new = merged(old, await uncounted(old, groups[old.name], self._repeatable))
                if new is not old:
                    new = await remembered(new, self._repeatable)
                if new is old or await self._store.replace(self.node_id, new, old.revision):
                    keep(new)

            outcomes = await asyncio.gather(*map(merge, known.values()), return_exceptions=True)
            for outcome in outcomes:
                if outcome is not None:
                    raise outcome
        return stored

    def _apply(self, pattern: Pattern) -> None:
        self._contents.apply(pattern)
        if self._touched is not None:
            self._touched.add(pattern.name)

    def _remove(self, name: str) -> None:
        self._contents.remove(name)
        if self._touched is not None:
            self._touched.add(name)

    async def finalize(self) -> int:
        """Flag every pattern, so that its whole-pattern figures are shown; returns how many patterns there are."""
        covered, after = 0, None
        self.users += 1
        try:
            await self._require_refresh(complete=True)
            while names := self._contents.index.page(after, FINALIZE_BATCH, None, 0):
                await asyncio.gather(
                    *(self._change(name, _finalized, missing_is_fine=True) for name in names)
                )
                covered, after = covered + len(names), names[-1]
        finally:
            self.users -= 1
        return covered

    # Editing --------------------------------------------------------------------------------

    async def pattern(self, name: str) -> Pattern:
        """The stored record of a pattern, by its name with or without prefix."""
        found = await self._record(name.removeprefix(PATTERN_PREFIX))
        if found is None:
            raise errors.PatternNotFound(f"Pattern {name} not found", pattern_name=name)
        return found

    async def _record(self, name: str) -> Pattern | None:
        found = (await self._store.fetch(self.node_id, [name])).get(name)
        return None if found is None or found.forgotten else found

    async def page(
        self, limit: int, cursor: str | None, symbol: str | None, min_frequency: int
    ) -> PatternPage:
        """Patterns in ascending order of name after `cursor`."""
        await self.refresh()
        stale, index = self.stale, self._contents.index
        names = index.page(cursor, limit + 1, symbol, min_frequency)
        records = await self._store.fetch(self.node_id, names[:limit])
        patterns = tuple(
            records[name] for name in names[:limit] if name in records and not records[name].forgotten
        )
        cursor = names[limit - 1] if len(names) > limit else None
        return PatternPage(patterns, cursor, len(index), stale)

    async def update(
        self,
        name: str,
        frequency: int | None,
        emotives: dict[str, Sequence[float]] | Sequence[Emotives] | None,
        persistence: int,
    ) -> Pattern:
        """Set the frequency, the emotives, or both."""

        def change(pattern: Pattern) -> Pattern:
            try:
                return learning.update(pattern, frequency, emotives, persistence)
            except ValueError as error:
                raise errors.ValidationError(str(error), field=str(error).split(" ", 1)[0]) from error

        changed = await self._change(name, change)
        assert changed is not None
        return changed

    async def _change(
        self, name: str, change: Callable[[Pattern], Pattern], missing_is_fine: bool = False
    ) -> Pattern | None:
        return await self._uninterrupted(self._changed(name, change, missing_is_fine))

    async def _changed(
        self, name: str, change: Callable[[Pattern], Pattern], missing_is_fine: bool
    ) -> Pattern | None:
        bare = name.removeprefix(PATTERN_PREFIX)
        async with self._turns.of([bare]):
            for _ in range(MERGE_ATTEMPTS):
                old = await self._record(bare)
                if old is None:
                    if missing_is_fine:
                        return None
                    raise errors.PatternNotFound(f"Pattern {name} not found", pattern_name=name)
                new = change(old)
                if new is old:
                    return old
                new = _revised(new, old)
                async with self._announcing(CHANGED, [(bare, str(new.revision))]):
                    replaced = await self._store.replace(self.node_id, new, old.revision)
                if replaced:
                    self._apply(new)
                    return new
        raise errors.ConcurrencyError("The pattern kept changing", retry_after=1)

    async def delete(self, name: str) -> str:
        """Remove a pattern with all its influence; returns its bare name."""
        return await self._uninterrupted(self._delete(name))

    async def _delete(self, name: str) -> str:
        bare = name.removeprefix(PATTERN_PREFIX)
        async with self._turns.of([bare]):
            if self._follower is not None:
                # Nobody is told of what is not there.
                await self.pattern(name)
            await self._remove_forgotten()
            async with self._removing(bare):
                deleted = await self._forget(bare)
            if not deleted:
                raise errors.PatternNotFound(f"Pattern {name} not found", pattern_name=name)
        return bare

    async def _forget(self, name: str) -> bool:
        """Leave of a pattern what it has counted, where others may be about to deliver that once more."""
        if self._follower is None:
            deleted = await self._store.delete(self.node_id, name)
            self._remove(name)
            return deleted
        operation = secrets.token_hex(8)
        for _ in range(MERGE_ATTEMPTS):
            old = (await self._store.fetch(self.node_id, [name])).get(name)
            if old is None:
                return False
            if old.forgotten or operation in old.operations:
                # By us, if the store has repeated what it could not acknowledge; perhaps it was learned since.
                self._apply(old)
                return operation in old.operations
            rest = learning.forget(old, operation)
            if await self._store.replace(self.node_id, rest, old.revision):
                self._apply(rest)
                self._forgotten.add(rest)
                return True
        raise errors.ConcurrencyError("The pattern kept changing while it was deleted", retry_after=1)

    async def _remove_forgotten(self) -> None:
        due = dict(self._forgotten.due())
        found = await self._store.fetch(self.node_id, list(due)) if due else {}
        for name, revision in due.items():
            record = found.get(name)
            # One that has been learned again has another revision.
            if record is not None and record.revision == revision:
                if any((await self._repeatable(record.operations)).values()):
                    self._forgotten.postpone(name, revision)
                    continue
                await self._store.delete(self.node_id, name, revision)
            self._forgotten.discard(name, revision)

    async def drop(self) -> int:
        """Forget everything; returns how many patterns there were."""
        return await self._uninterrupted(self._drop())

    async def _drop(self) -> int:
        async with self._turns.alone(), self._removing(EVERYTHING):
            dropped = await self._store.drop(self.node_id)
            self._forgotten.clear()
            self._contents = Contents()
        return dropped

    async def _uninterrupted(self, change: Coroutine[Any, Any, T]) -> T:
        """Store and index change together: a caller that gives up must not stop the second half."""
        self.users += 1

        async def run() -> T:
            try:
                return await change
            finally:
                self.users -= 1

        return await asyncio.shield(asyncio.ensure_future(run()))

    # Predicting --------------------------------------------------------------------------------

    async def predict(self, stm: Events, config: SessionConfig, *, refreshed: bool = False) -> Predictions:
        """What the STM resembles; see behaviour.md 8. `refreshed`: the caller has just done that."""
        if not refreshed and self._follower is not None:
            await self.refresh()
        stale, contents = self.stale, self._contents
        quick = (
            len(contents.index) <= QUICK_PATTERNS
            and config.use_token_matching
            and not config.fuzzy_token_threshold
        )
        if quick:
            found = self._predict(stm, config, contents)
        else:
            self.users += 1
            try:
                loop = asyncio.get_running_loop()
                async with self._searches:
                    found = await loop.run_in_executor(self._threads, self._predict, stm, config, contents)
            finally:
                self.users -= 1
        return msgspec.structs.replace(found, stale=True) if stale else found

    def _predict(self, stm: Events, config: SessionConfig, contents: Contents) -> Predictions:
        state = tuple(symbol for event in stm for symbol in event)
        index, emotions = contents.index, contents.emotions
        if not state or not len(index):
            return Predictions()
        ensemble = recall(index, state, config)
        weights = None
        if config.affinity_emotive is not None:
            # behaviour.md 8.7: only symbols of the state weigh; in the single-symbol path the candidates' do too.
            others = (
                () if len(state) > 1 else (s for events in ensemble.events for event in events for s in event)
            )
            symbols = list(dict.fromkeys((*state, *others)))
            weights = _weights(contents, symbols, config.affinity_emotive)
        return predicting.predict(
            stm,
            ensemble,
            config,
            member_frequency=lambda wanted: [members for _, members in index.symbol_statistics(wanted)],
            emotives=lambda name: emotions.get(name, ({}, {}))[0],
            weights=weights,
        )

    # Statistics --------------------------------------------------------------------------------

    def symbol_statistics(self) -> list[SymbolStatistics]:
        """Every symbol, ascending."""
        index = self._contents.index
        symbols = index.vocabulary()
        figures = index.symbol_statistics(symbols)
        return [SymbolStatistics(symbol, *figure) for symbol, figure in zip(symbols, figures, strict=True)]

    def affinity(self, symbol: str) -> Emotives:
        """The affinity of one symbol; empty when it has none."""
        return self._contents.affinities.of(symbol)

    def affinities(self) -> dict[str, Emotives]:
        """The affinity of every symbol that has one."""
        return self._contents.affinities.all()

    def totals(self) -> Totals:
        """Figures of the whole node."""
        return Totals(*self._contents.index.totals())


def _weights(contents: Contents, symbols: Sequence[str], emotive: str) -> dict[str, float]:
    figures = contents.index.symbol_statistics(symbols)
    return {
        symbol: metrics.weight(contents.affinities.of(symbol).get(emotive, 0.0), frequency)
        for symbol, (frequency, _) in zip(symbols, figures, strict=True)
    }


def _revised(new: Pattern, old: Pattern) -> Pattern:
    return msgspec.structs.replace(new, revision=old.revision + 1)


def _finalized(pattern: Pattern) -> Pattern:
    return pattern if pattern.finalized else msgspec.structs.replace(pattern, finalized=True)
