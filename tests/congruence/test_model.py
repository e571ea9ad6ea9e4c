"""A dictionary model beside all KATOs: in whatever order things are said, the answers are the model's."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.congruence.speakers import agree, normal, told

Events = tuple[tuple[str, ...], ...]

SYMBOLS = st.sampled_from(["a", "b", "c", "d", "e", "é", "two words"])
EVENTS = st.lists(SYMBOLS, max_size=4)
EMOTIVES = st.dictionaries(
    st.sampled_from(["joy", "fear"]), st.integers(-8, 8).map(lambda n: n / 8), max_size=2
)
VECTORS = st.lists(
    st.sampled_from([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.1 + 0.2, 0.1], [0.3, 0.1], [1e-9, 1.0]]),
    min_size=1,
    max_size=2,
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "recall_threshold": st.sampled_from([0.0, 0.1, 0.4, 0.8]),
        "max_predictions": st.sampled_from([1, 3, 100]),
        "rank_sort_algo": st.sampled_from(["potential", "similarity", "frequency", "evidence"]),
        "sort_symbols": st.booleans(),
        "use_token_matching": st.booleans(),
        "affinity_emotive": st.sampled_from(["joy", None]),
    },
)
_NODES = count()


class Heard:
    """What the model knows of one session: its STM, and whether symbols of an event are sorted."""

    def __init__(self, sessions: dict[str, Any]) -> None:
        self.sessions = sessions
        self.stm: list[tuple[str, ...]] = []
        self.sorts = True


class Conversation(RuleBasedStateMachine):
    """Some sessions on one node, each with six KATOs."""

    katos: dict[str, Any]
    heard = Bundle("heard")

    @initialize()
    def begin(self) -> None:
        self.node = f"model-{next(_NODES)}"
        self.learned: Counter[Events] = Counter()

    def ask(self, session: Heard, verb: str, *arguments: Any, **named: Any) -> Any:
        """The one answer of all sessions; an error is an answer."""
        return agree(
            {
                name: told(lambda s=s: getattr(s, verb)(*arguments, **named))
                for name, s in session.sessions.items()
            }
        )

    def ask_all(self, verb: str, *arguments: Any, **named: Any) -> Any:
        """The one answer of all KATOs."""
        return agree(
            {name: told(lambda k=k: getattr(k, verb)(*arguments, **named)) for name, k in self.katos.items()}
        )

    def learn_stm(self, session: Heard) -> None:
        """What a learn does to the model."""
        if sum(map(len, session.stm)) > 1:
            self.learned[tuple(session.stm)] += 1
        session.stm = []

    def show(self, session: Heard, symbols: list[str]) -> None:
        """What an observation does to the model."""
        if symbols:
            session.stm.append(tuple(sorted(symbols) if session.sorts else symbols))

    @rule(target=heard)
    def open(self) -> Heard:
        return Heard({name: memory.session(self.node) for name, memory in self.katos.items()})

    @rule(session=heard, symbols=EVENTS, emotives=EMOTIVES)
    def observe(self, session: Heard, symbols: list[str], emotives: dict[str, float]) -> None:
        answer = self.ask(session, "observe", symbols, emotives=emotives)
        self.show(session, symbols)
        assert answer["stm_length"] == len(session.stm)

    @rule(session=heard, vectors=VECTORS)
    def observe_vectors(self, session: Heard, vectors: list[list[float]]) -> None:
        answer = self.ask(session, "observe", vectors=vectors)
        stm = [tuple(event) for event in self.ask(session, "stm")]
        # Which vectors resemble these, the embedded store's own tests say; here all KATOs have to say the same.
        assert stm[:-1] == session.stm
        assert all(symbol.startswith("VCTR|") for symbol in stm[-1])
        assert answer["stm_length"] == len(stm)
        session.stm = stm

    @rule(session=heard, batch=st.lists(EVENTS, max_size=4), at_end=st.booleans(), each=st.booleans())
    def observe_sequence(self, session: Heard, batch: list[list[str]], at_end: bool, each: bool) -> None:
        answer = self.ask(session, "observe_sequence", batch, learn_after_each=each, learn_at_end=at_end)
        for symbols in batch:
            self.show(session, symbols)
            if each:
                self.learn_stm(session)
        if at_end:
            self.learn_stm(session)
        assert answer["observations_processed"] == len(batch)
        assert answer["final_stm_length"] == len(session.stm)

    @rule(session=heard)
    def learn(self, session: Heard) -> None:
        answer = self.ask(session, "learn")
        if session.stm:
            assert bool(answer["pattern_name"]) == (sum(map(len, session.stm)) > 1)
        else:
            assert "EMPTY_STM" in answer
        self.learn_stm(session)

    @rule(session=heard)
    def stm(self, session: Heard) -> None:
        assert self.ask(session, "stm") == [list(event) for event in session.stm]

    @rule(session=heard, config=CONFIGS)
    def configure(self, session: Heard, config: dict[str, Any]) -> None:
        self.ask(session, "configure", **config)
        session.sorts = (
            self.ask(session, "config")["sort_symbols"] if "sort_symbols" in config else session.sorts
        )
        assert set(config) - {"affinity_emotive"} <= set(self.ask(session, "config"))

    @rule(session=heard)
    def predictions(self, session: Heard) -> None:
        agree({name: normal(s.predictions_json()) for name, s in session.sessions.items()})
        found = self.ask(session, "predictions")
        known = {tuple(map(tuple, answer)) for answer in map(list, self.learned)}
        for prediction in found:
            assert tuple(map(tuple, prediction["sequence"])) in known
            assert prediction["frequency"] == self.learned[tuple(map(tuple, prediction["sequence"]))]
        assert session.stm or not found

    @rule(session=heard)
    def cognition(self, session: Heard) -> None:
        found = self.ask(session, "cognition_data")
        assert found["short_term_memory"] == [list(event) for event in session.stm]

    @rule(session=heard)
    def clear_stm(self, session: Heard) -> None:
        self.ask(session, "clear_stm")
        session.stm = []

    @rule(session=heard)
    def clear_all(self, session: Heard) -> None:
        self.ask(session, "clear_all")
        session.stm = []
        self.learned.clear()

    @rule(session=heard)
    def finalize(self, session: Heard) -> None:
        assert self.ask(session, "finalize_training")["patterns_processed"] == len(self.learned)

    @rule()
    def patterns(self) -> None:
        page = self.ask_all("patterns", self.node, limit=1000)
        found = {tuple(map(tuple, p["pattern_data"])): p["frequency"] for p in page["patterns"]}
        assert found == dict(self.learned)
        assert page["total"] == len(self.learned)

    @rule()
    def symbols(self) -> None:
        frequency: Counter[str] = Counter()
        members: Counter[str] = Counter()
        for events, times in self.learned.items():
            for symbol, often in Counter(s for event in events for s in event).items():
                frequency[symbol] += often * times
                members[symbol] += 1
        found = self.ask_all("symbols", self.node)
        assert {s: f["pattern_member_frequency"] for s, f in found.items()} == dict(members)
        assert {s: f["frequency"] for s, f in found.items()} == dict(frequency)
        self.ask_all("affinities", self.node)

    @precondition(lambda self: self.learned)
    @rule(data=st.data(), frequency=st.integers(1, 9))
    def update(self, data: st.DataObject, frequency: int) -> None:
        name, events = self.pick(data)
        assert self.ask_all("update_pattern", name, self.node, frequency=frequency)["frequency"] == frequency
        self.learned[events] = frequency

    @precondition(lambda self: self.learned)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name, events = self.pick(data)
        self.ask_all("delete_pattern", name, self.node)
        del self.learned[events]
        assert "PATTERN_NOT_FOUND" in self.ask_all("pattern", name, self.node)

    def pick(self, data: st.DataObject) -> tuple[str, Events]:
        """One of the patterns there are."""
        pattern = data.draw(st.sampled_from(self.ask_all("patterns", self.node, limit=1000)["patterns"]))
        return pattern["name"], tuple(map(tuple, pattern["pattern_data"]))


def test_whatever_is_said_the_answers_are_the_models(katos: dict[str, Any]) -> None:
    def conversation() -> Conversation:
        machine = Conversation()
        machine.katos = katos
        return machine

    run_state_machine_as_test(
        conversation,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
