"""What became of one batch, counted."""

from __future__ import annotations

from collections import Counter

import numpy as np

from stream_app.pipeline.flow import Processed
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.score import unscored
from stream_app.telemetry.histogram import Histogram
from stream_app.telemetry.summary import Summary, by_code


def of_batch(shard: str, records: int, result: Processed, registry: Registry, now_ms: int) -> Summary:
    """Return what the result alone tells. The latency runs from the time at which devices sent until `now_ms`."""
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
