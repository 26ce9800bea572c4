"""Cost drivers: the change of the cost if a single setting is halved or doubled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from stream_app.costs.bill import bill, total
from stream_app.costs.load import LEVELS, MODES, ON_DEMAND, PROVISIONED, Load
from stream_app.costs.prices import Prices

REMARKS = (
    (
        "Traffic between the tasks and S3 or DynamoDB in the same region is free through gateway endpoints; "
        "interface endpoints for Kinesis, SQS, EventBridge and CloudWatch, and a NAT gateway, cost "
        "by hour, zone and GB."
    ),
    (
        "Not included: KMS requests, Firehose and Delta sinks, FIFO queues of ordered devices, enhanced fan-out, "
        "On-demand Advantage, alarms, and reading stored data."
    ),
)

_SHARDS = "shards (provisioned)"


class Change(NamedTuple):
    """The change of the cost with another value of one setting, in dollars per month by mode."""

    setting: str
    now: str
    other: str
    dollars: dict[str, float]


def changes(load: Load, prices: Prices) -> list[Change]:
    """Return all changes, those with the largest effect first."""
    now = {mode: total(bill(load, prices, mode)) for mode in MODES}
    found = []
    for setting, before, after, other in _others(load):
        by_mode = {mode: total(bill(other, prices, mode)) - now[mode] for mode in MODES}
        if setting == _SHARDS:
            by_mode[ON_DEMAND] = 0.0  # AWS decides in this mode
        found.append(Change(setting, before, after, by_mode))
    return sorted(found, key=lambda change: -max(map(abs, change.dollars.values())))


def _others(load: Load) -> Iterator[tuple[str, str, str, Load]]:
    for factor in (0.5, 2.0):
        for name in ("segment_seconds", "checkpoint_seconds"):
            value = max(1, round(getattr(load, name) * factor))
            yield f"app.{name}", str(getattr(load, name)), str(value), replace(load, **{name: value})
        failover = max(1, round(load.failover_ms * factor))
        yield (
            "failoverTimeMillis",
            str(load.failover_ms),
            str(failover),
            replace(load, failover_ms=failover),
        )
        hours = max(24, round(load.retention_hours * factor))
        if hours != load.retention_hours:
            other = replace(load, retention_hours=hours)
            yield "StreamRetentionHours", str(load.retention_hours), str(hours), other
    shards = load.shards_of(PROVISIONED)
    yield _SHARDS, str(shards), str(2 * shards), replace(load, shards=2 * shards)
    for level in LEVELS:
        if level != load.metrics_level:
            yield "metricsLevel", load.metrics_level, level, replace(load, metrics_level=level)
    if load.through_bus:
        yield "route of the devices", "bus", "directly to the stream", replace(load, through_bus=False)
