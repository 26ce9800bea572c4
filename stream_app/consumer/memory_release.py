"""A shard that has nothing to do gives its spare memory back: a hundred of them share a machine."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence

from stream_app.consumer.protocol.batch_coalescer import FAR_MS
from stream_app.consumer.protocol.multilang import Checkpointer, Handler
from stream_app.model.record import Record

FRUGAL: Mapping[str, str] = {
    # Threads of numerical libraries: a shard has one core at most, and what has threads cannot be forked.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    # Arrow's own pools keep some 10 MB for themselves; what the C library has in hand can be asked back.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    # What the end of a segment takes, the end of the next takes again: it goes back when `Thrifty` says so.
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
}
"""The environment of shards that share a machine. To be laid under the user's own."""

_EVERY = 10.0  # seconds at least between two returns, which cost some milliseconds each
# Seconds of its own work at least, where more records wait: the next segment needs the same again, and memory that
# was given back is slow to come by. By the clock, it would be the more of their work the more shards share a core.
_EVERY_WORKED = 5.0


def malloc_trim() -> None:
    """Give free memory back to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class MemoryReleasing:
    """Passes every action on (protocol `multilang.Handler`), and returns memory when something is over.

    That is before the first record is read: the beginning needs much that is never needed again, and what came to
    lie in between would keep it. Then after a commit, which mostly has a segment stored before it, and on the first
    idle tick after records. `worked` tells the seconds of processor time that this process took.
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
        """Load the state of the checkpoint given."""
        self._handler.initialize(shard, sequence, sub)
        self._release()

    def process(self, records: Sequence[Record], behind_ms: int | None, checkpointer: Checkpointer) -> None:
        """Take records in order, or a tick."""
        noting = _Noting(checkpointer)
        self._handler.process(records, behind_ms, noting)
        self._used = self._used or noting.committed or bool(records)
        over = noting.committed or not records
        if self._used and over and self._due(behind_ms is not None and behind_ms >= FAR_MS):
            self._release()
            self._used, self._released, self._released_worked = False, self._clock(), self._worked()

    def _due(self, far: bool) -> bool:
        if far and self._worked() - self._released_worked < _EVERY_WORKED:
            return False
        return self._clock() - self._released >= _EVERY


class _Noting:
    """A checkpointer, and whether it was asked for something."""

    def __init__(self, checkpointer: Checkpointer) -> None:
        self._checkpointer = checkpointer
        self.committed = False

    def checkpoint(self, sequence: str | None, sub: int | None) -> None:
        """Raises what the other does."""
        self.committed = True
        self._checkpointer.checkpoint(sequence, sub)
