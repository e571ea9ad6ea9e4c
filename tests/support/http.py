"""A lean HTTP client for many requests at once; httpx would be most of the work."""

from __future__ import annotations

import asyncio
import json
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """Status and JSON body of an answer."""

    status: int
    body: Any
    last: bool = False
    """Whether the server closes the connection after it."""


class Gone(Exception):
    """The server closed the connection without answering."""


class Refused(Gone):
    """The server did not let us connect: the request was never sent."""


class Pool:
    """Keeps connections to one server; every call has one for itself."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request; `Gone` when there is no answer."""
        try:
            reader, writer = (
                self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
            )
        except OSError as error:
            raise Refused from error
        try:
            writer.write(_request(method, path, body, headers or {}))
            answer = await _answer(reader)
        except (OSError, asyncio.IncompleteReadError) as error:
            writer.close()
            raise Gone from error
        except BaseException:
            # Nobody would know whose the answer is.
            writer.close()
            raise
        if answer.last:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return answer

    async def get(self, path: str) -> Any:
        """The body of a successful answer."""
        answer = await self.call("GET", path)
        assert answer.status == 200, answer
        return answer.body

    async def post(self, path: str, body: Any) -> Any:
        """The body of a successful answer."""
        answer = await self.call("POST", path, body)
        assert answer.status == 200, answer
        return answer.body

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in self._idle), return_exceptions=True)
        self._idle.clear()


def _request(method: str, path: str, body: Any, headers: Mapping[str, str]) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: kato", f"Content-Length: {len(content)}"]
    lines += ["Content-Type: application/json"] if content else []
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def _answer(reader: asyncio.StreamReader) -> Answer:
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in lines if line)
    content = await reader.readexactly(int(headers[b"content-length"]))
    return Answer(int(status.split()[1]), json.loads(content), headers.get(b"connection") == b"close")


@asynccontextmanager
async def calling(url: str) -> AsyncIterator[Pool]:
    """A pool that is closed at the end."""
    pool = Pool(url)
    try:
        yield pool
    finally:
        await pool.close()
