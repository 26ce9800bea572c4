"""What is to be paid for: how much comes in, and the settings that decide what is made of it."""

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
    """A month's load and settings. Rates are averages a second; `size` is a record's bytes on the stream.

    `shards` 0 means as many as it takes. `failed` and `alerts` are shares of the records. `parquet_bytes` is what
    a record takes in a segment, `per_core` how many records a second one core processes.
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
        """Enough for 1,000 records and 1 MiB a second each, with headroom."""
        share = 1.0 + self.headroom
        by_records = self.records_per_s * share / 1_000
        by_bytes = self.records_per_s * self.size * share / MIB
        return max(1, ceil(by_records), ceil(by_bytes))

    def shards_of(self, mode: str) -> int:
        """The shards of the stream; an on-demand one keeps room for twice the load, and has at least four."""
        if self.shards:
            return self.shards
        needed = self.needed_shards()
        return needed if mode == PROVISIONED else max(_LEAST_ON_DEMAND, 2 * needed)

    def tasks_of(self) -> int:
        """Tasks that keep half of each core free, at least two: one more than is needed to lose one."""
        return self.tasks or max(2, ceil(self.records_per_s / (self.per_core * self.task_vcpu * 0.5)))

    def segments_per_s(self, mode: str) -> float:
        """Segments that all shards close in a second: by time, by records, by bytes, never an empty one."""
        shards = self.shards_of(mode)
        each = self.records_per_s / shards
        full = max(each / self.segment_records, each * self.size / self.segment_bytes)
        return shards * min(each, max(1 / self.segment_seconds, full))

    def commits_per_s(self, mode: str) -> float:
        """Checkpoints of all shards a second: each needs a closed segment."""
        return min(self.segments_per_s(mode), self.shards_of(mode) / self.checkpoint_seconds)


def with_settings(load: Load, settings: Settings, properties: Mapping[str, str]) -> Load:
    """The load with what the settings file says. Raises ConfigError on a number or level that is none."""
    return replace(
        load,
        segment_seconds=settings.segment_seconds,
        segment_records=settings.segment_records,
        segment_bytes=settings.segment_bytes,
        checkpoint_seconds=settings.checkpoint_seconds,
        latest=bool(settings.latest_table),
        metrics_level=properties.get("metricsLevel", "DETAILED").upper(),  # KCL's own default
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
        raise ConfigError([Problem(f"{name} = {text!r} is no such number", hint)])
    return int(text)


def find_problems(load: Load) -> list[Problem]:
    """Everything about a load that could not be."""
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
        found.append(Problem(f"metricsLevel {load.metrics_level!r}", f"one of {', '.join(LEVELS)}"))
    if load.shards and load.shards < load.needed_shards():
        hint = f"1,000 records and 1 MiB a second each: give at least {load.needed_shards()}, or 0"
        found.append(Problem(f"{load.shards} shards cannot take the load", hint))
    return found
