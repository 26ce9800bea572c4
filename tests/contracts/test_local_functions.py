"""The function runner calls handlers like Lambda and deletes messages according to their responses."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app import lambdas
from stream_app.errors import ConfigError, FatalError
from stream_app.local.deployers.deploy import deploy, resolve_templates, templates
from stream_app.local.functions import failures, functions, resolve, variables
from stream_app.local.runners import RunnerOptions, run_all
from tests.contracts.local_queues import PATH, Clients, send, waiting_in

SHARDS = 1
IDS = st.lists(st.text(min_size=1), unique=True, min_size=1)


def run(clients: Clients, handler: Callable[[Any, Any], Any], received: int) -> dict[str, int]:
    """Run until a number of messages was received and processed."""
    stop = threading.Event()
    seen: dict[str, int] = {}

    def report(counters: Mapping[str, Any]) -> None:
        seen.update(counters["function"]["stream-app-hydrate"])
        if sum(seen[name] for name in ("delivered", "failed", "dead_lettered")) >= received:
            stop.set()

    run_all(
        clients,
        templates(),
        "stream-app",
        stop,
        report,
        RunnerOptions(handlers={PATH: handler}, interval=0.02),
    )
    return seen


def test_the_event_has_the_form_of_lambda(clients: Clients, outputs: dict[str, str]) -> None:
    attributes = {"kind": {"DataType": "String", "StringValue": "x"}}
    sent = clients("sqs").send_message(
        QueueUrl=outputs["DeadLetterQueueUrl"], MessageBody="{}", MessageAttributes=attributes
    )
    calls: list[tuple[Any, Any, int]] = []

    def handler(event: Any, context: Any) -> None:
        calls.append((event, context, context.get_remaining_time_in_millis()))

    run(clients, handler, received=1)
    [(event, context, remaining)] = calls
    [record] = event["Records"]
    assert set(record) == {
        "messageId",
        "receiptHandle",
        "body",
        "attributes",
        "messageAttributes",
        "md5OfBody",
        "eventSource",
        "eventSourceARN",
        "awsRegion",
    }
    assert (record["messageId"], record["body"], record["md5OfBody"]) == (
        sent["MessageId"],
        "{}",
        sent["MD5OfMessageBody"],
    )
    assert record["eventSourceARN"] == "arn:aws:sqs:us-east-1:123456789012:stream-app-dead-letters"
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert record["messageAttributes"]["kind"] == {"dataType": "String", "stringValue": "x"}
    assert (context.function_name, context.memory_limit_in_mb) == ("stream-app-hydrate", 512)
    assert 0 < remaining <= 60_000


def test_only_reported_messages_stay_in_the_queue(clients: Clients, outputs: dict[str, str]) -> None:
    for n in range(6):
        clients("sqs").send_message(QueueUrl=outputs["DeadLetterQueueUrl"], MessageBody=json.dumps(n))

    def handler(event: Any, context: Any) -> Any:
        odd = [r["messageId"] for r in event["Records"] if json.loads(r["body"]) % 2]
        return {"batchItemFailures": [{"itemIdentifier": name} for name in odd]}

    counts = run(clients, handler, received=6)
    assert (counts["received"], counts["delivered"], counts["failed"]) == (6, 3, 3)
    assert waiting_in(clients, outputs["DeadLetterQueueUrl"]) == 3


@pytest.mark.parametrize("answer", [ValueError("as asked"), object()])
def test_a_failed_batch_stays_in_the_queue(clients: Clients, outputs: dict[str, str], answer: Any) -> None:
    for n in range(3):
        clients("sqs").send_message(QueueUrl=outputs["DeadLetterQueueUrl"], MessageBody=str(n))

    def handler(event: Any, context: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    counts = run(clients, handler, received=3)
    assert (counts["delivered"], counts["failed"]) == (0, 3)
    assert waiting_in(clients, outputs["DeadLetterQueueUrl"]) == 3


def test_a_malformed_dead_letter_is_parked_in_a_local_run(
    clients: Clients, outputs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uses the real function, imported by its path, with the environment variables of the template."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    environ = dict(os.environ)
    monkeypatch.setattr(os, "environ", environ)
    caches = (lambdas._client, lambdas._settings, lambdas._trial_factory, lambdas._hydrate)
    for cached in caches:
        cached.cache_clear()
    send(clients, outputs["DeadLetterQueueUrl"], 1, "no dead letter")
    stop = threading.Event()

    def report(counters: Mapping[str, Any]) -> None:
        if counters["function"]["stream-app-hydrate"]["delivered"]:
            stop.set()

    try:
        run_all(
            clients, templates(), "stream-app", stop, report, RunnerOptions(environ=environ, interval=0.02)
        )
    finally:
        for cached in caches:
            cached.cache_clear()
    assert waiting_in(clients, outputs["DeadLetterQueueUrl"]) == 0
    [parked] = clients("sqs").receive_message(
        QueueUrl=outputs["DeadLettersDeadQueueUrl"], MessageAttributeNames=["All"]
    )["Messages"]
    assert parked["Body"] == "no dead letter"
    assert parked["MessageAttributes"]["reason"]["StringValue"]


@given(IDS, st.data())
def test_reported_messages_have_failed(sent: list[str], data: st.DataObject) -> None:
    named = data.draw(st.lists(st.sampled_from(sent), min_size=1))
    answer = {"batchItemFailures": [{"itemIdentifier": name} for name in named]}
    assert failures(answer, sent) == set(named)


@pytest.mark.parametrize("answer", [None, {}, {"batchItemFailures": []}, {"batchItemFailures": None}, ""])
def test_an_empty_response_is_success(answer: Any) -> None:
    assert failures(answer, ["a", "b"]) == set()


@pytest.mark.parametrize(
    "item",
    [{}, {"itemIdentifier": ""}, {"itemIdentifier": None}, {"wrong": "a"}, {"itemIdentifier": "z"}, "a"],
)
def test_an_invalid_item_fails_the_batch(item: Any) -> None:
    answer = {"batchItemFailures": [{"itemIdentifier": "a"}, item]}
    assert failures(answer, ["a", "b"]) == {"a", "b"}


@pytest.mark.parametrize("answer", ["text", {"other": 1}, 7, ["a"]])
def test_an_unexpected_response_never_raises(answer: Any) -> None:
    assert failures(answer, ["a"]) <= {"a"}


def test_a_handler_is_imported_by_its_path() -> None:
    found: object = resolve("json.dumps")
    assert found is json.dumps
    for path in ("json.nothing", "no_such_module.handler", "handler"):
        with pytest.raises(ConfigError, match="cannot import the handler"):
            resolve(path)


def test_functions_receive_their_environment_variables(clients: Clients) -> None:
    environ: dict[str, str] = {}
    stop = threading.Event()
    stop.set()
    deploy(templates(), clients, shards=1)
    handlers = {PATH: lambda event, context: None}
    run_all(
        clients,
        templates(),
        "stream-app",
        stop,
        lambda _: None,
        RunnerOptions(handlers=handlers, environ=environ),
    )
    assert environ["STREAM_APP_BUCKET"] == "stream-app-123456789012-us-east-1"
    assert environ["STREAM_APP_STREAM"] == "stream-app-events"


def test_conflicting_environment_variables_are_rejected(clients: Clients) -> None:
    found = resolve_templates(templates(), clients)
    [function] = [item for item in found if item.id == "Recovery.Hydrate"]
    changed = {**function.properties, "Environment": {"Variables": {"STREAM_APP_BUCKET": "other"}}}
    with pytest.raises(ConfigError, match="STREAM_APP_BUCKET"):
        variables([*found, function._replace(id="Other", properties=changed)])


def test_an_unsupported_event_source_is_rejected(clients: Clients) -> None:
    found = resolve_templates(templates(), clients)
    bucket = next(item.attributes["Arn"] for item in found if item.type == "AWS::S3::Bucket")
    changed = [
        item._replace(properties={**item.properties, "EventSourceArn": bucket})
        if item.id == "Recovery.HydrateMapping"
        else item
        for item in found
    ]
    with pytest.raises(ConfigError, match="unsupported event source of type AWS::S3::Bucket"):
        functions(changed, clients, {PATH: lambda event, context: None})


def test_a_permanent_failure_stops_all_runners(clients: Clients) -> None:
    with pytest.raises(FatalError, match="failed"):
        run_all(
            clients,
            templates(),
            "stream-app",
            threading.Event(),
            lambda counters: None,
            RunnerOptions(handlers={PATH: lambda event, context: None}, interval=0.02),
        )
