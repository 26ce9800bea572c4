"""What a disposable fork does with records: all that a shard does with them, but no request and no effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from stream_app.consumer.quarantine.inspection import PROCESS, SINK, SNAPSHOT, STARTING, Progress, Trial
from stream_app.consumer.quarantine.policy import Isolation
from stream_app.disposable_fork import ForkResult, Limit, Report
from stream_app.model.record import Batch, Failure
from stream_app.model.record_metadata import RecordMetadata
from stream_app.model.records import Records
from stream_app.model.segment import Segment
from stream_app.pipeline.decode import decode
from stream_app.pipeline.exclusion import process_without
from stream_app.pipeline.flow import Processed
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.settings import Settings
from stream_app.sinks.columns import without_helpers


@dataclass(frozen=True, slots=True)
class Trials:
    """The shard as it is before the records of a trial: its state is copied by the fork, never changed here.

    `alert` queues alerts of a batch without sending them. `with_state` tells whether the state is small enough to be
    saved in each trial.
    """

    settings: Settings
    registry: Registry
    shard: str
    state: ShardState
    isolation: Isolation
    excluded: Callable[[Records], Mapping[int, Failure]]
    alert: Callable[[Records, Processed], None]
    with_state: bool
    limit: Limit

    def of(self, records: Records) -> Trial:
        """The trial of these records."""

        def trial(cuts: Sequence[int], snapshots: bool) -> ForkResult:
            return self.isolation.fork(lambda tell: self._work(records, cuts, snapshots, tell), self._limit)

        return trial

    def _limit(self, report: str) -> Limit:
        """The time until the next report. A snapshot may take long where devices are many."""
        snapshot = bool(report) and Progress.of([report]).stage == SNAPSHOT
        return Limit(self.limit.waiting, self.limit.waiting) if snapshot else self.limit

    def _work(self, records: Records, cuts: Sequence[int], snapshots: bool, tell: Report) -> None:
        if snapshots:
            Progress(STARTING, SNAPSHOT).tell(tell)
            self.state.snapshot()
        Progress(0).tell(tell)
        for start, stop in zip([0, *cuts], cuts, strict=False):
            part = records.part(start, stop)
            event, schema = self._event(part) if len(part) == 1 else (None, None)
            Progress(start, PROCESS, event, schema).tell(tell)
            result = self._processed(part)
            Progress(start, SINK, event, schema).tell(tell)
            self.alert(part, result)
            self.isolation.build(self._segment(part, result))
            if snapshots:
                Progress(start, SNAPSHOT, event, schema).tell(tell)
                self.state.snapshot()
            Progress(stop).tell(tell)
        if self.with_state and not snapshots:
            Progress(len(records), SNAPSHOT).tell(tell)
            self.state.snapshot()

    def _processed(self, records: Records) -> Processed:
        most = self.settings.max_record_bytes
        return process_without(records, self.registry, self.state, most, self.excluded(records))

    def _event(self, records: Records) -> tuple[str | None, str | None]:
        """The event type of a record, and its schema, where it can be decoded."""
        with suppress(Exception):
            for event in decode(records.payloads, self.registry, self.settings.max_record_bytes)[0]:
                return event, self.registry.codecs[event].schema.fingerprint
        return None, None

    def _segment(self, records: Records, result: Processed) -> Segment:
        passed: dict[str, Batch] = {name: without_helpers(batch) for name, batch in result.passed.items()}
        names = self.settings.application, self.settings.stream, self.shard
        return Segment(*names, RecordMetadata(records), passed, result.failed, result.repeated)
