"""Fault injection in-process, with `mock_aws`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from stream_app.errors import ConfigError, aws_error_code, is_transient
from stream_app.local.moto_patches import clock
from stream_app.local.server import faults
from stream_app.local.server.faults import ExpireIterators, Fail, ThrottlePuts, ThrottleReads, Trim, injected
from tests.contracts.local_kinesis import datas, iterator, put, read

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.type_defs import PutRecordsRequestEntryTypeDef

    from stream_app.aws.clients import ClientFactory


SHARD = "shardId-000000000000"
KEYS = [f"device-{n}" for n in range(20)]


@pytest.fixture
def client(aws: ClientFactory, monkeypatch: pytest.MonkeyPatch) -> ClientFactory:
    """Clients without retries."""
    import boto3

    once = Config(retries={"max_attempts": 0})
    return lambda service: boto3.client(service, region_name="us-east-1", config=once)


@pytest.fixture
def kinesis(client: ClientFactory) -> KinesisClient:
    client("kinesis").create_stream(StreamName="one", ShardCount=1)
    return client("kinesis")


def refusal(act: Callable[[], object]) -> ClientError:
    with pytest.raises(ClientError) as refused:
        act()
    return refused.value


def test_put_records_entries_are_throttled_individually(kinesis: KinesisClient) -> None:
    records: list[PutRecordsRequestEntryTypeDef] = [
        {"Data": key.encode(), "PartitionKey": key} for key in KEYS
    ]
    with injected(ThrottlePuts(share=0.25)):
        answer = kinesis.put_records(StreamName="one", Records=records)
    failed = [place for place, entry in enumerate(answer["Records"]) if "ErrorCode" in entry]
    assert failed == [3, 7, 11, 15, 19]
    assert answer["FailedRecordCount"] == len(failed)
    entry = answer["Records"][3]
    assert set(entry) == {"ErrorCode", "ErrorMessage"}
    assert entry["ErrorCode"] == "ProvisionedThroughputExceededException"
    assert all(word in entry["ErrorMessage"] for word in (SHARD, "one", faults.ACCOUNT))
    assert datas(kinesis, "one", SHARD) == [key for place, key in enumerate(KEYS) if place not in failed]
    assert kinesis.put_records(StreamName="one", Records=records)["FailedRecordCount"] == 0


def test_put_record_and_get_records_raise_if_throttled(kinesis: KinesisClient) -> None:
    with injected(ThrottlePuts(share=1, stream="one"), ThrottleReads(share=0.5, stream="one")):
        put_error = refusal(lambda: kinesis.put_record(StreamName="one", Data=b"x", PartitionKey="k"))
        where = iterator(kinesis, "one", SHARD)
        assert kinesis.get_records(ShardIterator=where)["Records"] == []
        read_error = refusal(lambda: kinesis.get_records(ShardIterator=where))
    for error in (put_error, read_error):
        assert aws_error_code(error) == "ProvisionedThroughputExceededException"
        assert is_transient(error)
    assert kinesis.get_records(ShardIterator=where)["Records"] == []


def test_throttling_applies_to_its_stream_only(kinesis: KinesisClient) -> None:
    with injected(ThrottlePuts(share=1, stream="other")):
        assert "ErrorCode" not in put(kinesis, "one", "k")[0]


@pytest.mark.parametrize("status", [500, 503])
def test_an_outage_lasts_for_its_number_of_calls(
    client: ClientFactory, kinesis: KinesisClient, status: int
) -> None:
    s3, sqs, dynamodb = client("s3"), client("sqs"), client("dynamodb")
    calls: dict[str, Callable[[], object]] = {
        "kinesis": kinesis.list_streams,
        "s3": s3.list_buckets,
        "sqs": sqs.list_queues,
        "dynamodb": dynamodb.list_tables,
        "sns": lambda: client("sns").list_topics(),
        "events": lambda: client("events").list_rules(),
    }
    for service, call in calls.items():
        with injected(Fail(service=service, calls=2, status=status)):
            for _ in range(2):
                error = refusal(call)
                assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status
                assert is_transient(error)
            call()


def test_an_outage_can_be_limited_to_an_action_and_have_a_custom_code(
    client: ClientFactory, kinesis: KinesisClient
) -> None:
    fault = Fail(service="kinesis", action="ListStreams", status=400, code="LimitExceededException")
    with injected(fault):
        kinesis.describe_stream_summary(StreamName="one")
        assert aws_error_code(refusal(kinesis.list_streams)) == "LimitExceededException"
    s3 = client("s3")
    s3.create_bucket(Bucket="bucket")
    with injected(Fail(service="s3", action="PUT", status=503)):
        s3.list_objects_v2(Bucket="bucket")
        assert (
            aws_error_code(refusal(lambda: s3.put_object(Bucket="bucket", Key="k", Body=b""))) == "SlowDown"
        )


def test_a_client_with_retries_recovers_from_an_outage(aws: ClientFactory, kinesis: KinesisClient) -> None:
    with injected(Fail(service="kinesis", calls=2)):
        assert aws("kinesis").list_streams()["StreamNames"] == ["one"]


def test_trimming_to_a_sequence_number(kinesis: KinesisClient) -> None:
    numbers = [entry["SequenceNumber"] for entry in put(kinesis, "one", *KEYS)]
    latest = iterator(kinesis, "one", SHARD, "LATEST")
    assert faults.inject(Trim(stream="one", sequence=numbers[5])) == 5
    assert datas(kinesis, "one", SHARD) == KEYS[5:]
    assert datas(kinesis, "one", SHARD, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[2]) == KEYS[5:]
    assert (
        datas(kinesis, "one", SHARD, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[6]) == KEYS[7:]
    )
    assert kinesis.get_records(ShardIterator=latest)["Records"] == []


def test_trimming_to_a_time_moves_the_trim_horizon(
    kinesis: KinesisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = clock.now_ms() + 1_000
    now = [start]
    monkeypatch.setattr(clock, "now_ms", lambda: now[0])
    for key in KEYS:
        put(kinesis, "one", key)
        now[0] += 1_000
    assert faults.inject(Trim(stream="one", before=start + 3_000)) == 3
    assert datas(kinesis, "one", SHARD) == KEYS[3:]
    old = {"Timestamp": start / 1_000}
    assert datas(kinesis, "one", SHARD, "AT_TIMESTAMP", **old) == KEYS[3:]
    kinesis.split_shard(StreamName="one", ShardToSplit=SHARD, NewStartingHashKey=str(2**127))
    now[0] += 1_000
    assert faults.inject(Trim(stream="one")) == 17
    remaining = kinesis.list_shards(StreamName="one", ShardFilter={"Type": "AT_TRIM_HORIZON"})["Shards"]
    assert SHARD not in [shard["ShardId"] for shard in remaining]
    assert len(remaining) == 2


def test_iterators_can_be_expired(kinesis: KinesisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [clock.now_ms()]
    monkeypatch.setattr(clock, "now_ms", lambda: now[0])
    put(kinesis, "one", "a")
    old = iterator(kinesis, "one", SHARD)
    with injected(ExpireIterators()):
        assert (
            aws_error_code(refusal(lambda: kinesis.get_records(ShardIterator=old)))
            == "ExpiredIteratorException"
        )
        now[0] += 1
        assert len(read(kinesis, "one", SHARD)) == 1


def test_injected_faults_are_cleared_at_the_end(kinesis: KinesisClient) -> None:
    with injected(
        ThrottlePuts(share=0.5), ThrottleReads(share=1), Fail(service="s3", calls=9), ExpireIterators()
    ):
        assert faults.current()["throttle_puts"] == {"*": 0.5}
        assert faults.current()["fail"][0]["calls"] == 9
    off = {"throttle_puts": {}, "throttle_reads": {}, "fail": [], "iterators_expired_at": -1}
    assert faults.current() == off
    faults.inject(ThrottlePuts(share=0.5))
    faults.inject(ThrottlePuts(share=0))
    assert faults.current() == off


def test_an_invalid_fault_is_rejected_with_a_hint(kinesis: KinesisClient) -> None:
    for wrong in (
        ThrottlePuts(share=1.5),
        ThrottleReads(share=-1),
        Fail(service="s3", calls=0, status=200),
        Trim(stream="none"),
        Trim(stream="one", sequence="12"),
        Trim(stream="one", sequence="x"),
    ):
        with pytest.raises(ConfigError) as refused:
            faults.inject(wrong)
        assert all(problem.hint for problem in refused.value.problems)
    assert faults.current()["throttle_puts"] == {}


def test_faults_are_encoded_as_json() -> None:
    sent = [
        ThrottlePuts(share=0.5),
        Fail(service="s3", calls=2, action="PUT"),
        Trim(stream="one"),
        ExpireIterators(),
    ]
    assert faults.decode(msgspec.json.encode(sent)) == sent
    assert faults.decode(b'{"fault":"throttle_reads","share":1}') == [ThrottleReads(share=1)]
    for broken in (b"", b"{}", b'{"fault":"flood"}', b'{"fault":"throttle_puts","share":"x"}'):
        with pytest.raises(ConfigError):
            faults.decode(broken)
