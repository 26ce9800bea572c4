"""One shard's consumer, and the order of its effects: sinks → dead letters → alerts → snapshot → checkpoint."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

from stream_app.consumer.batch_summary import BatchReporter
from stream_app.consumer.checkpoint_schedule import CheckpointSchedule
from stream_app.consumer.dependencies import ShardDependencies
from stream_app.consumer.forgetting import forget_after
from stream_app.consumer.open_segment import OpenSegment
from stream_app.consumer.protocol.multilang import Checkpointer
from stream_app.consumer.quarantine.inspection import Trial
from stream_app.consumer.quarantine.policy import Quarantine
from stream_app.consumer.quarantine.trial import ForkTrials
from stream_app.consumer.segments import Segmenter, chunks
from stream_app.consumer.snapshots import SHARD_END, restore
from stream_app.errors import LeaseLostError
from stream_app.model.record import Position, Record
from stream_app.model.records import Records
from stream_app.model.segment import store, token
from stream_app.pipeline.exclusion import process_without
from stream_app.pipeline.flow import Processed
from stream_app.pipeline.readers.unpacked_size import unpacked_sizes
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.telemetry import log

# The most bytes after decompression that are processed together. One GetRecords response (10 MiB) and the records
# that were held back before it are smaller, so only compressed records are ever divided.
BATCH_BYTES = 16 << 20


class _Pending(NamedTuple):
    """A closed segment that can be committed: its last position, the snapshot there, and its arrival in ms."""

    position: Position
    snapshot: bytes
    arrived: int


class ShardConsumer:
    """Handles KCL's actions for one shard (protocol `multilang.Handler`)."""

    def __init__(self, dependencies: ShardDependencies) -> None:
        self._dependencies = dependencies
        settings = dependencies.settings
        limits = (settings.segment_records, settings.segment_bytes)
        self._segmenter = Segmenter(settings.segment_seconds, *limits)
        self._shard = ""
        self._state = self._new_state()
        self._reporter = BatchReporter(dependencies, self._state)
        self._schedule = CheckpointSchedule(settings.checkpoint_seconds, dependencies.now_ms)
        self._open = OpenSegment()
        self._pending: _Pending | None = None
        self._pending_records = 0
        self._committed: list[str] = []
        self._lost = self._reading = False
        self._quarantine = Quarantine(
            dependencies.isolation.store if dependencies.isolation is not None else None,
            settings,
            attempt=dependencies.attempt,
            note=dependencies.note,
            now_ms=dependencies.now_ms,
        )
        self._limit: AbstractContextManager[None] = nullcontext()

    def limit_batches(self, limit: AbstractContextManager[None], *, warm: bool) -> None:
        """Process each batch within `limit`. `warm`: what is loaded at first use was already loaded."""
        self._limit, self._quarantine.warm = limit, warm

    @property
    def dependencies(self) -> ShardDependencies:
        """The dependencies that it was created with; another consumer can be created from them."""
        return self._dependencies

    @property
    def registry(self) -> Registry:
        """The registered event types."""
        return self._dependencies.registry

    def _new_state(self) -> ShardState:
        events = {name: codec.event for name, codec in self._dependencies.registry.codecs.items()}
        settings = self._dependencies.settings
        return ShardState(events, settings.seen_ids, forget_after(settings, events.values()))

    def initialize(self, shard: str, sequence: str | None, sub: int | None) -> None:
        """Load the state that belongs to the checkpoint. Raises FatalError if it cannot be loaded."""
        dependencies = self._dependencies
        self._shard = shard
        log.bind_shard(shard)
        source = dependencies.attempt(
            "load state",
            lambda: restore(
                self._state,
                shard,
                sequence,
                sub,
                dependencies.snapshots,
                dependencies.lineage,
                missing=dependencies.settings.missing_state,
            ),
        )
        own_checkpoint = source[:1].isdigit()  # a checkpoint of this shard, not one of its parents
        self._committed = [source] if own_checkpoint else []
        self._quarantine.load(shard, token(Position(shard, sequence or "", sub or 0)))
        inherited = not own_checkpoint and source != "fresh"
        dependencies.alerts.start(shard, source.split("+") if inherited else ())
        dependencies.note("initialized", checkpoint=sequence, state=source)

    def process(self, records: Sequence[Record], behind_ms: int | None, checkpointer: Checkpointer) -> None:
        """Process records, close the segments that they end, and make a checkpoint when one is due.

        Raises ConfigError if a user's code failed on as many records as `app.stop_after_failures` gives.
        """
        if self._lost:
            return
        if not self._reading:
            self._reading = True
            self._dependencies.note(
                "reading"
            )  # KCL reads its first records up to two seconds after initialize
        try:
            self._process_all(Records.of(records), behind_ms)
            self._dependencies.alerts.flush()
            if not records and behind_ms == 0 and not self._quarantine.holding:
                self._close_by_clock(checkpointer)
            # A large snapshot exists only because a checkpoint was due when it was made.
            if self._schedule.due or self._schedule.large_state:
                self._commit(checkpointer)
        except LeaseLostError:
            self.lease_lost()

    def _process_all(self, records: Records, behind_ms: int | None, *, all_of: bool = False) -> None:
        for part in self._quarantine.parts(records, self._trial, all_of=all_of):
            self._process_part(part, behind_ms)

    def _process_part(self, records: Records, behind_ms: int | None) -> None:
        sizes = unpacked_sizes(records.payloads, self._dependencies.settings.max_record_bytes)
        for piece in self._segmenter.cut(records.arrived, sizes):
            for start, stop in chunks(sizes, piece.start, piece.stop, BATCH_BYTES):
                self._process_batch(records.part(start, stop), behind_ms)
            if piece.closes:
                self._close(commits=self._schedule.due)

    def _process_batch(self, records: Records, behind_ms: int | None) -> None:
        dependencies, begun = self._dependencies, time.perf_counter()
        excluded = self._quarantine.excluded(records)
        with self._limit:
            result = process_without(
                records, dependencies.registry, self._state, dependencies.settings.max_record_bytes, excluded
            )
        busy_ms = (time.perf_counter() - begun) * 1_000
        self._reporter.check_code(result)
        self._open.add(records, result)
        self._reporter.report(self._shard, records, result, behind_ms, busy_ms)
        self._alert(records, result)
        dependencies.alerts.flush()

    def _alert(self, records: Records, result: Processed) -> None:
        for batch in result.passed.values():
            if "anomaly" in batch and batch["anomaly"].any():
                self._dependencies.alerts.add(self._shard, records, batch.take(batch["anomaly"]))

    def _trial(self, records: Records) -> Trial:
        dependencies = self._dependencies
        if dependencies.isolation is None:
            raise ValueError("nothing is quarantined without isolation")
        return ForkTrials(
            settings=dependencies.settings,
            registry=dependencies.registry,
            shard=self._shard,
            state=self._state,
            isolation=dependencies.isolation,
            excluded=self._quarantine.excluded,
            alert=self._alert,
            with_state=not self._schedule.large_state,
            limit=self._quarantine.limit,
        ).of(records)

    def _close_by_clock(self, checkpointer: Checkpointer) -> None:
        settings = self._dependencies.settings
        if self._segmenter.overdue(self._dependencies.now_ms(), settings.clock_margin_ms):
            self._segmenter.close()
            self._close(commits=True, by_clock=True)
            self._commit(
                checkpointer
            )  # at once: if the records are read again, the segment must end here too

    def _close(self, *, commits: bool, by_clock: bool = False) -> None:
        """Write the segment to the sinks, then its dead letters; take the snapshot while the state ends with it.

        A large snapshot is taken only if it will be committed. If the consumer shuts down before that, the segment is
        read again.
        """
        dependencies = self._dependencies
        opened, self._open = self._open, OpenSegment()
        segment = store(opened.closed(dependencies.settings, self._shard, by_clock), dependencies.sinks)
        if segment.failed:
            dependencies.park(segment)
        if commits or not self._schedule.large_state:
            with self._schedule.snapshotting():
                snapshot = self._state.snapshot()
            self._pending = _Pending(segment.last, snapshot, segment.records[-1].arrived)
            self._schedule.state_bytes = len(snapshot)
        self._pending_records += len(segment.records)
        dependencies.note("segment", segment=segment.name, records=len(segment.records))

    def _commit(self, checkpointer: Checkpointer) -> None:
        """Store the unsent alerts and the snapshot of the last closed segment, then make the checkpoint."""
        if self._pending is None:
            return
        (position, snapshot, arrived), dependencies = self._pending, self._dependencies
        name = token(position)
        dependencies.alerts.secure(position)
        with self._schedule.saving():
            dependencies.attempt("state", lambda: dependencies.snapshots.save(self._shard, name, snapshot))
        dependencies.attempt("checkpoint", lambda: checkpointer.checkpoint(position.sequence, position.sub))
        self._committed_at(name)
        self._quarantine.committed(arrived)

    def _committed_at(self, name: str) -> None:
        """Delete snapshots that no checkpoint needs. The one before stays, for a worker that lost its lease late."""
        self._pending = None
        self._schedule.committed()
        self._dependencies.note("checkpoint", checkpoint=name, records=self._pending_records)
        self._pending_records = 0
        if name not in self._committed:
            self._committed.append(name)
        while len(self._committed) > 2:
            forget = partial(self._dependencies.snapshots.forget, self._shard, self._committed.pop(0))
            self._dependencies.attempt("old state", forget)

    def lease_lost(self) -> None:
        """Stop: another worker reads the shard from its last checkpoint, and nothing may be committed here."""
        if not self._lost:
            self._dependencies.note("lease lost")
        self._lost = True
        self._open, self._pending = OpenSegment(), None
        self._quarantine.drop()

    def shard_ended(self, checkpointer: Checkpointer) -> None:
        """Close the open segment, store the state for the child shards, and commit the end of the shard."""
        if self._lost:
            return
        try:
            if self._quarantine.holding:
                self._process_all(Records.of(()), None, all_of=True)
            if self._segmenter.open:
                self._segmenter.close()
                self._close(commits=False)
            snapshot, dependencies = self._state.snapshot(), self._dependencies
            dependencies.alerts.secure(None)
            dependencies.attempt(
                "state", lambda: dependencies.snapshots.save(self._shard, SHARD_END, snapshot)
            )
            dependencies.attempt("checkpoint", lambda: checkpointer.checkpoint(None, None))
            self._committed_at(SHARD_END)
        except LeaseLostError:
            self.lease_lost()

    def shutdown_requested(self, checkpointer: Checkpointer) -> None:
        """Commit the closed segments. The open one stays open, because a shutdown must not decide where it ends."""
        if self._lost:
            return
        try:
            self._commit(checkpointer)
            self._dependencies.note("shutdown requested")
        except LeaseLostError:
            self.lease_lost()
