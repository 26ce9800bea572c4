"""One Summary value per batch; logs and metrics are renderings of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of one batch. Times in milliseconds; `latency` is a Histogram's counts, device to processed.

    `unscored` rows are those on which the detector raised. `alerts_waiting` were not accepted by the bus yet, before
    those of this batch; `alerts_dropped` were lost since the consumer started. `devices` are those that the shard's
    state holds after the batch, `forgotten` those that it forgot during it. `failing_at_one_line` tells, by event
    type, how many records up to now failed in succession at one line of a user's code, where these are many.
    """

    shard: str
    records: int
    stored: int
    repeated: int
    failed: Mapping[str, int]
    anomalies: int
    behind_ms: int | None
    busy_ms: float
    latency: Mapping[int, int] = field(default_factory=dict)
    unscored: int = 0
    alerts_waiting: int = 0
    alerts_dropped: int = 0
    devices: int = 0
    forgotten: int = 0
    failing_at_one_line: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Built-in types, for a log line."""
        return {
            "event": "batch",
            "shard": self.shard,
            "records": self.records,
            "passed": self.stored,
            "repeated": self.repeated,
            "failed": dict(self.failed),
            "anomalies": self.anomalies,
            "unscored": self.unscored,
            "alerts_waiting": self.alerts_waiting,
            "alerts_dropped": self.alerts_dropped,
            "devices": self.devices,
            "forgotten": self.forgotten,
            "failing_at_one_line": dict(self.failing_at_one_line),
            "behind_ms": self.behind_ms,
            "busy_ms": round(self.busy_ms, 3),
            "latency": {str(bucket): count for bucket, count in self.latency.items()},
        }


def by_code(codes: Counter[Any]) -> dict[str, int]:
    """Counts by code name, sorted."""
    return {str(code): count for code, count in sorted(codes.items())}
