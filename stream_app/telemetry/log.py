"""JSON lines on stderr; stdout belongs to the protocol. A line that cannot be written stops nobody."""

from __future__ import annotations

import json
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO

import structlog

LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}


class _Lines:
    """A logger that writes lines to a file, or to what is `sys.stderr` at that moment."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def msg(self, message: str) -> None:
        """Write a line, if it can be written."""
        stream = self._stream or sys.stderr
        if stream is not None:  # None where the process began without a stderr
            with suppress(OSError, ValueError):  # no reader, no room, closed
                stream.write(message + "\n")
                stream.flush()

    debug = info = warning = error = critical = exception = msg


class _Renderer:
    """Renders a log call as JSON, and what has no JSON form by its names."""

    def __init__(self) -> None:
        self._json = structlog.processors.JSONRenderer()

    def __call__(self, logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
        try:
            return str(self._json(logger, name, event))
        except Exception as error:
            told = {key: str(event[key]) for key in ("event", "level", "ts") if key in event}
            return json.dumps(
                {**told, "not_rendered": sorted(map(str, event)), "error": type(error).__name__}
            )


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Render every log call as one JSON line with time, level and what was bound (the shard)."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            _Renderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS.get(level.upper(), 20)),
        # Looked up at each call: whoever points stderr elsewhere, a test for one, closes what it was.
        logger_factory=lambda *_: _Lines(stream),
        cache_logger_on_first_use=False,
    )


def bind_shard(shard: str) -> None:
    """Every further line of this process carries the shard id."""
    structlog.contextvars.bind_contextvars(shard=shard)


def get() -> Any:
    """The logger."""
    return structlog.get_logger()
