"""No loop can run for ever: everything that sends something again, going round together until nothing moves.

A person sends all that failed again and again, a monitor asks for the correction of every stored record in every
round, what is sent again is flagged and asks for a correction of its own: and it ends, with every record sent,
corrected and put before people as often as it may be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from stream_app.consumer.alerting.alerts import details
from stream_app.consumer.alerting.outbox import Outbox
from stream_app.consumer.alerting.store import S3Alerts
from stream_app.model.segment import Segment
from stream_app.pipeline.registry import Registry
from stream_app.recovery.correct.factory import CorrectorClients, CorrectorOptions, make_corrector
from stream_app.recovery.correct.history import History
from stream_app.recovery.correct.history_entry import Entry
from stream_app.recovery.correct.limits import ReadLimiter
from stream_app.recovery.correct.queue import REQUESTED, QueueDependencies, correct_batch
from stream_app.recovery.redrive.apply.execute import apply
from stream_app.recovery.redrive.context import open_target
from stream_app.recovery.redrive.follow import attempts_of, follow
from stream_app.recovery.redrive.plan.build import PlanRequest, build_plan
from stream_app.recovery.redrive.select import Selection
from stream_app.recovery.redrive.targets.target import destination
from stream_app.recovery.repair.file import parse_repair
from stream_app.recovery.stream.read import pages, shards, user_records
from tests.contracts import redriving as on
from tests.contracts.correcting import checked
from tests.contracts.redriving import BUCKET, BUS, STREAM, reading
from tests.contracts.redriving_pipeline import Pipeline
from tests.samples import SCHEMAS

MOST = 2  # times that a record may be sent again
QUEUE, MANUAL, DEAD = "corrections", "manual", "corrections-dead"
# What fails at 500 is mended into a jump, which is stored, flagged, and asks for a correction.
MEND = parse_repair(
    {
        "when": [{"field": "value", "is": "equals", "value": 500.0}],
        "steps": [{"do": "set", "field": "value", "value": 80.0}],
    }
)


@dataclass
class Round:
    """The pipeline, the corrections beside it, and everybody who asks for more."""

    pipeline: Pipeline
    sent: int = 0
    answered: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        client = self.pipeline.client
        sqs, events, dynamodb = client("sqs"), client("events"), client("dynamodb")
        self.urls = {name: sqs.create_queue(QueueName=name)["QueueUrl"] for name in (QUEUE, MANUAL, DEAD)}
        names = ["QueueArn"]
        arn = sqs.get_queue_attributes(QueueUrl=self.urls[QUEUE], AttributeNames=names)["Attributes"][
            "QueueArn"
        ]
        pattern = msgspec.json.encode({"source": ["stream-app.consumer", "stream-app.monitor"]}).decode()
        events.put_rule(Name="corrections", EventBusName=BUS, EventPattern=pattern)
        events.put_targets(Rule="corrections", EventBusName=BUS, Targets=[{"Id": "q", "Arn": arn}])
        self.history = History(dynamodb, on.HISTORY, lambda: 0)
        _all_is_committed(self.pipeline)
        store = S3Alerts(client("s3"), BUCKET, "app")
        self.outbox = Outbox(events, BUS, store, warn=pytest.fail)
        self.pipeline.stored = self._alert

    def _alert(self, segment: Segment) -> None:
        """As the consumer does; and the monitor remembers everything that is stored."""
        for batch in segment.passed.values():
            event = self.pipeline.events[batch.event]
            about = (segment.consumer, segment.shard, segment.records)
            self.asked += details(*about, batch, event, "monitor")
            self.outbox.add(details(*about, batch.take(batch["anomaly"]), event, "Drift"))
        self.outbox.flush()

    def go(self, number: int) -> None:
        """Run the pipeline, the monitor, the corrections and a redrive once."""
        self.pipeline.run()
        self._monitor()
        self._correct()
        self._redrive(("bus", "stream")[number % 2])

    def _monitor(self) -> None:
        for one in self.asked:
            detail = msgspec.json.encode({**one, "id": f"{one['shard']}/{one['sequence']}/monitor"}).decode()
            entry = {
                "Source": "stream-app.monitor",
                "DetailType": REQUESTED,
                "Detail": detail,
                "EventBusName": BUS,
            }
            assert not self.pipeline.client("events").put_events(Entries=[entry])["FailedEntryCount"]

    def _correct(self) -> None:
        for message in _messages(self.pipeline.client("sqs"), self.urls[QUEUE]):
            event = {"Records": [{"messageId": "1", "receiptHandle": "-", "body": message["Body"]}]}
            assert correct_batch(event, self._queue_dependencies()) == {"batchItemFailures": []}
            self.answered += 1

    def _queue_dependencies(self) -> QueueDependencies:
        client, settings = self.pipeline.client, on.settings()
        options = CorrectorOptions(
            stream=STREAM,
            bucket=BUCKET,
            application=settings.application,
            max_bytes=settings.max_record_bytes,
            latest_table=on.LATEST,
        )
        work = make_corrector(
            CorrectorClients(client("kinesis"), client("s3"), client("dynamodb")),
            options,
            self.pipeline.registry,
            self.history,
            lambda: 2_000_000_000_000,
        )
        return QueueDependencies(
            sqs=client("sqs"),
            s3=client("s3"),
            bucket=BUCKET,
            consumer=settings.application,
            history=self.history,
            work=work.correct_all,
            queue=self.urls[QUEUE],
            manual=self.urls[MANUAL],
            reads=ReadLimiter(1_000.0, 1_000.0, lambda: 0.0, lambda _seconds: None),
        )

    def _redrive(self, to: str) -> None:
        """All that is not stored, also what another plan has sent before; mended where it can be, else as it is."""
        context, where = self.pipeline.context, destination(to, bus=BUS, stream=STREAM)
        for repair in (MEND, None):
            target = open_target(context, where, {})
            everything = Selection(statuses=("open", "redriven", "discarded", "processed"))
            plan = build_plan(
                context, PlanRequest(everything, where, repair, newer="apply", max_redrives=MOST), target
            )
            self.sent += apply(context, plan, target).sent
            follow(context, attempts_of(context, plan))

    def state(self) -> dict[str, Any]:
        """Return every count that an endless loop would increase."""
        entries = list(self.history.entries(self.pipeline.application))
        return {
            "records": _records(self.pipeline),
            "failures": self.pipeline.failures(),
            "corrected": sum(entry.done is not None for entry in entries),
            "refused": sum(entry.refusal is not None for entry in entries),
            "sent": self.sent,
        }

    def entries(self) -> list[Entry]:
        return list(self.history.entries(self.pipeline.application))


def _all_is_committed(pipeline: Pipeline) -> None:
    dynamodb = pipeline.client("dynamodb")
    dynamodb.create_table(
        TableName=pipeline.application,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
    )
    for shard in shards(pipeline.client("kinesis"), STREAM):
        item = {"leaseKey": {"S": shard.id}, "checkpoint": {"S": "SHARD_END"}}
        dynamodb.put_item(TableName=pipeline.application, Item=item)


def _records(pipeline: Pipeline) -> int:
    kinesis = pipeline.client("kinesis")
    found = [pages(kinesis, STREAM, shard.id) for shard in shards(kinesis, STREAM)]
    return sum(len(user_records(raw)[0]) for some in found for page in some for raw in page.records)


def _messages(sqs: Any, url: str) -> Iterator[dict[str, Any]]:
    while found := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in found:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            yield message


@pytest.fixture
def everybody(aws: Callable[[str], Any], stream: str) -> Round:
    assert stream == STREAM
    event = checked()
    pipeline = Pipeline(aws, Registry.of([event], {"reading": [SCHEMAS["reading"]]}))
    found = Round(pipeline)
    for number, value in enumerate((20.0, 21.0, 500.0, 22.0, 60.0, -600.0, 23.0, 500.0)):
        pipeline.publish("reading", "AB"[number % 2], reading(number, "AB"[number % 2], value=value))
    pipeline.put(b"\xff\xfe\x00", "A")
    return found


def test_redrives_corrections_and_alerts_terminate_together(everybody: Round) -> None:
    pipeline, states = everybody.pipeline, list[dict[str, Any]]()
    rounds = (
        2 * MOST + 1
    )  # every second one goes to the target that takes everything; what it sent comes in the next
    for number in range(rounds + 2):
        everybody.go(number)
        states.append(everybody.state())
    assert states[0] != states[1]
    assert states[rounds - 1] == states[rounds] == states[rounds + 1], "the state no longer changes"
    last, entries = states[-1], everybody.entries()
    assert last["records"] == 9 + everybody.sent
    first_failures = 4
    assert 0 < everybody.sent <= MOST * first_failures
    # What was mended and sent again is stored, was flagged, and was corrected or refused like any other: once.
    positions = Counter(entry.request.position for entry in entries)
    assert set(positions.values()) == {1}
    assert last["corrected"] >= 2
    dead_letters = [
        msgspec.json.decode(one["Body"]) for one in _messages(pipeline.client("sqs"), everybody.urls[MANUAL])
    ]
    before_people = Counter((one["request"]["shard"], one["request"]["sequence"]) for one in dead_letters)
    assert max(before_people.values()) == 1
    assert last["refused"] == len(before_people)
    assert everybody.answered > len(entries) * 2, "corrections were requested repeatedly"
    assert pipeline.audited().balanced


def test_without_bounds_the_loop_does_not_terminate(everybody: Round) -> None:
    """With a higher redrive limit, the record is sent in every round."""
    context, where = everybody.pipeline.context, destination("stream", bus=BUS, stream=STREAM)
    sent = []
    for _ in range(MOST + 3):
        everybody.pipeline.run()
        target = open_target(context, where, {})
        wish = PlanRequest(Selection(codes=("UNDECODABLE",)), where, None, newer="apply", max_redrives=99)
        plan = build_plan(context, wish, target)
        sent.append(apply(context, plan, target).sent)
    assert sent == [1] * (MOST + 3)
