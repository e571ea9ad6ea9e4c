"""Scripted conversations: each takes a KATO and yields what it answered, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import kato
from tests.congruence.speakers import normal, told

ODD_SYMBOLS = ["'", '"', "\\", "\t", "a b", "é", "😀", "\u202e", "x" * 1024, "", "/", "..", "%41", "<b>", "z"]


def verbs(memory: Any) -> Iterator[Any]:
    """Every verb once, with answers that do not depend on who is asked."""
    session = memory.session(
        "node a/1", config={"recall_threshold": 0.2}, metadata={"who": ["me", 1, None]}, ttl_seconds=120
    )
    yield session.node_id
    yield normal(session.info())
    yield session.exists()
    yield normal(session.observe(["b", "a"], emotives={"joy": 1, "fear": -0.5}, metadata={"n": 1, "t": [1]}))
    yield normal(session.observe(["c"], unique_id="mine"))
    yield normal(session.observe())
    yield session.stm()
    yield normal(session.percept_data())
    yield normal(session.learn())
    yield normal(
        session.observe_sequence(
            [
                ["a"],
                {"strings": ["c"], "emotives": {"joy": 0.25}, "metadata": {"n": 2}},
                kato.Observation(strings=("d",), unique_id="here"),
            ],
            learn_at_end=True,
        )
    )
    yield normal(
        session.observe_sequence([["a"], ["b"], ["c"]], learn_after_each=True, clear_stm_between=True)
    )
    yield normal(session.observe_sequence([]))
    yield normal(session.observe_sequence([["a", "b"], ["c"]]))
    yield session.predictions()
    yield session.predictions().future_potentials
    yield session.predictions().best
    yield session.predictions(limit=1)
    yield normal(session.predictions_json())
    yield normal(session.cognition_data())
    yield session.config()
    yield normal(session.configure(recall_threshold=0.9, sort=False, rank_sort_algo="similarity"))
    yield session.config()
    yield normal(session.info())
    yield session.predictions()
    yield normal(session.configure(recall_threshold=None))
    yield session.config()
    page = memory.patterns(session.node_id)
    yield page
    yield memory.patterns(session.node_id, limit=1)
    yield memory.patterns(
        session.node_id, limit=1, cursor=memory.patterns(session.node_id, limit=1)["next_cursor"]
    )
    yield memory.patterns(session.node_id, symbol="d")
    yield memory.patterns(session.node_id, min_frequency=2)
    name = page["patterns"][0]["name"]
    yield memory.pattern(name, session.node_id)
    yield memory.pattern(name.removeprefix("PTRN|"), session.node_id)
    yield memory.update_pattern(name, session.node_id, frequency=7, emotives=[{"joy": 0.5}])
    yield memory.update_pattern(name, session.node_id, emotives={"joy": [0.5, 1]})
    yield memory.symbols(session.node_id)
    yield memory.affinities(session.node_id)
    yield memory.affinity("c", session.node_id)
    yield memory.affinity("nothing like it", session.node_id)
    yield normal(session.finalize_training())
    yield session.predictions()
    yield memory.delete_pattern(name, session.node_id)
    yield memory.symbols(session.node_id)
    yield normal(session.extend(600))
    yield normal(session.clear_stm())
    yield session.stm()
    yield normal(session.clear_all())
    yield memory.patterns(session.node_id)
    again = memory.session(session_id=session.id)
    yield again.node_id
    yield normal(again.delete())
    yield session.exists()


def vectors(memory: Any) -> Iterator[Any]:
    """Vectors become symbols, and neighbours once they are learned."""
    session = memory.session("vectors")
    for vector in ([1, 0, 0], [0, 1, 0], [0, 0, 1.5]):
        yield normal(session.observe(["seen"], vectors=[vector, [0, 0, 0.25]]))
    yield session.stm()
    yield normal(session.learn())
    yield normal(session.observe(vectors=[[1, 0.125, 0]]))
    yield session.stm()
    yield normal(session.predictions_json())
    yield told(lambda: session.observe(vectors=[[1, 0], [1, 0, 0]]))
    yield told(lambda: session.observe_sequence([["a"], {"vectors": [[1], [1, 2]]}]))
    yield session.stm()


def odd_symbols(memory: Any) -> Iterator[Any]:
    """Symbols and nodes with everything in them that addresses and quotes dislike."""
    for node in ("a/b", "..", "%2F", "ü?&=#", "'; --", "😀"):
        session = memory.session(node, config={"sort_symbols": False})
        yield normal(session.observe(ODD_SYMBOLS))
        yield normal(session.observe(ODD_SYMBOLS[::-1]))
        yield normal(session.learn())
        yield session.observe(ODD_SYMBOLS)["stm_length"]
        yield normal(session.predictions_json())
        yield memory.symbols(node)
        for symbol in ODD_SYMBOLS:
            yield told(lambda s=symbol, n=node: memory.affinity(s, n))
            yield told(lambda s=symbol, n=node: memory.patterns(n, symbol=s))


def idempotency(memory: Any) -> Iterator[Any]:
    """A repeated call gets the first answer and changes nothing."""
    session = memory.session("keys")
    first = session.observe(["a"], idempotency_key="one")
    yield session.observe(["a"], idempotency_key="one") == first
    yield told(lambda: session.observe(["b"], idempotency_key="one"))
    yield told(lambda: session.observe(["b"], idempotency_key=""))
    yield told(lambda: session.observe(["b"], idempotency_key="ü"))
    batch = session.observe_sequence([["b"], ["c"]], idempotency_key="two")
    yield session.observe_sequence([["b"], ["c"]], idempotency_key="two") == batch
    name = session.learn(idempotency_key="three")
    yield session.learn(idempotency_key="three") == name
    yield session.stm()
    yield memory.patterns("keys")


def errors(memory: Any) -> Iterator[Any]:
    """Everything that is refused, and that it changed nothing."""
    session = memory.session("errors")
    gone = memory.session("errors")
    gone.delete()
    unknown = "PTRN|" + "0" * 40
    session.observe_sequence([["a"], ["b"]], learn_at_end=True)
    known = memory.patterns("errors")["patterns"][0]["name"]
    refused: list[Callable[[], Any]] = [
        session.learn,
        gone.stm,
        gone.delete,
        lambda: gone.observe(["a"]),
        lambda: memory.session(session_id="no-such-session"),
        lambda: memory.session(session_id="../etc/passwd"),
        lambda: memory.session(session_id=".."),
        lambda: memory.session(session_id="x" * 200),
        lambda: memory.session("other", session_id=session.id),
        lambda: memory.session(""),
        lambda: memory.session("x" * 257),
        lambda: memory.session("tab\there"),
        lambda: memory.session(5),
        lambda: memory.session("n", ttl_seconds=0),
        lambda: memory.session("n", ttl_seconds="soon"),
        lambda: memory.session("n", metadata={"big": "x" * 70_000}),
        lambda: memory.session("n", metadata={"huge": 2**70}),
        lambda: memory.session("n", metadata={"nan": float("nan")}),
        lambda: memory.session("n", metadata=["no"]),
        lambda: memory.session("n", config={"recall_threshold": 2, "max_predictions": "many"}),
        lambda: session.configure(recall_threshold=-1, persistence=0),
        lambda: session.configure(rank_sort_algo="colour"),
        lambda: session.observe("abc"),
        lambda: session.observe(b"abc"),
        lambda: session.observe({"a"}),
        lambda: session.observe(7),
        lambda: session.observe([1]),
        lambda: session.observe(["a", None]),
        lambda: session.observe(["a\x00b"]),
        lambda: session.observe(["x" * 1025]),
        lambda: session.observe(["\ud800"]),
        lambda: session.observe(["a"] * 1001),
        lambda: session.observe(vectors=[1, 2]),
        lambda: session.observe(vectors=[[]]),
        lambda: session.observe(vectors=[["a"]]),
        lambda: session.observe(vectors=[[float("inf")]]),
        lambda: session.observe(vectors=[[1]] * 65),
        lambda: session.observe(emotives={"joy": "much"}),
        lambda: session.observe(emotives={"joy": True}),
        lambda: session.observe(emotives={"joy": float("nan")}),
        lambda: session.observe(emotives=[1]),
        lambda: session.observe(emotives={str(n): 1 for n in range(257)}),
        lambda: session.observe(metadata={"deep": _deep(40)}),
        lambda: session.observe(metadata={"deep": _deep(2000)}),
        lambda: session.observe(metadata={"object": object()}),
        lambda: session.observe(metadata={1: "number"}),
        lambda: session.observe(["a"], unique_id=""),
        lambda: session.observe(["a"], unique_id=7),
        lambda: session.observe_sequence(["abc"]),
        lambda: session.observe_sequence("abc"),
        lambda: session.observe_sequence([["ok"], ["x\x00"]]),
        lambda: session.observe_sequence([["ok"], {"string": ["typo"]}]),
        lambda: session.observe_sequence([["ok"], 5]),
        lambda: session.observe_sequence([[]] * 1001),
        lambda: session.observe_sequence([["a"]], learn_at_end="yes"),
        lambda: session.predictions(limit=0),
        lambda: session.predictions(limit="all"),
        lambda: session.predictions(unique_id="nobody"),
        lambda: session.extend(0),
        lambda: session.extend(100_000),
        lambda: memory.sessions(limit=0),
        lambda: memory.sessions(limit=1001),
        lambda: memory.sessions(cursor="x" * 200),
        lambda: memory.patterns("errors", limit=0),
        lambda: memory.patterns("errors", limit=10**30),
        lambda: memory.patterns("errors", cursor="?"),
        lambda: memory.patterns("errors", min_frequency=-1),
        lambda: memory.patterns("errors", symbol="x" * 2000),
        lambda: memory.patterns("errors", symbol="x" * 5000),
        lambda: memory.patterns("errors", symbol="\ud800"),
        lambda: memory.patterns(""),
        lambda: memory.patterns(None),
        lambda: memory.pattern(unknown, "errors"),
        lambda: memory.pattern("not a name/..", "errors"),
        lambda: memory.pattern(known, "another"),
        lambda: memory.delete_pattern(unknown, "errors"),
        lambda: memory.update_pattern(unknown, "errors", frequency=2),
        lambda: memory.update_pattern(known, "errors", frequency=-1),
        lambda: memory.update_pattern(known, "errors", frequency=1.5),
        lambda: memory.update_pattern(known, "errors", frequency="x"),
        lambda: memory.update_pattern(known, "errors", emotives=7),
        lambda: memory.update_pattern(known, "errors", emotives=[{"joy": "x"}]),
        lambda: memory.update_pattern(known, "errors", emotives={"joy": float("nan")}),
        lambda: memory.symbols("tab\t"),
        lambda: memory.symbols(""),
        lambda: memory.affinity("x", ""),
        lambda: memory.affinity("x" * 5000, "errors"),
    ]
    for number, call in enumerate(refused):
        answer = told(call)
        yield number, answer
        assert isinstance(answer, tuple), f"refusal {number} was accepted: {answer}"
    yield session.stm()
    yield memory.patterns("errors")
    yield session.config()


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def listing(memory: Any) -> Iterator[Any]:
    """Sessions are counted and listed page by page."""
    mine = [memory.session("listing", metadata={"number": number}) for number in range(5)]
    found, cursor = [], None
    while True:
        page = memory.sessions(limit=2, cursor=cursor, node_id="listing")
        yield page["count"], page["total"]
        found += page["sessions"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    yield sorted(session["metadata"]["number"] for session in found)
    yield {session["session_id"] for session in found} == {session.id for session in mine}
    before = memory.count_sessions()
    mine[0].delete()
    yield before - memory.count_sessions()
    yield memory.sessions(node_id="listing", include_expired=True)["total"]


def base_node(memory: Any) -> Iterator[Any]:
    """A session without a node is on the instance's own."""
    session = memory.session()
    yield session.node_id
    session.observe_sequence([["x"], ["y"]], learn_at_end=True)
    yield memory.patterns(session.node_id)
    yield normal(session.info())
    session.clear_all()


SCRIPTS = (verbs, vectors, odd_symbols, idempotency, errors, listing, base_node)
