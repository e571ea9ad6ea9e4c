"""How fast KATO learns: in bulk and one by one, durable on disk, and where the time goes."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

import material
from kato import bootstrap, settings
from kato._core import Index
from kato.engine import learning, observing
from kato.model import Lesson, Observation, SessionState
from kato.service import Kato
from kato.stores import codec
from kato.stores.sqlite import SqlitePatternStore
from options import Options, main
from report import Row, median, percentile

BATCH = 10_000
BULK_BUDGET = 20_000


def run(options: Options) -> list[Row]:
    """All figures of learning."""
    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(_measure(options, Path(directory)))


async def _measure(options: Options, directory: Path) -> list[Row]:
    rows = await _bulk(options, directory)
    rows += await _layers(options, directory)
    async with bootstrap.running(settings.load(kato_data=str(directory / "single"))) as kato:
        rows += [await _sequential(options, kato), *await _concurrent(options, kato)]
    return [*rows, _disk(options, directory)]


async def _bulk(options: Options, directory: Path) -> list[Row]:
    """`Kato.teach` on a file store, into an empty node and into one that grows large."""
    total = options.pick(200_000, 40_000, 100)
    size = min(BATCH, total)
    rates, used = list[float](), list[float]()
    async with bootstrap.running(settings.load(kato_data=str(directory / "bulk"))) as kato:
        for start in range(0, total, size):
            sequences = material.sequences(start, size)
            begin, processor = time.perf_counter(), time.process_time()
            await kato.teach("bulk", sequences, f"bulk-{start}")
            rates.append(size / (time.perf_counter() - begin))
            used.append((time.process_time() - processor) / size * 1e6)
        again = []
        for start in range(0, min(total, 10 * size), size):
            sequences = material.sequences(start, size)
            begin = time.perf_counter()
            await kato.teach("bulk", sequences, f"again-{start}")
            again.append(size / (time.perf_counter() - begin))
    raw = {"batch": size, "rates": [round(rate) for rate in rates], "cpu_us_per_pattern": used}
    return [
        Row(
            f"bulk, durable, {total:,} new patterns in batches of {size:,}",
            median(rates),
            "patterns/s",
            BULK_BUDGET,
            note=f"first {median(rates[:5]):,.0f}, last {median(rates[-5:]):,.0f}; CPU {median(used):.1f} us/pattern",
            raw=raw,
        ),
        Row(
            "bulk, durable, patterns known already (merged)",
            median(again),
            "patterns/s",
            raw={"rates": again},
        ),
    ]


async def _layers(options: Options, directory: Path) -> list[Row]:
    """The time of each layer for the same new patterns, alone: microseconds per pattern."""
    count = options.pick(2_000, 2_000, 50)
    repeats = options.pick(7, 3, 1)
    times: dict[str, list[float]] = {}

    def note(layer: str, begin: float) -> None:
        times.setdefault(layer, []).append((time.perf_counter() - begin) / count * 1e6)

    store, index = SqlitePatternStore(directory / "layers.db"), Index()
    for turn in range(repeats):
        sequences = material.sequences(turn * count, count)
        begin = time.perf_counter()
        lessons = _lessons(sequences)
        note("observe and name (engine)", begin)
        begin = time.perf_counter()
        patterns = {pattern.name: pattern for pattern in map(learning.first, lessons)}
        note("make patterns (engine)", begin)
        begin = time.perf_counter()
        for pattern in patterns.values():
            codec.encode_pattern(pattern)
        note("encode (codec, part of the store)", begin)
        begin = time.perf_counter()
        await store.insert("layers", list(patterns.values()))
        note("insert durably (store)", begin)
        begin = time.perf_counter()
        for pattern in patterns.values():
            if pattern.name not in index:
                index.insert(pattern.name, pattern.events, pattern.frequency)
        note("insert into the index (core)", begin)
    await store.close()
    return [Row(f"  of which: {layer}", median(values), "us/pattern") for layer, values in times.items()]


def _lessons(sequences: list[list[Observation]]) -> list[Lesson]:
    """What `Kato.teach` has the engine do."""
    config = settings.load().defaults()
    blank = SessionState(
        session_id="s", node_id="n", created_at=0, last_accessed=0, expires_at=0, ttl_seconds=1
    )
    lessons = []
    for sequence in sequences:
        state = blank
        for observation in sequence:
            state = observing.observe(state, observation, (), config, "o", stm_limit=1000).state
        _, lesson = learning.learn(state, config, "o")
        if lesson is not None:
            lessons.append(lesson)
    return lessons


async def _sequential(options: Options, kato: Kato) -> Row:
    """One session learns again and again; each learn waits for the disk."""
    session = (await kato.create_session("single")).session_id
    times = []
    for number in range(options.pick(2_000, 300, 5)):
        for observation in material.distinct(number):
            await kato.observe(session, observation)
        begin = time.perf_counter()
        await kato.learn(session)
        times.append(time.perf_counter() - begin)
    p50, p99 = (percentile(times, share) * 1000 for share in (0.5, 0.99))
    return Row(
        "single learns, one after another",
        1 / (sum(times) / len(times)),
        "learns/s",
        note=f"p50 {p50:.2f} ms, p99 {p99:.2f} ms",
        raw={"p50_ms": p50, "p99_ms": p99, "learns": len(times)},
    )


async def _concurrent(options: Options, kato: Kato) -> list[Row]:
    """Many sessions learn at the same time: learns that wait together share one commit."""
    rows = []
    for parallel in options.pick((8, 64), (8, 64), (2,)):
        each = options.pick(8_000, 2_000, 4) // parallel
        times: list[float] = []

        async def learner(
            number: int, each: int = each, parallel: int = parallel, times: list[float] = times
        ) -> None:
            session = (await kato.create_session("single")).session_id
            for turn in range(each):
                for observation in material.distinct((parallel * 1000 + number) * 1_000_000 + turn):
                    await kato.observe(session, observation)
                begin = time.perf_counter()
                await kato.learn(session)
                times.append(time.perf_counter() - begin)

        begin = time.perf_counter()
        await asyncio.gather(*map(learner, range(parallel)))
        rate = parallel * each / (time.perf_counter() - begin)
        p50, p99 = (percentile(times, share) * 1000 for share in (0.5, 0.99))
        rows.append(
            Row(
                f"single learns, {parallel} sessions at once (each: 2 observes, 1 learn)",
                rate,
                "learns/s",
                note=f"p50 {p50:.2f} ms, p99 {p99:.2f} ms",
                raw={"p50_ms": p50, "p99_ms": p99, "learns": len(times)},
            )
        )
    return rows


def _disk(options: Options, directory: Path) -> Row:
    """What this disk allows: the pace of one writer that waits for each 4 KiB."""
    times = []
    with (directory / "disk").open("wb", buffering=0) as file:
        for _ in range(options.pick(500, 200, 3)):
            file.write(bytes(4096))
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begin)
    return Row("baseline: write 4 KiB and wait for the disk", 1 / median(times), "writes/s")


if __name__ == "__main__":
    main("learning", run)
