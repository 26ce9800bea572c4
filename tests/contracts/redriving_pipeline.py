"""A whole pipeline for the tests of redrive: bus, queue, pipe, stream, consumer and hydrate, a few lines each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from stream_app.model.segment import Segment, store
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.recovery.audit.proof import Audit, audit
from stream_app.recovery.dead_letters import messages, parse
from stream_app.recovery.hydrate.batch import HydrateDependencies, hydrate
from stream_app.recovery.redrive.apply.execute import apply
from stream_app.recovery.redrive.apply.run import Applied
from stream_app.recovery.redrive.context import RedriveContext, open_target
from stream_app.recovery.redrive.follow import Followed, attempts_of, follow
from stream_app.recovery.redrive.plan.build import PlanRequest, build_plan
from stream_app.recovery.redrive.plan.file import Plan
from stream_app.recovery.redrive.select import Selection
from stream_app.recovery.redrive.targets.target import destination
from stream_app.recovery.repair.file import parse_repair
from stream_app.recovery.store import failure_keys
from stream_app.recovery.stream.read import pages, shards, user_records
from stream_app.sinks.dynamodb import LatestSink
from stream_app.sinks.s3 import ManifestSink, ParquetSink
from tests import samples
from tests.contracts import redriving as on
from tests.contracts.redriving import BUCKET, BUS, STREAM

SOURCE = "stream-app.devices"
MEND = parse_repair(
    {
        "when": [{"field": "value", "is": "above", "value": 100}],
        "steps": [{"do": "set", "field": "value", "value": 12.5}],
    }
)
USELESS = parse_repair({"steps": [{"do": "set", "field": "value", "value": 700}]})


class Pipeline:
    """Everything between a device's publishing and the failure store; `run` moves what is on its way to its end."""

    def __init__(self, client: on.Client, registry: Registry | None = None, application: str = "air") -> None:
        self.client, self.application = client, application
        self.registry = registry or samples.registry()
        self.events = {name: codec.event for name, codec in self.registry.codecs.items()}
        self.stored: Callable[[Segment], None] = lambda _segment: None  # is told what the consumer has stored
        self._state: dict[str, ShardState] = {}
        self._read: dict[str, int] = {}
        on.make_tables(client)
        self._queue = self._bus()

    @property
    def context(self) -> RedriveContext:
        """An applier of its own, on the real clock."""
        return RedriveContext(
            settings=on.settings(self.application),
            client=self.client,
            registry=self.registry,
            history=on.HISTORY,
            now_ms=lambda: time.time_ns() // 1_000_000,
            by="ann",
        )

    def _bus(self) -> str:
        sqs, events = self.client("sqs"), self.client("events")
        url = str(sqs.create_queue(QueueName="devices")["QueueUrl"])
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events.create_event_bus(Name=BUS)
        pattern = json.dumps({"source": [{"prefix": SOURCE}]})
        events.put_rule(Name="devices", EventBusName=BUS, EventPattern=pattern)
        events.put_targets(Rule="devices", EventBusName=BUS, Targets=[{"Id": "q", "Arn": arn}])
        return url

    def publish(self, event: str, key: str, detail: Mapping[str, Any]) -> None:
        """As a device does."""
        entry = {"Source": SOURCE, "DetailType": event, "Resources": [key], "Detail": json.dumps(detail)}
        answer = self.client("events").put_events(Entries=[{**entry, "EventBusName": BUS}])
        assert not answer["FailedEntryCount"]

    def put(self, data: bytes, key: str) -> None:
        """Straight onto the stream."""
        self.client("kinesis").put_record(StreamName=STREAM, Data=data, PartitionKey=key)

    def run(self, *, hydrating: bool = True) -> None:
        """Queue, pipe, consumer, hydrate."""
        self._pipe()
        for shard in shards(self.client("kinesis"), STREAM):
            segment = self._segment(shard.id)
            if segment is not None:
                self._store(segment, hydrating=hydrating)

    def _pipe(self) -> None:
        sqs = self.client("sqs")
        while found := sqs.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10).get("Messages"):
            for message in found:
                self.put(message["Body"].encode(), json.loads(message["Body"])["resources"][0])
                sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])

    def _segment(self, shard: str) -> Segment | None:
        raw = [record for page in pages(self.client("kinesis"), STREAM, shard) for record in page.records]
        records = [one for record in raw for one in user_records(record)[0]]
        begin, self._read[shard] = self._read.get(shard, 0), len(records)
        if begin == len(records):
            return None
        state = self._state.setdefault(shard, ShardState(self.events, 256))
        done = process(records[begin:], self.registry, state, 4_096)
        return Segment(
            self.application, STREAM, shard, records[begin:], done.passed, tuple(done.failed), done.repeated
        )

    def _store(self, segment: Segment, *, hydrating: bool) -> None:
        s3, latest = self.client("s3"), LatestSink(self.client("dynamodb"), on.LATEST, self.events)
        segment = store(segment, [latest, ParquetSink(s3, BUCKET), ManifestSink(s3, BUCKET)])
        latest.close()
        self.stored(segment)
        if hydrating:
            dead_letters = [parse(message) for message in messages(segment)]
            assert not hydrate(dead_letters, HydrateDependencies(self.client("kinesis"), s3, BUCKET)).failed

    def failures(self) -> list[str]:
        """The keys of the failure store."""
        return list(failure_keys(self.client("s3"), BUCKET, self.application))

    def audited(self) -> Audit:
        """What the audit says when everything has come to its end."""
        return audit(
            kinesis=self.client("kinesis"),
            s3=self.client("s3"),
            stream=STREAM,
            bucket=BUCKET,
            consumer=self.application,
            checkpoints=None,
        )


def planned(pipeline: Pipeline, to: str, **wish: Any) -> Plan:
    context, where = pipeline.context, destination(to, bus=BUS, stream=STREAM)
    return build_plan(
        context,
        PlanRequest(wish.pop("selection", Selection()), where, **wish),
        open_target(context, where, None),
    )


def applied(pipeline: Pipeline, plan: Plan) -> Applied:
    return apply(pipeline.context, plan, open_target(pipeline.context, plan.destination, {}))


def followed(pipeline: Pipeline, plan: Plan) -> Followed:
    return follow(pipeline.context, attempts_of(pipeline.context, plan))
