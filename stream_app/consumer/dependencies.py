"""The external dependencies of a shard's consumer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stream_app.aws.retry import Attempt
from stream_app.consumer.alerting.alerts import Alerts
from stream_app.consumer.quarantine.policy import Isolation
from stream_app.consumer.snapshots import Lineage, Snapshots
from stream_app.model.segment import Segment, Sink
from stream_app.pipeline.registry import Registry
from stream_app.settings import Settings
from stream_app.telemetry.summary import Summary


@dataclass(frozen=True, slots=True)
class ShardDependencies:
    """Everything outside the process that a shard's consumer uses; tests replace it.

    `sinks` and `park`, which sends the dead letters of a segment, retry by themselves; `attempt` retries the other
    requests. `report` publishes metrics, `note` writes a log event, and `now_ms` is the clock in milliseconds since
    the epoch. Without `isolation` no record is quarantined.
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
