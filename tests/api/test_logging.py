"""The form of log lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from kato.ops.logging import QUIET, TRACE, configure, logger


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    before = root.handlers, root.level, {name: logging.getLogger(name).level for name in QUIET}
    token = TRACE.set("")
    yield
    TRACE.reset(token)
    root.handlers, root.level = before[0], before[1]
    for name, level in before[2].items():
        logging.getLogger(name).setLevel(level)


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", "json")
    TRACE.set("t1")
    logger("kato.test").info("something", count=3)
    logging.getLogger("elsewhere").warning("foreign %s", "text")
    logger("kato.test").debug("unheard")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "something",
        "count": 3,
        "level": "info",
        "logger": "kato.test",
        "trace_id": "t1",
    }
    assert (second["event"], second["level"]) == ("foreign text", "warning")


@pytest.mark.parametrize("form", ["json", "human"])
def test_tracebacks_hold_no_values(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", form)
    observed = "a-" + "secret"
    try:
        raise ValueError(len(observed))
    except ValueError:
        logger("kato.test").exception("broken")
    written = capsys.readouterr().err
    assert "ValueError: 8" in written
    assert "a-secret" not in written


def test_human_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure("DEBUG", "human")
    logger("kato.test").debug("seen", path="/x")
    logging.getLogger("uvicorn.error").info("chatter")
    written = capsys.readouterr().err
    assert "seen" in written
    assert "path=/x" in written
    assert "trace_id" not in written
    assert "chatter" not in written
