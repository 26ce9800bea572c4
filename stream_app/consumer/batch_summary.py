"""Counts the outcomes of a batch and publishes them as metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stream_app.consumer.dependencies import ShardDependencies
from stream_app.consumer.failing_code import FailingCode
from stream_app.model.record import Record
from stream_app.pipeline.flow import Processed
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.score import unscored
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.telemetry.histogram import Histogram
from stream_app.telemetry.summary import Summary, by_code


class BatchReporter:
    """Publishes one summary for each batch of a shard, and reports lines of a user's code that always fail."""

    def __init__(self, dependencies: ShardDependencies, state: ShardState) -> None:
        self._dependencies, self._state = dependencies, state
        self._failing_code = FailingCode(dependencies.settings.stop_after_failures)
        self._forgotten = 0

    def check_code(self, result: Processed) -> None:
        """Log each line of a user's code at which every record fails.

        Raises ConfigError after the number of failures that `app.stop_after_failures` gives.
        """
        for failing in self._failing_code.take(result):
            self._dependencies.note(
                "every record fails at one line",
                level="warning",
                event_type=failing.event,
                **failing.log_fields(),
            )

    def report(
        self,
        shard: str,
        records: Sequence[Record],
        result: Processed,
        behind_ms: int | None,
        busy_ms: float,
    ) -> None:
        """Publish the summary of a batch. An error is logged: metrics must not stop the shard."""
        try:
            self._dependencies.report(self._summary(shard, len(records), result, behind_ms, busy_ms))
        except Exception as error:
            self._dependencies.note("report failed", error=repr(error), records=len(records))

    def _summary(
        self, shard: str, records: int, result: Processed, behind_ms: int | None, busy_ms: float
    ) -> Summary:
        forgotten, self._forgotten = self._state.forgotten - self._forgotten, self._state.forgotten
        counts = of_batch(shard, records, result, self._dependencies.registry, self._dependencies.now_ms())
        return replace(
            counts,
            alerts_waiting=self._dependencies.alerts.waiting,
            alerts_dropped=self._dependencies.alerts.dropped,
            devices=self._state.devices,
            forgotten=forgotten,
            behind_ms=behind_ms,
            busy_ms=busy_ms,
            failing_at_one_line=self._failing_code.records(),
        )


def of_batch(shard: str, records: int, result: Processed, registry: Registry, now_ms: int) -> Summary:
    """Return the counts of a result, and the latency from the devices' sending times to `now_ms`."""
    latency = Histogram()
    for name, batch in result.passed.items():
        sent = registry.codecs[name].event.sent
        if sent is not None:
            times = batch[sent][~np.isnat(batch[sent])].astype("datetime64[ms]").view(np.int64)
            latency.add(now_ms - times)
    return Summary(
        shard=shard,
        records=records,
        stored=sum(len(batch) for batch in result.passed.values()),
        repeated=len(result.repeated),
        failed=by_code(Counter(failure.code for failure in result.failed)),
        anomalies=sum(int(b["anomaly"].sum()) for b in result.passed.values() if "anomaly" in b),
        unscored=sum(map(unscored, result.passed.values())),
        behind_ms=None,
        busy_ms=0.0,
        latency=latency.counts,
    )
