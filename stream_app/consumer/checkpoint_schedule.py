"""Decides when a checkpoint is due, from the clock and from the time that snapshots take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A snapshot of at most this many compressed bytes takes a few milliseconds and is made for every segment.
_SMALL_STATE = 1_000_000
# Snapshots that take longer than this are made less often, so that they take at most this share of the time.
_QUICK_MS, SNAPSHOT_SHARE = 100, 0.025


class CheckpointSchedule:
    """The time of the last checkpoint, and the size and processor time of the last snapshot."""

    def __init__(self, interval_seconds: int, now_ms: Callable[[], int]) -> None:
        self._interval_ms, self._now_ms = interval_seconds * 1_000, now_ms
        self._committed_at = now_ms()
        self._snapshot_ms = 0.0
        self.state_bytes = 0
        """The size of the last snapshot, compressed."""

    @property
    def large_state(self) -> bool:
        """Whether a snapshot is made only when a checkpoint is due."""
        return self.state_bytes > _SMALL_STATE

    @property
    def due(self) -> bool:
        """Whether the checkpoint interval has passed; it is longer where many devices make a snapshot slow."""
        elapsed = self._now_ms() - self._committed_at
        slow = self._snapshot_ms / SNAPSHOT_SHARE if self._snapshot_ms > _QUICK_MS else 0
        return elapsed >= max(self._interval_ms, slow)

    @contextmanager
    def snapshotting(self) -> Iterator[None]:
        """Measure the processor time of making a snapshot."""
        self._snapshot_ms = 0.0
        with self.saving():
            yield

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Measure the processor time of storing the snapshot."""
        begun = time.thread_time()
        yield
        self._snapshot_ms += (time.thread_time() - begun) * 1_000

    def committed(self) -> None:
        """Start the next interval: a checkpoint was made."""
        self._committed_at = self._now_ms()
