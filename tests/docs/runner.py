"""Runs the code blocks of a document in order, in one directory, against a server of its own.

* `bash` blocks are run as scripts; variables live on in later blocks.
* `console` blocks hold commands behind `$ ` and what they print.
* `python` blocks are run as programs of their own.
* A `text` block right after a `bash` or `python` block is what that block prints.

In what is printed, `...` stands for anything, also for any number of lines. `localhost:8000` is the document's server.
Commands that set a machine up are not run: `make` targets must exist, and `kato serve` is running already. But
`kato serve --port N &` starts an instance when the rest of its block has been run, and `kill %1 %2` ends the instances
before the rest of its block is run. Addresses of databases stand for servers of the document's own (`PLACES`).
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support import postgres, qdrant_server, redis
from tests.support.server import Server

ROOT = Path(__file__).parents[2]
SECONDS = 120
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)
_INSTANCE = re.compile(r"^kato serve --port (\d+) &$", re.MULTILINE)
_END_INSTANCES = "kill %1 %2"
RUN = ("bash", "console", "python")


class Block(NamedTuple):
    """A fenced block: its language, its text, the line it begins on, and what it must print (None: anything)."""

    language: str
    text: str
    line: int
    prints: str | None


def blocks(document: Path) -> Iterator[Block]:
    """The blocks of a document that are run."""
    text = document.read_text(encoding="utf-8")
    found = list(_BLOCK.finditer(text))
    for number, match in enumerate(found):
        if match[1] not in RUN:
            continue
        following = found[number + 1] if number + 1 < len(found) else None
        prints = None
        if (
            following is not None
            and following[1] == "text"
            and not text[match.end() : following.start()].strip()
        ):
            prints = following[2]
        yield Block(match[1], match[2], text.count("\n", 0, match.start()) + 1, prints)


def matches(expected: str, actual: str) -> bool:
    """Whether a text is the expected one, `...` standing for anything; blanks at line ends do not count.

    >>> matches("a\\n...\\nd...\\n", "a\\nb\\nc\\ndef\\n")
    True
    """
    lines = [line.rstrip() for line in expected.strip("\n").split("\n")]
    pattern = "\n".join("(?:.*\n)*?.*" if line == "..." else _line(line) for line in lines)
    plain = "\n".join(line.rstrip() for line in actual.strip("\n").split("\n"))
    return re.fullmatch(pattern, plain) is not None


def _line(line: str) -> str:
    return ".*".join(re.escape(part) for part in line.split("..."))


@contextlib.contextmanager
def _qdrant() -> Iterator[str]:
    with qdrant_server.qdrant_server() as server:
        # It speaks no gRPC.
        yield f"QDRANT_PORT={server.port} QDRANT_PREFER_GRPC=false"


@contextlib.contextmanager
def _redis() -> Iterator[str]:
    with redis.redis() as server:
        yield server.url


PLACES: dict[str, Callable[[], contextlib.AbstractContextManager[str]]] = {
    "postgresql://kato:secret@localhost:5432/kato": postgres.database,
    "redis://localhost:6379/0": _redis,
    "QDRANT_PORT=6333": _qdrant,
}
"""What documents write where they mean a server, and what starts one and says what to write instead."""


@contextlib.contextmanager
def places(document: Path) -> Iterator[dict[str, str]]:
    """What is to be written for the servers that the blocks of a document name; they end afterwards."""
    texts = [block.text for block in blocks(document)]
    with contextlib.ExitStack() as stack:
        yield {
            place: stack.enter_context(start())
            for place, start in PLACES.items()
            if any(place in text for text in texts)
        }


class Session:
    """The directory, environment and servers of one document."""

    def __init__(self, directory: Path, url: str, places: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self._places = {"localhost:8000": url.removeprefix("http://"), **(places or {})}
        self._instances: list[Server] = []
        (directory / "examples").symlink_to(ROOT / "examples")
        own = {name: value for name, value in os.environ.items() if not name.startswith(("KATO_", "COLUMNS"))}
        self._environment = {
            **own,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH', '')}",
            "HOME": str(directory),
            "XDG_STATE_HOME": str(directory / "state"),
            "PYTHONWARNINGS": "error",
        }

    def run(self, block: Block) -> None:
        """Run a block; AssertionError when it fails or prints something else."""
        if block.language == "console":
            for command, expected in commands(block.text):
                self._check(block, command, self._bash(command), expected)
        elif block.language == "bash":
            self._check(block, block.text, self._bash(block.text), block.prints)
        else:
            script = self._here(block.text)
            done = subprocess.run(
                [sys.executable, "-c", script],
                cwd=self.directory,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            assert done.returncode == 0, f"line {block.line}: {done.stderr}"
            self._check(block, block.text, done.stdout, block.prints)

    def close(self) -> None:
        """End the instances that the document started."""
        while self._instances:
            self._instances.pop().stop()

    def _here(self, text: str) -> str:
        for place, written in self._places.items():
            text = text.replace(place, written)
        return text

    def _bash(self, script: str) -> str:
        if _END_INSTANCES in script.splitlines():
            self.close()
        printed = self._run(script)
        for port in _INSTANCE.findall(script):
            instance = Server(self.directory / "kato-data", self._environment)
            self._instances.append(instance)
            self._places[f"localhost:{port}"] = instance.url.removeprefix("http://")
        return printed

    def _run(self, script: str) -> str:
        runnable = "\n".join(line for line in script.splitlines() if not set_up(line))
        kept = self.directory / "environment"
        done = subprocess.run(
            ["bash", "-c", f"set -euo pipefail; set -a\n{self._here(runnable)}\nenv -0 > '{kept}'"],
            cwd=self.directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        for entry in kept.read_text(encoding="utf-8").split("\0"):
            name, _, value = entry.partition("=")
            if name:
                self._environment[name] = value
        return done.stdout

    def _check(self, block: Block, command: str, printed: str, expected: str | None) -> None:
        if expected is not None:
            assert matches(expected, printed), (
                f"line {block.line}: {command}\nexpected:\n{expected}\ngot:\n{printed}"
            )


def commands(text: str) -> Iterator[tuple[str, str | None]]:
    """The commands of a console block, each with what it prints (None when nothing is shown)."""
    command, expected = "", ""
    for line in [*text.splitlines(), "$ "]:
        if line.startswith("$ "):
            if command:
                yield command, expected or None
            command, expected = line.removeprefix("$ "), ""
        else:
            expected += line + "\n"


def set_up(line: str) -> bool:
    """Whether a line sets a machine up; such lines are checked instead of run."""
    words = line.split("#")[0].split()
    if words[:1] == ["make"]:
        targets = _TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8"))
        assert set(words[1:]) <= set(targets), f"no such target: {line}"
        return True
    return words[:2] == ["kato", "serve"] or words[:1] == [".venv/bin/pytest"] or line == _END_INSTANCES
