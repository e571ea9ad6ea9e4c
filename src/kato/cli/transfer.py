"""`kato export` and `kato import`: a node as JSON Lines, complete to the last byte.

The first line says what the file is and counts what follows: the node's vectors, then its patterns, each in
ascending order of name. Exporting an imported node gives the same file again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import msgspec
import typer

from kato import bootstrap, settings
from kato.cli import output
from kato.cli.reading.lines import Lines, problem
from kato.engine.naming import pattern_name
from kato.errors import BadRequest, NotFound
from kato.memory.registry import Memory
from kato.model import Pattern
from kato.moving.shelves import whole_patterns
from kato.stores.directory import sync_directory

FORMAT = "kato-node"
VERSION = 1
BATCH = 2000
STDOUT = "-"

T = TypeVar("T")


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of an export."""

    format: str
    version: int
    vectors: int
    patterns: int


class VectorLine(msgspec.Struct, frozen=True, kw_only=True):
    """A stored vector."""

    vector: str
    values: tuple[float, ...]


class PatternLine(msgspec.Struct, frozen=True, kw_only=True):
    """A stored pattern, every field written out."""

    name: str
    events: tuple[tuple[str, ...], ...]
    frequency: int
    emotives: tuple[dict[str, float], ...] | dict[str, tuple[float, ...]]
    metadata: dict[str, tuple[str, ...]]
    affinity: dict[str, float]
    operations: tuple[str, ...]
    finalized: bool
    revision: int


_head = msgspec.json.Decoder(Head)
_vector = msgspec.json.Decoder(VectorLine)
_pattern = msgspec.json.Decoder(PatternLine)

Line: TypeAlias = VectorLine | PatternLine
Data = Annotated[str | None, typer.Option(help="Data directory.  [default: KATO_DATA or ./kato-data]")]
Node = Annotated[str | None, typer.Option(help="Node.  [default: the instance's own]")]


def export(
    file: Annotated[str, typer.Argument(help="File to write, or - for stdout.")],
    node: Node = None,
    data: Data = None,
    as_json: output.Json = False,
) -> None:
    """Write everything a node has learned to a file of JSON Lines.

    The same content gives the same bytes. The file appears whole or not at all.
    """
    chosen = settings.load(kato_data=data)
    name = node or chosen.base
    counts = asyncio.run(_export(chosen, name, None if file == STDOUT else Path(file)))
    if file == STDOUT:
        return
    if as_json:
        output.emit({"node": name, "file": file, "patterns": counts.patterns, "vectors": counts.vectors})
    else:
        output.say(
            f"Exported {counts.patterns} patterns and {counts.vectors} vectors of node {name} to {file}."
        )


async def _export(chosen: settings.Settings, node: str, target: Path | None) -> Head:
    async with bootstrap.running(chosen) as kato:
        memory = kato.memory
        vectors = [name async for batch in memory.vectors.scan(node) for name, _ in batch]
        head = Head(
            format=FORMAT, version=VERSION, vectors=len(vectors), patterns=await memory.patterns.count(node)
        )
        if not (head.vectors or head.patterns):
            raise NotFound(f"node {node} holds nothing; `kato patterns list` shows what a node holds")
        if target is None:
            async for line in _lines(memory, node, head):
                output.emit(line)
            return head
        fresh = target.with_name(target.name + ".new")
        try:
            with fresh.open("wb") as file:
                async for line in _lines(memory, node, head):
                    file.write(msgspec.json.encode(line) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(target)
        finally:
            fresh.unlink(missing_ok=True)
        sync_directory(target.parent)
        return head


async def _lines(memory: Memory, node: str, head: Head) -> AsyncIterator[Head | Line]:
    yield head
    async for vectors in memory.vectors.scan(node):
        for name, values in vectors:
            yield VectorLine(vector=name, values=values)
    async for patterns in whole_patterns(memory.patterns, node):
        for pattern in patterns:
            yield PatternLine(**{field: getattr(pattern, field) for field in PatternLine.__struct_fields__})


def import_(
    file: Annotated[
        Path, typer.Argument(help="File that `kato export` has written.", exists=True, dir_okay=False)
    ],
    node: Node = None,
    data: Data = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite patterns that the node holds with other values.")
    ] = False,
    as_json: output.Json = False,
) -> None:
    """Put everything in an exported file into a node.

    The whole file is checked before anything is written. Repeating an import changes nothing; an import that
    was interrupted is completed by repeating it.
    """
    chosen = settings.load(kato_data=data)
    name = node or chosen.base
    written, same, vectors = asyncio.run(_import(chosen, name, file, replace))
    if as_json:
        output.emit(
            {"node": name, "file": str(file), "patterns": written, "unchanged": same, "vectors": vectors}
        )
    else:
        output.say(
            f"Imported {written} patterns and {vectors} vectors into node {name}; "
            f"{same} patterns were there already."
        )


async def _import(chosen: settings.Settings, node: str, path: Path, replace: bool) -> tuple[int, int, int]:
    async with bootstrap.running(chosen) as kato:
        patterns = kato.memory.patterns
        written = same = vectors = 0
        for batch in _parts(_read(path)):
            wanted = [line.name for line in batch if isinstance(line, PatternLine)]
            known = await patterns.fetch(node, wanted)
            for line in batch:
                if isinstance(line, PatternLine) and line.name in known and not replace:
                    _refuse_change(node, known[line.name], line)
        for batch in _parts(_read(path)):
            found = {line.vector: line.values for line in batch if isinstance(line, VectorLine)}
            if await kato.memory.vectors.put(node, found):
                raise BadRequest(f"node {node} holds vectors of another dimension than {path}")
            vectors += len(found)
            fresh = [_as_pattern(line) for line in batch if isinstance(line, PatternLine)]
            clashes = await patterns.insert(node, fresh) if fresh else set()
            written += len(fresh) - len(clashes)
            known = await patterns.fetch(node, sorted(clashes))
            for pattern in fresh:
                old = known.get(pattern.name)
                if old == pattern:
                    same += 1
                elif old is not None and await patterns.replace(node, pattern, old.revision):
                    written += 1
        return written, same, vectors


def _refuse_change(node: str, old: Pattern, line: PatternLine) -> None:
    if not old.forgotten and old != _as_pattern(line):
        raise BadRequest(
            f"node {node} holds pattern {line.name} with other values; nothing was imported. "
            "Choose an empty node, or overwrite with --replace",
            pattern_name=line.name,
        )


def _as_pattern(line: PatternLine) -> Pattern:
    return Pattern(**{field: getattr(line, field) for field in PatternLine.__struct_fields__})


def _read(path: Path) -> Iterator[Line]:
    """The lines of an export after its head, checked."""
    with Lines(path) as lines:
        numbered = iter(lines)
        number, text = next(numbered, (1, ""))
        head = _checked_head(path, text)
        vectors = patterns = 0
        last, dimension = "", None
        for number, text in numbered:
            try:
                if vectors < head.vectors:
                    vector = _vector.decode(text)
                    vectors += 1
                    dimension = dimension or len(vector.values)
                    if len(vector.values) != dimension or not all(map(isfinite, vector.values)):
                        raise problem(path, number, f"expected a vector of {dimension} finite numbers")
                    yield vector
                    continue
                pattern = _pattern.decode(text)
            except (msgspec.MsgspecError, UnicodeError) as error:
                raise problem(path, number, str(error)) from None
            if pattern.name != pattern_name(pattern.events):
                raise problem(path, number, "the name does not belong to the events")
            if pattern.name <= last:
                raise problem(path, number, "the patterns are not in ascending order of name")
            last, patterns = pattern.name, patterns + 1
            yield pattern
        if (vectors, patterns) != (head.vectors, head.patterns):
            raise problem(
                path,
                number,
                f"the file ends after {vectors} vectors and {patterns} patterns, "
                f"its first line announces {head.vectors} and {head.patterns}",
            )


def _checked_head(path: Path, text: str) -> Head:
    try:
        head = _head.decode(text)
    except (msgspec.MsgspecError, UnicodeError):
        head = None
    if head is None or head.format != FORMAT:
        raise problem(path, 1, "this is not a file that `kato export` has written")
    if head.version != VERSION:
        raise problem(path, 1, f"the export has version {head.version}, this KATO reads version {VERSION}")
    return head


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while part := list(islice(iterator, BATCH)):
        yield part
