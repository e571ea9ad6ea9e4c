"""Many clients at once: no lost observation, and the same answers as one after another."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.workers import observing, patterns_of
from tests.support.http import Pool, calling
from tests.support.server import Server, serving

SESSIONS = 100
OPERATIONS = 50
Call = tuple[str, str, dict[str, Any] | None]


async def open_session(client: Pool, node: str) -> str:
    session: str = (await client.post("/sessions", {"node_id": node}))["session_id"]
    return session


async def test_200_parallel_observations_of_one_session(server: Server) -> None:
    async with calling(server.url) as client:
        session = await open_session(client, "two-hundred")
        calls = (client.post(f"/sessions/{session}/observe", {"strings": [f"s{n}"]}) for n in range(200))
        assert sorted(answer["time"] for answer in await asyncio.gather(*calls)) == list(range(1, 201))
        stm = (await client.get(f"/sessions/{session}/stm"))["stm"]
        assert sorted(stm) == sorted([f"s{n}"] for n in range(200))
        assert (await client.get(f"/sessions/{session}"))["time"] == 200


def script(number: int) -> list[Call]:
    """The mixed operations of one session."""
    random_, calls = random.Random(number), list[Call]()
    for n in range(OPERATIONS):
        event = "".join(random_.sample("abcdefgh", random_.choice((1, 2))))
        observe: Call = ("POST", "observe", observing(event) | {"emotives": {"joy": n / 7}})
        learn: Call = ("POST", "learn", {})
        predictions: Call = ("GET", "predictions", None)
        stm: Call = ("GET", "stm", None)
        pair = [observing(event), observing(random_.choice("abcdefgh"))]
        sequence: Call = ("POST", "observe-sequence", {"observations": pair, "learn_at_end": n % 2 == 0})
        clear: Call = ("POST", "clear-stm", {})
        calls.append(
            observe
            if n % 5 in (0, 1)
            else random_.choice((observe, learn, predictions, stm, sequence, clear))
        )
    return [*calls, ("POST", "observe-sequence", {"observations": [observing("a"), observing("b")]})]


async def run(client: Pool, node: str, number: int) -> tuple[str, list[str]]:
    """Run a script; returns the session's id and all answers without what differs between sessions."""
    session, answers = await open_session(client, node), []
    for method, verb, body in script(number):
        answer = await client.call(method, f"/sessions/{session}/{verb}", body)
        assert answer.status in (200, 400), answer
        answers.append(comparable(answer.body) if answer.status == 200 else "400")
    return session, answers


def comparable(answer: dict[str, Any]) -> str:
    """The answer's bytes without ids of session, node and observation."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            ids = {"session_id", "node_id", "processor_id", "unique_id", "user_id"}
            return {key: plain(item) for key, item in value.items() if key not in ids}
        return [plain(item) for item in value] if isinstance(value, list) else value

    return json.dumps(plain(answer))


async def final(client: Pool, session: str) -> tuple[str, str]:
    """The STM and the predictions at the end."""
    stm = json.dumps((await client.get(f"/sessions/{session}/stm"))["stm"])
    return stm, comparable(await client.get(f"/sessions/{session}/predictions"))


@pytest.mark.timeout(180)
async def test_100_sessions_in_parallel_equal_a_serial_run(server: Server) -> None:
    """On nodes of their own bit for bit; on one node for all, what it has learned in the end."""
    async with calling(server.url) as client:
        serial = [await run(client, f"serial-{n}", n) for n in range(SESSIONS)]
        parallel = await asyncio.gather(*(run(client, f"parallel-{n}", n) for n in range(SESSIONS)))
        for (one, alone), (other, beside) in zip(serial, parallel, strict=True):
            assert alone == beside
            assert await final(client, one) == await final(client, other)
        await asyncio.gather(*(run(client, "shared", n) for n in range(SESSIONS)))
        learned = [await patterns_of(client, f"serial-{n}") for n in range(SESSIONS)]
        assert await patterns_of(client, "shared") == sum(learned, Counter[str]())
        assert min(counts.total() for counts in learned) > 0


@pytest.mark.timeout(120)
async def test_another_hash_seed_changes_no_byte_of_an_answer(tmp_path: Path) -> None:
    answers = []
    for seed in ("1", "2"):
        with serving(tmp_path / seed, {"PYTHONHASHSEED": seed}) as one:
            async with calling(one.url) as client:
                answers.append([(await run(client, "node", n))[1] for n in range(4)])
    assert answers[0] == answers[1]
