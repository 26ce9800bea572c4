"""The monthly cost of a load by line item, with the units and rules of the public AWS pricing pages."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

from stream_app.costs.load import GIB, KIB, ON_DEMAND, Load
from stream_app.costs.prices import Prices

HOURS = 730  # of a month, as on the AWS pricing pages
SECONDS = HOURS * 3_600
_CHUNK = 64 * KIB
_PUT_UNIT = 25 * KIB
_BATCH = 10  # messages of an SQS request and of a pipe
_WEEK, _DAY = 168, 24
# Approximate number of KCL metrics by level, per worker and per shard; some are sent only on certain events.
KCL_METRICS = {"NONE": (0, 0), "SUMMARY": (10, 5), "DETAILED": (26, 14)}
_DATUMS = 200  # of one PutMetricData request of KCL
_LOG_LINE = 450  # bytes of the log line of a batch
_STATE_BYTES = 3_200  # of a device in a compressed snapshot (air_quality)
_LAMBDA_GB, _LAMBDA_SECONDS = 1.0, 0.5


class Line(NamedTuple):
    """One line item: a quantity in units of a price."""

    service: str
    what: str
    price: str
    quantity: float
    dollars: float


def bill(load: Load, prices: Prices, mode: str) -> list[Line]:
    """Return all line items, in the order of the data flow."""
    lines: list[Line] = []
    for part in (_ingest, _stream, _leases, _storage, _latest, _observing, _functions, _tasks):
        for service, what, price, quantity in part(load, mode):
            lines.append(Line(service, what, price, quantity, prices[price].of(quantity)))
    return lines


def total(lines: list[Line]) -> float:
    """Return the total in dollars per month."""
    return sum(line.dollars for line in lines)


_Item = tuple[str, str, str, float]


def _chunks(size: float) -> int:
    return max(1, ceil(size / _CHUNK))


def _ingest(load: Load, mode: str) -> Iterator[_Item]:
    records = load.records_per_s * SECONDS
    alerts = load.alerts * records
    if load.through_bus:
        yield "EventBridge", "device events", "eventbridge.event", records * _chunks(load.size)
        stored = records * load.size / GIB
        if load.archive_days:
            yield "EventBridge", "archive", "eventbridge.archive", stored
            kept = stored * load.archive_days * _DAY / HOURS
            yield "EventBridge", "archive, kept", "eventbridge.archive_storage", kept
        # The rule sends events one by one; the pipe receives and deletes batches of ten.
        received = (_chunks(_BATCH * load.size) + 1) / _BATCH
        yield "SQS", "device queue", "sqs.request", records * (_chunks(load.size) + received)
        yield "EventBridge Pipes", "requests", "pipes.request", records * _chunks(load.size)
    yield "EventBridge", "alerts", "eventbridge.event", alerts
    yield "SQS", "dead letters", "sqs.request", load.failed * records * 3 / _BATCH


def _stream(load: Load, mode: str) -> Iterator[_Item]:
    records = load.records_per_s * SECONDS
    gb = records * load.size / GIB
    beyond = gb / HOURS * max(0, load.retention_hours - _WEEK)
    if mode == ON_DEMAND:
        billed = records * ceil(load.size / KIB) * KIB / GIB
        extended = billed / HOURS * max(0, min(load.retention_hours, _WEEK) - _DAY)
        yield "Kinesis", "stream", "kinesis.on_demand.hour", HOURS
        yield "Kinesis", "written", "kinesis.on_demand.in", billed
        yield "Kinesis", "read", "kinesis.on_demand.out", billed * load.consumers
        yield "Kinesis", "retention to 7 days", "kinesis.on_demand.retention", extended
    else:
        shard_hours = load.shards_of(mode) * HOURS
        yield "Kinesis", "shards", "kinesis.provisioned.hour", shard_hours
        yield "Kinesis", "payload units", "kinesis.provisioned.put", records * ceil(load.size / _PUT_UNIT)
        extended_hours = shard_hours if load.retention_hours > _DAY else 0
        yield "Kinesis", "retention to 7 days", "kinesis.provisioned.retention", extended_hours
    yield "Kinesis", "retention beyond", "kinesis.long_term", beyond


def _leases(load: Load, mode: str) -> Iterator[_Item]:
    """The three KCL tables: a lease is renewed three times per failover time; a checkpoint reads and writes it."""
    shards, tasks, failover = load.shards_of(mode), load.tasks_of(), load.failover_ms / 1_000
    renewals = shards * 3 / failover
    commits = load.commits_per_s(mode)
    # Each worker scans the leases once per failover time; the leader reads all leases and worker metrics.
    reads = commits + (tasks * 2 + ceil(shards / 8)) / failover
    yield "DynamoDB (KCL)", "lease renewals", "dynamodb.write", renewals * SECONDS
    yield "DynamoDB (KCL)", "checkpoints", "dynamodb.write", commits * SECONDS
    # The leader renews its lock every 10 s; a worker writes its metrics every 30 s.
    yield "DynamoDB (KCL)", "leader, workers", "dynamodb.write", (1 / 10 + tasks / 30) * SECONDS
    yield "DynamoDB (KCL)", "reads", "dynamodb.read", reads * SECONDS


def _storage(load: Load, mode: str) -> Iterator[_Item]:
    segments, commits = load.segments_per_s(mode) * SECONDS, load.commits_per_s(mode) * SECONDS
    records = load.records_per_s * SECONDS
    failed = load.failed * records
    yield "S3", "segments: Parquet", "s3.put", segments
    yield "S3", "segments: manifests", "s3.put", segments
    yield "S3", "snapshots", "s3.put", commits
    yield "S3", "failures", "s3.put", failed
    yield "S3", "failures read again", "s3.get", failed
    gb = (records * (1 - load.failed) * load.parquet_bytes + failed * 2 * load.size) / GIB
    state = 2 * load.devices * _STATE_BYTES / GIB  # the current and the previous snapshot
    yield (
        "S3",
        f"storage of {load.storage_days} days",
        "s3.storage",
        gb * load.storage_days * _DAY / HOURS + state,
    )


def _latest(load: Load, mode: str) -> Iterator[_Item]:
    """One write per segment and device in it."""
    if not load.latest:
        return
    segments = load.segments_per_s(mode)
    devices = min(load.devices / load.shards_of(mode), load.records_per_s / segments)
    units = ceil(2 * load.size / KIB)
    yield "DynamoDB (latest)", "devices", "dynamodb.write", segments * devices * units * SECONDS


def _observing(load: Load, mode: str) -> Iterator[_Item]:
    shards, tasks = load.shards_of(mode), load.tasks_of()
    batches = shards * min(1_000 / load.idle_ms, load.records_per_s / shards)
    lines = batches + load.segments_per_s(mode) + load.commits_per_s(mode)
    of_worker, of_shard = KCL_METRICS[load.metrics_level]
    metrics = tasks * of_worker + shards * of_shard
    requests = SECONDS * 1_000 / load.metrics_buffer_ms * max(tasks, metrics / _DATUMS) if metrics else 0.0
    yield "CloudWatch", "logs", "cloudwatch.logs", lines * _LOG_LINE * SECONDS / GIB
    yield "CloudWatch", "KCL metrics", "cloudwatch.metric", metrics
    yield "CloudWatch", "KCL metrics: requests", "cloudwatch.request", requests


def _functions(load: Load, mode: str) -> Iterator[_Item]:
    records = load.records_per_s * SECONDS
    calls = (load.failed + load.alerts) * records / _BATCH
    yield "Lambda", "hydrate, correct", "lambda.request", calls
    yield "Lambda", "hydrate, correct: time", "lambda.gb_second", calls * _LAMBDA_GB * _LAMBDA_SECONDS


def _tasks(load: Load, mode: str) -> Iterator[_Item]:
    hours = load.tasks_of() * HOURS
    yield "Fargate", f"{load.tasks_of()} tasks: vCPU", "fargate.vcpu", hours * load.task_vcpu
    yield "Fargate", f"{load.tasks_of()} tasks: memory", "fargate.gb", hours * load.task_gb
