"""The fast path responds exactly like moto's request handling."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_app.local.moto_patches import clock
from stream_app.local.server import wsgi
from stream_app.local.server.faults import ThrottlePuts, ThrottleReads, injected
from stream_app.local.server.kinesis_fast_path import kinesis_fast_path

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.literals import ShardIteratorTypeType

    from stream_app.aws.clients import ClientFactory


SCOPE = (
    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/kinesis/aws4_request, Signature=x"
)
SHOWN = ("content-type", "x-amzn-errortype", "server")
PATHS = {"fast": kinesis_fast_path(wsgi.moto_application), "moto": wsgi.moto_application}


def ask(path: str, operation: str, body: bytes) -> tuple[str, dict[str, str], Any]:
    """Return the status, the relevant headers and the body of a response."""
    got: dict[str, Any] = {}

    def start_response(
        status: str, headers: list[tuple[str, str]], _: object = None, /
    ) -> Callable[[bytes], object]:
        got["status"] = status[:3]
        named = {name.lower(): value for name, value in headers}
        assert named["x-amzn-requestid"]
        got["headers"] = {name: named.get(name) for name in SHOWN}
        return lambda _: None

    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "4566",
        "HTTP_HOST": "127.0.0.1:4566",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "CONTENT_TYPE": "application/x-amz-json-1.1",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_AUTHORIZATION": SCOPE,
        "HTTP_X_AMZ_TARGET": f"Kinesis_20131202.{operation}",
    }
    answer = b"".join(PATHS[path](environ, start_response))
    return str(got["status"]), got["headers"], json.loads(answer)


@pytest.fixture
def streams(aws: ClientFactory, monkeypatch: pytest.MonkeyPatch) -> KinesisClient:
    """Two streams created in the same millisecond, so that their sequence numbers are equal; the clock is stopped."""
    at = clock.now_ms()
    monkeypatch.setattr(clock, "now_ms", lambda: at)
    for name in PATHS:
        aws("kinesis").create_stream(StreamName=name, ShardCount=2)
    return aws("kinesis")


def both(operation: str, body_of: Callable[[str], bytes]) -> tuple[str, dict[str, str], Any]:
    """Call both paths, each with its own stream, and return their common response."""
    answers = {path: ask(path, operation, body_of(path)) for path in PATHS}
    assert answers["fast"] == answers["moto"]
    return answers["fast"]


def body(**parameters: Any) -> bytes:
    return json.dumps(parameters).encode()


def entry(data: bytes, key: str) -> dict[str, str]:
    return {"Data": b64encode(data).decode(), "PartitionKey": key}


Entries = st.lists(
    st.tuples(st.binary(max_size=40), st.text(min_size=1, max_size=20)), min_size=1, max_size=12
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(Entries, st.integers(1, 15), st.sampled_from(["TRIM_HORIZON", "LATEST"]))
def test_fast_path_writes_and_reads_like_moto(
    streams: KinesisClient, entries: list[tuple[bytes, str]], limit: int, kind: ShardIteratorTypeType
) -> None:
    def position(path: str, shard: str) -> str:
        found = streams.get_shard_iterator(StreamName=path, ShardId=shard, ShardIteratorType=kind)
        return found["ShardIterator"]

    before = {(path, n): position(path, f"shardId-{n:012}") for path in PATHS for n in (0, 1)}
    records = [entry(*one) for one in entries]
    _, _, written = both("PutRecords", lambda path: body(StreamName=path, Records=records))
    assert [set(one) for one in written["Records"]] == [{"SequenceNumber", "ShardId"}] * len(records)
    both("PutRecord", lambda path: body(StreamName=path, **records[0]))
    for shard in (0, 1):
        # Iterators contain the name of the stream, so both paths read the same stream.
        for path in PATHS:
            request = body(ShardIterator=before[path, shard], Limit=limit)
            status, _, answer = both("GetRecords", dict.fromkeys(PATHS, request).__getitem__)
            assert status == "200"
            assert len(answer["Records"]) <= limit


def test_fast_path_ends_a_shard_like_moto(streams: KinesisClient) -> None:
    streams.split_shard(StreamName="moto", ShardToSplit="shardId-000000000000", NewStartingHashKey="1000")
    found = streams.get_shard_iterator(
        StreamName="moto", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )
    _, _, answer = both("GetRecords", lambda _: body(ShardIterator=found["ShardIterator"]))
    assert len(answer["ChildShards"]) == 2
    assert "NextShardIterator" not in answer


@pytest.mark.parametrize(
    ("operation", "request_body"),
    [
        ("PutRecords", body(StreamName="none", Records=[entry(b"x", "k")])),
        ("PutRecords", body(StreamName="moto", Records=[])),
        ("PutRecords", body(StreamName="moto", Records=[entry(b"x", "k")] * 501)),
        ("PutRecords", body(StreamName="moto", Records=[entry(b"x", "")])),
        ("PutRecords", body(StreamName="moto", Records=[{"Data": "?", "PartitionKey": "k"}])),
        (
            "PutRecords",
            body(StreamName="moto", Records=[{**entry(b"x", "k"), "ExplicitHashKey": str(2**128)}]),
        ),
        ("PutRecord", body(StreamName="moto", PartitionKey="k")),
        ("GetRecords", body(ShardIterator="x")),
        ("GetRecords", body(Limit=1)),
        ("GetRecords", b"{"),
    ],
)
def test_fast_path_rejects_requests_like_moto(
    streams: KinesisClient, operation: str, request_body: bytes
) -> None:
    status, headers, answer = both(operation, lambda _: request_body)
    assert status == "400"
    assert answer["__type"] == headers["x-amzn-errortype"]


def test_throttling_is_applied_once_on_either_path(streams: KinesisClient) -> None:
    records = [entry(b"x", str(n)) for n in range(10)]
    for path in PATHS:
        with injected(ThrottlePuts(share=0.2), ThrottleReads(share=0.5)):
            _, _, answer = ask(path, "PutRecords", body(StreamName=path, Records=records))
            assert [n for n, one in enumerate(answer["Records"]) if "ErrorCode" in one] == [4, 9]
            found = streams.get_shard_iterator(
                StreamName=path, ShardId="shardId-000000000000", ShardIteratorType="LATEST"
            )
            asked = body(ShardIterator=found["ShardIterator"])
            assert [ask(path, "GetRecords", asked)[0] for _ in range(4)] == ["200", "400", "200", "400"]
