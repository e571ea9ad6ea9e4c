"""`kato learn`: teach a node a file of sequences, once, however often it is interrupted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Protocol

import msgspec
import typer

import kato
from kato import settings
from kato.cli import output, progress, reading, target
from kato.cli.progress import Note, Notebook
from kato.cli.reading import Columns, Format, Read
from kato.embedded import EmbeddedKato
from kato.errors import BadRequest, NotFound
from kato.stores.directory import MEMORY

BATCH = 5_000
REMOTE_BATCH = 16
"""A server remembers the answers to the latest 64 keys of a session: those of a batch must be among them."""
SESSION_LIFE = 86_400
REQUEST_OBSERVATIONS = 1000


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file."""

    file: str
    node: str | None
    format: str
    already_learned: bool
    resumed_after: int
    sequences: int
    patterns_learned: int
    too_short: int
    cut: int
    seconds: float


class Teacher(Protocol):
    """Teaches batches, each counted once under its operation id."""

    node: str | None

    def teach(self, sequences: Sequence[reading.Sequence], operation: str) -> int:
        """Make a batch durable; returns how many of its sequences became patterns."""
        ...


class Local:
    """Teaches a data directory."""

    def __init__(self, memory: EmbeddedKato, node: str) -> None:
        self.node: str | None = node
        self._memory = memory

    def teach(self, sequences: Sequence[reading.Sequence], operation: str) -> int:
        """One durable write for the whole batch."""
        assert self.node is not None
        return sum(map(bool, self._memory.learn_many(self.node, sequences, operation)))


class Remote:
    """Teaches a server through one session, whose id the note keeps; repeated requests are not counted."""

    def __init__(self, client: kato.Client, node: str | None, session_id: str | None) -> None:
        self.node = node
        if session_id is None:
            quiet = {"process_predictions": False, "max_pattern_length": 0}
            self._session = client.session(node, config=quiet, ttl_seconds=SESSION_LIFE)
        else:
            self._session = client.session(session_id=session_id)

    @property
    def session_id(self) -> str:
        """The session that teaches."""
        return self._session.id

    def teach(self, sequences: Sequence[reading.Sequence], operation: str) -> int:
        """One request for each sequence."""
        return sum(
            self._teach(sequence, f"{operation}:{number}") for number, sequence in enumerate(sequences)
        )

    def _teach(self, sequence: reading.Sequence, key: str) -> bool:
        answer = None
        for start in range(0, len(sequence), REQUEST_OBSERVATIONS):
            part = sequence[start : start + REQUEST_OBSERVATIONS]
            last = start + REQUEST_OBSERVATIONS >= len(sequence)
            answer = self._session.observe_sequence(part, learn_at_end=last, idempotency_key=f"{key}:{start}")
        return bool(answer and answer["final_learned_pattern"])


def learn(
    file: Annotated[
        Path, typer.Argument(help="File to learn; may be gzip-compressed.", exists=True, dir_okay=False)
    ],
    node: target.Node = None,
    data: target.Data = None,
    url: target.Url = None,
    form: Annotated[
        Format, typer.Option("--format", help="How the file writes its sequences.")
    ] = Format.AUTO,
    case_column: Annotated[str | None, typer.Option(help="CSV: column with the case of an event.")] = None,
    activity_column: Annotated[
        list[str] | None, typer.Option(help="CSV: column that holds a symbol; may be given several times.")
    ] = None,
    time_column: Annotated[str | None, typer.Option(help="CSV: column with the time of an event.")] = None,
    keep_cases: Annotated[
        bool,
        typer.Option("--keep-cases", help="CSV: keep the names of a pattern's cases in its metadata."),
    ] = False,
    batch: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help=f"Sequences stored together.  [default: {BATCH}]"),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Learn a file that has been learned once more.")
    ] = False,
    as_json: output.Json = False,
) -> None:
    """Learn every sequence of a file: JSON Lines, a CSV event log, or an SPMF database.

    A run that was interrupted, by whatever, goes on where it stopped when the command is repeated; no
    sequence is counted twice.
    """
    started = time.monotonic()
    chosen = reading.detect(file) if form is Format.AUTO else form
    columns = Columns(case_column, tuple(activity_column or ()), time_column, keep_cases)
    if chosen is not Format.CSV and columns != Columns():
        raise BadRequest(f"columns can be chosen for CSV only, and {file} is read as {chosen.value}")
    if url is not None and batch is not None and batch > REMOTE_BATCH:
        raise BadRequest(f"--batch must not exceed {REMOTE_BATCH} with --url")
    limit = settings.load().max_stm_size
    with target.opened(data, url) as memory:
        if isinstance(memory, kato.Client):
            node_id, size = node, REMOTE_BATCH
            folder: Path | None = _state_folder()
        else:
            here = settings.load(kato_data=data)
            node_id, size = node or here.base, BATCH
            folder = None if here.kato_data == MEMORY else Path(here.kato_data) / progress.FOLDER
        key = progress.key(file, chosen.value, node_id or "", url or "", *map(str, columns))
        notebook = Notebook(folder, key)
        fresh = Note(file=file.name, node=node_id or "", batch=batch or size)
        note = _begin(notebook.read(), fresh, again)
        before = note.sequences
        counted = _Counted(reading.read(file, chosen, columns), limit)
        if not note.finished:
            teacher = _teacher(memory, node_id, note)
            if isinstance(teacher, Remote):
                note = msgspec.structs.replace(note, session=teacher.session_id)
            note = _run(teacher, counted, notebook, note, f"Learning {file.name}", not as_json)
        report = Report(
            file=str(file),
            node=node_id,
            format=chosen.value,
            already_learned=note.sequences == before and note.finished and not counted.sequences,
            resumed_after=before,
            sequences=note.sequences - before,
            patterns_learned=note.patterns,
            too_short=note.sequences - note.patterns,
            cut=counted.cut,
            seconds=round(time.monotonic() - started, 3),
        )
    if as_json:
        output.emit(report)
    else:
        _say(report, limit)


def _state_folder() -> Path:
    """Where notes about servers are kept: the user's state directory."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "kato" / progress.FOLDER


def _begin(old: Note | None, fresh: Note, again: bool) -> Note:
    """The note to go on with: the old one, or a fresh one of the next run to learn the file again."""
    if old is None:
        return fresh
    if not again:
        return old
    return msgspec.structs.replace(fresh, run=old.run + 1)


def _teacher(memory: target.Memory, node: str | None, note: Note) -> Teacher:
    if not isinstance(memory, kato.Client):
        assert node is not None
        return Local(memory, node)
    try:
        return Remote(memory, node, note.session)
    except NotFound:
        raise NotFound(
            f"the session that taught {note.file} has expired after {note.sequences} sequences, and with it "
            f"the knowledge whether up to {note.batch} more were learned; --again starts from the first one"
        ) from None


class _Counted:
    """Passes sequences on, counting them and those that are longer than the short-term memory."""

    def __init__(self, source: Iterator[Read], limit: int) -> None:
        self.sequences = 0
        self.cut = 0
        self._source = source
        self._limit = limit

    def __iter__(self) -> Iterator[Read]:
        for read in self._source:
            self.sequences += 1
            self.cut += sum(bool(o.strings or o.vectors) for o in read.sequence) > self._limit
            yield read


def _run(teacher: Teacher, source: _Counted, notebook: Notebook, note: Note, title: str, shown: bool) -> Note:
    # Written before the first batch, so that a repeated run cuts the file into the same batches.
    notebook.write(note)
    reads = iter(source)
    for _ in islice(reads, note.sequences):
        pass
    source.cut = 0
    with output.progress(shown) as bar:
        task = bar.add_task(title, total=1.0, done="")
        while part := list(islice(reads, note.batch)):
            sequences = [read.sequence for read in part]
            learned = teacher.teach(sequences, notebook.operation(note, note.batches))
            note = msgspec.structs.replace(
                note,
                batches=note.batches + 1,
                sequences=note.sequences + len(part),
                patterns=note.patterns + learned,
            )
            notebook.write(note)
            bar.update(task, completed=part[-1].share, done=f"{note.sequences} sequences")
    note = msgspec.structs.replace(note, finished=True)
    notebook.write(note)
    return note


def _say(report: Report, limit: int) -> None:
    if report.already_learned:
        output.say(
            f"{report.file} has been learned already ({report.resumed_after} sequences); "
            "--again learns it once more."
        )
        return
    if report.resumed_after:
        output.say(f"Went on after {report.resumed_after} sequences that had been learned before.")
    rate = report.sequences / max(report.seconds, 1e-3)
    output.say(f"Learned {report.sequences} sequences in {report.seconds:.1f} s ({rate:,.0f} per second).")
    if report.too_short:
        output.say(f"{report.too_short} sequences hold a single symbol: too little for a pattern.")
    if report.cut:
        output.say(
            f"{report.cut} sequences have more than {limit} events: only the latest {limit} were learned."
        )
