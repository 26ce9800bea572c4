"""Retention deadlines: when a record expires from its stream and its payload is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stream_app.recovery.stream.read import named

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

_HOUR_MS = 3_600_000
# Cache times: retention periods change rarely, and failed calls are retried sooner.
_FRESH_MS, _RETRY_MS = 300_000, 10_000


class Retention:
    """The retention periods of streams, cached. `now_ms` returns milliseconds since the epoch."""

    def __init__(self, kinesis: KinesisClient, now_ms: Callable[[], int]) -> None:
        self._kinesis, self._now_ms = kinesis, now_ms
        self._known: dict[str, tuple[int, int | None]] = {}

    def deadline(self, stream: str, arrived: int) -> int | None:
        """Return when a record that arrived then expires from its stream (name or ARN), in ms; None if unknown.

        Never raises, because an unknown deadline must not prevent hydration.
        """
        period = self._period(stream)
        return None if period is None else arrived + period

    def seconds_left(self, stream: str, arrived: int) -> float | None:
        """Return the seconds until the deadline, negative after it; None if unknown."""
        at = self.deadline(stream, arrived)
        return None if at is None else (at - self._now_ms()) / 1_000

    def _period(self, stream: str) -> int | None:
        now = self._now_ms()
        until, kept = self._known.get(stream, (now, None))
        if now >= until:
            kept = self._ask(stream)
            self._known[stream] = now + (_RETRY_MS if kept is None else _FRESH_MS), kept
        return kept

    def _ask(self, stream: str) -> int | None:
        try:
            answer = self._kinesis.describe_stream_summary(**named(stream))
            return int(answer["StreamDescriptionSummary"]["RetentionPeriodHours"]) * _HOUR_MS
        except Exception:
            # The stream is deleted or a permission is missing: reading the records reports it.
            return None
