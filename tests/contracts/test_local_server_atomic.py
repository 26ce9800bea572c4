"""DynamoDB and S3 requests are serialized, and deleted objects are garbage-collected."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import pytest
from moto.core.common_models import BaseModel
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import Item
from moto.s3.models import FakeKey
from moto.s3.responses import S3Response
from moto.sqs.models import Message

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from stream_app.aws.clients import ClientFactory


THREADS = 4
P = ParamSpec("P")
T = TypeVar("T")


class Watch:
    """Counts the threads that run a function concurrently; each call sleeps so that calls overlap."""

    def __init__(self) -> None:
        self.most = 0
        self._inside = 0
        self._lock = threading.Lock()

    def over(self, function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def watched(*args: P.args, **kwargs: P.kwargs) -> T:
            with self._lock:
                self._inside += 1
                self.most = max(self.most, self._inside)
            threading.Event().wait(0.02)
            try:
                return function(*args, **kwargs)
            finally:
                with self._lock:
                    self._inside -= 1

        return watched


def at_once(act: Callable[[int], object]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(act, range(THREADS)))


@pytest.fixture
def dynamodb(aws: ClientFactory) -> DynamoDBClient:
    client = aws("dynamodb")
    client.create_table(
        TableName="table",
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return client


def test_dynamodb_requests_are_atomic(dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    monkeypatch.setattr(DynamoDBBackend, "put_item", watch.over(DynamoDBBackend.put_item))
    at_once(lambda who: dynamodb.put_item(TableName="table", Item={"k": {"S": str(who)}}))
    assert watch.most == 1


def test_s3_requests_are_atomic(aws: ClientFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = aws("s3")
    s3.create_bucket(Bucket="bucket")
    watch = Watch()
    monkeypatch.setattr(S3Response, "_key_response", watch.over(S3Response._key_response))
    at_once(lambda who: s3.put_object(Bucket="bucket", Key=str(who), Body=b""))
    assert watch.most == 1


def alive(model: type[BaseModel]) -> int:
    gc.collect()
    # Unlike isinstance, `type` does not dereference a weak proxy, whose object may no longer exist.
    return sum(issubclass(type(thing), model) for thing in gc.get_objects())


def test_overwritten_and_deleted_objects_are_garbage_collected(
    aws: ClientFactory, dynamodb: DynamoDBClient
) -> None:
    s3, sqs = aws("s3"), aws("sqs")
    s3.create_bucket(Bucket="bucket")
    url = sqs.create_queue(QueueName="queue")["QueueUrl"]
    before = {model: alive(model) for model in (Item, FakeKey, Message)}
    for n in range(20):
        dynamodb.put_item(TableName="table", Item={"k": {"S": "same"}, "n": {"N": str(n)}})
        s3.put_object(Bucket="bucket", Key="same", Body=str(n).encode())
        sqs.send_message(QueueUrl=url, MessageBody=str(n))
        message = sqs.receive_message(QueueUrl=url)["Messages"][0]
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    kept = {model: alive(model) - before[model] for model in before}
    assert kept == {Item: 1, FakeKey: 1, Message: 0}
    assert s3.get_object(Bucket="bucket", Key="same")["Body"].read() == b"19"


def test_a_versioned_object_keeps_its_versions(aws: ClientFactory) -> None:
    s3 = aws("s3")
    s3.create_bucket(Bucket="bucket")
    s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    versions = [s3.put_object(Bucket="bucket", Key="k", Body=b"%d" % n)["VersionId"] for n in range(3)]
    gc.collect()
    read = [s3.get_object(Bucket="bucket", Key="k", VersionId=v)["Body"].read() for v in versions]
    assert read == [b"0", b"1", b"2"]
