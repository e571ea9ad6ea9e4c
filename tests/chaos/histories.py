"""Whether one serial order of its operations explains everything that the clients of a session were told.

A history is linearizable when its operations can be put in an order, each at some moment between its invocation and
its return, in which a session that serves one client at a time would give the very same answers.

The search is that of Wing and Gong with Lowe's memory of what was tried: it takes operations one after another from
those that may come next, and goes back where an answer contradicts. An observe tells its time, so there is rarely a
choice. An operation of unknown outcome may have happened at any moment after its invocation, or never.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from kato.engine.naming import pattern_name
from kato.model import Event, Events

Kind: TypeAlias = Literal["observe", "stm", "learn", "clear", "predictions"]
UNKNOWN = math.inf
"""When an operation returned whose client never learned what became of it."""
READS = ("stm", "predictions")
NOTHING = ""
"""What a learn of an empty STM gives."""


class Operation(NamedTuple):
    """One request: when it was sent and answered, by any clock that all clients share.

    | kind        | argument  | result                                          |
    |-------------|-----------|-------------------------------------------------|
    | observe     | the event | (time, length of the STM)                       |
    | stm         |           | the events                                      |
    | learn       |           | the bare name of the pattern, `NOTHING` if none |
    | clear       |           |                                                 |
    | predictions |           | the frequency of each pattern, by its bare name |

    Of an operation that returned `UNKNOWN` the result does not count.
    """

    kind: Kind
    invoked: float
    returned: float
    argument: Event = ()
    result: Any = None
    client: int = 0


class State(NamedTuple):
    """A session, and what it has taught a node that nobody else teaches."""

    stm: Events = ()
    time: int = 0
    taught: frozenset[tuple[str, int]] = frozenset()

    def after(self, operation: Operation) -> State | None:
        """The state that `operation` leaves; None when it would have been answered otherwise."""
        after, result = _HAPPENS[operation.kind](self, operation)
        return after if operation.returned == UNKNOWN or operation.result == result else None

    def observed(self, operation: Operation) -> tuple[State, tuple[int, int]]:
        after = self._replace(stm=(*self.stm, operation.argument), time=self.time + 1)
        return after, (after.time, len(after.stm))

    def shown(self, _: Operation) -> tuple[State, Events]:
        return self, self.stm

    def learned(self, _: Operation) -> tuple[State, str]:
        if not self.stm:
            return self, NOTHING
        name, taught = pattern_name(self.stm), dict(self.taught)
        taught[name] = taught.get(name, 0) + 1
        return self._replace(stm=(), taught=frozenset(taught.items())), name

    def cleared(self, operation: Operation) -> tuple[State, Any]:
        return self._replace(stm=(), time=0), operation.result

    def predicted(self, _: Operation) -> tuple[State, dict[str, int]]:
        return self, dict(self.taught)


_HAPPENS = {
    "observe": State.observed,
    "stm": State.shown,
    "learn": State.learned,
    "clear": State.cleared,
    "predictions": State.predicted,
}


class NotLinearizable(AssertionError):
    """No order explains the answers; `explained` is the longest beginning of one."""

    def __init__(self, explained: list[Operation], state: State, stuck: list[Operation]) -> None:
        nexts = "\n  ".join(map(str, stuck))
        super().__init__(
            f"after {len(explained)} operations the session holds {state},\nand none of these can follow:\n  {nexts}"
        )
        self.explained = explained


def serial_order(history: Sequence[Operation]) -> list[Operation]:
    """An order that explains every answer; operations that need not have happened are left out.

    Raises `NotLinearizable` when there is none.

    >>> serial_order([Operation("observe", 1, 2, ("a",), (1, 1)), Operation("stm", 1, 3, (), ())])[0].kind
    'stm'
    """
    # A read that was never answered explains nothing.
    told = [each for each in history if each.returned != UNKNOWN or each.kind not in READS]
    return _Search(sorted(told, key=lambda each: each.invoked)).run()


class _Search:
    """Looks for an order of operations that are sorted by invocation; sets of them are bits of an integer."""

    def __init__(self, operations: list[Operation]) -> None:
        self._operations = operations
        self._answered = sum(1 << n for n, each in enumerate(operations) if each.returned != UNKNOWN)
        self._tried: dict[tuple[int, State], list[int]] = {}
        self._order: list[int] = []
        self._longest: tuple[list[int], int, State] = ([], 0, State())

    def run(self) -> list[Operation]:
        done, state = 0, State()
        ways: list[tuple[int, State, Iterator[tuple[int, State]]]] = [(0, state, self._next(0, state))]
        while done & self._answered != self._answered:
            step = next(ways[-1][2], None)
            if step is None:
                ways.pop()
                if not ways:
                    raise self._failure()
                self._order.pop()
                done, state, _ = ways[-1]
                continue
            number, after = step
            if self._was_tried(done | 1 << number, after):
                continue
            done, state = done | 1 << number, after
            self._order.append(number)
            if len(self._order) > len(self._longest[0]):
                self._longest = (list(self._order), done, state)
            ways.append((done, state, self._next(done, state)))
        return [self._operations[number] for number in self._order]

    def _was_tried(self, done: int, state: State) -> bool:
        """Whether this was met before, then with at least as many of the unanswered operations still to come."""
        used = done & ~self._answered
        tried = self._tried.setdefault((done & self._answered, state), [])
        if any(before & used == before for before in tried):
            return True
        tried.append(used)
        return False

    def _possible(self, done: int) -> list[int]:
        """What may come next: everything invoked before the first of the others has returned."""
        possible, first_return = [], UNKNOWN
        # Everything below the lowest bit that is not set has been done.
        start = (~done & (done + 1)).bit_length() - 1
        for number in range(start, len(self._operations)):
            if done >> number & 1:
                continue
            operation = self._operations[number]
            if operation.invoked > first_return:
                break
            possible.append(number)
            first_return = min(first_return, operation.returned)
        return possible

    def _next(self, done: int, state: State) -> Iterator[tuple[int, State]]:
        """What may come next and does not contradict, and the state after it."""
        fitting = []
        for number in self._possible(done):
            operation = self._operations[number]
            after = state.after(operation)
            if after is None or (after == state and operation.returned == UNKNOWN):
                continue
            if operation.kind in READS or operation.result == NOTHING:
                # It changes nothing whenever it comes, so whatever order there is, it may come first in it.
                yield number, after
                return
            fitting.append((number, after))
        yield from sorted(fitting, key=lambda way: self._operations[way[0]].returned)

    def _failure(self) -> NotLinearizable:
        order, done, state = self._longest
        stuck = [self._operations[number] for number in self._possible(done)]
        return NotLinearizable([self._operations[number] for number in order], state, stuck)
