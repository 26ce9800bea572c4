"""One shard's consumer, and the order of its effects: sinks → dead letters → alerts → snapshot → checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from stream_app.aws.retry import Attempt
from stream_app.consumer.alerting.alerts import Alerts
from stream_app.consumer.batch_summary import of_batch
from stream_app.consumer.failing_code import FailingCode
from stream_app.consumer.forgetting import forget_after
from stream_app.consumer.open_segment import OpenSegment
from stream_app.consumer.protocol.multilang import Checkpointer
from stream_app.consumer.quarantine.inspection import Trial
from stream_app.consumer.quarantine.policy import Isolation, Quarantine
from stream_app.consumer.quarantine.trial import Trials
from stream_app.consumer.segments import Segmenter, chunks
from stream_app.consumer.snapshots import SHARD_END, Lineage, Snapshots, restore
from stream_app.errors import LeaseLostError
from stream_app.model.record import Position, Record
from stream_app.model.records import Records
from stream_app.model.segment import Segment, Sink, store, token
from stream_app.pipeline.exclusion import process_without
from stream_app.pipeline.flow import Processed
from stream_app.pipeline.readers.unpacked_size import unpacked_sizes
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.settings import Settings
from stream_app.telemetry import log
from stream_app.telemetry.summary import Summary

# The most bytes after decompression that are processed together. A read of Kinesis (10 MiB) and the records that were
# kept back before it are less, so only compressed records are ever divided.
BATCH_BYTES = 16 << 20
# A snapshot of so many bytes, compressed, takes some milliseconds, which every segment may cost.
_SMALL_STATE = 1_000_000
# A snapshot that takes longer is taken so much more seldom that no more than this share of the time goes into them.
_QUICK_MS, SNAPSHOT_SHARE = 100, 0.025


@dataclass(frozen=True, slots=True)
class ShardDependencies:
    """Everything outside that a shard's consumer touches; tests bring their own.

    `sinks` and `park` try again by themselves; `attempt` does so for the rest. Without `isolation` no record is
    quarantined.
    """

    registry: Registry
    settings: Settings
    sinks: Sequence[Sink]
    park: Callable[[Segment], None]
    alerts: Alerts
    snapshots: Snapshots
    lineage: Callable[[str], Lineage]
    attempt: Attempt
    report: Callable[[Summary], None]
    note: Callable[..., None]
    now_ms: Callable[[], int]
    isolation: Isolation | None = None


class ShardConsumer:
    """Answers KCL's actions for one shard (protocol `multilang.Handler`)."""

    def __init__(self, dependencies: ShardDependencies) -> None:
        self._world = dependencies
        settings = dependencies.settings
        limits = (settings.segment_records, settings.segment_bytes)
        self._segmenter = Segmenter(settings.segment_seconds, *limits)
        self._shard = ""
        self._state = self._new_state()
        self._open = OpenSegment()
        self._pending: tuple[Position, bytes, int] | None = None
        self._failing_code = FailingCode(settings.stop_after_failures)
        self._pending_records = 0
        self._state_bytes = 0
        self._snapshot_ms = 0.0
        self._committed: list[str] = []
        self._committed_at = dependencies.now_ms()
        self._forgotten = 0
        self._lost = False
        self._reading = False
        self._quarantine = Quarantine(
            dependencies.isolation.store if dependencies.isolation is not None else None,
            settings,
            attempt=dependencies.attempt,
            note=dependencies.note,
            now_ms=dependencies.now_ms,
        )
        self._limit: AbstractContextManager[None] = nullcontext()

    def limit_batches(self, limit: AbstractContextManager[None], *, warm: bool) -> None:
        """Process each batch within `limit`. `warm` tells that what is loaded at first use was loaded before."""
        self._limit, self._quarantine.warm = limit, warm

    @property
    def dependencies(self) -> ShardDependencies:
        """What it was made with: another consumer of the same may be made."""
        return self._world

    @property
    def registry(self) -> Registry:
        """The event types that it knows."""
        return self._world.registry

    def _new_state(self) -> ShardState:
        events = {name: codec.event for name, codec in self._world.registry.codecs.items()}
        settings = self._world.settings
        return ShardState(events, settings.seen_ids, forget_after(settings, events.values()))

    def initialize(self, shard: str, sequence: str | None, sub: int | None) -> None:
        """Load the state that belongs to the checkpoint. Raises FatalError when it is not to be had."""
        dependencies = self._world
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
        self._committed = (
            [source] if source[:1].isdigit() else []
        )  # a checkpoint of this shard, not inherited
        self._quarantine.load(shard, token(Position(shard, sequence or "", sub or 0)))
        inherited = not self._committed and source != "fresh"
        dependencies.alerts.start(shard, source.split("+") if inherited else ())
        dependencies.note("initialized", checkpoint=sequence, state=source)

    def process(self, records: Sequence[Record], behind_ms: int | None, checkpointer: Checkpointer) -> None:
        """Process records as they come; close the segments that they end; commit when it is time.

        Raises ConfigError where a user's code fails on as many records as `stop_after_failures` says.
        """
        if self._lost:
            return
        if not self._reading:
            self._reading = True
            self._world.note("reading")  # KCL begins to read up to two seconds after it initialized
        try:
            self._take_all(Records.of(records), behind_ms)
            self._world.alerts.flush()
            if not records and behind_ms == 0 and not self._quarantine.holding:
                self._close_by_clock(checkpointer)
            # A large snapshot is there only because it was due: that it took long is for the next one.
            if self._due() or self._state_bytes > _SMALL_STATE:
                self._commit(checkpointer)
        except LeaseLostError:
            self.lease_lost()

    def _take_all(self, records: Records, behind_ms: int | None, *, all_of: bool = False) -> None:
        for part in self._quarantine.parts(records, self._trial, all_of=all_of):
            self._take(part, behind_ms)

    def _trial(self, records: Records) -> Trial:
        dependencies = self._world
        if dependencies.isolation is None:
            raise ValueError("nothing is quarantined without isolation")
        return Trials(
            settings=dependencies.settings,
            registry=dependencies.registry,
            shard=self._shard,
            state=self._state,
            isolation=dependencies.isolation,
            excluded=self._quarantine.excluded,
            alert=self._alert,
            with_state=self._state_bytes <= _SMALL_STATE,
            limit=self._quarantine.limit,
        ).of(records)

    def _alert(self, records: Records, result: Processed) -> None:
        for batch in result.passed.values():
            if "anomaly" in batch and batch["anomaly"].any():
                self._world.alerts.add(self._shard, records, batch.take(batch["anomaly"]))

    def _take(self, records: Records, behind_ms: int | None) -> None:
        sizes = unpacked_sizes(records.payloads, self._world.settings.max_record_bytes)
        for piece in self._segmenter.cut(records.arrived, sizes):
            for start, stop in chunks(sizes, piece.start, piece.stop, BATCH_BYTES):
                self._process(records.part(start, stop), behind_ms)
            if piece.closes:
                self._close(commits=self._due())

    def _due(self) -> bool:
        """By the clock; where devices are so many that a snapshot takes long, when it will have been worth it."""
        waited = self._world.now_ms() - self._committed_at
        enough = self._snapshot_ms / SNAPSHOT_SHARE if self._snapshot_ms > _QUICK_MS else 0
        return waited >= max(self._world.settings.checkpoint_seconds * 1_000, enough)

    def _process(self, records: Records, behind_ms: int | None) -> None:
        dependencies, begun = self._world, time.perf_counter()
        excluded = self._quarantine.excluded(records)
        with self._limit:
            result = process_without(
                records, dependencies.registry, self._state, dependencies.settings.max_record_bytes, excluded
            )
        busy_ms = (time.perf_counter() - begun) * 1_000
        for failing in self._failing_code.take(result):
            dependencies.note(
                "every record fails at one line", level="warning", event_type=failing.event, **failing.told()
            )
        self._open.add(records, result)
        self._report(records, result, behind_ms, busy_ms)
        self._alert(records, result)
        dependencies.alerts.flush()

    def _close_by_clock(self, checkpointer: Checkpointer) -> None:
        if self._segmenter.overdue(self._world.now_ms(), self._world.settings.clock_margin_ms):
            self._segmenter.close()
            self._close(commits=True, by_clock=True)
            self._commit(checkpointer)  # at once: another reading must not find its end elsewhere

    def _close(self, *, commits: bool, by_clock: bool = False) -> None:
        """Sinks, then dead letters; the snapshot is taken now, while the state ends where the segment does.

        A large one is taken only where it will be committed: a shutdown before that has the segment read again.
        """
        opened, self._open = self._open, OpenSegment()
        segment = store(opened.closed(self._world.settings, self._shard, by_clock), self._world.sinks)
        if segment.failed:
            self._world.park(segment)
        if commits or self._state_bytes <= _SMALL_STATE:
            begun = time.thread_time()
            snapshot = self._state.snapshot()
            self._snapshot_ms = (time.thread_time() - begun) * 1_000
            self._pending = segment.last, snapshot, segment.records[-1].arrived
            self._state_bytes = len(snapshot)
        self._pending_records += len(segment.records)
        self._world.note("segment", segment=segment.name, records=len(segment.records))

    def _commit(self, checkpointer: Checkpointer) -> None:
        if self._pending is None:
            return
        (position, snapshot, arrived), dependencies = self._pending, self._world
        name = token(position)
        dependencies.alerts.secure(position)
        begun = time.thread_time()
        dependencies.attempt("state", lambda: dependencies.snapshots.save(self._shard, name, snapshot))
        self._snapshot_ms += (time.thread_time() - begun) * 1_000
        dependencies.attempt("checkpoint", lambda: checkpointer.checkpoint(position.sequence, position.sub))
        self._done(name)
        self._quarantine.committed(arrived)

    def _done(self, name: str) -> None:
        """After a commit: what no checkpoint can ask for any more may go. One before stays, for a late worker."""
        self._pending = None
        self._committed_at = self._world.now_ms()
        self._world.note("checkpoint", checkpoint=name, records=self._pending_records)
        self._pending_records = 0
        if name not in self._committed:
            self._committed.append(name)
        while len(self._committed) > 2:
            forget = partial(self._world.snapshots.forget, self._shard, self._committed.pop(0))
            self._world.attempt("old state", forget)

    def lease_lost(self) -> None:
        """Another worker reads the shard from its last checkpoint: nothing here may be committed."""
        if not self._lost:
            self._world.note("lease lost")
        self._lost = True
        self._open, self._pending = OpenSegment(), None
        self._quarantine.drop()

    def shard_ended(self, checkpointer: Checkpointer) -> None:
        """Close what is open, keep the state for the children, commit the end."""
        if self._lost:
            return
        try:
            if self._quarantine.holding:
                self._take_all(Records.of(()), None, all_of=True)
            if self._segmenter.open:
                self._segmenter.close()
                self._close(commits=False)
            snapshot, dependencies = self._state.snapshot(), self._world
            dependencies.alerts.secure(None)
            dependencies.attempt(
                "state", lambda: dependencies.snapshots.save(self._shard, SHARD_END, snapshot)
            )
            dependencies.attempt("checkpoint", lambda: checkpointer.checkpoint(None, None))
            self._done(SHARD_END)
        except LeaseLostError:
            self.lease_lost()

    def shutdown_requested(self, checkpointer: Checkpointer) -> None:
        """Commit closed segments. The open one stays open: where it ends is not for a shutdown to say."""
        if self._lost:
            return
        try:
            self._commit(checkpointer)
            self._world.note("shutdown requested")
        except LeaseLostError:
            self.lease_lost()

    def _report(
        self, records: Sequence[Record], result: Processed, behind_ms: int | None, busy_ms: float
    ) -> None:
        """A metric that fails does not stop the shard."""
        try:
            self._world.report(self._summary(records, result, behind_ms, busy_ms))
        except Exception as error:
            self._world.note("report failed", error=repr(error), records=len(records))

    def _summary(
        self, records: Sequence[Record], result: Processed, behind_ms: int | None, busy_ms: float
    ) -> Summary:
        forgotten, self._forgotten = self._state.forgotten - self._forgotten, self._state.forgotten
        counted = of_batch(self._shard, len(records), result, self._world.registry, self._world.now_ms())
        return replace(
            counted,
            alerts_waiting=self._world.alerts.waiting,
            alerts_dropped=self._world.alerts.dropped,
            devices=self._state.devices,
            forgotten=forgotten,
            behind_ms=behind_ms,
            busy_ms=busy_ms,
            failing_at_one_line=self._failing_code.records(),
        )
