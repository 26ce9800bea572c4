"""Lambda events that invoke hydration (SQS, SNS, S3, EventBridge), converted to messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# A Lambda event or one of its records, decoded from JSON.
Event = Mapping[str, Any]


class Message(NamedTuple):
    """A message with a dead letter in its body.

    `again` is False only if this is known to be the first delivery; `origin` is the ARN of the source.
    """

    id: str
    body: str
    again: bool
    origin: str


class Invocation(NamedTuple):
    """The messages of one event. `partial` tells whether the source accepts partial batch failures."""

    messages: Sequence[Message]
    partial: bool


def messages(event: Event) -> Invocation:
    """Return the messages of a Lambda event from SQS, SNS, S3 or EventBridge (S3 notifications).

    Only SQS supports partial batch failures; for the other sources Lambda repeats the whole event. Raises ValueError
    for any other event, which means that the function has a wrong event source.
    """
    if event.get("source") == "aws.s3":
        return Invocation([Message(str(event.get("id", "")), json.dumps(event), True, "aws.s3")], False)
    records = event.get("Records")
    if not isinstance(records, list):
        raise ValueError("not an event of SQS, SNS or S3, nor an S3 event of EventBridge")
    if not records:
        return Invocation([], True)
    # Only SNS capitalizes the name of this field.
    source = records[0].get("eventSource") or records[0].get("EventSource") or "aws:sqs"
    if source == "aws:sqs":
        return Invocation([_of_queue(record) for record in records], True)
    if source == "aws:sns":
        return Invocation([_of_topic(record) for record in records], False)
    if source == "aws:s3":
        return Invocation([_of_bucket(at, record) for at, record in enumerate(records)], False)
    raise ValueError(f"unsupported event source {source!r} (expected aws:sqs, aws:sns or aws:s3)")


def _of_queue(record: Event) -> Message:
    received = int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))
    origin = str(record.get("eventSourceARN", ""))
    return Message(str(record["messageId"]), str(record["body"]), received > 1, origin)


def _of_topic(record: Event) -> Message:
    sns = record["Sns"]
    return Message(str(sns["MessageId"]), str(sns["Message"]), True, str(sns.get("TopicArn", "")))


def _of_bucket(at: int, record: Event) -> Message:
    return Message(str(at), json.dumps({"Records": [record]}), True, "aws:s3")
