"""Collects the progress of a run from the daemon's log lines: ready shards, processed records and latency."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from stream_app.daemon.log import Line
from stream_app.telemetry.histogram import Histogram


@dataclass
class Tracker:
    """Counts work done according to the log. Records that are processed again after a crash are counted again."""

    started: float = field(default_factory=time.monotonic)
    ready: dict[str, float] = field(default_factory=dict)
    records: int = 0
    passed: int = 0
    repeated: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    anomalies: int = 0
    segments: int = 0
    committed: int = 0
    busy_ms: float = 0.0
    latency: Histogram = field(default_factory=Histogram)
    behind: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def line(self, line: Line) -> None:
        """Process one log line."""
        handler = _HANDLERS.get(str(line.get("event")))
        with self._lock:
            if handler is not None:
                handler(self, line)
            elif line.get("level") in ("error", "critical") and line.get("source") == "app":
                self.errors = [*self.errors[-9:], str(line.get("event"))]

    def ready_s(self, shards: int) -> float | None:
        """Return the seconds from the start until that many shards were being read; None if they are not yet."""
        times = sorted(self.ready.values())
        return times[shards - 1] - self.started if len(times) >= shards else None


def _reading(tracker: Tracker, line: Line) -> None:
    tracker.ready.setdefault(str(line["shard"]), time.monotonic())


def _batch(tracker: Tracker, line: Line) -> None:
    tracker.records += line["records"]
    tracker.passed += line["passed"]
    tracker.repeated += line["repeated"]
    tracker.failed.update(line["failed"])
    tracker.anomalies += line["anomalies"]
    tracker.busy_ms += line["busy_ms"]
    tracker.behind[str(line["shard"])] = line["behind_ms"] or 0
    tracker.latency.merge({int(bucket): count for bucket, count in line["latency"].items()})


def _segment(tracker: Tracker, _line: Line) -> None:
    tracker.segments += 1


def _checkpoint(tracker: Tracker, line: Line) -> None:
    tracker.committed += line["records"]


_HANDLERS = {"reading": _reading, "batch": _batch, "segment": _segment, "checkpoint": _checkpoint}
