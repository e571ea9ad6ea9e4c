"""A server that speaks MongoDB's protocol and says what a test tells it to: for what no server here does."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import bson

Document: TypeAlias = dict[str, Any]

_QUERY, _MESSAGE, _REPLY = 2004, 2013, 1
_HEADER = struct.Struct("<iiii")


class ScriptedMongo:
    """The primary of a replica set. It notes every command and answers it with `answers[name]`.

    An answer is a document, an exhaustible list of documents, or a word: "silence" never answers, "cut" ends
    the connection. Commands without an answer get `{ok: 1}`.
    """

    def __init__(self, **hello: Any) -> None:
        self.commands: list[Document] = []
        self.answers: dict[str, Any] = {"listIndexes": _cursor([]), "find": _cursor([])}
        self._hello = hello
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[Any]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?replicaSet=rs"

    def sent(self, name: str) -> list[Document]:
        """The commands of that name, in the order of their arrival."""
        return [each for each in self.commands if next(iter(each)) == name]

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while True:
                    length, request, _, kind = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                    command = _command(kind, await reader.readexactly(length - _HEADER.size))
                    answer = self._answer(command)
                    if answer == "cut":
                        break
                    if answer != "silence":
                        writer.write(_reply(kind, request, answer))
                        await writer.drain()
        finally:
            self._serving.discard(task)
            writer.close()

    def _answer(self, command: Document) -> Any:
        name = next(iter(command))
        if name.lower() in {"hello", "ismaster"}:
            return {
                "ismaster": True,
                "helloOk": True,
                "setName": "rs",
                "hosts": [f"127.0.0.1:{self.port}"],
                "primary": f"127.0.0.1:{self.port}",
                "me": f"127.0.0.1:{self.port}",
                "minWireVersion": 0,
                "maxWireVersion": 21,
                "maxBsonObjectSize": 2**24,
                "maxMessageSizeBytes": 48_000_000,
                "maxWriteBatchSize": 100_000,
                "logicalSessionTimeoutMinutes": 30,
                "ok": 1,
                **self._hello,
            }
        self.commands.append(command)
        answer = self.answers.get(name, {"ok": 1})
        return answer.pop(0) if isinstance(answer, list) else answer


def _cursor(batch: list[Document], number: int = 0, part: str = "firstBatch", **more: Any) -> Document:
    return {"cursor": {"id": bson.Int64(number), "ns": "kato.patterns", part: batch}, "ok": 1, **more}


cursor = _cursor
"""The answer of a command that delivers documents; a `number` says that there are more."""


def _command(kind: int, content: bytes) -> Document:
    if kind == _QUERY:
        return bson.decode(content[content.index(b"\0", 4) + 9 :])
    position, command, sequences = 4, {}, {}
    while position < len(content):
        section, size = content[position], struct.unpack_from("<i", content, position + 1)[0]
        part = content[position + 1 : position + 1 + size]
        if section == 0:
            command = bson.decode(part)
        else:
            end = part.index(b"\0", 4)
            sequences[part[4:end].decode()] = bson.decode_all(part[end + 1 :])
        position += 1 + size
    return {**command, **sequences}


def _reply(kind: int, request: int, answer: Document) -> bytes:
    document = bson.encode(answer)
    if kind == _QUERY:
        body, code = struct.pack("<iqii", 0, 0, 0, 1) + document, _REPLY
    else:
        body, code = struct.pack("<iB", 0, 0) + document, _MESSAGE
    return _HEADER.pack(_HEADER.size + len(body), 0, request, code) + body


@contextlib.asynccontextmanager
async def scripted(**hello: Any) -> AsyncIterator[ScriptedMongo]:
    """A running scripted server; `hello` changes what it says about itself."""
    server = ScriptedMongo(**hello)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
