"""What invokes hydrate: messages of a queue, of a topic, notifications of S3, as one kind of value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Message(NamedTuple):
    """A message that should hold a dead letter.

    `again` tells that it was tried before, as far as that can be known; `origin` is the ARN of what it came from.
    """

    id: str
    body: str
    again: bool
    origin: str


class Invocation(NamedTuple):
    """All messages of one event. `partial` tells whether those that fail can be given back alone."""

    messages: Sequence[Message]
    partial: bool


def messages(event: Mapping[str, Any]) -> Invocation:
    """The messages of a Lambda event: of SQS, SNS, S3, or of EventBridge about S3.

    Only a queue takes single messages back; of the others Lambda repeats the whole event. Raises ValueError when
    it is no such event: then the function is wired to the wrong source.
    """
    if event.get("source") == "aws.s3":
        return Invocation([Message(str(event.get("id", "")), json.dumps(event), True, "aws.s3")], False)
    records = event.get("Records")
    if not isinstance(records, list):
        raise ValueError("neither an event of SQS, SNS or S3, nor of EventBridge about S3")
    if not records:
        return Invocation([], True)
    # SNS alone writes its name with a capital.
    source = records[0].get("eventSource") or records[0].get("EventSource") or "aws:sqs"
    if source == "aws:sqs":
        return Invocation([_of_queue(record) for record in records], True)
    if source == "aws:sns":
        return Invocation([_of_topic(record) for record in records], False)
    if source == "aws:s3":
        return Invocation([_of_bucket(at, record) for at, record in enumerate(records)], False)
    raise ValueError(f"an event of {source!r} holds no dead letters")


def _of_queue(record: Mapping[str, Any]) -> Message:
    received = int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))
    origin = str(record.get("eventSourceARN", ""))
    return Message(str(record["messageId"]), str(record["body"]), received > 1, origin)


def _of_topic(record: Mapping[str, Any]) -> Message:
    sns = record["Sns"]
    return Message(str(sns["MessageId"]), str(sns["Message"]), True, str(sns.get("TopicArn", "")))


def _of_bucket(at: int, record: Mapping[str, Any]) -> Message:
    return Message(str(at), json.dumps({"Records": [record]}), True, "aws:s3")
