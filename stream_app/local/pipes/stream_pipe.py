"""A pipe that reads a stream: a shard's records in order, tried again, bisected, in the end a dead letter."""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from stream_app.aws.retry import Policy
from stream_app.errors import is_transient
from stream_app.local.pipes.counters import Counters
from stream_app.local.pipes.pipe_route import PipeRoute
from stream_app.local.pipes.targets import Unresolved
from stream_app.telemetry import log

# The pauses between two tries grow to this; how many there are is the pipe's MaximumRetryAttempts.
POLICY = Policy(base_ms=100, cap_ms=10_000)
_PAUSE_SECONDS = 0.5

# A record as GetRecords gives it.
Record = Mapping[str, Any]
Condition = Literal["RetryAttemptsExhausted", "RecordAgeExceeded"]


@dataclass(frozen=True, slots=True)
class Rules:
    """The pipe's KinesisStreamParameters; -1 attempts or seconds are without end. `dead_letters` is a queue's URL."""

    batch: int = 100
    attempts: int = -1
    seconds: int = -1
    bisect: bool = False
    dead_letters: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """ARNs of the stream that is read and of the role that reads it, and the region."""

    stream: str
    role: str
    region: str


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """A record, and what is to be sent for it; None when that cannot be made."""

    record: Record
    entry: Any | None


def kinesis_record(record: Record, shard: str, place: Place) -> dict[str, Any]:
    """A record in the form in which Pipes hands it on; `data` is base64."""
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
        "invokeIdentityArn": place.role,
        "awsRegion": place.region,
        "eventSourceARN": place.stream,
    }


def dead_letter(
    pipe: str, stream: str, shard: str, batch: Sequence[Record], condition: Condition, now: float
) -> str:
    """The message that Pipes sends to a dead letter queue for a failed batch: where it is, not what it is."""
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
    """Seconds since the epoch as AWS writes a time: ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class StreamPipe:
    """Delivers the records of a stream's shards, each shard in its order. `take` may run in several threads."""

    def __init__(
        self,
        way: PipeRoute,
        rules: Rules,
        place: Place,
        sqs: Any,
        counters: Counters,
        *,
        now: Callable[[], float],
        rng: random.Random,
        policy: Policy = POLICY,
    ) -> None:
        self._way, self._rules, self._place, self._sqs = way, rules, place, sqs
        self._counters, self._now, self._rng, self._policy = counters, now, rng, policy

    def take(self, shard: str, records: Sequence[Record], stop: threading.Event) -> None:
        """Deliver records in order, or send them to the dead letter queue; returns early only when stopped."""
        self._counters.add(received=len(records))
        ready = [item for record in records if (item := self._ready(shard, record)) is not None]
        self._counters.add(filtered=len(records) - len(ready))
        for start in range(0, len(ready), self._rules.batch):
            self._deliver(shard, ready[start : start + self._rules.batch], stop)

    def _ready(self, shard: str, record: Record) -> _Ready | None:
        try:
            entry = self._way.take(kinesis_record(record, shard, self._place))
        except Unresolved:
            # It fails like one that the target refuses, and so ends in the dead letter queue.
            return _Ready(record, None)
        return None if entry is None else _Ready(record, entry)

    def _deliver(self, shard: str, batch: Sequence[_Ready], stop: threading.Event) -> None:
        attempt = 0
        waiting = list(batch)
        while not stop.is_set():
            waiting = self._send(self._without_old(shard, waiting, stop))
            if not waiting:
                return
            if self._rules.bisect and len(waiting) > 1:
                half = len(waiting) // 2
                self._deliver(shard, waiting[:half], stop)
                self._deliver(shard, waiting[half:], stop)
                return
            if 0 <= self._rules.attempts <= attempt:
                self._bury(shard, waiting, "RetryAttemptsExhausted", stop)
                return
            stop.wait(self._policy.pause(attempt, self._rng))
            attempt += 1
            self._counters.add(retried=len(waiting))

    def _send(self, batch: Sequence[_Ready]) -> list[_Ready]:
        able = [item for item in batch if item.entry is not None]
        failed = {id(able[place]) for place in self._way.send([item.entry for item in able])}
        left = [item for item in batch if item.entry is None or id(item) in failed]
        self._counters.add(delivered=len(batch) - len(left))
        return left

    def _without_old(self, shard: str, batch: Sequence[_Ready], stop: threading.Event) -> list[_Ready]:
        if self._rules.seconds < 0:
            return list(batch)
        oldest = self._now() - self._rules.seconds
        old = [item for item in batch if item.record["ApproximateArrivalTimestamp"].timestamp() < oldest]
        if old:
            self._bury(shard, old, "RecordAgeExceeded", stop)
        return [item for item in batch if item not in old]

    def _bury(self, shard: str, batch: Sequence[_Ready], condition: Condition, stop: threading.Event) -> None:
        records = [item.record for item in batch]
        body = dead_letter(self._way.arn, self._place.stream, shard, records, condition, self._now())
        log.get().warning(
            "records were given up", pipe=self._way.name, shard=shard, count=len(batch), why=condition
        )
        if self._rules.dead_letters is not None:
            while not self._buried(self._rules.dead_letters, body) and not stop.wait(_PAUSE_SECONDS):
                pass
        self._counters.add(dead_lettered=len(batch))

    def _buried(self, queue: str, body: str) -> bool:
        try:
            self._sqs.send_message(QueueUrl=queue, MessageBody=body)
        except Exception as error:
            if not is_transient(error):
                raise
            return False
        return True
