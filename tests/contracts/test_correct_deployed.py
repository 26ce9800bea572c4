"""The template's rule, queues and functions carry a request from the bus to the history."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import msgspec
import pytest

from stream_app import lambdas
from stream_app.local.deployers.deploy import deploy, resolve_templates, templates
from stream_app.local.functions import variables
from stream_app.recovery.correct.history import count_corrections
from stream_app.recovery.correct.history_entry import Request
from stream_app.recovery.correct.queue import parse
from tests.unit.test_infra_rules import RESOURCES, listed, of_type, statements

Clients = Callable[[str], Any]
APPLICATION = "stream-app"


@pytest.fixture
def clients(aws: Clients, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    made = cache(aws)
    outputs = deploy(templates(), made, shards=1)
    for name, value in variables(resolve_templates(templates(), made)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STREAM_APP_CORRECTIONS_QUEUE", outputs["CorrectionsQueueUrl"])
    for name in ("_client", "_settings", "_queue_dependencies"):
        getattr(lambdas, name).cache_clear()
    monkeypatch.setattr(lambdas, "_client", lambda: made)
    made("dynamodb").create_table(
        TableName=APPLICATION,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
    )
    yield made
    for name in ("_settings", "_queue_dependencies"):
        getattr(lambdas, name).cache_clear()


def alert(consumer: str = APPLICATION) -> Request:
    return Request(
        id="shardId-000000000000/17/checks",
        event="air_quality",
        key="Dongsi",
        consumer=consumer,
        shard="shardId-000000000000",
        sequence="17",
        arrived=1_700_000_000_000,
    )


def put(clients: Clients, detail: Request, detail_type: str = "AnomalyDetected") -> None:
    entry = {
        "EventBusName": APPLICATION,
        "Source": "stream-app.consumer",
        "DetailType": detail_type,
        "Detail": msgspec.json.encode(detail).decode(),
    }
    assert clients("events").put_events(Entries=[entry])["FailedEntryCount"] == 0


def received(clients: Clients, name: str) -> list[dict[str, Any]]:
    sqs = clients("sqs")
    url = sqs.get_queue_url(QueueName=f"{APPLICATION}-{name}")["QueueUrl"]
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"])
    return [
        {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
        }
        for message in messages.get("Messages", ())
    ]


def test_an_alert_passes_rule_queue_and_function_and_ends_in_manual_review(clients: Clients) -> None:
    put(clients, alert("another"))
    put(clients, alert(), "SomethingElse")
    put(clients, alert())
    (message,) = received(clients, "corrections")
    assert msgspec.structs.replace(parse(message["body"], APPLICATION), by="") == alert()
    # The segment is not stored yet, so the request stays in the queue.
    assert lambdas.correct({"Records": [message]}, None) == {
        "batchItemFailures": [{"itemIdentifier": message["messageId"]}]
    }
    table = f"{APPLICATION}-history"
    assert count_corrections(clients("dynamodb"), table, APPLICATION) == {"corrected": 0, "manual": 0}
    assert lambdas.correct_dead({"Records": [message]}, None) == {"batchItemFailures": []}
    assert count_corrections(clients("dynamodb"), table, APPLICATION) == {"corrected": 0, "manual": 1}


def test_the_function_role_cannot_request_corrections_and_concurrency_is_limited() -> None:
    allowed = [
        a for name, s in statements("AWS::IAM::Role") if "Correct" in name for a in listed(s["Action"])
    ]
    assert allowed
    assert not [a for a in allowed if a.startswith(("events:", "sns:", "kinesis:Put"))]
    functions = {n: f for n, f in of_type("AWS::Lambda::Function").items() if n.startswith("Corrections.")}
    assert sorted(functions) == ["Corrections.Correct", "Corrections.CorrectDead"]
    assert {f["ReservedConcurrentExecutions"] for f in functions.values()} == {2}
    mappings = [
        m for n, m in of_type("AWS::Lambda::EventSourceMapping").items() if n.startswith("Corrections.")
    ]
    assert {m["ScalingConfig"]["MaximumConcurrency"] for m in mappings} == {2}
    for mapping in mappings:
        queue = of_type("AWS::SQS::Queue")[mapping["EventSourceArn"].strip("<>").removesuffix(".Arn")]
        assert queue["VisibilityTimeout"] >= 6 * 300
    assert (
        json.dumps(RESOURCES["Corrections.CorrectionsRule"].properties["EventPattern"]).count("Anomaly") == 1
    )
