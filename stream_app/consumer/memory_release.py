"""Returns unused memory of idle shards to the operating system, because many shards share a machine."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence

from stream_app.consumer.protocol.batch_coalescer import FAR_MS
from stream_app.consumer.protocol.multilang import Checkpointer, Handler
from stream_app.model.record import Record

LOW_MEMORY_ENVIRONMENT: Mapping[str, str] = {
    # A shard uses at most one core, and a process with threads of numerical libraries cannot be forked.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    # Arrow's own pools retain about 10 MB; memory of the C library can be released by malloc_trim.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    # The next segment needs as much memory as this one; `MemoryReleasing` decides when to release it.
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
}
"""Environment variables for shards that share a machine; variables of the user take precedence."""

_EVERY = 10.0  # the minimum of seconds between two releases, each of which costs a few milliseconds
# The minimum of seconds of processor time while more records wait: the next segment needs the memory again, and
# allocating it again is slow. With wall-clock time the overhead would grow with the number of shards on a core.
_EVERY_WORKED = 5.0


def malloc_trim() -> None:
    """Return free memory to the operating system, if the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class MemoryReleasing:
    """Forwards every action to a handler (protocol `multilang.Handler`) and releases memory afterwards.

    It does so before the first record is read, because initialization needs much memory that later allocations would
    fragment; then after a checkpoint, which usually follows a stored segment; and on the first idle tick after
    records. `worked` returns the processor time of this process in seconds.
    """

    def __init__(
        self,
        handler: Handler,
        release: Callable[[], None] = malloc_trim,
        clock: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.process_time,
    ) -> None:
        self._handler, self._release, self._clock, self._worked = handler, release, clock, worked
        self._used = False
        self._released, self._released_worked = clock() - _EVERY, worked()
        self.lease_lost = handler.lease_lost
        self.shard_ended = handler.shard_ended
        self.shutdown_requested = handler.shutdown_requested

    def initialize(self, shard: str, sequence: str | None, sub: int | None) -> None:
        """Forward the action, then release memory."""
        self._handler.initialize(shard, sequence, sub)
        self._release()

    def process(self, records: Sequence[Record], behind_ms: int | None, checkpointer: Checkpointer) -> None:
        """Forward records or a tick, then release memory if it is due."""
        recording = _RecordingCheckpointer(checkpointer)
        self._handler.process(records, behind_ms, recording)
        self._used = self._used or recording.committed or bool(records)
        finished = recording.committed or not records
        if self._used and finished and self._due(behind_ms is not None and behind_ms >= FAR_MS):
            self._release()
            self._used, self._released, self._released_worked = False, self._clock(), self._worked()

    def _due(self, far: bool) -> bool:
        if far and self._worked() - self._released_worked < _EVERY_WORKED:
            return False
        return self._clock() - self._released >= _EVERY


class _RecordingCheckpointer:
    """Forwards checkpoints and records whether there was one."""

    def __init__(self, checkpointer: Checkpointer) -> None:
        self._checkpointer = checkpointer
        self.committed = False

    def checkpoint(self, sequence: str | None, sub: int | None) -> None:
        """Forward the checkpoint; raises the same errors."""
        self.committed = True
        self._checkpointer.checkpoint(sequence, sub)
