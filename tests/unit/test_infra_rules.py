"""Rules for every version of infra/: lint, encryption, TLS, least privilege and dead-letter queues."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from stream_app.local.deployers.deploy import (
    DEPLOYERS,
    LOCAL_PARAMETERS,
    UNSUPPORTED_TYPES,
    templates,
    unsupported,
)
from stream_app.local.deployers.intrinsics import PseudoParameters, evaluate
from stream_app.local.deployers.template import Resource, read
from stream_app.local.functions import resolve
from stream_app.recovery.hydrate.report import CONSUMER, COUNTS, LEFT, MALFORMED
from stream_app.recovery.hydrate.results import State

WORLD = PseudoParameters("123456789012", "eu-west-1", "http://queues")
PARAMETERS = {**LOCAL_PARAMETERS, "ApiEndpoint": "http://127.0.0.1/x", "AlarmEmail": "a@example.org"}
RESOURCES = read(templates()[0], WORLD, PARAMETERS).resources
# Actions that do not support resource-level permissions.
WITHOUT_RESOURCE = {"cloudwatch:PutMetricData", "kinesis:ListStreams"}


def properties(resource: Resource) -> Mapping[str, Any]:
    found: Mapping[str, Any] = evaluate(
        resource.properties, resource.stack, lambda name, att: f"<{name}.{att}>"
    )
    return found


def of_type(type_: str) -> dict[str, Mapping[str, Any]]:
    return {name: properties(item) for name, item in RESOURCES.items() if item.type == type_}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(*types: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, item in RESOURCES.items():
        if item.type in types:
            mine = properties(item)
            documents = [mine.get("PolicyDocument"), *[p["PolicyDocument"] for p in mine.get("Policies", ())]]
            for document in documents:
                yield from ((name, statement) for statement in (document or {"Statement": []})["Statement"])


def test_cfn_lint_reports_no_problem() -> None:
    files = sorted(str(path) for path in templates()[0].parent.glob("*.yaml"))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("cfn-lint")), *files], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_every_type_and_property_is_deployed_or_listed_as_unsupported() -> None:
    assert unsupported(RESOURCES.values()) == []
    assert not set(DEPLOYERS) & set(UNSUPPORTED_TYPES)
    assert set(UNSUPPORTED_TYPES) <= {item.type for item in RESOURCES.values()}, (
        "a reason for what is not there"
    )


def test_every_queue_is_encrypted_requires_tls_and_has_a_dead_letter_queue() -> None:
    closed = {
        arn
        for _, statement in statements("AWS::SQS::QueuePolicy")
        if statement["Effect"] == "Deny"
        and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        for arn in listed(statement["Resource"])
    }
    for name, queue in of_type("AWS::SQS::Queue").items():
        assert queue["SqsManagedSseEnabled"] is True
        assert f"<{name}.Arn>" in closed
        assert queue["MessageRetentionPeriod"] == 14 * 86400
        assert ("RedrivePolicy" in queue) != name.endswith("DeadQueue")


def test_roles_have_least_privilege() -> None:
    for name, statement in statements("AWS::IAM::Role", "AWS::IAM::ManagedPolicy"):
        actions = listed(statement["Action"])
        assert not [action for action in actions if "*" in action], name
        if "*" in listed(statement["Resource"]):
            assert set(actions) <= WITHOUT_RESOURCE, name


def test_service_principals_are_restricted_by_condition() -> None:
    for name, statement in statements("AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy"):
        if statement["Effect"] == "Allow" and "Service" in statement["Principal"]:
            assert "Condition" in statement, name


def test_the_consumer_can_use_the_three_tables_of_kcl() -> None:
    tables = {
        arn.split(":table/")[1]
        for _, statement in statements("AWS::IAM::ManagedPolicy")
        if "dynamodb:CreateTable" in statement["Action"]
        for arn in statement["Resource"]
    }
    assert tables == {"stream-app", "stream-app-WorkerMetricStats", "stream-app-CoordinatorState"}


@pytest.mark.parametrize(
    "name", ["Storage.Key", "Storage.Bucket", "Storage.LatestTable", "Storage.HistoryTable"]
)
def test_data_is_retained_when_the_stack_is_deleted(name: str) -> None:
    body = RESOURCES[name].stack.section("Resources")[name.split(".")[1]]
    assert (body["DeletionPolicy"], body["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_only_resolved_failures_and_old_versions_expire() -> None:
    rules = of_type("AWS::S3::Bucket")["Storage.Bucket"]["LifecycleConfiguration"]["Rules"]
    expiring = [rule for rule in rules if "ExpirationInDays" in rule]
    assert [rule["TagFilters"] for rule in expiring] == [
        [{"Key": "status", "Value": "processed"}],
        [{"Key": "status", "Value": "discarded"}],
    ]
    assert {rule["Prefix"] for rule in expiring} == {"failures/"}


def test_every_handler_exists() -> None:
    for function in of_type("AWS::Lambda::Function").values():
        assert callable(resolve(function["Handler"]))


def test_pipes_partition_by_device_and_keep_the_payload() -> None:
    found = of_type("AWS::Pipes::Pipe")
    for name in ("Ingest.DevicesPipe", "Ordered.OrderedPipe"):
        target = found[name]["TargetParameters"]
        assert target["KinesisStreamParameters"]["PartitionKey"] == "$.body.resources[0]"
        assert target["InputTemplate"] == "<$.body>"
    assert found["Delivery.DeliveryPipe"]["SourceParameters"]["KinesisStreamParameters"]["BatchSize"] == 1


def test_alarms_use_metrics_that_hydrate_emits() -> None:
    given = {LEFT, MALFORMED, *COUNTS.values()}
    asked = {}
    for alarm in of_type("AWS::CloudWatch::Alarm").values():
        for query in alarm.get("Metrics", ()):
            found = re.fullmatch(r'SELECT (\w+)\((\w+)\) FROM SCHEMA\("(.+)", (\w+)\)', query["Expression"])
            assert found is not None
            assert found[3] == "stream-app", "hydrate's namespace is the application"
            assert found[4] == CONSUMER
            asked[found[2]] = (found[1], alarm["ComparisonOperator"], alarm["Threshold"])
    assert set(asked) <= given
    more = ("SUM", "GreaterThanThreshold", 0)
    assert asked.pop(LEFT) == ("MIN", "LessThanThreshold", 86_400)
    assert asked == {COUNTS[State.EXPIRED]: more, COUNTS[State.PARTIAL]: more, MALFORMED: more}


def test_the_visibility_timeout_covers_the_timeout_of_hydrate() -> None:
    queue = of_type("AWS::SQS::Queue")["Recovery.DeadLetterQueue"]
    mapping = of_type("AWS::Lambda::EventSourceMapping")["Recovery.HydrateMapping"]
    timeout = of_type("AWS::Lambda::Function")["Recovery.Hydrate"]["Timeout"]
    window = mapping["MaximumBatchingWindowInSeconds"]
    assert (mapping["BatchSize"], window) == (100, 1)
    assert queue["VisibilityTimeout"] >= 6 * timeout + window
