"""The checker accepts what a session can do, and rejects every way to lose, double, mix or reorder."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kato.engine.naming import pattern_name
from kato.model import Events
from tests.chaos.histories import NOTHING, UNKNOWN, Kind, NotLinearizable, Operation, State, serial_order
from tests.support.memory import events, name_of

History = list[Operation]


def observe(invoked: float, returned: float, event: str, time: int, length: int | None = None) -> Operation:
    return Operation("observe", invoked, returned, tuple(event), (time, time if length is None else length))


def stm(invoked: float, returned: float, text: str) -> Operation:
    return Operation("stm", invoked, returned, (), events(text))


def learn(invoked: float, returned: float, text: str) -> Operation:
    return Operation("learn", invoked, returned, (), name_of(text) if text else NOTHING)


def clear(invoked: float, returned: float) -> Operation:
    return Operation("clear", invoked, returned)


def predictions(invoked: float, returned: float, **frequencies: int) -> Operation:
    """`ab_c=2`: the pattern `ab c` was predicted with frequency 2."""
    named = {name_of(text.replace("_", " ")): count for text, count in frequencies.items()}
    return Operation("predictions", invoked, returned, (), named)


ACCEPTED: dict[str, History] = {
    "nothing": [],
    "one after another": [
        observe(1, 2, "a", 1),
        observe(3, 4, "b", 2),
        stm(5, 6, "a b"),
        learn(7, 8, "a b"),
        stm(9, 10, ""),
        predictions(11, 12, a_b=1),
        observe(13, 14, "c", 3, length=1),
        clear(15, 16),
        observe(17, 18, "d", 1),
    ],
    "overlapping observes in the order of their times": [observe(1, 9, "a", 2), observe(2, 8, "b", 1)],
    "a read beside an observe may see it": [observe(1, 9, "a", 1), stm(2, 3, "a")],
    "or not": [observe(1, 9, "a", 1), stm(2, 3, "")],
    "one read sees it, a later one does": [observe(1, 9, "a", 1), stm(2, 3, ""), stm(4, 5, "a")],
    "a learn after all observes beside it": [
        observe(1, 9, "a", 1),
        observe(1, 9, "b", 2),
        learn(1, 9, "a b"),
    ],
    "a learn between two observes": [
        observe(1, 9, "a", 1),
        observe(1, 9, "b", 2, length=1),
        learn(1, 9, "a"),
        stm(10, 11, "b"),
    ],
    "nothing to learn": [learn(1, 2, ""), observe(3, 4, "a", 1), clear(5, 6), learn(7, 8, "")],
    "learned again": [
        observe(1, 2, "a", 1),
        learn(3, 4, "a"),
        observe(5, 6, "a", 2, length=1),
        learn(7, 8, "a"),
        predictions(9, 10, a=2),
    ],
    "of unknown outcome, and it happened": [observe(1, UNKNOWN, "a", 0), observe(2, 3, "b", 2)],
    "of unknown outcome, and it did not": [observe(1, UNKNOWN, "a", 0), observe(2, 3, "b", 1)],
    "of unknown outcome, and it happened late": [
        observe(1, UNKNOWN, "a", 0),
        observe(2, 3, "b", 1),
        observe(4, 5, "c", 3),
        stm(6, 7, "b a c"),
    ],
    "a read nobody waited for": [Operation("stm", 1, UNKNOWN), observe(2, 3, "a", 1)],
    "a learn of unknown outcome": [
        observe(1, 2, "a", 1),
        Operation("learn", 3, UNKNOWN),
        stm(4, 5, "a"),
        stm(6, 7, ""),
        predictions(8, 9, a=1),
    ],
}

REJECTED: dict[str, History] = {
    "a lost observe": [observe(1, 2, "a", 1), observe(3, 4, "b", 2), stm(5, 6, "b")],
    "a lost observe, and its time": [observe(1, 2, "a", 1), observe(3, 4, "b", 1)],
    "a doubled observe": [observe(1, 2, "a", 1), stm(3, 4, "a a")],
    "a doubled observe told by the next one": [observe(1, 2, "a", 1), observe(3, 4, "b", 3)],
    "two observes of one time": [observe(1, 9, "a", 1), observe(2, 8, "b", 1)],
    "a reordered read": [observe(1, 2, "a", 1), observe(3, 4, "b", 2), stm(5, 6, "b a")],
    "a stale read": [observe(1, 2, "a", 1), stm(3, 4, "")],
    "a read that goes back": [observe(1, 9, "a", 1), stm(2, 3, "a"), stm(4, 5, "")],
    "a read from another session": [observe(1, 2, "a", 1), stm(3, 4, "x")],
    "a read from the future": [stm(1, 2, "a"), observe(3, 4, "a", 1)],
    "a learn of what was not the STM": [observe(1, 2, "a", 1), observe(3, 4, "b", 2), learn(5, 6, "a")],
    "a learn of nothing though there was something": [observe(1, 2, "a", 1), learn(3, 4, "")],
    "a learn that leaves the STM": [observe(1, 2, "a", 1), learn(3, 4, "a"), stm(5, 6, "a")],
    "one STM learned twice": [observe(1, 2, "a", 1), learn(3, 9, "a"), learn(3, 9, "a")],
    "a learn that no prediction shows": [observe(1, 2, "a", 1), learn(3, 4, "a"), predictions(5, 6)],
    "a learn that is forgotten": [
        observe(1, 2, "a", 1),
        learn(3, 9, "a"),
        predictions(4, 5, a=1),
        predictions(6, 7),
    ],
    "a learn that counts twice": [observe(1, 2, "a", 1), learn(3, 4, "a"), predictions(5, 6, a=2)],
    "a prediction of what was never learned": [observe(1, 2, "a", 1), predictions(3, 4, a=1)],
    "a clear that did not happen": [observe(1, 2, "a", 1), clear(3, 4), stm(5, 6, "a")],
    "of unknown outcome, before it was asked for": [stm(1, 2, "a"), observe(3, UNKNOWN, "a", 0)],
    "of unknown outcome, and it happened twice": [observe(1, UNKNOWN, "a", 0), stm(2, 3, "a a")],
    "a wrong length": [observe(1, 2, "a", 1, length=2)],
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_a_session_can_do_is_explained(name: str) -> None:
    assert_explains(ACCEPTED[name], serial_order(ACCEPTED[name]))


def assert_explains(history: History, order: History) -> None:
    """The order keeps to the moments, gives every answer, and leaves out only what was never answered."""
    state = State()
    for place, operation in enumerate(order):
        after = state.after(operation)
        assert after is not None
        state = after
        assert all(later.returned >= operation.invoked for later in order[place + 1 :])
    left = list(history)
    for operation in order:
        left.remove(operation)
    assert all(operation.returned == UNKNOWN for operation in left)


@pytest.mark.parametrize("name", REJECTED)
def test_what_it_cannot_do_is_not(name: str) -> None:
    with pytest.raises(NotLinearizable):
        serial_order(REJECTED[name])


def test_the_failure_tells_how_far_it_went() -> None:
    history = [observe(1, 2, "a", 1), observe(3, 4, "b", 2), stm(5, 6, "b a"), clear(7, 8)]
    with pytest.raises(NotLinearizable, match="after 2 operations") as caught:
        serial_order(history)
    assert caught.value.explained == history[:2]
    assert str(history[2]) in str(caught.value)
    assert str(history[3]) not in str(caught.value)


# Histories of a session that was really there


KINDS: tuple[Kind, ...] = ("observe", "stm", "learn", "clear", "predictions")


class Recording:
    """What so many clients at once record of a session that serves them one after another."""

    def __init__(self, seed: int, clients: int, unknown: float) -> None:
        self.history: History = []
        self._random = random.Random(seed)
        self._clients = clients
        self._unknown = unknown
        self._moment = 0.0
        self._state = State()
        self._sent: list[Operation] = []
        self._served: list[Operation] = []

    def step(self) -> None:
        """A client sends a request, or one is served, or an answer arrives; or something of that is lost."""
        self._moment += 1
        random_, busy = self._random, len(self._sent) + len(self._served)
        if not busy or (busy < self._clients and random_.random() < 0.6):
            kind = random_.choices(KINDS, (12, 4, 2, 1, 3))[0]
            self._sent.append(Operation(kind, self._moment, UNKNOWN, (f"e{self._moment:.0f}",)))
            return
        number = random_.randrange(busy)
        lost = random_.random() < self._unknown / 2
        if number < len(self._sent):
            operation = self._sent.pop(number)
            if lost:
                self.history.append(operation)
            else:
                self._state, served = happened(self._state, operation)
                self._served.append(served)
        else:
            operation = self._served.pop(number - len(self._sent))
            self.history.append(operation if lost else operation._replace(returned=self._moment))

    def end(self) -> History:
        """Everything that was served is answered."""
        return [*self.history, *(each._replace(returned=self._moment + 1) for each in self._served)]


def recorded(seed: int, steps: int, clients: int, unknown: float = 0.0) -> History:
    recording = Recording(seed, clients, unknown)
    while len(recording.history) < steps:
        recording.step()
    return recording.end()


def happened(state: State, operation: Operation) -> tuple[State, Operation]:
    """The state after an operation, and the operation with its answer."""
    results: dict[str, Callable[[], Any]] = {
        "observe": lambda: (state.time + 1, len(state.stm) + 1),
        "stm": lambda: state.stm,
        "learn": lambda: pattern_name(state.stm) if state.stm else NOTHING,
        "clear": lambda: None,
        "predictions": lambda: dict(state.taught),
    }
    told = operation._replace(result=results[operation.kind]())
    after = state.after(told._replace(returned=0))
    assert after is not None
    return after, told


@pytest.mark.parametrize(("steps", "unknown"), [(1000, 0.0), (200, 0.02)])
def test_long_histories_of_many_clients_are_explained(steps: int, unknown: float) -> None:
    for seed in range(10):
        history = recorded(seed, steps, 8, unknown)
        assert_explains(history, serial_order(history))


def spoiled(history: History, random_: random.Random) -> History:
    """The history with one answer that nobody could have got."""
    number = random_.choice([n for n, each in enumerate(history) if each.kind == "stm" and each.result])
    shown: Events = history[number].result
    place = random_.randrange(len(shown))
    wrong = random_.choice(
        (
            (*shown[:place], *shown[place + 1 :]) if place + 1 < len(shown) else (("other",),),
            (*shown[: place + 1], *shown[place:]),
            (*shown[:place], ("other",), *shown[place + 1 :]),
        )
    )
    return [*history[:number], history[number]._replace(result=wrong), *history[number + 1 :]]


def test_one_wrong_answer_in_a_long_history_is_found() -> None:
    for seed in range(50):
        with pytest.raises(NotLinearizable):
            serial_order(spoiled(recorded(seed, 200, 8), random.Random(seed)))


def linearizable(history: History) -> bool:
    """By definition: try every order of every choice of what happened."""
    optional = [each for each in history if each.returned == UNKNOWN]
    certain = [each for each in history if each.returned != UNKNOWN]
    choices = [
        [each for bit, each in enumerate(optional) if picked >> bit & 1]
        for picked in range(1 << len(optional))
    ]
    return any(_explains(order) for chosen in choices for order in permutations(certain + chosen))


def _explains(order: tuple[Operation, ...]) -> bool:
    state = State()
    for place, operation in enumerate(order):
        after = state.after(operation)
        if after is None or any(later.returned < operation.invoked for later in order[place + 1 :]):
            return False
        state = after
    return True


@st.composite
def small_histories(draw: st.DrawFn) -> History:
    """Real histories, most of them with one answer exchanged for one of another operation of its kind."""
    history = recorded(
        draw(st.integers(0, 10**6)), draw(st.integers(1, 5)), 4, draw(st.sampled_from((0, 0.3)))
    )
    number, other = draw(st.integers(0, len(history) - 1)), draw(st.integers(0, len(history) - 1))
    if draw(st.booleans()) and history[number].kind == history[other].kind:
        history[number] = history[number]._replace(result=history[other].result)
    if draw(st.booleans()):
        earlier = history[number].invoked + draw(st.sampled_from((0.5, 1.5, 2.5)))
        history[number] = history[number]._replace(returned=min(earlier, history[number].returned))
    return history


@given(small_histories())
def test_the_verdict_is_that_of_the_definition(history: History) -> None:
    try:
        serial_order(history)
        found = True
    except NotLinearizable:
        found = False
    assert found == linearizable(history)
