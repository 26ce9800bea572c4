"""The clock of all patches. Tests replace `now_ms` to expire iterators and age records."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Return the current time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
