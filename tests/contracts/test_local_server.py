"""The server of the embedded AWS: protocols, concurrency and admin paths."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import boto3
import httpx
import psutil
import pytest
from botocore.exceptions import ClientError

from stream_app.errors import ConfigError, aws_error_code, is_conflict
from stream_app.local.server.faults import Fail, ThrottlePuts, Trim
from stream_app.local.server.process import LocalAws, start
from tests.contracts.local_kinesis import datas, iterator, put
from tests.contracts.local_server import family

SCOPE = (
    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/kinesis/aws4_request, Signature=x"
)
SHARD = "shardId-000000000000"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalAws]:
    with start() as running:
        yield running


@pytest.fixture
def client(server: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Return a boto3 client configured by the server's environment variables."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    session: Any = boto3.session.Session
    yield lambda service: session().client(service)
    server.clear_faults()
    httpx.post(f"{server.endpoint}/moto-api/reset").raise_for_status()


def test_one_port_serves_http_1_and_cleartext_http_2(server: LocalAws, client: Callable[[str], Any]) -> None:
    kinesis = client("kinesis")
    kinesis.create_stream(StreamName="one", ShardCount=1)
    put(kinesis, "one", "a", "b")
    headers = {
        "X-Amz-Target": "Kinesis_20131202.GetRecords",
        "Content-Type": "application/x-amz-json-1.1",
        "Authorization": SCOPE,
    }
    body = json.dumps({"ShardIterator": iterator(kinesis, "one", SHARD)})
    answers = {}
    for version, second in (("HTTP/2", True), ("HTTP/1.1", False)):
        with httpx.Client(http1=not second, http2=second) as http:
            answer = http.post(server.endpoint, content=body, headers=headers)
        assert (answer.http_version, answer.status_code) == (version, 200)
        answers[version] = answer.json()["Records"]
    assert answers["HTTP/2"] == answers["HTTP/1.1"]
    assert [record["PartitionKey"] for record in answers["HTTP/2"]] == ["a", "b"]


def test_the_server_listens_on_localhost_only(server: LocalAws) -> None:
    listening = [
        connection.laddr.ip
        for process in family(server)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}


@pytest.mark.parametrize(
    "key", ["a/b.json", "100%25/é ü+?#&=~.json", "double//slash", "/leading", "date=2016-12-01/hour=07/x y"]
)
def test_s3_keys_with_any_characters_are_preserved(client: Callable[[str], Any], key: str) -> None:
    s3 = client("s3")
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key=key, Body=b"body", Tagging="status=open")
    assert [found["Key"] for found in s3.list_objects_v2(Bucket="bucket")["Contents"]] == [key]
    assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == b"body"
    assert s3.head_object(Bucket="bucket", Key=key)["ContentLength"] == 4
    assert s3.get_object_tagging(Bucket="bucket", Key=key)["TagSet"] == [{"Key": "status", "Value": "open"}]
    presigned = s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": key})
    assert httpx.get(presigned).content == b"body"
    s3.delete_object(Bucket="bucket", Key=key)
    assert s3.list_objects_v2(Bucket="bucket")["KeyCount"] == 0


@pytest.mark.parametrize("came", [b"", b"a body that"])
def test_an_incomplete_body_is_not_stored(
    server: LocalAws, client: Callable[[str], Any], came: bytes
) -> None:
    s3 = client("s3")
    s3.create_bucket(Bucket="cut-off")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sender:
        sender.sendall(b"PUT /cut-off/key HTTP/1.1\r\nHost: s3\r\nContent-Length: 19\r\n\r\n" + came)
        sender.shutdown(socket.SHUT_WR)
        assert b" 200 " not in sender.recv(4096)
    assert s3.list_objects_v2(Bucket="cut-off")["KeyCount"] == 0
    s3.put_object(Bucket="cut-off", Key="key", Body=b"")
    assert s3.list_objects_v2(Bucket="cut-off")["KeyCount"] == 1


def test_every_service_of_the_template_responds(client: Callable[[str], Any]) -> None:
    client("sns").create_topic(Name="topic")
    client("sqs").create_queue(QueueName="queue")
    client("events").create_event_bus(Name="bus")
    client("kms").create_key()
    client("dynamodb").list_tables()
    client("sts").get_caller_identity()
    client("cloudwatch").list_metrics()
    client("logs").describe_log_groups()
    with pytest.raises(ClientError) as refused:
        client("s3").get_object(Bucket="no-such-bucket", Key="k")
    assert aws_error_code(refused.value) == "NoSuchBucket"


def at_once(act: Callable[[int], bool], how_many: int = 12) -> int:
    """Return how many of several concurrent calls succeed."""
    together = threading.Barrier(how_many)

    def one(who: int) -> bool:
        together.wait()
        return act(who)

    with ThreadPoolExecutor(how_many) as pool:
        return sum(pool.map(one, range(how_many)))


def test_exactly_one_of_many_concurrent_conditional_writes_succeeds(client: Callable[[str], Any]) -> None:
    dynamodb, s3 = client("dynamodb"), client("s3")
    s3.create_bucket(Bucket="bucket")
    dynamodb.create_table(
        TableName="leases",
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )

    def take(lease: str, who: int) -> bool:
        item = {"k": {"S": lease}, "owner": {"N": str(who)}}
        try:
            dynamodb.put_item(TableName="leases", Item=item, ConditionExpression="attribute_not_exists(k)")
        except dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def create(lease: str, who: int) -> bool:
        try:
            s3.put_object(Bucket="bucket", Key=lease, Body=str(who).encode(), IfNoneMatch="*")
        except ClientError as error:
            if is_conflict(error):
                return False
            raise
        return True

    for lease in ("first", "second", "third"):
        assert (at_once(partial(take, lease)), at_once(partial(create, lease))) == (1, 1)


def test_long_polls_do_not_block_other_requests(client: Callable[[str], Any]) -> None:
    sqs = client("sqs")
    url = sqs.create_queue(QueueName="queue")["QueueUrl"]
    with ThreadPoolExecutor(10) as pool:
        polls = [pool.submit(sqs.receive_message, QueueUrl=url, WaitTimeSeconds=20) for _ in range(10)]
        kinesis = client("kinesis")
        kinesis.create_stream(StreamName="one", ShardCount=1)
        entries = [{"Id": str(n), "MessageBody": str(n)} for n in range(10)]
        sqs.send_message_batch(QueueUrl=url, Entries=entries)
        assert sorted(poll.result()["Messages"][0]["Body"] for poll in polls) == [str(n) for n in range(10)]


def test_faults_can_be_injected_over_http(server: LocalAws, client: Callable[[str], Any]) -> None:
    kinesis = client("kinesis")
    kinesis.create_stream(StreamName="one", ShardCount=1)
    server.inject(
        ThrottlePuts(share=0.5), Fail(service="dynamodb", calls=1, status=400, code="ResourceInUseException")
    )
    assert ["ErrorCode" in one for one in put(kinesis, "one", *"abcd")] == [False, True, False, True]
    dynamodb = client("dynamodb")
    with pytest.raises(ClientError) as refused:
        dynamodb.list_tables()
    assert aws_error_code(refused.value) == "ResourceInUseException"
    dynamodb.list_tables()
    server.inject(Fail(service="sns", action="ListTopics", status=400, code="AuthorizationError"))
    with pytest.raises(ClientError) as refused:
        client("sns").create_topic(Name="topic") and client("sns").list_topics()
    assert aws_error_code(refused.value) == "AuthorizationError"
    server.clear_faults()
    put(kinesis, "one", "e")
    assert server.inject(Trim(stream="one")) == 3
    assert datas(kinesis, "one", SHARD) == []
    with pytest.raises(ConfigError):
        server.inject(Trim(stream="none"))


def test_admin_paths_report_errors(server: LocalAws) -> None:
    assert httpx.get(f"{server.endpoint}/stream-app/health").json()["pid"] in [p.pid for p in family(server)]
    assert httpx.get(f"{server.endpoint}/stream-app/faults").json()["fail"] == []
    assert httpx.get(f"{server.endpoint}/stream-app/other").status_code == 404
    wrong = httpx.post(f"{server.endpoint}/stream-app/faults", content=b'{"fault":"flood"}')
    assert (wrong.status_code, "flood" in wrong.json()["error"]) == (400, True)
