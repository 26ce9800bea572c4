"""Coalesces the batches of a shard that is far behind into larger ones, to reduce the fixed cost of each batch.

The daemon reads a few hundred records at a time and waits for a response to each batch. A response is not a commit: a
checkpoint names processed records, so records that were only collected are read again after a crash.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from stream_app.consumer.protocol.multilang import Checkpointer, Handler
from stream_app.model.record import Record
from stream_app.model.records import Records
from stream_app.pipeline.readers.unpacked_size import unpacked_bytes

# A shard that is at least this far behind has its next batches available immediately.
FAR_MS = 1_000
# A batch is forwarded with this many records, or bytes after decompression. Fixed costs are higher where shards share
# a core and its caches: half as many records take 5 to 8 % longer. More records take more memory.
ENOUGH, ENOUGH_BYTES = 5_500, 2_000_000
# If a batch takes longer than these seconds, its fixed cost is negligible, and the daemon should not wait for more.
_QUICK = 0.25


class BatchCoalescer:
    """Forwards every action to a handler (protocol `multilang.Handler`), after the records that it collected.

    Records are collected only while the shard is at least `FAR_MS` behind. `max_record_bytes` is the limit of one
    record.
    """

    def __init__(
        self,
        handler: Handler,
        clock: Callable[[], float] = time.monotonic,
        max_record_bytes: int = 262_144,
    ) -> None:
        self._handler, self._clock, self._max_bytes = handler, clock, max_record_bytes
        self._kept: list[Records] = []
        self._count = self._bytes = 0
        self._behind_ms: int | None = None
        self._duration = 0.0
        self.initialize = handler.initialize

    def process(self, records: Sequence[Record], behind_ms: int | None, checkpointer: Checkpointer) -> None:
        """Collect records; forward them when there are enough, or when the shard is not far behind."""
        self._behind_ms = behind_ms
        if records:
            more = Records.of(records)
            self._kept.append(more)
            self._count += len(more)
            self._bytes += unpacked_bytes(more.payloads, self._max_bytes)
        far = behind_ms is not None and behind_ms >= FAR_MS
        enough = self._count >= ENOUGH or self._bytes >= ENOUGH_BYTES
        if enough or not (records and far and self._duration <= _QUICK):
            self._forward(checkpointer)

    def _clear(self) -> None:
        self._kept, self._count, self._bytes = [], 0, 0

    def _forward(self, checkpointer: Checkpointer) -> None:
        kept = self._kept
        self._clear()
        begun = self._clock()
        self._handler.process(Records.joined(kept), self._behind_ms, checkpointer)
        self._duration = self._clock() - begun

    def lease_lost(self) -> None:
        """Discard the collected records, which another worker reads, and forward the action."""
        self._clear()
        self._handler.lease_lost()

    def shard_ended(self, checkpointer: Checkpointer) -> None:
        """Forward the collected records, then the action, which commits the end of the shard."""
        if self._kept:
            self._forward(checkpointer)
        self._handler.shard_ended(checkpointer)

    def shutdown_requested(self, checkpointer: Checkpointer) -> None:
        """Forward the collected records, which may complete a segment, then the action."""
        if self._kept:
            self._forward(checkpointer)
        self._handler.shutdown_requested(checkpointer)
