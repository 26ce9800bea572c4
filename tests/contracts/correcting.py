"""Test case for corrections: a stored shard with a stream, segments, a lease and a correction history."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.model.event import Event, Range, Rate
from stream_app.model.record import Batch, Record
from stream_app.model.segment import Segment, store, token
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.recovery.correct.corrector import Corrector
from stream_app.recovery.correct.factory import CorrectorClients, CorrectorOptions, make_corrector
from stream_app.recovery.correct.history import History
from stream_app.recovery.correct.history_entry import Request
from stream_app.recovery.correct.limits import ReadLimiter
from stream_app.recovery.correct.queue import QueueDependencies
from stream_app.recovery.stream.read import pages, user_records
from stream_app.sinks.columns import column_types
from stream_app.sinks.s3 import ManifestSink, ParquetSink
from tests.samples import EVENTS, HOUR, SCHEMAS, START, as_json

APPLICATION, BUCKET, STREAM = "air", "corrected-bucket", "corrected-stream"
TABLE, QUEUE, MANUAL, DEAD = "air-history", "air-corrections", "air-manual", "air-corrections-dead"
LIMIT = 262_144
NOW = 4_000_000_000_000  # after every arrival


def as_missing(batch: Batch) -> Mapping[str, NDArray[Any]]:
    """Replace values with a `changes` flag by missing values."""
    jumped = np.array([flag is not None and "changes" in flag for flag in batch["flag"]])
    return {"value": np.where(jumped, np.nan, batch["value"])}


def checked(name: str = "reading", **changes: Any) -> Event:
    checks = (Range("value", -50.0, 90.0), Rate("value", 10.0))
    return dataclasses.replace(EVENTS[name], **{"checks": checks, "correct": as_missing, **changes})


def reading(device: str, hour: int, value: float | None, event: str = "reading", **fields: Any) -> bytes:
    time = START + hour * HOUR
    return as_json(event, {"device": device, "id": f"{device}{hour}", "time": time, "value": value, **fields})


@dataclass
class CorrectionCase:
    """A stream and its stored segments; `store` adds both, and the caller sets the checkpoint."""

    aws: Callable[[str], Any]
    event: Event
    schemas: Sequence[Mapping[str, Any]] = ()
    shard: str = "shardId-000000000000"
    records: list[Record] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kinesis, self.s3, self.dynamodb = (self.aws(name) for name in ("kinesis", "s3", "dynamodb"))
        self.sqs = self.aws("sqs")
        self.registry = self.registry_of(self.event)
        self.state = ShardState({self.event.name: self.event}, 16)
        self.s3.create_bucket(Bucket=BUCKET)
        self.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        self.kinesis.create_stream(StreamName=STREAM, ShardCount=1)
        for name, keys in ((TABLE, ("pk", "sk")), (APPLICATION, ("leaseKey",))):
            self.dynamodb.create_table(
                TableName=name,
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
                KeySchema=[
                    {"AttributeName": key, "KeyType": kind}
                    for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)
                ],
            )
        urls = [self.sqs.create_queue(QueueName=name)["QueueUrl"] for name in (QUEUE, MANUAL, DEAD)]
        self.queue, self.manual, self.dead = urls
        self.history = History(self.dynamodb, TABLE, lambda: NOW)

    def registry_of(self, event: Event) -> Registry:
        versions = [dict(version) for version in self.schemas or [SCHEMAS[event.name]]]
        return Registry.of([event], {event.name: versions})

    def store(self, payloads: Sequence[bytes], sizes: Sequence[int]) -> None:
        """Put the payloads into the stream and store one segment of each size."""
        known = len(self.records)
        for start in range(0, len(payloads), 500):
            entries = [{"Data": data, "PartitionKey": "p"} for data in payloads[start : start + 500]]
            assert not self.kinesis.put_records(StreamName=STREAM, Records=entries)["FailedRecordCount"]
        found = [r for page in pages(self.kinesis, STREAM, self.shard) for r in page.records]
        self.records = [user for r in found for user in user_records(r)[0]]
        start = known
        for size in sizes:
            part = self.records[start : start + size]
            start += size
            result = process(part, self.registry, self.state, LIMIT)
            segment = Segment(
                APPLICATION, STREAM, self.shard, part, result.passed, result.failed, result.repeated
            )
            self.write(segment)
            self.segments.append(segment)

    def write(self, segment: Segment) -> None:
        """Store a segment like a consumer."""
        types = {name: column_types(codec.schema.fields) for name, codec in self.registry.codecs.items()}
        store(segment, [ParquetSink(self.s3, BUCKET, {}, types), ManifestSink(self.s3, BUCKET)])

    def checkpoint(self, at: int | str = -1) -> None:
        sequence = at if isinstance(at, str) else self.records[at].sequence_number
        item = {"leaseKey": {"S": self.shard}, "checkpoint": {"S": sequence}}
        self.dynamodb.put_item(TableName=APPLICATION, Item=item)

    def request(self, at: int, by: str = "checks", **changes: Any) -> Request:
        record = self.records[at]
        position = record.position(self.shard)
        made = Request(
            id=f"{position}/{by}",
            event=self.event.name,
            key="a",
            consumer=APPLICATION,
            shard=self.shard,
            sequence=position.sequence,
            sub=position.sub,
            arrived=record.arrived,
            by=by,
        )
        return msgspec.structs.replace(made, **changes)

    def corrector(self, **clients: Any) -> Corrector:
        return make_corrector(
            CorrectorClients(
                kinesis=clients.get("kinesis", self.kinesis),
                s3=clients.get("s3", self.s3),
                dynamodb=self.dynamodb,
            ),
            CorrectorOptions(
                stream=STREAM,
                bucket=BUCKET,
                application=APPLICATION,
                max_bytes=LIMIT,
                latest_table=clients.get("latest_table", ""),
            ),
            self.registry,
            self.history,
            lambda: NOW,
        )

    def queue_dependencies(self, **changes: Any) -> QueueDependencies:
        made = QueueDependencies(
            sqs=self.sqs,
            s3=self.s3,
            bucket=BUCKET,
            consumer=APPLICATION,
            history=self.history,
            work=self.corrector().correct_all,
            queue=self.queue,
            manual=self.manual,
            reads=ReadLimiter(1000.0, 1000.0, lambda: 0.0, lambda _seconds: None),
        )
        return dataclasses.replace(made, **changes)

    def manual_messages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while messages := self.sqs.receive_message(QueueUrl=self.manual, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in messages:
                found.append(msgspec.json.decode(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.manual, ReceiptHandle=message["ReceiptHandle"])
        return found

    def token(self, at: int) -> str:
        return token(self.records[at].position(self.shard))


def envelope(request: Request, detail_type: str = "AnomalyDetected") -> str:
    """Return the message that the rule sends to the queue."""
    detail = {**msgspec.to_builtins(request), "detector": request.by, "score": None}
    body = {"source": "stream-app.consumer", "detail-type": detail_type, "detail": detail}
    return msgspec.json.encode(body).decode()
