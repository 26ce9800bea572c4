"""Logging of JSON lines to stderr, because stdout belongs to the protocol; errors of writing are ignored."""

from __future__ import annotations

import json
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}


class _Lines:
    """A logger that writes lines to a file or to the current `sys.stderr`."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def msg(self, message: str) -> None:
        """Write a line if possible."""
        stream = self._stream or sys.stderr
        if stream is not None:  # None if the process started without stderr
            with suppress(OSError, ValueError):  # broken pipe, full disk or closed file
                stream.write(message + "\n")
                stream.flush()

    debug = info = warning = error = critical = exception = msg


class _Renderer:
    """Renders a log call as JSON; if a value cannot be rendered, only the names of the fields."""

    def __init__(self) -> None:
        self._json = structlog.processors.JSONRenderer()

    def __call__(self, logger: object, name: str, event: MutableMapping[str, object]) -> str:
        try:
            return str(self._json(logger, name, event))
        except Exception as error:
            known = {key: str(event[key]) for key in ("event", "level", "ts") if key in event}
            return json.dumps(
                {**known, "not_rendered": sorted(map(str, event)), "error": type(error).__name__}
            )


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Render every log call as one JSON line with time, level and bound fields (the shard)."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            _Renderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS.get(level.upper(), 20)),
        # Created for each call, because tests replace and close stderr.
        logger_factory=lambda *_: _Lines(stream),
        cache_logger_on_first_use=False,
    )


def bind_shard(shard: str) -> None:
    """Add the shard id to all later lines of this process."""
    structlog.contextvars.bind_contextvars(shard=shard)


def get() -> FilteringBoundLogger:
    """Return the logger."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger
