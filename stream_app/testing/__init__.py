"""Tools for users' tests: outcomes of records, runs and checks of event types, laws of sinks, KCL's protocol.

Nothing here needs pytest but the fixtures `aws` and `stream`: write `from stream_app.testing import aws, stream` in a
conftest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_app.sinks.laws import check as check_sink
from stream_app.sinks.laws import watched
from stream_app.testing.batching import CheckError, check
from stream_app.testing.kcl_player import ConsumerEndedError, Played, Player, spawn
from stream_app.testing.outcomes import outcomes
from stream_app.testing.pipeline_run import MAX_BYTES, Ran, run
from stream_app.testing.records import FIRST_SEQUENCE, record

if TYPE_CHECKING:
    from stream_app.testing.fixtures import aws, stream

__all__ = [
    "FIRST_SEQUENCE",
    "MAX_BYTES",
    "CheckError",
    "ConsumerEndedError",
    "Played",
    "Player",
    "Ran",
    "aws",
    "check",
    "check_sink",
    "outcomes",
    "record",
    "run",
    "spawn",
    "stream",
    "watched",
]
_FIXTURES = frozenset({"aws", "stream"})


def __getattr__(name: str) -> Any:
    """Import the fixtures at their first use."""
    if name not in _FIXTURES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from stream_app.testing import fixtures
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("pytest", "moto"):
            raise
        message = f"the fixture {name!r} needs {error.name}: pip install 'stream-app[testing]'"
        raise ImportError(message, name=error.name) from error
    return getattr(fixtures, name)
