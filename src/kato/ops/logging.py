"""Logging of a process: human lines or JSON lines, each with the trace id of the request it belongs to.

What clients observe is never logged: at INFO only the life of the process, at DEBUG requests by method, path
and status.
"""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import Any

import structlog

TRACE: ContextVar[str] = ContextVar("trace_id", default="")
"""The trace id of the request being served; "" outside of requests."""

OURS_TO_TELL = ("asyncpg.pool",)
"""Libraries that complain, with a traceback each time, of what health reports once."""
QUIET = (
    *("uvicorn", "uvicorn.error", "uvicorn.access", "websockets", "asyncio"),
    # These tell every request to a store, and what is in it.
    *("httpx", "httpcore", "pymongo"),
)


def _with_trace(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    trace = TRACE.get()
    if trace:
        event.setdefault("trace_id", trace)
    return event


def configure(level: str = "INFO", form: str = "human") -> None:
    """Set up logging for the whole process: `form` is "human" (for eyes) or "json" (one object per line).

    Messages of the libraries that serve HTTP and reach the stores take the same form; their chatter below WARNING
    is dropped.
    """
    # Tracebacks come without the values of variables: those are what clients observe.
    rendering: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if form == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                _with_trace,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in OURS_TO_TELL:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; keyword arguments become fields.

    It is an ordinary logger underneath, so that a program that embeds KATO sees and filters its messages as usual.
    """
    bound: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
    )
    return bound
