"""EventBridge rules with the moto patches, in-process."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.contracts.local_kinesis import read

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

    from stream_app.aws.clients import ClientFactory


SOURCE = "stream-app.devices"
PATTERN = json.dumps({"source": [{"prefix": SOURCE}]})


@pytest.fixture
def events(aws: ClientFactory) -> EventBridgeClient:
    aws("events").create_event_bus(Name="bus")
    return aws("events")


@pytest.fixture
def sqs(aws: ClientFactory) -> SQSClient:
    return aws("sqs")


def queue(sqs: SQSClient, name: str = "queue") -> tuple[str, str]:
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    return url, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def target(events: EventBridgeClient, arn: str, rule: str = "rule", **how: Any) -> None:
    events.put_rule(Name=rule, EventBusName="bus", EventPattern=PATTERN)
    wanted: Any = {"Id": "1", "Arn": arn, **how}
    events.put_targets(Rule=rule, EventBusName="bus", Targets=[wanted])


def send(events: EventBridgeClient, *details: dict[str, Any], **how: Any) -> list[str]:
    entry: Any = {
        "Source": SOURCE,
        "DetailType": "air_quality",
        "Resources": ["A"],
        "EventBusName": "bus",
        **how,
    }
    entries: list[Any] = [{**entry, "Detail": json.dumps(detail)} for detail in details]
    answer = events.put_events(Entries=entries)
    assert answer["FailedEntryCount"] == 0
    return [sent["EventId"] for sent in answer["Entries"]]


def drain(sqs: SQSClient, url: str) -> list[MessageTypeDef]:
    found: list[MessageTypeDef] = []
    while messages := sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    ).get("Messages"):
        found += messages
    return found


def test_a_queue_receives_the_documented_envelope(events: EventBridgeClient, sqs: SQSClient) -> None:
    url, arn = queue(sqs)
    target(events, arn)
    detail = {"station": "A", "note": '<account> "é"', "pm25": 1.5, "none": None}
    event_id = send(events, detail, Time=datetime(2016, 12, 1, tzinfo=UTC))[0]
    body = json.loads(drain(sqs, url)[0]["Body"])
    assert list(body) == [
        "version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail"
    ]  # fmt: skip
    assert body == {
        "version": "0",
        "id": event_id,
        "detail-type": "air_quality",
        "source": SOURCE,
        "account": "123456789012",
        "time": "2016-12-01T00:00:00Z",
        "region": "us-east-1",
        "resources": ["A"],
        "detail": detail,
    }


def test_target_inputs_are_applied(events: EventBridgeClient, sqs: SQSClient) -> None:
    wanted: dict[str, tuple[dict[str, Any], str]] = {
        "path": ({"InputPath": "$.detail.station"}, '"A"'),
        "constant": ({"Input": '{"a":1}'}, '{"a":1}'),
        "template": (
            {
                "InputTransformer": {
                    "InputPathsMap": {"s": "$.detail.station"},
                    "InputTemplate": '{"station": "<s>"}',
                }
            },
            '{"station":"A"}',
        ),
    }
    urls = {}
    for name, (how, _) in wanted.items():
        urls[name], arn = queue(sqs, name)
        target(events, arn, name, **how)
    send(events, {"station": "A"})
    assert {name: drain(sqs, url)[0]["Body"] for name, url in urls.items()} == {
        n: w for n, (_, w) in wanted.items()
    }


def test_a_stream_can_be_a_target_with_its_partition_key_from_the_event(
    aws: ClientFactory, events: EventBridgeClient
) -> None:
    kinesis = aws("kinesis")
    kinesis.create_stream(StreamName="one", ShardCount=1)
    arn = kinesis.describe_stream_summary(StreamName="one")["StreamDescriptionSummary"]["StreamARN"]
    target(events, arn, KinesisParameters={"PartitionKeyPath": "$.detail.station"})
    target(events, arn, "by-id")
    event_id = send(events, {"station": "A"})[0]
    records = read(kinesis, "one", "shardId-000000000000")
    assert [record["PartitionKey"] for record in records] == ["A", event_id]
    assert all(json.loads(record["Data"])["detail"] == {"station": "A"} for record in records)


def test_a_disabled_rule_sends_nothing(events: EventBridgeClient, sqs: SQSClient) -> None:
    url, arn = queue(sqs)
    target(events, arn)
    events.disable_rule(Name="rule", EventBusName="bus")
    send(events, {"n": 1})
    events.enable_rule(Name="rule", EventBusName="bus")
    send(events, {"n": 2})
    assert [json.loads(message["Body"])["detail"] for message in drain(sqs, url)] == [{"n": 2}]


def test_an_unreachable_target_does_not_fail_put_events_and_is_dead_lettered(
    events: EventBridgeClient, sqs: SQSClient
) -> None:
    dead, dead_arn = queue(sqs, "dead")
    url, arn = queue(sqs)
    target(events, "arn:aws:sqs:us-east-1:123456789012:gone", "gone", DeadLetterConfig={"Arn": dead_arn})
    target(events, "arn:aws:kinesis:us-east-1:123456789012:stream/gone", "dropped")
    target(events, arn)
    send(events, {"n": 1})
    assert len(drain(sqs, url)) == 1
    letter = drain(sqs, dead)[0]
    assert json.loads(letter["Body"])["detail"] == {"n": 1}
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert attributes["TARGET_ARN"].endswith(":gone")
    assert attributes["RULE_ARN"].endswith("rule/bus/gone")
    assert attributes["ERROR_CODE"]


def test_a_put_events_request_is_limited_to_one_mebibyte(events: EventBridgeClient) -> None:
    half = json.dumps({"x": "y" * (512 * 1024)})
    entry: PutEventsRequestEntryTypeDef = {
        "Source": SOURCE,
        "DetailType": "t",
        "Detail": half,
        "EventBusName": "bus",
    }
    events.put_events(Entries=[entry])
    with pytest.raises(ClientError) as refused:
        events.put_events(Entries=[entry, entry])
    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_a_replay_sends_the_events_in_its_window_to_the_named_rules(
    events: EventBridgeClient, sqs: SQSClient
) -> None:
    url, arn = queue(sqs)
    other_url, other_arn = queue(sqs, "other")
    target(events, arn)
    target(events, other_arn, "other")
    bus = events.describe_event_bus(Name="bus")["Arn"]
    archive = events.create_archive(ArchiveName="archive", EventSourceArn=bus)["ArchiveArn"]
    noon = datetime(2016, 12, 1, 12, tzinfo=UTC)
    for hour in range(4):
        send(events, {"hour": hour}, Time=noon + timedelta(hours=hour))
    first = [json.loads(message["Body"]) for message in drain(sqs, url)]
    drain(sqs, other_url)
    rule = events.describe_rule(Name="rule", EventBusName="bus")["Arn"]
    events.start_replay(
        ReplayName="replay",
        EventSourceArn=archive,
        EventStartTime=noon + timedelta(hours=1),
        EventEndTime=noon + timedelta(hours=2),
        Destination={"Arn": bus, "FilterArns": [rule]},
    )
    again = [json.loads(message["Body"]) for message in drain(sqs, url)]
    assert [event["detail"]["hour"] for event in again] == [1, 2]
    assert all(event["replay-name"] == "replay" for event in again)
    assert [event["time"] for event in again] == [event["time"] for event in first[1:3]]
    assert drain(sqs, other_url) == []
    # Replayed events are not archived again.
    assert events.describe_archive(ArchiveName="archive")["EventCount"] == 4
