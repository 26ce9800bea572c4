"""Alerts are kept on S3 during an outage of the bus and delivered afterwards; no batch fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import botocore.config
import pytest

from stream_app import app
from stream_app.aws import objects
from stream_app.consumer.alerting.store import ALERTS, S3Alerts
from stream_app.consumer.shard import ShardConsumer
from stream_app.local.server.faults import Fail, injected
from stream_app.model.record import Record
from stream_app.settings import Settings
from stream_app.testing import record
from tests.samples import START, as_json, registry

Client = Callable[[str], Any]
SHARD = "shardId-000000000000"
BUCKET, BUS, QUEUE = "alerts-bucket", "anomalies", "alerts"
REGISTRY = registry()


def reading(at: int) -> Record:
    """Of ten readings the last two differ from those before."""
    value = 90.0 if at >= 8 else 1.0
    fields = {"device": "a", "id": str(at), "time": START, "value": value}
    return record(as_json("reading", fields), at, key="a", arrived=START + at)


RECORDS = [reading(at) for at in range(10)]
ANOMALIES = {item.sequence_number for item in RECORDS[8:]}


class Site:
    """A bucket and queues; consumers of one shard, and what they committed."""

    def __init__(self, client: Client) -> None:
        self.client, self.now_ms = client, START
        self.committed: list[tuple[str | None, int | None]] = []
        client("s3").create_bucket(Bucket=BUCKET)
        self.dead = client("sqs").create_queue(QueueName="dead")["QueueUrl"]
        client("kinesis").create_stream(StreamName="devices", ShardCount=1)

    def with_bus(self) -> None:
        """Create a bus that delivers its events to a queue."""
        sqs, events = self.client("sqs"), self.client("events")
        self.queue = sqs.create_queue(QueueName=QUEUE)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        events.create_event_bus(Name=BUS)
        events.put_rule(Name="all", EventBusName=BUS, EventPattern='{"source": ["stream-app.consumer"]}')
        events.put_targets(Rule="all", EventBusName=BUS, Targets=[{"Id": "q", "Arn": arn}])

    def consumer(self, client: Client | None = None) -> ShardConsumer:
        settings = Settings(
            "app",
            "devices",
            bucket=BUCKET,
            dead_letter_queue=self.dead,
            bus=BUS,
            segment_records=5,
            retry_base_ms=0,
        )
        dependencies = app.dependencies(settings, REGISTRY, client or self.client)
        made = ShardConsumer(replace(dependencies, now_ms=lambda: self.now_ms))
        made.initialize(SHARD, *(self.committed[-1] if self.committed else ("TRIM_HORIZON", 0)))
        return made

    def checkpoint(self, sequence: str | None, sub: int | None) -> None:
        self.committed.append((sequence, sub))

    def stored(self) -> set[str]:
        """Return the sequence numbers of the alerts on S3."""
        store = S3Alerts(self.client("s3"), BUCKET, "app")
        return {alert["sequence"] for name in store.names(SHARD) for alert in store.load(SHARD, name)}

    def received(self) -> set[str]:
        """Return the alerts delivered by the bus."""
        found = set()
        while (
            messages := self.client("sqs")
            .receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10)
            .get("Messages")
        ):
            for message in messages:
                found.add(json.loads(message["Body"])["detail"]["sequence"])
                self.client("sqs").delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return found

    def read(self, consumer: ShardConsumer) -> None:
        """All records, one batch each, and a checkpoint of all of them."""
        for item in RECORDS:
            consumer.process([item], 1_000, self)
        self.now_ms += 120_000
        consumer.process([], 1_000, self)


@pytest.fixture
def site(clients: Client) -> Site:
    return Site(clients)


def unreachable(clients: Client) -> Client:
    """Return clients whose bus endpoint refuses connections."""
    import boto3

    events = boto3.client(
        "events",
        endpoint_url="http://127.0.0.1:9",
        config=botocore.config.Config(connect_timeout=1, retries={"total_max_attempts": 1}),
    )
    return lambda service: events if service == "events" else clients(service)


@pytest.mark.parametrize("how", ["no such bus", "unreachable", "throttled"])
def test_alerts_are_delivered_after_an_outage_of_the_bus(site: Site, clients: Client, how: str) -> None:
    if how == "throttled":
        site.with_bus()
        with injected(Fail("events", calls=1_000, status=400, code="ThrottlingException")):
            site.read(site.consumer())
    else:
        site.read(site.consumer(unreachable(clients) if how == "unreachable" else None))
    assert site.committed == [(RECORDS[-1].sequence_number, 0)]
    assert site.stored() == ANOMALIES
    if how != "throttled":
        site.with_bus()
    again = site.consumer()
    again.process([], 1_000, site)
    assert site.received() == ANOMALIES
    assert list(objects.keys(clients("s3"), BUCKET, ALERTS)) == []


def test_no_alert_stays_in_the_outbox_when_the_bus_works(site: Site, clients: Client) -> None:
    site.with_bus()
    site.read(site.consumer())
    assert site.received() == ANOMALIES
    assert list(objects.keys(clients("s3"), BUCKET, ALERTS)) == []


def test_other_objects_under_the_prefix_are_ignored(site: Site, clients: Client) -> None:
    site.with_bus()
    key = f"{ALERTS}app/{SHARD}/notes.txt"
    clients("s3").put_object(Bucket=BUCKET, Key=key, Body=b"mine")
    clients("s3").put_object(Bucket=BUCKET, Key=f"{ALERTS}app/{SHARD}/5-5.json", Body=b"{}")
    consumer = site.consumer()
    site.read(consumer)
    assert site.received() == ANOMALIES
    assert key in list(objects.keys(clients("s3"), BUCKET, ALERTS))
