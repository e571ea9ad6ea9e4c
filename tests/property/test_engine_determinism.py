"""The same input gives the same bytes in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import kato.engine.matching

PROGRAM = """
import hashlib, json, msgspec
from kato.engine import learning, likeness, matching, naming, predicting
from kato.model import Lesson, SessionConfig

events = [tuple(tuple(f"s{(n * 7 + i * i + j * 3) % 11}" for j in range(1 + (n + i) % 3)) for i in range(6))
          for n in range(60)]
known = [(naming.pattern_name(e), e, 1 + n % 4, n % 2) for n, e in enumerate(events)]
known = list({row[0]: row for row in known}.values())
members = lambda symbols: [sum(s in matching.flatten(e) for _, e, _, _ in known) for s in symbols]
shown = []
for stm in (events[3][1:4], events[10][:3], (("s1", "s2"), ("zz",), ("s3",))):
    state = matching.flatten(stm)
    gathered = matching.gather(state, known, [row[0] for row in known])
    weights = {s: 0.1 * (n + 1) for n, s in enumerate(dict.fromkeys(state))}
    for rows in (
        matching.ensemble(state, known, 0.1, 30),
        likeness.character_ensemble(state, gathered, 0.1, 30),
        likeness.fuzzy_ensemble(state, gathered, 0.0, 30, fuzzy_threshold=0.5),
    ):
        for metric in ("potential", "tfidf_score", "weighted_snr"):
            shown.append(predicting.predict(
                stm, rows, SessionConfig(rank_sort_algo=metric), member_frequency=members,
                emotives=lambda name: {}, weights=weights))
shown.append(learning.first(Lesson(name="n", events=events[0], metadata=learning.accumulate_metadata(
    [{"k": n % 7, "m": str(n)} for n in range(50)]))))
print(hashlib.sha256(b"".join(map(msgspec.json.encode, shown))).hexdigest())
"""


def digest(seed: str) -> str:
    source = str(Path(kato.engine.matching.__file__).parents[2])
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": source}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_hash_seeds_change_nothing() -> None:
    assert len({digest(seed) for seed in ("0", "1", "4711", "random")}) == 1
