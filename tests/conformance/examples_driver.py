"""The smallest KATO that runs the behaviour examples: a dictionary of patterns around the pure engine."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from kato.engine import configuration, filters, learning, likeness, matching, naming, observing, predicting
from kato.engine.metrics import weight
from kato.model import (
    PATTERN_PREFIX,
    Emotives,
    Event,
    Events,
    Lesson,
    Observation,
    Pattern,
    Predictions,
    SessionConfig,
    SessionState,
)


def plain(value: Any) -> Any:
    """The value as a client reads it from JSON."""
    return msgspec.json.decode(msgspec.json.encode(value))


class Node:
    """Long-term memory as plain dictionaries; every figure is counted anew when asked for."""

    def __init__(self) -> None:
        self.patterns: dict[str, Pattern] = {}
        self.vectors: dict[str, tuple[float, ...]] = {}
        self.operations = 0

    def operation(self) -> str:
        self.operations += 1
        return f"operation-{self.operations}"

    def store(self, state: SessionState, lesson: Lesson | None) -> SessionState:
        for name, vector in state.vectors:
            if all(len(known) == len(vector) for known in self.vectors.values()):
                self.vectors[name] = vector
        if lesson:
            known = self.patterns.get(lesson.name)
            self.patterns[lesson.name] = learning.merge(known, lesson) if known else learning.first(lesson)
        return msgspec.structs.replace(state, vectors=())

    def neighbours(self, vectors: tuple[tuple[float, ...], ...]) -> list[str]:
        if not vectors:
            return []
        wanted = np.array(naming.sum_vectors(vectors))
        near = [
            (float(np.linalg.norm(wanted - np.array(vector))), name)
            for name, vector in self.vectors.items()
            if len(vector) == len(wanted)
        ]
        return [name for _, name in sorted(near)[:3]]

    def known(self) -> list[matching.KnownPattern]:
        return [(p.name, p.events, p.frequency, int(p.finalized)) for p in self.patterns.values()]

    def members(self, symbols: Any) -> list[int]:
        flat = [frozenset(matching.flatten(p.events)) for p in self.patterns.values()]
        return [sum(symbol in distinct for distinct in flat) for symbol in symbols]

    def statistics(self) -> dict[str, dict[str, Any]]:
        frequency: dict[str, int] = {}
        for pattern in self.patterns.values():
            for symbol in matching.flatten(pattern.events):
                frequency[symbol] = frequency.get(symbol, 0) + pattern.frequency
        members = self.members(frequency)
        return {
            symbol: {"name": symbol, "frequency": frequency[symbol], "pattern_member_frequency": count}
            for symbol, count in zip(frequency, members, strict=True)
        }

    def affinities(self) -> dict[str, Emotives]:
        found: dict[str, Emotives] = {}
        for pattern in self.patterns.values():
            for symbol in dict.fromkeys(matching.flatten(pattern.events)):
                for emotive, value in pattern.affinity.items():
                    sums = found.setdefault(symbol, {})
                    sums[emotive] = sums.get(emotive, 0.0) + value
        return found

    def weights(self, symbols: Event, emotive: str | None) -> dict[str, float] | None:
        if emotive is None:
            return None
        affinities, statistics = self.affinities(), self.statistics()
        return {
            symbol: weight(
                affinities.get(symbol, {}).get(emotive, 0.0), statistics.get(symbol, {}).get("frequency", 0)
            )
            for symbol in symbols
        }

    def predict(self, stm: Events, config: SessionConfig) -> Predictions:
        state = matching.flatten(stm)
        known = self.known()
        limit = 3 * config.max_predictions
        relevant = state
        if not state:
            return Predictions()
        if len(state) == 1:
            rows = matching.ensemble_first(state[0], known, limit)
            relevant = tuple(symbol for events in rows.events for symbol in matching.flatten(events)) + state
        else:
            rows = self._search(state, config, known, limit)
        return predicting.predict(
            stm,
            rows,
            config,
            member_frequency=self.members,
            emotives=lambda name: learning.shown_emotives(self.patterns[name]),
            weights=self.weights(relevant, config.affinity_emotive),
        )

    def _search(
        self, state: Event, config: SessionConfig, known: list[matching.KnownPattern], limit: int
    ) -> matching.Ensemble:
        bounds = filters.bounds(config, state)
        limits: dict[str, Any] = {
            "min_length": bounds.min_length,
            "max_length": bounds.max_length,
            "min_overlap": bounds.min_overlap,
            "min_jaccard": bounds.min_jaccard,
        }
        fuzzy = config.fuzzy_token_threshold
        if config.use_token_matching and not fuzzy:
            return matching.ensemble(state, known, bounds.threshold, limit, **limits)
        gathered = matching.gather(state, known, sorted(self.patterns))
        if not fuzzy:
            return likeness.character_ensemble(state, gathered, bounds.threshold, limit, **limits)
        return likeness.fuzzy_ensemble(
            state,
            gathered,
            bounds.threshold,
            limit,
            fuzzy_threshold=fuzzy,
            characters=not config.use_token_matching,
            **limits,
        )


class Session:
    """One session on a node; every method is one operation of the examples."""

    def __init__(self, node: Node, config: dict[str, Any]) -> None:
        self.node = node
        self.state = SessionState(
            session_id="s", node_id="n", created_at=0, last_accessed=0, expires_at=0, ttl_seconds=3600
        )
        self.configure(**config)

    @property
    def config(self) -> SessionConfig:
        return configuration.resolve(SessionConfig(), self.state.config)

    def configure(self, **values: Any) -> dict[str, str]:
        explicit, errors = configuration.validate(values)
        if not errors:
            self.state = msgspec.structs.replace(self.state, config={**self.state.config, **explicit})
        return errors

    def observe(
        self,
        strings: list[str] | None = None,
        vectors: list[list[float]] | None = None,
        emotives: Emotives | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        observation = Observation(
            strings=tuple(strings or ()),
            vectors=tuple(tuple(map(float, vector)) for vector in vectors or ()),
            emotives=emotives or {},
            metadata=metadata or {},
        )
        near = self.node.neighbours(observation.vectors)
        done = observing.observe(self.state, observation, near, self.config, self.node.operation())
        self.state = done.state
        if done.lesson:
            self.state = self.node.store(done.state, done.lesson)
        return {
            "auto_learned_pattern": PATTERN_PREFIX + done.lesson.name if done.lesson else None,
            "stm_length": len(self.state.stm),
            "time": self.state.time,
        }

    def learn(self) -> str:
        state, lesson = learning.learn(self.state, self.config, self.node.operation())
        self.state = self.node.store(state, lesson)
        return PATTERN_PREFIX + lesson.name if lesson else ""

    def teach(self, events: list[list[str]], times: int = 1) -> str:
        name = ""
        for _ in range(times):
            self.clear_stm()
            for event in events:
                self.observe(event)
            name = self.learn()
            self.clear_stm()
        return name

    def observe_sequence(
        self,
        observations: list[dict[str, Any]],
        learn_after_each: bool = False,
        learn_at_end: bool = False,
        clear_stm_between: bool = False,
    ) -> dict[str, Any]:
        initial = len(self.state.stm)
        learned: list[str] = []
        results = []
        for position, observation in enumerate(observations):
            if clear_stm_between and position:
                self.state = msgspec.structs.replace(self.state, stm=(), stm_ids=())
            result = self.observe(**observation)
            automatic = result["auto_learned_pattern"]
            if learn_after_each and self.state.stm:
                learned.append(self.learn())
            learned.append(automatic or "")
            results.append({"sequence_position": position, **result, "stm_length": len(self.state.stm)})
        final = self.learn() if learn_at_end and self.state.stm else None
        learned.append(final or "")
        return {
            "status": "completed",
            "observations_processed": len(observations),
            "initial_stm_length": initial,
            "final_stm_length": len(self.state.stm),
            "auto_learned_patterns": list(filter(None, learned)),
            "final_learned_pattern": final,
            "isolated": clear_stm_between,
            "results": results,
        }

    def stm(self) -> list[list[str]]:
        return [list(event) for event in self.state.stm]

    def clear_stm(self) -> None:
        self.state = observing.clear_stm(self.state)

    def clear_all(self) -> None:
        self.node.patterns.clear()
        self.node.vectors.clear()
        self.state = msgspec.structs.replace(observing.clear_stm(self.state), vectors=())

    def predict(self) -> dict[str, Any]:
        answer: dict[str, Any] = plain(self.node.predict(self.state.stm, self.config))
        return answer

    def predictions(self, fields: list[str] | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.predict()["predictions"]
        return [{k: v for k, v in p.items() if k in fields} for p in found] if fields else found

    def future_potentials(self, fields: list[str] | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.predict()["future_potentials"]
        return found

    def finalize_training(self) -> dict[str, Any]:
        patterns = self.node.patterns
        for name, pattern in patterns.items():
            patterns[name] = msgspec.structs.replace(pattern, finalized=True)
        return {"status": "completed", "patterns_processed": len(patterns)}

    def get_pattern(self, name: str) -> dict[str, Any]:
        pattern = self.node.patterns.get(name.removeprefix(PATTERN_PREFIX))
        if not pattern:
            return {"status": "error", "message": f"Pattern {name} not found"}
        shown = plain(pattern)
        return {
            "status": "okay",
            "pattern": {
                "name": PATTERN_PREFIX + pattern.name,
                "pattern_data": shown["events"],
                "length": pattern.length,
                "frequency": pattern.frequency,
                "emotives": shown.get("emotives", []),
                "metadata": shown.get("metadata", {}),
            },
        }

    def update_pattern(self, name: str, frequency: int | None = None, emotives: Any = None) -> dict[str, Any]:
        key = name.removeprefix(PATTERN_PREFIX)
        pattern = learning.update(self.node.patterns[key], frequency, emotives, self.config.persistence)
        self.node.patterns[key] = pattern
        return {"name": key, "frequency": pattern.frequency, "emotives": plain(pattern.emotives)}

    def delete_pattern(self, name: str) -> str:
        del self.node.patterns[name.removeprefix(PATTERN_PREFIX)]
        return "deleted"

    def symbols(self) -> dict[str, dict[str, Any]]:
        return self.node.statistics()

    def affinity(self) -> dict[str, Emotives]:
        return self.node.affinities()

    def totals(self) -> dict[str, int]:
        patterns = self.node.patterns.values()
        return {
            "total_symbols_in_patterns_frequencies": sum(p.frequency * p.length for p in patterns),
            "total_pattern_frequencies": sum(p.frequency for p in patterns),
            "total_unique_patterns": len(patterns),
            "symbols": len(self.node.statistics()),
        }

    def percept_data(self) -> dict[str, Any]:
        return observing.percept_data(self.state)

    def cognition_data(self, fields: list[str] | None = None) -> dict[str, Any]:
        answer = self.node.predict(observing.observed_state(self.state), self.config)
        shown = observing.cognition_data(self.state, answer.predictions)
        shown["predictions"] = plain(shown["predictions"])
        return {"predictions_count": len(shown["predictions"])} if fields else shown

    def pattern_name(self, events: list[list[str]]) -> str:
        return PATTERN_PREFIX + naming.pattern_name(events)

    def vector_name(self, vectors: list[list[float]]) -> str:
        return naming.vector_name(naming.sum_vectors(vectors))

    def kb_id(self, node_id: str, service_name: str) -> str:
        return naming.processor_id(node_id, service_name)
