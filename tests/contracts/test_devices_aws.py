"""Records of simulated devices arrive on the bus (read from a queue through a rule) and on the stream."""

from __future__ import annotations

import gzip
import io
import json
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import boto3
import fastavro
import pytest
from moto import mock_aws

from stream_app.aws.request_sizes import SOURCE
from stream_app.errors import FatalError
from stream_app.event_loading import schema_files
from stream_app.ingest.datasets import WINTER, dataset, readings
from stream_app.ingest.devices import PlayOptions, event_encoders, outgoing_records, play
from stream_app.ingest.envelope import OutgoingRecord
from stream_app.ingest.faults import plan
from stream_app.ingest.producer import publish
from stream_app.ingest.publish_options import Destination, PublishOptions
from stream_app.model.event import Event
from stream_app.model.record import Code

AIR = Event("air_quality", key="station", sent="sent_at")
BUS, STREAM = "devices", "readings"
FIRST = 200


class Aws(NamedTuple):
    events: Any
    kinesis: Any
    sqs: Any
    queue: str

    def delivered(self) -> list[dict[str, Any]]:
        """Return the events that the rule delivered to the queue."""
        found: list[dict[str, Any]] = []
        while messages := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            found += [json.loads(message["Body"]) for message in messages]
            entries = [{"Id": m["MessageId"], "ReceiptHandle": m["ReceiptHandle"]} for m in messages]
            self.sqs.delete_message_batch(QueueUrl=self.queue, Entries=entries)
        return found

    def records(self) -> list[dict[str, Any]]:
        """Return all records of the stream."""
        iterator = self.kinesis.get_shard_iterator(
            StreamName=STREAM, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        found: list[dict[str, Any]] = []
        while page := self.kinesis.get_records(ShardIterator=iterator):
            if not page["Records"]:
                break
            found += page["Records"]
            iterator = page["NextShardIterator"]
        return found


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        events: Any = boto3.client("events", region_name="us-east-1")
        kinesis: Any = boto3.client("kinesis", region_name="us-east-1")
        sqs: Any = boto3.client("sqs", region_name="us-east-1")
        kinesis.create_stream(StreamName=STREAM, ShardCount=1)
        queue = sqs.create_queue(QueueName="devices")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events.create_event_bus(Name=BUS)
        events.put_rule(Name="devices", EventBusName=BUS, EventPattern=json.dumps({"source": [SOURCE]}))
        events.put_targets(Rule="devices", EventBusName=BUS, Targets=[{"Id": "queue", "Arn": arn}])
        yield Aws(events, kinesis, sqs, queue)


def played(aws: Aws, **options: Any) -> Any:
    publishing = PublishOptions(via=options.pop("via", "bus"))
    chosen = PlayOptions(**{"declared": {"air_quality": AIR}, "first": FIRST, **options})
    return play(WINTER, destination(aws), chosen, publishing)


def destination(aws: Aws, stream: str = STREAM) -> Destination:
    return Destination(aws.events, aws.kinesis, BUS, stream)


def test_the_bus_delivers_every_event_in_its_envelope(aws: Aws) -> None:
    sent = played(aws)
    found = aws.delivered()
    planned = [
        s
        for s in outgoing_records(dataset(WINTER), AIR, event_encoders(AIR), PlayOptions(first=FIRST))
        if s.route == "bus"
    ]
    assert len(found) == sent.by_route["bus"] == len(planned)
    assert Counter(event["detail-type"] for event in found) == Counter(s.event for s in planned)
    ids = Counter(event["detail"]["id"] for event in found)
    assert ids == Counter(s.detail["id"] for s in planned if not isinstance(s.detail, bytes))
    assert all(event["source"] == SOURCE for event in found)
    good = [event for event in found if event["detail-type"] == "air_quality"]
    assert all(event["resources"] == [event["detail"]["station"]] for event in good)


def test_the_stream_contains_every_direct_record_by_device(aws: Aws) -> None:
    sent = played(aws)
    records = aws.records()
    assert len(records) == sent.by_route["stream"]
    stations = {row["station"] for row in readings(WINTER)}
    assert {record["PartitionKey"] for record in records} <= stations


def direct(data: bytes) -> dict[str, Any] | None:
    """Decode a direct device's reading (Avro with the current schema as reader schema); None for other data."""
    schemas = [json.loads(path.read_text()) for path in schema_files("air_quality")]
    if data[:2] == b"\xc3\x01":
        for schema in schemas:
            canonical = fastavro.schema.to_parsing_canonical_form(schema)
            if data[2:10].hex() == fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"):
                read: Any = fastavro.schemaless_reader(io.BytesIO(data[10:]), schema, schemas[0])
                return {**read, "time": f"{read['time']:%Y-%m-%dT%H:%M:%SZ}"}
        return None
    try:
        text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        found: Any = json.loads(text)
    except (ValueError, EOFError):
        return None
    return found if "event" in found else None


def test_direct_readings_are_decodable_and_in_order(aws: Aws) -> None:
    rows = [row for row, _ in zip(readings(WINTER), range(3_000), strict=False)]
    forms = event_encoders(AIR)
    straight = (s for s in plan(rows, AIR, encodings=forms) if s.route == "stream")
    publish(straight, destination(aws), PublishOptions(encoders=forms))
    wanted = [row for row in rows if row["station"] == "Huairou"]
    found: dict[str, dict[str, Any]] = {}
    for record in aws.records():
        row = direct(record["Data"])
        if row is not None:
            found.setdefault(row["id"], row)
    assert list(found) == [row["id"] for row in wanted]
    for row in wanted:
        same = found[row["id"]]
        assert (same["pm25"], same["temperature"]) == (row["pm25"], row["temperature"])
        assert datetime.fromisoformat(same["time"]) == row["time"]


def test_via_stream_all_records_are_in_order(aws: Aws) -> None:
    sent = played(aws, via="stream", faults=False)
    records = [json.loads(record["Data"]) for record in aws.records()]
    assert sent.by_route == {"stream": FIRST} == {"stream": len(records)}
    assert not aws.delivered()
    for station in {record["resources"][0] for record in records}:
        times = [r["detail"]["time"] for r in records if r["resources"] == [station]]
        assert times == sorted(times)
    assert all(uuid.UUID(record["id"]) for record in records)


def test_the_envelope_matches_the_one_of_the_bus(aws: Aws) -> None:
    """Both envelopes have the same fields and types. The embedded bus omits `account`."""
    one = OutgoingRecord("bus", "air_quality", "Dongsi", {"id": "Dongsi/1", "pm25": 1.5}, sent="sent_at")
    publish([one], destination(aws), PublishOptions(via="bus"))
    publish([one], destination(aws), PublishOptions(via="stream"))
    (by_bus,) = aws.delivered()
    (straight,) = (json.loads(record["Data"]) for record in aws.records())
    members = {name: type(value) for name, value in straight.items()}
    assert members == {"account": str} | {name: type(value) for name, value in by_bus.items()}
    same = ("version", "detail-type", "source", "resources")
    assert [by_bus[name] for name in same] == [straight[name] for name in same]
    assert by_bus["detail"].keys() == straight["detail"].keys()
    assert datetime.fromisoformat(straight["time"]).microsecond == 0


def test_a_missing_stream_is_a_fatal_error(aws: Aws) -> None:
    with pytest.raises(FatalError, match=r"stream nowhere .* ResourceNotFoundException"):
        play(
            WINTER,
            destination(aws, "nowhere"),
            PlayOptions(declared={"air_quality": AIR}, first=10),
            PublishOptions(via="stream"),
        )


def test_a_record_too_large_for_the_bus_is_a_fatal_error(aws: Aws) -> None:
    large = OutgoingRecord(
        "bus", "air_quality", "Dongsi", {"id": "Dongsi/1", "log": "." * 300_000}, Code.TOO_LARGE
    )
    with pytest.raises(
        FatalError, match=r"air_quality of Dongsi \(Dongsi/1\) has 3\d+ bytes, but bus devices accepts"
    ):
        publish([large], destination(aws))
    assert not aws.delivered()
