"""The work of a disposable fork: it processes records as a shard does, but without requests or other effects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from stream_app.consumer.quarantine.inspection import PROCESS, SINK, SNAPSHOT, STARTING, Progress, Trial
from stream_app.consumer.quarantine.policy import Isolation
from stream_app.model.record import Batch, Failure
from stream_app.model.record_metadata import RecordMetadata
from stream_app.model.records import Records
from stream_app.model.segment import Segment
from stream_app.pipeline.decode import decode
from stream_app.pipeline.exclusion import process_without
from stream_app.pipeline.flow import Processed
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.processes.disposable_fork import ForkResult, Limit, Report
from stream_app.settings import Settings
from stream_app.sinks.columns import without_helpers


@dataclass(frozen=True, slots=True)
class ForkTrials:
    """Creates trials of records for a shard. The fork changes its own copy of the state.

    `alert` queues the alerts of a batch without sending them. `with_state`: the state is small enough to make a
    snapshot in each trial.
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
        """Return the trial of these records."""

        def trial(cuts: Sequence[int], snapshots: bool) -> ForkResult:
            return self.isolation.fork(
                lambda report: self._work(records, cuts, snapshots, report), self._limit
            )

        return trial

    def _limit(self, report: str) -> Limit:
        """Return the time limit until the next report; a snapshot of many devices may take longer."""
        snapshot = bool(report) and Progress.of([report]).stage == SNAPSHOT
        return Limit(self.limit.waiting, self.limit.waiting) if snapshot else self.limit

    def _work(self, records: Records, cuts: Sequence[int], snapshots: bool, report: Report) -> None:
        if snapshots:
            Progress(STARTING, SNAPSHOT).send(report)
            self.state.snapshot()
        Progress(0).send(report)
        for start, stop in zip([0, *cuts], cuts, strict=False):
            part = records.part(start, stop)
            event, schema = self._event(part) if len(part) == 1 else (None, None)
            Progress(start, PROCESS, event, schema).send(report)
            result = self._processed(part)
            Progress(start, SINK, event, schema).send(report)
            self.alert(part, result)
            self.isolation.build(self._segment(part, result))
            if snapshots:
                Progress(start, SNAPSHOT, event, schema).send(report)
                self.state.snapshot()
            Progress(stop).send(report)
        if self.with_state and not snapshots:
            Progress(len(records), SNAPSHOT).send(report)
            self.state.snapshot()

    def _processed(self, records: Records) -> Processed:
        max_bytes = self.settings.max_record_bytes
        return process_without(records, self.registry, self.state, max_bytes, self.excluded(records))

    def _event(self, records: Records) -> tuple[str | None, str | None]:
        """Return the event type and the schema fingerprint of a record; None for both if it cannot be decoded."""
        with suppress(Exception):
            for event in decode(records.payloads, self.registry, self.settings.max_record_bytes)[0]:
                return event, self.registry.codecs[event].schema.fingerprint
        return None, None

    def _segment(self, records: Records, result: Processed) -> Segment:
        passed: dict[str, Batch] = {name: without_helpers(batch) for name, batch in result.passed.items()}
        names = self.settings.application, self.settings.stream, self.shard
        return Segment(*names, RecordMetadata(records), passed, result.failed, result.repeated)
