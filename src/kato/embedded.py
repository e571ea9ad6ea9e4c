"""KATO inside the caller's process: `kato.open`, the same service behind the same verbs, without a server."""

from __future__ import annotations

import asyncio
import difflib
import os
import sys
import threading
import uuid
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import Any, TypedDict, TypeVar, Unpack

import msgspec
from pydantic import ValidationError as PydanticValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from kato import answering, bootstrap, errors, validation
from kato.model import FilterName, Observation, RankMetric
from kato.service import Kato
from kato.settings import Settings, SettingsError
from kato.verbs import values
from kato.verbs.calls import Call
from kato.verbs.sync import Verbs
from kato.verbs.values import ObservationLike

T = TypeVar("T")

BATCH = 5_000
"""How many sequences `learn_many` makes durable together."""


class Options(TypedDict, total=False):
    """The settings of an embedded KATO: those of a server's, with its limits, that matter here."""

    processor_id: str
    session_ttl: int
    session_auto_extend: bool
    session_cleanup_interval: float
    max_sessions: int
    max_sessions_per_user: int
    max_stm_size: int
    max_session_memory_bytes: int
    max_processors: int
    max_request_size: int
    endpoint_batch_size_limit: int
    vector_dimension: int | None
    max_pattern_length: int
    persistence: int
    recall_threshold: float
    stm_mode: str
    max_predictions: int
    sort_symbols: bool
    process_predictions: bool
    use_token_matching: bool
    fuzzy_token_threshold: float | None
    rank_sort_algo: RankMetric
    affinity_emotive: str | None
    filter_pipeline: tuple[FilterName, ...]


class _Given(Settings):
    """Settings from keywords alone: a program does not change its mind with its environment."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def _settings(path: str, options: Options) -> Settings:
    for name in options:
        if name not in Options.__annotations__:
            close = difflib.get_close_matches(name, Options.__annotations__, 1)
            known = ", ".join(Options.__annotations__)
            hint = f"; did you mean {close[0]!r}?" if close else f"; there are {known}"
            raise TypeError(f"open() got an unexpected setting {name!r}{hint}")
    given: dict[str, Any] = {"kato_data": path, **options}
    try:
        return _Given(**given)
    except PydanticValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise SettingsError("Wrong settings: " + "; ".join(lines)) from error


class _Host:
    """A service on an event loop of its own, in a thread of its own.

    Knows nothing of the object that people hold, so that one they lose can be noticed and its thread be
    ended.
    """

    def __init__(self, settings: Settings) -> None:
        self.kato: Kato
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._open = True
        self._running: set[Future[Any]] = set()
        self._failure: BaseException | None = None
        started: Future[None] = Future()
        # A daemon: a program that forgets to close must be able to end. What was acknowledged is durable.
        live = partial(self._live, settings, started)
        self._thread = threading.Thread(target=live, name="kato", daemon=True)
        self._thread.start()
        try:
            started.result()
        except BaseException:
            # Interrupted while opening: the thread finds nobody waiting, and closes.
            started.cancel()
            raise

    def _live(self, settings: Settings, started: Future[None]) -> None:
        try:
            asyncio.run(self._serve(settings, started))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that opened or closes
            if started.done():
                self._failure = error
            else:
                started.set_exception(error)

    async def _serve(self, settings: Settings, started: Future[None]) -> None:
        async with bootstrap.running(settings) as self.kato:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            started.set_result(None)
            await self._stop.wait()

    def begin(self, work: Callable[[Kato], Coroutine[Any, Any, T]]) -> Future[T]:
        """Begin some work on the loop."""
        if os.getpid() != self._process:
            raise errors.ServiceUnavailable("This KATO belongs to another process; open one after the fork")
        with self._lock:
            if not self._open:
                raise errors.ServiceUnavailable("This KATO is closed")
            future = asyncio.run_coroutine_threadsafe(work(self.kato), self._loop)
            self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def do(self, work: Callable[[Kato], Coroutine[Any, Any, T]]) -> T:
        """Do some work and wait for it; an interrupted caller gives the work up."""
        future = self.begin(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Accept nothing more; end when everything begun is over."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            running = list(self._running)

        async def end() -> None:
            await asyncio.gather(*map(asyncio.wrap_future, running), return_exceptions=True)
            self._stop.set()

        asyncio.run_coroutine_threadsafe(end(), self._loop)

    def close(self) -> None:
        """Stop, and wait until everything is released."""
        if os.getpid() != self._process:
            return
        self.stop()
        self._thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def _lost(host: _Host, name: str) -> None:
    warnings.warn(f"{name} was never closed; use `with kato.open(...)`", ResourceWarning, stacklevel=2)
    host.stop()


class EmbeddedKato(Verbs):
    """A KATO in this process, with the verbs and answers of `kato.Client`. Made by `kato.open`.

    Safe to use from any number of threads; calls on one session are carried out one by one, other calls
    beside each other. A call blocks its thread until it is done (and durable), so a program on an event loop
    should make it in a thread. Not to be carried over a `fork`: the child has no service thread and gets
    `ServiceUnavailable`; it can open another directory, or the same after the parent has closed it.
    """

    def __init__(self, path: str | os.PathLike[str], **settings: Unpack[Options]) -> None:
        self.path = os.fspath(path)
        self._host = _Host(_settings(self.path, settings))
        self._finalizer = weakref.finalize(self, _lost, self._host, repr(self))
        self._finalizer.atexit = False

    def __repr__(self) -> str:
        return f"EmbeddedKato({self.path!r})"

    def carry(self, call: Call[Any]) -> bytes:
        """Answer the call from the service in this process."""
        return self._host.do(lambda kato: answering.answer(kato, call))

    def learn_many(
        self,
        node_id: str | None,
        sequences: Iterable[Iterable[ObservationLike]],
        operation: str | None = None,
        *,
        skip: int = 0,
    ) -> list[str]:
        """Learn many sequences, each as if observed and learned in a session of its own; durable on return.

        `sequences` may be a generator: it is read a batch at a time, while the batch before is written.
        Returns the full pattern name of each, "" where a sequence held fewer than two symbols. What is raised
        on the way carries a note of how many sequences are learned: to go on, call again with the same
        sequences and `operation` and that number as `skip`. A batch that was written although its call failed
        is then counted once; without `skip`, only the latest 32 batches that taught a pattern are known to have
        been counted.

        >>> import kato
        >>> with kato.open(":memory:") as memory:
        ...     names = memory.learn_many("tickets", [[["open"], ["assign"]], [["open"], ["close"]]])
        ...     memory.patterns("tickets")["count"]
        2
        """
        act = operation or f"learn-many-{uuid.uuid4().hex}"
        names: list[str] = []
        writing: Future[list[str]] | None = None
        try:
            for position, batch in _batches(sequences, skip):
                taught = [_sequence(sequence, position + number) for number, sequence in enumerate(batch)]
                before, writing = writing, None
                names += [] if before is None else before.result()
                writing = self._host.begin(partial(_teach, node_id, taught, f"{act}:{position}"))
            before, writing = writing, None
            names += [] if before is None else before.result()
        except BaseException as error:
            # What is being written while the source or the next batch fails will be written.
            if writing is not None and writing.exception() is None:
                names += writing.result()
            error.add_note(f"{skip + len(names)} sequences are learned (operation {act!r})")
            raise
        return names

    def close(self) -> None:
        """Finish what has begun and release the data directory; closing twice is harmless."""
        self._finalizer.detach()
        self._host.close()


def open(path: str | os.PathLike[str], **settings: Unpack[Options]) -> EmbeddedKato:  # noqa: A001
    """Open a KATO in this process, with its data in the directory `path` (made if need be) or in
    `":memory:"`.

    `settings` are those of a server by their lower-case names (see `Options`); the environment is not read.
    Raises `kato.errors.DataDirectoryError` when the directory is in use by another process or cannot be used,
    `SettingsError` for a value that cannot be, `TypeError` for a setting that does not exist. Use it as a
    context manager, or `close` it.

    >>> import kato
    >>> with kato.open(":memory:", recall_threshold=0.3) as memory:
    ...     session = memory.session("greetings")
    ...     for word in ("hello", "big", "world"):
    ...         _ = session.observe([word])
    ...     _ = session.learn()
    ...     _ = session.observe(["hello"])
    ...     _ = session.observe(["big"])
    ...     session.predictions().best["future"]
    [['world']]
    """
    return EmbeddedKato(path, **settings)


# Bulk learning ----------------------------------------------------------------------------------------------


def _batches(
    sequences: Iterable[Iterable[ObservationLike]], skip: int
) -> Iterator[tuple[int, list[Iterable[ObservationLike]]]]:
    source, position = islice(sequences, skip, None), skip
    while batch := list(islice(source, BATCH)):
        yield position, batch
        position += len(batch)


def _sequence(sequence: Iterable[ObservationLike], number: int) -> tuple[Observation, ...]:
    """The observations of a sequence, checked as HTTP checks a batch."""
    symbols_alone = _symbols_alone(sequence)
    if symbols_alone is not None:
        return symbols_alone
    try:
        items = [
            values.observation_like(item, f"observations[{place}]")
            for place, item in enumerate(values.listed(sequence, "observations", "observations"))
        ]
        return validation.batch(_decode(values.encoded({"observations": items})), sys.maxsize).observations
    except errors.ValidationError as error:
        error.details["sequence_index"] = number
        raise


def _symbols_alone(sequence: Iterable[ObservationLike]) -> tuple[Observation, ...] | None:
    """The short way for faultless lists of lists of symbols; None for everything else."""
    if not isinstance(sequence, list | tuple) or not set(map(type, sequence)) <= {list, tuple}:
        return None
    try:
        events = msgspec.convert(sequence, tuple[validation.Symbols, ...])
        if b"\0" in "".join(symbol for event in events for symbol in event).encode():
            return None
    except (msgspec.ValidationError, UnicodeEncodeError):
        return None
    return tuple(Observation(strings=event) for event in events)


_decode = validation.decoder(validation.BatchRequest)


async def _teach(
    node_id: str | None, taught: list[tuple[Observation, ...]], operation: str, kato: Kato
) -> list[str]:
    return await kato.teach(validation.owner(node_id, "node_id"), taught, operation)
