"""What the tests of hydrate share: a world over moto, letters of each source, and a Kinesis that gets in the way."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from stream_app.aws.objects import keys
from stream_app.aws.retry import Policy
from stream_app.model.record import Position
from stream_app.recovery.dead_letters import DeadLetter
from stream_app.recovery.hydrate.batch import HydrateDependencies
from stream_app.recovery.hydrate.results import DEAD_LETTERS, DeadLetterRecord
from stream_app.recovery.store import StoredFailure, load
from tests.unit.test_recovery_store import dead_letter

BUCKET = "failures-of-the-test"
STREAM = "devices"
ARN = f"arn:aws:kinesis:us-east-1:123456789012:stream/{STREAM}"
PIPE_ARN = "arn:aws:pipes:us-east-1:123456789012:pipe/air-delivery"
FUNCTION_ARN = "arn:aws:lambda:us-east-1:123456789012:function:air-map"
PATIENCE = Policy(attempts=6, base_ms=1, cap_ms=1)


def dependencies(kinesis: Any, s3: Any, **values: Any) -> HydrateDependencies:
    """A world without waiting."""
    given = HydrateDependencies(
        kinesis, s3, BUCKET, policy=PATIENCE, sleep=lambda _seconds: None, rng=random.Random(1)
    )
    return replace(given, **values)


class Meddled:
    """A Kinesis client that counts its calls, and fails or changes some of them.

    `failing` gives the code with which calls about a shard are refused; `throttled` so many GetRecords in a row are
    refused before each that is not.
    """

    def __init__(self, kinesis: Any, failing: Mapping[str, str] | None = None, throttled: int = 0) -> None:
        self._kinesis, self._failing, self._throttled = kinesis, failing or {}, throttled
        self._refused = 0
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._kinesis, name)

        def meddled(**request: Any) -> Any:
            self.calls.append(name)
            if request.get("ShardId") in self._failing:
                raise refusal(self._failing[request["ShardId"]], name)
            if name == "get_records" and self._refused < self._throttled:
                self._refused += 1
                raise refusal("ProvisionedThroughputExceededException", name)
            self._refused = 0
            return method(**request)

        return meddled


def refusal(code: str, operation: str = "GetRecords") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "as the test says"}}, operation)


def put(kinesis: Any, data: bytes, key: str = "Dongsi") -> DeadLetter:
    """Put a record; the dead letter that our own consumer would send of it."""
    answer = kinesis.put_record(StreamName=STREAM, Data=data, PartitionKey=key)
    return dead_letter_at(answer["ShardId"], answer["SequenceNumber"], key)


def dead_letter_at(shard: str, sequence: str, key: str) -> DeadLetter:
    """A dead letter of our own about that record."""
    return dead_letter(Position(shard, sequence), key)


def put_all(kinesis: Any, payloads: Iterable[bytes], key: str = "Dongsi") -> list[DeadLetter]:
    """Put records of one device: they lie in one shard, in this order."""
    dead_letters = [put(kinesis, data, key) for data in payloads]
    assert len({one.shard for one in dead_letters}) == 1
    return dead_letters


def batch_info(first: DeadLetter, last: DeadLetter, size: int) -> dict[str, Any]:
    """`KinesisBatchInfo` as Pipes and Lambda write it."""
    return {
        "shardId": first.shard,
        "startSequenceNumber": first.sequence,
        "endSequenceNumber": last.sequence,
        "approximateArrivalOfFirstRecord": _iso(first.arrived),
        "approximateArrivalOfLastRecord": _iso(last.arrived),
        "batchSize": size,
        "streamArn": ARN,
    }


def _iso(milliseconds: int) -> str:
    at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def of_pipe(dead_letters: Sequence[DeadLetter], size: int | None = None) -> dict[str, Any]:
    """What EventBridge Pipes sends when it gives up a batch of a stream."""
    return {
        "context": {"partnerResourceArn": PIPE_ARN, "condition": "RetryAttemptsExhausted"},
        "version": "1.0",
        "timestamp": "2016-12-01T00:00:00.000Z",
        "KinesisBatchInfo": batch_info(
            dead_letters[0], dead_letters[-1], len(dead_letters) if size is None else size
        ),
    }


def of_function(dead_letters: Sequence[DeadLetter], size: int | None = None) -> dict[str, Any]:
    """What Lambda sends to a queue or a topic when it gives up a batch of a stream."""
    return {
        "requestContext": {
            "requestId": "c9b8fa9f-5a7f-4c3c-af9c-0c604cde93a5",
            "functionArn": FUNCTION_ARN,
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 3,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": "2016-12-01T00:00:00.000Z",
        "KinesisBatchInfo": batch_info(
            dead_letters[0], dead_letters[-1], len(dead_letters) if size is None else size
        ),
    }


def invocation(dead_letters: Sequence[DeadLetter], payloads: Sequence[bytes]) -> dict[str, Any]:
    """What Lambda calls a function with, and writes to S3 as `payload`."""
    return {
        "Records": [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": one.partition_key,
                    "sequenceNumber": one.sequence,
                    "data": base64.b64encode(data).decode(),
                    "approximateArrivalTimestamp": one.arrived / 1000,
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": f"{one.shard}:{one.sequence}",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": "arn:aws:iam::123456789012:role/air-map",
                "awsRegion": "us-east-1",
                "eventSourceARN": ARN,
            }
            for one, data in zip(dead_letters, payloads, strict=True)
        ]
    }


def by_sns(body: str) -> str:
    """A message as SNS hands it to a queue, without raw delivery."""
    return json.dumps(
        {
            "Type": "Notification",
            "MessageId": "d0a6b4c1-0000-5000-8000-000000000000",
            "TopicArn": "arn:aws:sns:us-east-1:123456789012:air-dead-letters",
            "Message": body,
            "Timestamp": "2016-12-01T00:00:00.000Z",
            "SignatureVersion": "1",
            "Signature": "EXAMPLE",
            "SigningCertURL": "https://sns.us-east-1.amazonaws.com/x.pem",
            "UnsubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe",
        }
    )


def own(one: DeadLetter) -> str:
    return msgspec.json.encode(one).decode()


def event(*bodies: str | dict[str, Any], received: int = 1) -> dict[str, Any]:
    """What Lambda calls hydrate with for messages of the dead-letter queue."""
    return {
        "Records": [
            {
                "messageId": f"m{at}",
                "body": body if isinstance(body, str) else json.dumps(body),
                "attributes": {"ApproximateReceiveCount": str(received)},
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:air-dead-letters",
            }
            for at, body in enumerate(bodies)
        ]
    }


ALL_DONE: dict[str, Any] = {"batchItemFailures": []}


def again(*places: int) -> dict[str, Any]:
    """The answer that lets these messages come again."""
    return {"batchItemFailures": [{"itemIdentifier": f"m{at}"} for at in places]}


def everything(s3: Any, prefix: str = "") -> dict[str, bytes]:
    """Every object, by key."""
    found = list(keys(s3, BUCKET, prefix))
    return {key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in found}


def failures(s3: Any, consumer: str = "air") -> list[StoredFailure]:
    """A consumer's failures, in the order of their positions."""
    found = map(load, everything(s3, f"failures/{consumer}/").values())
    return sorted(found, key=lambda one: (one.shard, int(one.sequence), one.sub))


def records(s3: Any, consumer: str) -> list[DeadLetterRecord]:
    """The records of a consumer's dead letters, those that wait too."""
    found = everything(s3, f"{DEAD_LETTERS}{consumer}/")
    return [msgspec.json.decode(body, type=DeadLetterRecord) for body in found.values()]


def tag(s3: Any, key: str) -> str | None:
    tags = s3.get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"]
    return next((one["Value"] for one in tags if one["Key"] == "status"), None)
