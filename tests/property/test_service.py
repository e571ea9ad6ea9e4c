"""The service against dictionaries: whatever the order of calls, crashes of the session store and restarts."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from kato import bootstrap, errors
from kato.engine.naming import pattern_name
from kato.model import Event, Observation
from kato.results import Batch
from kato.service import Kato
from kato.settings import Settings
from tests.support.kato import answer

T = TypeVar("T")
NODES = ("left", "right")
EVENTS = st.lists(st.sampled_from("abc"), min_size=1, max_size=2).map(tuple)


class Model:
    """What a session should hold."""

    def __init__(self, node: str, limit: int) -> None:
        self.node = node
        self.limit = limit
        self.stm: list[Event] = []
        self.time = 0


class ServiceMachine(RuleBasedStateMachine):
    """Random calls on sessions of two nodes, with restarts in between."""

    sessions = Bundle("sessions")
    data = ":memory:"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.models: dict[str, Model] = {}
        self.keys = 0
        self.learned: dict[str, dict[tuple[Event, ...], int]] = {node: {} for node in NODES}
        self.start()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    def start(self) -> None:
        self.context = bootstrap.running(Settings(KATO_DATA=self.data, MAX_STM_SIZE=5, MAX_PROCESSORS=1))
        self.kato: Kato = self.run(self.context.__aenter__())

    def stop(self) -> None:
        self.run(self.context.__aexit__(None, None, None))

    def teardown(self) -> None:
        self.stop()
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()

    def count(self, node: str, pattern: tuple[Event, ...]) -> str:
        """Count a learn in the model; returns the full name."""
        if sum(map(len, pattern)) < 2:
            return ""
        self.learned[node][pattern] = self.learned[node].get(pattern, 0) + 1
        return "PTRN|" + pattern_name(pattern)

    def observed(self, model: Model, event: Event) -> str | None:
        """Observe in the model; returns the name of an automatic learn."""
        model.time += 1
        model.stm = [*model.stm, tuple(sorted(event))]
        name = None
        if 0 < model.limit <= len(model.stm):
            name = self.count(model.node, tuple(model.stm)) or None
            model.stm = []
        model.stm = model.stm[-5:]
        return name

    @initialize(target=sessions, node=st.sampled_from(NODES))
    def first(self, node: str) -> str:
        return self.create(node, 0)

    @rule(target=sessions, node=st.sampled_from(NODES), limit=st.sampled_from((0, 0, 2, 3)))
    def another(self, node: str, limit: int) -> str:
        return self.create(node, limit)

    def create(self, node: str, limit: int) -> str:
        config = {"recall_threshold": 0.0, "max_pattern_length": limit}
        session = self.run(self.kato.create_session(node, config=config)).session_id
        self.models[session] = Model(node, limit)
        return session

    @rule(session=sessions, event=EVENTS)
    def observe(self, session: str, event: Event) -> None:
        model = self.models[session]
        name = self.observed(model, event)
        result = self.run(self.kato.observe(session, Observation(strings=event)))
        assert (result.time, result.stm_length) == (model.time, len(model.stm))
        assert result.auto_learned_pattern == name

    @rule(session=sessions, events=st.lists(EVENTS, max_size=4), at_end=st.booleans(), each=st.booleans())
    def observe_batch(self, session: str, events: list[Event], at_end: bool, each: bool) -> None:
        model, names = self.models[session], list[str | None]()
        for event in events:
            automatic = self.observed(model, event)
            if each and model.stm:
                names.append(self.count(model.node, tuple(model.stm)))
                model.stm = []
            names.append(automatic)
        if at_end and model.stm:
            names.append(self.count(model.node, tuple(model.stm)))
            model.stm = []
        observations = tuple(Observation(strings=event) for event in events)
        batch = Batch(observations=observations, learn_after_each=each, learn_at_end=at_end)
        result = self.run(self.kato.observe_sequence(session, batch))
        assert result.patterns == tuple(filter(None, names))
        assert result.final_stm_length == len(model.stm)

    @rule(session=sessions, repeated=st.booleans())
    def learn(self, session: str, repeated: bool) -> None:
        model = self.models[session]
        if not model.stm:
            try:
                self.run(self.kato.learn(session))
            except errors.EmptySTM:
                return
            raise AssertionError("an empty STM was learned")
        name = self.count(model.node, tuple(model.stm))
        model.stm = []
        self.keys += 1
        key = f"learn-{self.keys}" if repeated else None
        answers = [self.run(self.kato.learn(session, key)) for _ in range(1 + repeated)]
        assert [result.pattern_name for result in answers] == [name] * len(answers)

    @rule(session=sessions)
    def clear_stm(self, session: str) -> None:
        self.run(self.kato.clear_stm(session))
        self.models[session].stm, self.models[session].time = [], 0

    @rule(session=sessions)
    def clear_all(self, session: str) -> None:
        self.run(self.kato.clear_all(session))
        model = self.models[session]
        model.stm, model.time = [], 0
        self.learned[model.node].clear()

    @rule(session=consumes(sessions))
    def delete_session(self, session: str) -> None:
        self.run(self.kato.delete_session(session))
        del self.models[session]

    @rule(node=st.sampled_from(NODES), choice=st.randoms(use_true_random=False))
    def delete_pattern(self, node: str, choice: Any) -> None:
        if self.learned[node]:
            pattern = choice.choice(sorted(self.learned[node]))
            del self.learned[node][pattern]
            self.run(self.kato.delete_pattern(node, pattern_name(pattern)))

    @rule(node=st.sampled_from(NODES), choice=st.randoms(use_true_random=False), frequency=st.integers(1, 9))
    def update_pattern(self, node: str, choice: Any, frequency: int) -> None:
        if self.learned[node]:
            pattern = choice.choice(sorted(self.learned[node]))
            self.learned[node][pattern] = frequency
            self.run(self.kato.update_pattern(node, pattern_name(pattern), frequency=frequency))

    @invariant()
    def sessions_are_as_expected(self) -> None:
        for session, model in self.models.items():
            state = self.run(self.kato.session(session))
            assert (list(state.stm), state.time) == (model.stm, model.time)
        assert self.run(self.kato.count_sessions()) == len(self.models)

    @invariant()
    def nodes_are_as_expected(self) -> None:
        for node, learned in self.learned.items():
            page = self.run(self.kato.list_patterns(node, 1000))
            assert {pattern.events: pattern.frequency for pattern in page.patterns} == learned
            totals = self.run(self.kato.totals(node))
            assert totals.pattern_frequencies == sum(learned.values())
            symbols = [symbol for pattern in learned for event in pattern for symbol in event]
            assert totals.symbols == len(set(symbols))

    @invariant()
    def every_pattern_is_predicted_without_a_threshold(self) -> None:
        for session, model in self.models.items():
            if sum(map(len, model.stm)) < 2:
                continue
            found = self.run(self.kato.predictions(session))[0].predictions
            expected = {pattern_name(p): count for p, count in self.learned[model.node].items()}
            assert {p.name: p.frequency for p in found} == expected


class DurableServiceMachine(ServiceMachine):
    """The same on a directory, closed and opened again at any moment."""

    def __init__(self) -> None:
        self.data = tempfile.mkdtemp(prefix="kato-property-")
        super().__init__()

    @rule()
    def restart(self) -> None:
        before = {session: self.run(answer(self.kato, session)) for session in self.models}
        self.stop()
        self.start()
        assert {session: self.run(answer(self.kato, session)) for session in self.models} == before

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.data)


TestService = ServiceMachine.TestCase
TestService.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestDurableService = DurableServiceMachine.TestCase
TestDurableService.settings = settings(TestService.settings, max_examples=20)
