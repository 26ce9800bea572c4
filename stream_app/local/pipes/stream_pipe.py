"""A pipe with a Kinesis source: delivers each shard's records in order, with retries, bisection and dead letters."""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from stream_app.aws.retry import Policy
from stream_app.errors import is_transient
from stream_app.local.pipes.counters import Counters
from stream_app.local.pipes.pipe_route import PipeRoute
from stream_app.local.pipes.stream_reader import KinesisRecord
from stream_app.local.pipes.targets import Entry, UnresolvedParameter
from stream_app.telemetry import log

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

# The pauses between attempts; the pipe's MaximumRetryAttempts limits their number.
POLICY = Policy(base_ms=100, cap_ms=10_000)
_PAUSE_SECONDS = 0.5

Condition = Literal["RetryAttemptsExhausted", "RecordAgeExceeded"]


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """The pipe's KinesisStreamParameters. -1 means unlimited. `dead_letters` is a queue URL."""

    batch: int = 100
    attempts: int = -1
    max_age_seconds: int = -1
    bisect: bool = False
    dead_letters: str | None = None


@dataclass(frozen=True, slots=True)
class StreamSource:
    """The source of a pipe: the ARNs of the stream and of the pipe's role, and the region."""

    stream: str
    role: str
    region: str


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """A record and its entry for the target; None if a target parameter could not be resolved."""

    record: KinesisRecord
    entry: Entry | None


def kinesis_record(record: KinesisRecord, shard: str, source: StreamSource) -> dict[str, object]:
    """Convert a record of GetRecords to the record that Pipes passes on; `data` is base64."""
    return {
        "kinesisSchemaVersion": "1.0",
        "partitionKey": record["PartitionKey"],
        "sequenceNumber": record["SequenceNumber"],
        "data": base64.b64encode(record["Data"]).decode(),
        "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard}:{record['SequenceNumber']}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": source.role,
        "awsRegion": source.region,
        "eventSourceARN": source.stream,
    }


def dead_letter(
    pipe: str, stream: str, shard: str, batch: Sequence[KinesisRecord], condition: Condition, now: float
) -> str:
    """Return the message that Pipes sends to a dead-letter queue: the position of the batch, without its data."""
    first, last = batch[0], batch[-1]
    return json.dumps(
        {
            "context": {"partnerResourceArn": pipe, "condition": condition},
            "version": "1.0",
            "timestamp": iso(now),
            "KinesisBatchInfo": {
                "shardId": shard,
                "startSequenceNumber": first["SequenceNumber"],
                "endSequenceNumber": last["SequenceNumber"],
                "approximateArrivalOfFirstRecord": iso(first["ApproximateArrivalTimestamp"].timestamp()),
                "approximateArrivalOfLastRecord": iso(last["ApproximateArrivalTimestamp"].timestamp()),
                "batchSize": len(batch),
                "streamArn": stream,
            },
        }
    )


def iso(seconds: float) -> str:
    """Format seconds since the epoch as ISO 8601 in UTC with milliseconds, as AWS does."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class StreamPipe:
    """Delivers the records of a stream in order within each shard. `deliver` is thread-safe."""

    def __init__(
        self,
        route: PipeRoute,
        settings: StreamSettings,
        source: StreamSource,
        sqs: SQSClient,
        counters: Counters,
        *,
        now: Callable[[], float],
        rng: random.Random,
        policy: Policy = POLICY,
    ) -> None:
        self._route, self._settings, self._source, self._sqs = route, settings, source, sqs
        self._counters, self._now, self._rng, self._policy = counters, now, rng, policy

    def deliver(self, shard: str, records: Sequence[KinesisRecord], stop: threading.Event) -> None:
        """Deliver records in order, or send them to the dead-letter queue. Returns early only if `stop` is set."""
        self._counters.add(received=len(records))
        ready = [item for record in records if (item := self._ready(shard, record)) is not None]
        self._counters.add(filtered=len(records) - len(ready))
        for start in range(0, len(ready), self._settings.batch):
            self._deliver_batch(shard, ready[start : start + self._settings.batch], stop)

    def _ready(self, shard: str, record: KinesisRecord) -> _Ready | None:
        try:
            entry = self._route.prepare(kinesis_record(record, shard, self._source))
        except UnresolvedParameter:
            # Handled like a record that the target rejects, so that it goes to the dead-letter queue.
            return _Ready(record, None)
        return None if entry is None else _Ready(record, entry)

    def _deliver_batch(self, shard: str, batch: Sequence[_Ready], stop: threading.Event) -> None:
        attempt = 0
        waiting = list(batch)
        while not stop.is_set():
            waiting = self._send(self._drop_expired(shard, waiting, stop))
            if not waiting:
                return
            if self._settings.bisect and len(waiting) > 1:
                half = len(waiting) // 2
                self._deliver_batch(shard, waiting[:half], stop)
                self._deliver_batch(shard, waiting[half:], stop)
                return
            if 0 <= self._settings.attempts <= attempt:
                self._dead_letter(shard, waiting, "RetryAttemptsExhausted", stop)
                return
            stop.wait(self._policy.pause(attempt, self._rng))
            attempt += 1
            self._counters.add(retried=len(waiting))

    def _send(self, batch: Sequence[_Ready]) -> list[_Ready]:
        sendable = [item for item in batch if item.entry is not None]
        failed = {id(sendable[index]) for index in self._route.send([item.entry for item in sendable])}
        remaining = [item for item in batch if item.entry is None or id(item) in failed]
        self._counters.add(delivered=len(batch) - len(remaining))
        return remaining

    def _drop_expired(self, shard: str, batch: Sequence[_Ready], stop: threading.Event) -> list[_Ready]:
        if self._settings.max_age_seconds < 0:
            return list(batch)
        oldest = self._now() - self._settings.max_age_seconds
        old = [item for item in batch if item.record["ApproximateArrivalTimestamp"].timestamp() < oldest]
        if old:
            self._dead_letter(shard, old, "RecordAgeExceeded", stop)
        return [item for item in batch if item not in old]

    def _dead_letter(
        self, shard: str, batch: Sequence[_Ready], condition: Condition, stop: threading.Event
    ) -> None:
        records = [item.record for item in batch]
        body = dead_letter(self._route.arn, self._source.stream, shard, records, condition, self._now())
        log.get().warning(
            "records were given up", pipe=self._route.name, shard=shard, count=len(batch), why=condition
        )
        if self._settings.dead_letters is not None:
            while not self._send_dead_letter(self._settings.dead_letters, body) and not stop.wait(
                _PAUSE_SECONDS
            ):
                pass
        self._counters.add(dead_lettered=len(batch))

    def _send_dead_letter(self, queue: str, body: str) -> bool:
        try:
            self._sqs.send_message(QueueUrl=queue, MessageBody=body)
        except Exception as error:
            if not is_transient(error):
                raise
            return False
        return True
