"""Builds the report of a run from its audit, the records sent, the stored data and the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from stream_app.aws import objects
from stream_app.ingest.producer import Sent
from stream_app.local.embedded import Embedded
from stream_app.local.run.redrive_demo import RedriveResult
from stream_app.local.run.report import Report, unexpected
from stream_app.local.run.top_anomalies import top_anomalies
from stream_app.local.run.tracker import Tracker
from stream_app.recovery.audit.proof import Audit
from stream_app.recovery.audit.tally import Tally
from stream_app.recovery.correct.history import count_corrections
from stream_app.recovery.store import failure_keys
from stream_app.sinks.s3 import SEGMENTS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of a finished run that are not stored in the embedded AWS.

    `shards` is the number of shards at the start. `check_expected` compares the failures with those that the seeded
    faults should cause. `error` and `waiting` are set if the run ended early.
    """

    audit: Audit
    sent: Sent
    redrive: RedriveResult
    tracker: Tracker
    shards: int
    elapsed_s: float
    limit: str
    memory: Mapping[str, Mapping[str, float]]
    restarts: int
    check_expected: bool
    error: str | None = None
    waiting: Mapping[str, object] | None = None


def build_report(outcome: Outcome, aws: Embedded) -> Report:
    """Build the report. Counts are read back from storage by the audit; only times are taken from the log."""
    total, sent, tracker = outcome.audit.total, outcome.sent, outcome.tracker
    s3, bucket = aws.client("s3"), aws.outputs["BucketName"]
    segments, anomalies = _segments(s3, bucket, aws.application)
    corrections = count_corrections(aws.client("dynamodb"), aws.outputs["HistoryTableName"], aws.application)
    return Report(
        sent=sent.sent,
        accepted=total.accepted,
        stored=total.stored,
        repeated=total.repeated,
        parked=dict(total.parked),
        hydrated=sum(1 for _ in failure_keys(s3, bucket, aws.application)),
        corrected=corrections["corrected"],
        manual=corrections["manual"],
        redriven=outcome.redrive.redriven,
        processed=outcome.redrive.processed,
        missing=total.missing,
        duplicated=total.duplicated,
        pending=total.pending,
        anomalies=anomalies,
        segments=segments,
        ready_s=tracker.ready_s(outcome.shards),
        elapsed_s=outcome.elapsed_s,
        records_per_s=sent.sent / sent.seconds if sent.seconds else 0.0,
        latency_ms={"p50": tracker.latency.percentile(0.5), "p99": tracker.latency.percentile(0.99)},
        shards={shard.shard: _shard_counts(shard.count) for shard in outcome.audit.shards},
        expected=_expected(sent),
        limit=outcome.limit,
        memory_mb=outcome.memory,
        restarts=outcome.restarts,
        strangest=top_anomalies(aws.client("sqs"), aws.outputs["AnomaliesQueueUrl"]),
        interrupted=sent.stopped,
        problems=tuple(_problems(outcome)),
        error=outcome.error,
        waiting=outcome.waiting or {},
        unsendable={
            reason: {"count": records.count, "rows": list(records.rows)}
            for reason, records in sent.unsendable.items()
        },
    )


def _expected(sent: Sent) -> dict[str, int]:
    return {str(name): count for name, count in sent.expected.items() if name is not None}


def _problems(outcome: Outcome) -> list[str]:
    audit, total, redrive = outcome.audit, outcome.audit.total, outcome.redrive
    problems = list(outcome.tracker.errors)
    if audit.unreadable:
        problems.append(f"{len(audit.unreadable)} objects cannot be read, the first: {audit.unreadable[0]}")
    if total.dropped:
        problems.append(
            f"{total.dropped} records are dropped by KCL, which cannot read their aggregate's keys"
        )
    if outcome.check_expected and not outcome.sent.stopped and outcome.error is None:
        problems += unexpected(_expected(outcome.sent), total.parked, total.repeated)
    if redrive.processed != redrive.planned:
        problems.append(f"only {redrive.processed} of {redrive.planned} redriven failures were stored")
    return problems


def _shard_counts(count: Tally) -> dict[str, int]:
    return {
        "accepted": count.accepted,
        "stored": count.stored,
        "repeated": count.repeated,
        "missing": count.missing,
        "duplicated": count.duplicated,
        "pending": count.pending,
        "parked": sum(count.parked.values()),
    }


def _segments(s3: S3Client, bucket: str, application: str) -> tuple[int, int]:
    """Return the number of stored segments and, from their manifests, the number of anomalies in them."""
    segments = anomalies = 0
    for key in objects.keys(s3, bucket, f"{SEGMENTS}{application}/"):
        body = objects.get(s3, bucket, key)
        if body is not None:
            segments += 1
            anomalies += msgspec.json.decode(body).get("anomalies", 0)
    return segments, anomalies
