"""Thread-safe counters of a runner."""

from __future__ import annotations

import threading

NAMES = ("received", "filtered", "delivered", "retried", "failed", "dead_lettered")


class Counters:
    """Counts of records. Each received record is eventually filtered, delivered or dead-lettered.

    `retried` counts repeated attempts, `failed` the messages that became visible in their queue again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(NAMES, 0)

    def add(self, **counts: int) -> None:
        """Add to the named counts. Raises KeyError for an unknown name."""
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def snapshot(self) -> dict[str, int]:
        """Return the current counts."""
        with self._lock:
            return dict(self._counts)
