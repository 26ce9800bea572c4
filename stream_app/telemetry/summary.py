"""The summary of a batch, which is logged and from which metrics are derived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Summary:
    """Outcome and duration of one batch; times are in milliseconds.

    latency              Histogram counts of the time from device to processed
    unscored             rows on which the detector raised
    alerts_waiting       earlier alerts that the event bus has not accepted yet
    alerts_dropped       alerts lost since the consumer started
    devices              devices in the state of the shard after the batch
    forgotten            devices removed from the state during the batch
    failing_at_one_line  by event type, the number of consecutive records up to now that failed at one line of user
                         code, if it is large
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

    def to_json(self) -> dict[str, Any]:  # keyword arguments of a log call
        """Return the fields of a log line as JSON values."""
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


def by_code(codes: Counter[str]) -> dict[str, int]:
    """Return counts by code, sorted."""
    return {str(code): count for code, count in sorted(codes.items())}
