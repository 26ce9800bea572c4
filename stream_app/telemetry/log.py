"""JSON lines on stderr; stdout belongs to the protocol."""

from __future__ import annotations

import sys
from typing import Any, TextIO

import structlog

LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Render every log call as one JSON line with time, level and what was bound (the shard)."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS.get(level.upper(), 20)),
        # Looked up at each call: whoever points stderr elsewhere, a test for one, closes what it was.
        logger_factory=lambda *_: structlog.PrintLogger(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )


def bind_shard(shard: str) -> None:
    """Every further line of this process carries the shard id."""
    structlog.contextvars.bind_contextvars(shard=shard)


def get() -> Any:
    """The logger."""
    return structlog.get_logger()
