"""What a runner has done so far, counted by several threads."""

from __future__ import annotations

import threading

NAMES = ("received", "filtered", "delivered", "retried", "failed", "dead_lettered")


class Counters:
    """Counts of records; every record received is in the end filtered, delivered or dead-lettered.

    `retried` counts second and further tries, `failed` those that went back to their source for a later one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(NAMES, 0)

    def add(self, **counts: int) -> None:
        """Add to the counts named. Raises KeyError for a name that is none."""
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def snapshot(self) -> dict[str, int]:
        """The counts now."""
        with self._lock:
            return dict(self._counts)
