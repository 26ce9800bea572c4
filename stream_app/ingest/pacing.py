"""When the next record may leave: a steady rate, or the data's own time made faster."""

from __future__ import annotations

import math
from datetime import datetime

from stream_app.errors import ConfigError, Problem

# How far the schedule may lag behind before the lag is forgiven; else a slow spell would end in a flood.
BURST = 0.1  # seconds


class Pacer:
    """Says how long to wait before each record, in the order in which they leave.

    `rate` is in records a second, None for any. `speed` is data time over real time: 3600 plays an hour in a
    second, infinity as fast as it goes. Where both are given the later moment counts. It reads no clock.
    """

    def __init__(self, rate: float | None = None, speed: float = math.inf) -> None:
        problems = []
        if rate is not None and not 0 < rate < math.inf:
            problems.append(Problem(f"a rate of {rate} is no rate", "give records a second, above 0"))
        if not speed > 0:
            problems.append(
                Problem(f"a speed of {speed} is no speed", "give a multiple of real time, or max")
            )
        if problems:
            raise ConfigError(problems)
        self._interval = 1 / rate if rate else 0.0
        self._speed = speed
        self._due = -math.inf
        self._start: tuple[float, datetime] | None = None

    def wait(self, now: float, time: datetime | None) -> float:
        """Seconds from `now` until the record of data time `time` may leave; 0 when it may at once."""
        self._due = max(self._due + self._interval, now - BURST) if math.isfinite(self._due) else now
        at = max(self._due, self._played(now, time))
        if at > self._due:
            self._due = at
        return max(0.0, at - now)

    def _played(self, now: float, time: datetime | None) -> float:
        if time is None or math.isinf(self._speed):
            return -math.inf
        if self._start is None:
            self._start = now, time
        began, first = self._start
        return began + (time - first).total_seconds() / self._speed


def parse_speed(text: str) -> float:
    """`max` or a positive number, as the command line gives it. Raises ConfigError."""
    if text.strip().lower() == "max":
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not speed > 0:
        hint = "give a multiple of real time, such as 3600 for an hour in a second, or max"
        raise ConfigError([Problem(f"a speed of {text!r} is no speed", hint)])
    return speed
