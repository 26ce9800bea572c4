"""From an audit, what was sent and what the logs told to the summary of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import msgspec

from stream_app.aws import objects
from stream_app.ingest.producer import Sent
from stream_app.local.run.anomalies import strangest
from stream_app.local.run.report import Report, unexpected
from stream_app.local.run.second_act import SecondAct
from stream_app.local.run.tracker import Tracker
from stream_app.recovery.audit.proof import Audit
from stream_app.recovery.correct.history import counts
from stream_app.recovery.store import failure_keys
from stream_app.sinks.s3 import SEGMENTS

Client = Callable[[str], Any]


def report_of(
    found: Audit,
    sent: Sent,
    act: SecondAct,
    tracker: Tracker,
    *,
    client: Client,
    bucket: str,
    application: str,
    history: str,
    anomalies_queue: str,
    shards: int,
    elapsed_s: float,
    limit: str,
    memory: Mapping[str, Mapping[str, float]],
    restarts: int,
    check_expected: bool,
    error: str | None = None,
    waiting: Mapping[str, Any] | None = None,
) -> Report:
    """The summary. Counts are the audit's, read back from storage; only times come from the logs."""
    total = found.total
    segments, anomalies = _segments(client("s3"), bucket, application)
    corrections = counts(client("dynamodb"), history, application)
    expected = {str(name): count for name, count in sent.expected.items() if name is not None}
    problems = list(tracker.errors)
    if found.unreadable:
        problems.append(f"{len(found.unreadable)} objects cannot be read, the first: {found.unreadable[0]}")
    if total.dropped:
        problems.append(
            f"{total.dropped} records are dropped by KCL, which cannot read their aggregate's keys"
        )
    if check_expected and not sent.stopped and error is None:
        problems += unexpected(expected, total.parked, total.repeated)
    if act.processed != act.planned:
        problems.append(f"of {act.planned} failures sent again {act.processed} were stored")
    return Report(
        sent=sent.sent,
        accepted=total.accepted,
        stored=total.stored,
        repeated=total.repeated,
        parked=dict(total.parked),
        hydrated=sum(1 for _ in failure_keys(client("s3"), bucket, application)),
        corrected=corrections["corrected"],
        manual=corrections["manual"],
        redriven=act.redriven,
        processed=act.processed,
        missing=total.missing,
        duplicated=total.duplicated,
        pending=total.pending,
        anomalies=anomalies,
        segments=segments,
        ready_s=tracker.ready_s(shards),
        elapsed_s=elapsed_s,
        records_per_s=sent.sent / sent.seconds if sent.seconds else 0.0,
        latency_ms={"p50": tracker.latency.percentile(0.5), "p99": tracker.latency.percentile(0.99)},
        shards={shard.shard: _row(shard.count) for shard in found.shards},
        expected=expected,
        limit=limit,
        memory_mb=memory,
        restarts=restarts,
        strangest=strangest(client("sqs"), anomalies_queue),
        interrupted=sent.stopped,
        problems=tuple(problems),
        error=error,
        waiting=waiting or {},
        unsendable={why: asdict(some) for why, some in sent.unsendable.items()},
    )


def _row(count: Any) -> dict[str, int]:
    names = ("accepted", "stored", "repeated", "missing", "duplicated", "pending")
    return {**{name: getattr(count, name) for name in names}, "parked": sum(count.parked.values())}


def _segments(s3: Any, bucket: str, application: str) -> tuple[int, int]:
    """How many segments were stored, and the anomalies in them, as their manifests tell."""
    segments = anomalies = 0
    for key in objects.keys(s3, bucket, f"{SEGMENTS}{application}/"):
        body = objects.get(s3, bucket, key)
        if body is not None:
            segments += 1
            anomalies += msgspec.json.decode(body).get("anomalies", 0)
    return segments, anomalies
