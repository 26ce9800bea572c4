"""Paces records: a constant rate, or the times of the data scaled by a speed factor."""

from __future__ import annotations

import math
from datetime import datetime

from stream_app.errors import ConfigError, Problem

# The largest lag (seconds) that is caught up. A larger one is dropped, because catching up would cause a burst.
BURST = 0.1


class Pacer:
    """Calculates the wait before each record, in the order of sending. Reads no clock.

    `rate` is in records per second, None for unlimited. `speed` is data time divided by real time: 3600 plays an hour
    per second, infinity is unlimited. If both are given, the later time applies. Raises ConfigError.
    """

    def __init__(self, rate: float | None = None, speed: float = math.inf) -> None:
        problems = []
        if rate is not None and not 0 < rate < math.inf:
            problems.append(Problem(f"invalid rate {rate}", "use a number of records per second above 0"))
        if not speed > 0:
            problems.append(Problem(f"invalid speed {speed}", "use a multiple of real time above 0, or max"))
        if problems:
            raise ConfigError(problems)
        self._interval = 1 / rate if rate else 0.0
        self._speed = speed
        self._due = -math.inf
        self._start: tuple[float, datetime] | None = None

    def wait(self, now: float, time: datetime | None) -> float:
        """Return the seconds from `now` until the record with data time `time` may be sent; 0 for immediately."""
        self._due = max(self._due + self._interval, now - BURST) if math.isfinite(self._due) else now
        at = max(self._due, self._played(now, time))
        self._due = max(self._due, at)
        return max(0.0, at - now)

    def _played(self, now: float, time: datetime | None) -> float:
        if time is None or math.isinf(self._speed):
            return -math.inf
        if self._start is None:
            self._start = now, time
        began, first = self._start
        return began + (time - first).total_seconds() / self._speed


def parse_speed(text: str) -> float:
    """Parse the speed option: `max` or a positive number. Raises ConfigError."""
    if text.strip().lower() == "max":
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not speed > 0:
        hint = "use a multiple of real time, such as 3600 for an hour per second, or max"
        raise ConfigError([Problem(f"invalid speed {text!r}", hint)])
    return speed
