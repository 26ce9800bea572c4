"""The one clock of the corrections: tests replace `now_ms` to let iterators expire and records age."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
