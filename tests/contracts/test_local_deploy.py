"""Deployment of the template: each property is read back through the API."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stream_app.errors import ConfigError
from stream_app.local.deployers.deploy import LOCAL_PARAMETERS, deploy, resolve_templates, templates

Clients = Callable[[str], Any]
REGION, ACCOUNT = "us-east-1", "123456789012"


def test_deployment_is_idempotent(clients: Clients, outputs: dict[str, str]) -> None:
    def inventory() -> Any:
        return (
            sorted(clients("sqs").list_queues()["QueueUrls"]),
            sorted(clients("dynamodb").list_tables()["TableNames"]),
            [t["TopicArn"] for t in clients("sns").list_topics()["Topics"]],
            [s["Endpoint"] for s in clients("sns").list_subscriptions()["Subscriptions"]],
            [k["KeyId"] for k in clients("kms").list_keys()["Keys"]],
            [r["Name"] for r in clients("events").list_rules(EventBusName=outputs["BusName"])["Rules"]],
            [
                s["ShardId"]
                for s in clients("kinesis").list_shards(StreamName=outputs["StreamName"])["Shards"]
            ],
        )

    before = inventory()
    assert deploy(templates(), clients, shards=2) == outputs
    assert inventory() == before


def test_attributes_are_known_before_deployment(clients: Clients, outputs: dict[str, str]) -> None:
    found = {item.id: item.attributes for item in resolve_templates(templates(), clients)}
    sqs = clients("sqs")
    for name, attributes in found.items():
        if name.endswith("Queue"):
            assert sqs.get_queue_url(QueueName=attributes["QueueName"])["QueueUrl"] == attributes["Ref"]
            got = sqs.get_queue_attributes(QueueUrl=attributes["Ref"], AttributeNames=["QueueArn"])
            assert got["Attributes"]["QueueArn"] == attributes["Arn"]
    stream = clients("kinesis").describe_stream_summary(StreamName=outputs["StreamName"])
    assert stream["StreamDescriptionSummary"]["StreamARN"] == found["Ingest.Stream"]["Arn"]
    assert clients("events").describe_event_bus(Name=outputs["BusName"])["Arn"] == found["Ingest.Bus"]["Arn"]
    table = clients("dynamodb").describe_table(TableName=outputs["LatestTableName"])["Table"]
    assert table["TableArn"] == found["Storage.LatestTable"]["Arn"]
    rules = clients("events").list_rules(EventBusName=outputs["BusName"])["Rules"]
    assert found["Ingest.DevicesRule"]["Arn"] in [rule["Arn"] for rule in rules]
    topics = [topic["TopicArn"] for topic in clients("sns").list_topics()["Topics"]]
    assert found["Ordered.OrderedTopic"]["Ref"] in topics


def test_stream_has_shards_retention_and_encryption(clients: Clients, outputs: dict[str, str]) -> None:
    kinesis, key = clients("kinesis"), clients("kms").describe_key(KeyId="alias/stream-app")["KeyMetadata"]
    summary = kinesis.describe_stream_summary(StreamName=outputs["StreamName"])["StreamDescriptionSummary"]
    assert summary["RetentionPeriodHours"] == 168
    assert (summary["EncryptionType"], summary["KeyId"]) == ("KMS", key["Arn"])
    assert summary["StreamModeDetails"] == {"StreamMode": "PROVISIONED"}
    assert len(kinesis.list_shards(StreamName=outputs["StreamName"])["Shards"]) == 2


def test_stream_is_on_demand_by_default(clients: Clients) -> None:
    outputs = deploy(templates(), clients)
    summary = clients("kinesis").describe_stream_summary(StreamName=outputs["StreamName"])
    assert summary["StreamDescriptionSummary"]["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}


def test_bucket_matches_the_template(clients: Clients, outputs: dict[str, str]) -> None:
    s3, bucket = clients("s3"), outputs["BucketName"]
    assert bucket == f"stream-app-{ACCOUNT}-{REGION}"
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    encryption = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert encryption["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
    rules = {r["ID"]: r for r in s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]}
    assert rules["processed-failures"]["Expiration"] == {"Days": 30}
    assert rules["processed-failures"]["Filter"]["And"] == {
        "Prefix": "failures/",
        "Tags": [{"Key": "status", "Value": "processed"}],
    }
    assert rules["noncurrent-versions"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}


def test_the_bucket_accepts_objects(clients: Clients, outputs: dict[str, str]) -> None:
    """A deployed TLS-only policy would deny them, because moto ignores conditions."""
    clients("s3").put_object(Bucket=outputs["BucketName"], Key="state/x", Body=b"1")
    assert clients("s3").get_object(Bucket=outputs["BucketName"], Key="state/x")["Body"].read() == b"1"


def test_tables_match_the_template(clients: Clients, outputs: dict[str, str]) -> None:
    dynamodb = clients("dynamodb")
    for name, keys in ((outputs["LatestTableName"], ["device"]), (outputs["HistoryTableName"], ["pk", "sk"])):
        table = dynamodb.describe_table(TableName=name)["Table"]
        assert [key["AttributeName"] for key in table["KeySchema"]] == keys
        assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        assert table["SSEDescription"]["SSEType"] == "KMS"
        recovery = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
        assert recovery["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    ttl = dynamodb.describe_time_to_live(TableName=outputs["HistoryTableName"])["TimeToLiveDescription"]
    assert ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires"}


def test_queues_have_a_dead_letter_queue_and_a_policy(clients: Clients, outputs: dict[str, str]) -> None:
    got = clients("sqs").get_queue_attributes(QueueUrl=outputs["DevicesQueueUrl"], AttributeNames=["All"])
    attributes = got["Attributes"]
    assert json.loads(attributes["RedrivePolicy"]) == {
        "deadLetterTargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:stream-app-devices-dead",
        "maxReceiveCount": 5,
    }
    assert attributes["VisibilityTimeout"] == "60"
    assert json.loads(attributes["Policy"])["Statement"][0]["Principal"] == {
        "Service": "events.amazonaws.com"
    }


def test_a_device_event_on_the_bus_reaches_the_queue(clients: Clients, outputs: dict[str, str]) -> None:
    entry = {
        "EventBusName": outputs["BusName"],
        "Source": "stream-app.devices",
        "DetailType": "air_quality",
        "Resources": ["station-1"],
        "Detail": json.dumps({"station": "station-1"}),
    }
    clients("events").put_events(Entries=[entry, {**entry, "Source": "somebody.else"}])
    messages = clients("sqs").receive_message(QueueUrl=outputs["DevicesQueueUrl"], MaxNumberOfMessages=10)[
        "Messages"
    ]
    [envelope] = [json.loads(message["Body"]) for message in messages]
    assert (envelope["detail-type"], envelope["resources"]) == ("air_quality", ["station-1"])


def test_an_anomaly_on_the_bus_reaches_the_anomalies_queue(clients: Clients, outputs: dict[str, str]) -> None:
    entry = {
        "EventBusName": outputs["BusName"],
        "Source": "stream-app.consumer",
        "DetailType": "AnomalyDetected",
        "Detail": "{}",
    }
    clients("events").put_events(Entries=[entry])
    sqs = clients("sqs")
    assert len(sqs.receive_message(QueueUrl=outputs["AnomaliesQueueUrl"])["Messages"]) == 1
    assert "Messages" not in sqs.receive_message(QueueUrl=outputs["DevicesQueueUrl"])


def test_an_ordered_event_reaches_the_fifo_queue_unchanged(clients: Clients, outputs: dict[str, str]) -> None:
    body = json.dumps({"source": "stream-app.devices", "resources": ["d"]})
    clients("sns").publish(TopicArn=outputs["OrderedTopicArn"], Message=body, MessageGroupId="d")
    url = clients("sqs").get_queue_url(QueueName="stream-app-ordered.fifo")["QueueUrl"]
    [message] = clients("sqs").receive_message(QueueUrl=url, MessageSystemAttributeNames=["All"])["Messages"]
    assert message["Body"] == body
    assert message["Attributes"]["MessageGroupId"] == "d"


def test_two_applications_can_be_deployed_together(clients: Clients, outputs: dict[str, str]) -> None:
    other = deploy(templates(), clients, application="other-app", shards=1)
    assert set(other) == set(outputs)
    assert not set(other.values()) & set(outputs.values())


@pytest.mark.parametrize(
    ("resource", "says"),
    [
        ("{Type: AWS::EC2::VPC}", "A has the unknown type AWS::EC2::VPC"),
        ("{Type: AWS::SQS::Queue, Properties: {QueueName: q, Tags: []}}", "has the unknown property Tags"),
    ],
)
def test_unknown_types_and_properties_are_rejected(
    clients: Clients, tmp_path: Path, resource: str, says: str
) -> None:
    path = tmp_path / "own.yaml"
    names = ("Application", *LOCAL_PARAMETERS)
    parameters = f"Parameters: {{{', '.join(f'{name}: {{Type: String}}' for name in names)}}}"
    path.write_text(f"{parameters}\nResources: {{A: {resource}, B: {{Type: AWS::SQS::Queue}}}}")
    with pytest.raises(ConfigError, match=says):
        deploy([path], clients)
    assert "QueueUrls" not in clients("sqs").list_queues()
