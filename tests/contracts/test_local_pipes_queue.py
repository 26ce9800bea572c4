"""A pipe from a queue to the stream: delivery, filters, retries, and order within a group."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest

from stream_app.errors import ConfigError, TransientError
from stream_app.local.deployers.deploy import StackResource, resolve_templates, templates
from stream_app.local.moto_patches import clock
from stream_app.local.pipes.runner import PipeDependencies, Worker, pipes
from stream_app.local.pipes.targets import StreamTarget, UnresolvedParameter

Clients = Callable[[str], Any]


class RefusingKinesis:
    """A Kinesis client that rejects records for which `refuses(request number, key)` is true."""

    def __init__(self, kinesis: Any, refuses: Callable[[int, str], bool]) -> None:
        self._kinesis, self._refuses, self._requests = kinesis, refuses, 0
        self.meta = kinesis.meta

    def put_records(self, StreamARN: str, Records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        self._requests += 1
        answers = []
        for record in Records:
            if self._refuses(self._requests, record["PartitionKey"]):
                answers.append({"ErrorCode": "ProvisionedThroughputExceededException"})
            else:
                answers += self._kinesis.put_records(StreamARN=StreamARN, Records=[record])["Records"]
        return {"FailedRecordCount": sum("ErrorCode" in a for a in answers), "Records": answers}


def no_http(method: str, url: str, headers: Mapping[str, str], body: bytes) -> int:
    raise AssertionError("no pipe of a queue posts")


def worker(clients: Clients, name: str, kinesis: Any = None) -> Worker:
    given_clients = (lambda n: kinesis if n == "kinesis" else clients(n)) if kinesis else clients
    dependencies = PipeDependencies(given_clients, no_http, lambda: 0.0, random.Random(1))
    [found] = [w for w in pipes(resolve_templates(templates(), clients), dependencies) if w.name == name]
    return found


def run_until(found: Worker, reached: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """Run all loops until the counters satisfy a condition, then stop them."""
    stop, waiting = threading.Event(), threading.Event()
    threads = [threading.Thread(target=loop, args=(stop,)) for loop in found.loops]
    for thread in threads:
        thread.start()
    for _ in range(3000):
        if reached(found.counters.snapshot()):
            break
        waiting.wait(0.01)
    stop.set()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    counts = found.counters.snapshot()
    assert reached(counts), counts
    return counts


def envelope(device: str, n: int = 0, source: str = "stream-app.devices") -> str:
    return json.dumps({"source": source, "resources": [device], "detail": {"n": n}}, indent=1)


def in_stream(clients: Clients, outputs: Mapping[str, str]) -> list[tuple[str, bytes]]:
    kinesis, found = clients("kinesis"), []
    for shard in kinesis.list_shards(StreamName=outputs["StreamName"])["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=outputs["StreamName"], ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        records = kinesis.get_records(ShardIterator=iterator)["Records"]
        found += [(record["PartitionKey"], record["Data"]) for record in records]
    return found


def waiting_in(clients: Clients, url: str) -> tuple[int, int]:
    """Return the numbers of visible and in-flight messages."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = clients("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return int(attributes[names[0]]), int(attributes[names[1]])


def test_every_device_event_reaches_the_stream_unchanged(clients: Clients, outputs: dict[str, str]) -> None:
    bodies = [envelope(f"d-{n % 7}", n) for n in range(120)]
    for body in bodies:
        clients("sqs").send_message(QueueUrl=outputs["DevicesQueueUrl"], MessageBody=body)
    counts = run_until(worker(clients, "stream-app-devices"), lambda c: c["delivered"] >= 120)
    assert (counts["received"], counts["delivered"], counts["failed"]) == (120, 120, 0)
    found = in_stream(clients, outputs)
    assert sorted(data for _, data in found) == sorted(body.encode() for body in bodies)
    assert all(key == json.loads(data)["resources"][0] for key, data in found)
    assert waiting_in(clients, outputs["DevicesQueueUrl"]) == (0, 0)


def test_filtered_messages_are_deleted(clients: Clients, outputs: dict[str, str]) -> None:
    for body in (envelope("d", source="somebody.else"), "no JSON", envelope("d")):
        clients("sqs").send_message(QueueUrl=outputs["DevicesQueueUrl"], MessageBody=body)
    counts = run_until(worker(clients, "stream-app-devices"), lambda c: c["delivered"] + c["filtered"] >= 3)
    assert (counts["delivered"], counts["filtered"]) == (1, 2)
    assert waiting_in(clients, outputs["DevicesQueueUrl"]) == (0, 0)


def test_only_rejected_records_are_retried(clients: Clients, outputs: dict[str, str]) -> None:
    for n in range(10):
        clients("sqs").send_message(QueueUrl=outputs["DevicesQueueUrl"], MessageBody=envelope(f"d-{n}", n))
    throttled = RefusingKinesis(clients("kinesis"), lambda request, key: request == 1 and key < "d-4")
    found = worker(clients, "stream-app-devices", throttled)
    counts = run_until(found, lambda c: c["delivered"] >= 10)
    assert counts["retried"] >= 1
    assert sorted(key for key, _ in in_stream(clients, outputs)) == [f"d-{n}" for n in range(10)]


def _attempted(times: int, counts: dict[str, int]) -> bool:
    return counts["failed"] + counts["dead_lettered"] >= times


def test_an_undeliverable_message_goes_to_the_dead_letter_queue(
    clients: Clients, outputs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    later = 0
    real = clock.now_ms
    monkeypatch.setattr(clock, "now_ms", lambda: real() + later)
    body = json.dumps({"source": "stream-app.devices", "resources": []})
    clients("sqs").send_message(QueueUrl=outputs["DevicesQueueUrl"], MessageBody=body)
    clients("sqs").send_message(QueueUrl=outputs["DevicesQueueUrl"], MessageBody=envelope("d"))
    found = worker(clients, "stream-app-devices")
    for receipt in range(1, 6):
        counts = run_until(found, partial(_attempted, receipt))
        assert waiting_in(clients, outputs["DevicesQueueUrl"]) == (0, 1)
        later += 61_000
    assert (counts["delivered"], counts["failed"], counts["dead_lettered"]) == (1, 4, 1)
    assert "Messages" not in clients("sqs").receive_message(QueueUrl=outputs["DevicesQueueUrl"])
    [dead] = clients("sqs").receive_message(QueueUrl=outputs["DevicesDeadQueueUrl"])["Messages"]
    assert dead["Body"] == body


def test_ordered_devices_keep_their_order_from_topic_to_stream(
    clients: Clients, outputs: dict[str, str]
) -> None:
    for n in range(40):
        device = f"d-{n % 3}"
        clients("sns").publish(
            TopicArn=outputs["OrderedTopicArn"],
            Message=envelope(device, n),
            MessageGroupId=device,
            MessageDeduplicationId=str(n),
        )
    throttled = RefusingKinesis(clients("kinesis"), lambda request, key: request % 2 == 1 and key == "d-1")
    run_until(worker(clients, "stream-app-ordered", throttled), lambda c: c["delivered"] >= 40)
    for device in ("d-0", "d-1", "d-2"):
        numbers = [
            json.loads(data)["detail"]["n"] for key, data in in_stream(clients, outputs) if key == device
        ]
        assert numbers == [n for n in range(40) if f"d-{n % 3}" == device]


class FailingSqs:
    """An SQS client whose first deletion fails and whose second one fails partially."""

    def __init__(self, sqs: Any) -> None:
        self._sqs, self._deletions = sqs, 0
        self.meta, self.receive_message = sqs.meta, sqs.receive_message

    def delete_message_batch(self, QueueUrl: str, Entries: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        self._deletions += 1
        if self._deletions == 1:
            raise TransientError("as asked")
        if self._deletions == 2:
            self._sqs.delete_message_batch(QueueUrl=QueueUrl, Entries=Entries[:1])
            return {"Failed": [{"Id": entry["Id"], "SenderFault": False} for entry in Entries[1:]]}
        answer: dict[str, Any] = self._sqs.delete_message_batch(QueueUrl=QueueUrl, Entries=Entries)
        return answer


def test_deleting_sent_messages_is_retried(clients: Clients, outputs: dict[str, str]) -> None:
    for n in range(3):
        clients("sqs").send_message(QueueUrl=outputs["DevicesQueueUrl"], MessageBody=envelope(f"d-{n}"))
    failing: Any = FailingSqs(clients("sqs"))

    def given_clients(name: str) -> Any:
        return failing if name == "sqs" else clients(name)

    dependencies = PipeDependencies(given_clients, no_http, lambda: 0.0, random.Random(1))
    [found] = [
        w
        for w in pipes(resolve_templates(templates(), clients), dependencies)
        if w.name == "stream-app-devices"
    ]
    run_until(found, lambda c: c["delivered"] >= 3)
    assert waiting_in(clients, outputs["DevicesQueueUrl"]) == (0, 0)
    assert len(in_stream(clients, outputs)) == 3


def pipe_with(clients: Clients, **changes: Any) -> list[StackResource]:
    found = resolve_templates(templates(), clients)
    return [
        item._replace(properties={**item.properties, **changes}) if item.id == "Ingest.DevicesPipe" else item
        for item in found
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"Enrichment": "arn:x"}, "Enrichment"),
        (
            {"Target": "arn:aws:sqs:us-east-1:123456789012:stream-app-anomalies"},
            "unsupported target of type AWS::SQS::Queue",
        ),
        ({"Target": "arn:aws:sqs:us-east-1:123456789012:nothing"}, "not in the template"),
        (
            {"Source": "arn:aws:s3:::stream-app-123456789012-us-east-1"},
            "unsupported source of type AWS::S3::Bucket",
        ),
        ({"TargetParameters": {"SqsQueueParameters": {}}}, "SqsQueueParameters"),
        ({"SourceParameters": {"SqsQueueParameters": {"Size": 1}}}, "Size"),
    ],
)
def test_an_unsupported_pipe_is_rejected(clients: Clients, changes: dict[str, Any], says: str) -> None:
    dependencies = PipeDependencies(clients, no_http, lambda: 0.0, random.Random(1))
    with pytest.raises(ConfigError, match=says):
        pipes(pipe_with(clients, **changes), dependencies)


def test_a_stopped_pipe_does_not_run(clients: Clients) -> None:
    dependencies = PipeDependencies(clients, no_http, lambda: 0.0, random.Random(1))
    names = [found.name for found in pipes(pipe_with(clients, DesiredState="STOPPED"), dependencies)]
    assert names == ["stream-app-ordered"]


@pytest.mark.parametrize("body", [{}, {"resources": []}, {"resources": [""]}, {"resources": [{"a": 1}]}])
def test_a_missing_partition_key_is_an_error(body: dict[str, Any]) -> None:
    parameters = {"KinesisStreamParameters": {"PartitionKey": "$.body.resources[0]"}}
    unused: Any = None
    with pytest.raises(UnresolvedParameter):
        StreamTarget(unused, "arn", parameters).prepare({"body": body}, b"")
