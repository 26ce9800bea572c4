"""Batches of a shard that is far behind, gathered into larger ones: what a batch costs by itself is paid less often.

The daemon reads a shard some hundreds of records at a time, and waits for an answer to each batch. To answer is not
to commit: a checkpoint names what was processed, so records that were only gathered are read again after a crash.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from stream_app.consumer.protocol.multilang import Checkpointer, Handler
from stream_app.model.record import Record
from stream_app.model.records import Records
from stream_app.pipeline.readers.unpacked_size import unpacked_bytes

# Who is so far behind does not notice the wait for some more batches, each of which comes at once.
FAR_MS = 1_000
# What is passed on: so many records, or so many bytes after decompression. What a batch costs by itself is the more
# where shards share a core, whose caches others used meanwhile: half as many take 5 to 8 % longer. More take memory.
ENOUGH, ENOUGH_BYTES = 5_500, 2_000_000
# Where a batch takes longer than this, what it costs by itself does not matter, and the daemon should not wait.
_QUICK = 0.25


class Gathering:
    """Passes every action on (protocol `multilang.Handler`); records in their order, at last before any other action.

    Records are kept back only while the shard is `FAR_MS` behind, until they are enough. `max_record_bytes` is the
    limit of one record.
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
        self._took = 0.0
        self.initialize = handler.initialize

    def process(self, records: Sequence[Record], behind_ms: int | None, checkpointer: Checkpointer) -> None:
        """Take records in order, or a tick."""
        self._behind_ms = behind_ms
        if records:
            more = Records.of(records)
            self._kept.append(more)
            self._count += len(more)
            self._bytes += unpacked_bytes(more.payloads, self._max_bytes)
        far = behind_ms is not None and behind_ms >= FAR_MS
        enough = self._count >= ENOUGH or self._bytes >= ENOUGH_BYTES
        if enough or not (records and far and self._took <= _QUICK):
            self._pass_on(checkpointer)

    def _forget(self) -> None:
        self._kept, self._count, self._bytes = [], 0, 0

    def _pass_on(self, checkpointer: Checkpointer) -> None:
        kept = self._kept
        self._forget()
        begun = self._clock()
        self._handler.process(Records.joined(kept), self._behind_ms, checkpointer)
        self._took = self._clock() - begun

    def lease_lost(self) -> None:
        """Another worker reads what was gathered."""
        self._forget()
        self._handler.lease_lost()

    def shard_ended(self, checkpointer: Checkpointer) -> None:
        """Nothing may be left before the end is committed."""
        if self._kept:
            self._pass_on(checkpointer)
        self._handler.shard_ended(checkpointer)

    def shutdown_requested(self, checkpointer: Checkpointer) -> None:
        """What was gathered may end a segment that can still be committed."""
        if self._kept:
            self._pass_on(checkpointer)
        self._handler.shutdown_requested(checkpointer)
