"""The load to be paid for: incoming records, and the settings that determine their cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, inf

from stream_app.errors import ConfigError, Problem
from stream_app.settings import Settings

KIB, MIB, GIB = 1_024, 1_048_576, 1_073_741_824
ON_DEMAND, PROVISIONED = "on-demand", "provisioned"
MODES = (ON_DEMAND, PROVISIONED)
LEVELS = ("NONE", "SUMMARY", "DETAILED")
_LARGEST = 10 * MIB
_YEAR_HOURS = 8_760
_LEAST_ON_DEMAND = 4  # shards of a new on-demand stream


@dataclass(frozen=True, slots=True)
class Load:
    """Load and settings of a month.

    Rates are averages per second. `size` is the size of a record on the stream in bytes, `parquet_bytes` its size in
    a segment. `shards` and `tasks` 0 mean the number needed. `failed` and `alerts` are shares of the records.
    `per_core` is the number of records that one core processes per second.
    """

    records_per_s: float
    size: float
    shards: int = 0
    headroom: float = 0.25
    retention_hours: int = 168
    archive_days: int = 90
    storage_days: int = 30
    through_bus: bool = True
    consumers: int = 1
    devices: int = 1_000
    failed: float = 0.001
    alerts: float = 0.0005
    parquet_bytes: float = 45.0
    segment_seconds: int = 60
    segment_records: int = 50_000
    segment_bytes: int = 64 * MIB
    checkpoint_seconds: int = 60
    latest: bool = False
    metrics_level: str = "SUMMARY"
    metrics_buffer_ms: int = 60_000
    failover_ms: int = 10_000
    idle_ms: int = 500
    per_core: float = 80_000.0
    tasks: int = 0
    task_vcpu: float = 1.0
    task_gb: float = 2.0

    def needed_shards(self) -> int:
        """Return the number of shards for 1,000 records and 1 MiB per second each, with headroom."""
        share = 1.0 + self.headroom
        by_records = self.records_per_s * share / 1_000
        by_bytes = self.records_per_s * self.size * share / MIB
        return max(1, ceil(by_records), ceil(by_bytes))

    def shards_of(self, mode: str) -> int:
        """Return the shards of the stream; on-demand mode provides twice the load, and at least four shards."""
        if self.shards:
            return self.shards
        needed = self.needed_shards()
        return needed if mode == PROVISIONED else max(_LEAST_ON_DEMAND, 2 * needed)

    def tasks_of(self) -> int:
        """Return the number of tasks with half of each core free; at least two, so that one may fail."""
        return self.tasks or max(2, ceil(self.records_per_s / (self.per_core * self.task_vcpu * 0.5)))

    def segments_per_s(self, mode: str) -> float:
        """Return the segments closed by all shards per second, limited by time, records and bytes; none is empty."""
        shards = self.shards_of(mode)
        each = self.records_per_s / shards
        full = max(each / self.segment_records, each * self.size / self.segment_bytes)
        return shards * min(each, max(1 / self.segment_seconds, full))

    def commits_per_s(self, mode: str) -> float:
        """Return the checkpoints of all shards per second; each needs a closed segment."""
        return min(self.segments_per_s(mode), self.shards_of(mode) / self.checkpoint_seconds)


def with_settings(load: Load, settings: Settings, properties: Mapping[str, str]) -> Load:
    """Apply the settings file to a load. Raises ConfigError for invalid numbers."""
    return replace(
        load,
        segment_seconds=settings.segment_seconds,
        segment_records=settings.segment_records,
        segment_bytes=settings.segment_bytes,
        checkpoint_seconds=settings.checkpoint_seconds,
        latest=bool(settings.latest_table),
        metrics_level=properties.get("metricsLevel", "DETAILED").upper(),  # the default of KCL
        metrics_buffer_ms=_milliseconds(properties, "metricsBufferTimeMillis", load.metrics_buffer_ms),
        failover_ms=_milliseconds(properties, "failoverTimeMillis", load.failover_ms),
        idle_ms=_milliseconds(properties, "idleTimeBetweenReadsInMillis", load.idle_ms),
    )


def _milliseconds(properties: Mapping[str, str], name: str, usual: int) -> int:
    text = properties.get(name)
    if text is None:
        return usual
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        hint = "give a whole number of milliseconds above 0"
        raise ConfigError([Problem(f"invalid value {name} = {text!r}", hint)])
    return int(text)


def find_problems(load: Load) -> list[Problem]:
    """Return all problems of a load."""
    bounds: tuple[tuple[str, float, float, float], ...] = (
        ("--records-per-s", load.records_per_s, 0.001, 1e9),
        ("--bytes", load.size, 1, _LARGEST),
        ("--shards", load.shards, 0, 1e6),
        ("--retention-hours", load.retention_hours, 24, _YEAR_HOURS),
        ("--failed", load.failed, 0, 1),
        ("--alerts", load.alerts, 0, 1),
        ("--devices", load.devices, 1, 1e12),
        ("--consumers", load.consumers, 1, 20),
        ("--per-core", load.per_core, 1, 1e9),
        ("--tasks", load.tasks, 0, 1e6),
        ("--archive-days", load.archive_days, 0, inf),
        ("--storage-days", load.storage_days, 0, inf),
    )
    found = [
        Problem(f"{name} {value:g} is out of range", f"give at least {low:g}, at most {high:,.0f}")
        for name, value, low, high in bounds
        if not low <= value <= high
    ]
    if load.metrics_level not in LEVELS:
        hint = f"give one of {', '.join(LEVELS)}"
        found.append(Problem(f"unknown metricsLevel {load.metrics_level!r}", hint))
    if load.shards and load.shards < load.needed_shards():
        hint = (
            f"a shard accepts 1,000 records and 1 MiB per second: give at least {load.needed_shards()}, or 0"
        )
        found.append(Problem(f"{load.shards} shards are too few for the load", hint))
    return found
