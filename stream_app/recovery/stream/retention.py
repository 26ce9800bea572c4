"""The clock that runs from a record's arrival to the end of its stream's retention: then its payload is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stream_app.recovery.stream.read import named

_HOUR = 3_600_000
# Retention is changed by hand, seldom; a function that stays warm looks again after this long.
_FRESH_MS, _RETRY_MS = 300_000, 10_000

Clock = Callable[[], int]


class Retention:
    """How long streams keep their records. `now_ms` is the clock, milliseconds since the epoch."""

    def __init__(self, kinesis: Any, now_ms: Clock) -> None:
        self._kinesis, self._now_ms = kinesis, now_ms
        self._known: dict[str, tuple[int, int | None]] = {}

    def vanishes(self, stream: str, arrived: int) -> int | None:
        """When a record that arrived then leaves its stream (name or ARN), ms; None where that cannot be known.

        Never raises: what the clock cannot tell must not keep a dead letter from being hydrated.
        """
        kept = self._kept(stream)
        return None if kept is None else arrived + kept

    def seconds_left(self, stream: str, arrived: int) -> float | None:
        """Seconds until then, negative when it is past; None where that cannot be known."""
        at = self.vanishes(stream, arrived)
        return None if at is None else (at - self._now_ms()) / 1_000

    def _kept(self, stream: str) -> int | None:
        now = self._now_ms()
        until, kept = self._known.get(stream, (now, None))
        if now >= until:
            kept = self._ask(stream)
            self._known[stream] = now + (_RETRY_MS if kept is None else _FRESH_MS), kept
        return kept

    def _ask(self, stream: str) -> int | None:
        try:
            answer = self._kinesis.describe_stream_summary(**named(stream))
            return int(answer["StreamDescriptionSummary"]["RetentionPeriodHours"]) * _HOUR
        except Exception:
            # A stream that is gone, a permission that is missing: reading the records will say so.
            return None
