"""GetShardIterator and GetRecords as AWS documents them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from stream_app.local.moto_patches import clock
from stream_app.local.moto_patches.kinesis import reading
from tests.contracts.local_kinesis import datas, iterator, put, read, split

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.literals import ShardIteratorTypeType

    from stream_app.aws.clients import ClientFactory


SHARD = "shardId-000000000000"
KEYS = [f"device-{n}" for n in range(10)]


@pytest.fixture
def kinesis(aws: ClientFactory) -> KinesisClient:
    aws("kinesis").create_stream(StreamName="one", ShardCount=1)
    return aws("kinesis")


class Clock:
    """A manual clock in milliseconds."""

    def __init__(self) -> None:
        self.ms = clock.now_ms() // 1_000 * 1_000 + 1_123

    def forward(self, ms: int) -> None:
        self.ms += ms


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Clock:
    ticking = Clock()
    monkeypatch.setattr(clock, "now_ms", lambda: ticking.ms)
    return ticking


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as refused:
        act()
    return refused.value.response["Error"]["Code"]


def test_sequence_numbers_have_56_digits_and_increase(kinesis: KinesisClient) -> None:
    numbers = [entry["SequenceNumber"] for entry in put(kinesis, "one", *KEYS)]
    assert {len(number) for number in numbers} == {56}
    assert [int(number) for number in numbers] == sorted({int(number) for number in numbers})
    assert [record["SequenceNumber"] for record in read(kinesis, "one", SHARD)] == numbers


def test_sequence_numbers_are_unique_within_a_stream(aws: ClientFactory, stream: str) -> None:
    numbers = [entry["SequenceNumber"] for entry in put(aws("kinesis"), stream, *KEYS)]
    assert len(set(numbers)) == len(KEYS)


def test_each_iterator_type_starts_at_its_position(kinesis: KinesisClient) -> None:
    middle = put(kinesis, "one", *KEYS)[4]["SequenceNumber"]
    assert datas(kinesis, "one", SHARD, "TRIM_HORIZON") == KEYS
    assert datas(kinesis, "one", SHARD, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=middle) == KEYS[4:]
    assert datas(kinesis, "one", SHARD, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=middle) == KEYS[5:]
    latest = iterator(kinesis, "one", SHARD, "LATEST")
    assert kinesis.get_records(ShardIterator=latest)["Records"] == []
    put(kinesis, "one", "later")
    assert [record["Data"] for record in kinesis.get_records(ShardIterator=latest)["Records"]] == [b"later"]


def test_at_timestamp_starts_with_the_first_record_not_older(kinesis: KinesisClient, now: Clock) -> None:
    start = now.ms
    for key in KEYS:
        put(kinesis, "one", key)
        now.forward(1_000)

    def from_ms(ms: int) -> list[str]:
        return datas(kinesis, "one", SHARD, "AT_TIMESTAMP", Timestamp=ms / 1_000)

    assert from_ms(start - 86_000_000) == KEYS
    assert from_ms(start + 3_000) == KEYS[3:]
    assert from_ms(start + 3_001) == KEYS[4:]
    assert from_ms(start + 9_999) == []
    future = datetime.fromtimestamp(now.ms / 1_000, UTC) + timedelta(seconds=1)
    assert (
        refusal(lambda: iterator(kinesis, "one", SHARD, "AT_TIMESTAMP", Timestamp=future))
        == "InvalidArgumentException"
    )


def test_at_timestamp_after_the_last_record_returns_new_records(kinesis: KinesisClient, now: Clock) -> None:
    put(kinesis, "one", "old")
    now.forward(10)
    waiting = iterator(kinesis, "one", SHARD, "AT_TIMESTAMP", Timestamp=now.ms / 1_000)
    put(kinesis, "one", "new")
    assert [record["Data"] for record in kinesis.get_records(ShardIterator=waiting)["Records"]] == [b"new"]


def test_every_iterator_type_works_on_a_closed_shard(kinesis: KinesisClient, now: Clock) -> None:
    written = put(kinesis, "one", *KEYS)
    split(kinesis, "one", SHARD)
    now.forward(10)
    ranges = kinesis.list_shards(StreamName="one")["Shards"][0]["SequenceNumberRange"]
    at = {"StartingSequenceNumber": ranges["StartingSequenceNumber"]}
    end = {"StartingSequenceNumber": ranges["EndingSequenceNumber"]}
    last = {"StartingSequenceNumber": written[-1]["SequenceNumber"]}
    assert datas(kinesis, "one", SHARD, "TRIM_HORIZON") == KEYS
    assert datas(kinesis, "one", SHARD, "AT_SEQUENCE_NUMBER", **at) == KEYS
    assert datas(kinesis, "one", SHARD, "AT_SEQUENCE_NUMBER", **last) == KEYS[-1:]
    cases: list[tuple[ShardIteratorTypeType, dict[str, Any]]] = [
        ("AFTER_SEQUENCE_NUMBER", last),
        ("AT_SEQUENCE_NUMBER", end),
        ("LATEST", {}),
        ("AT_TIMESTAMP", {"Timestamp": now.ms / 1_000}),
    ]
    for kind, how in cases:
        answer = kinesis.get_records(ShardIterator=iterator(kinesis, "one", SHARD, kind, **how))
        assert answer["Records"] == []
        assert "NextShardIterator" not in answer


def test_a_sequence_number_of_another_shard_or_stream_is_rejected(
    aws: ClientFactory, kinesis: KinesisClient, stream: str
) -> None:
    other = put(kinesis, stream, *KEYS)
    foreign = next(entry for entry in other if entry["ShardId"] != SHARD)["SequenceNumber"]
    own = put(kinesis, "one", "a")[0]["SequenceNumber"]
    for shard, number in ((SHARD, foreign), (SHARD, "1"), (SHARD, str(int(own) + 10**20))):
        kinds: list[ShardIteratorTypeType] = ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"]
        for kind in kinds:
            code = refusal(partial(iterator, kinesis, stream, shard, kind, StartingSequenceNumber=number))
            assert code == "InvalidArgumentException"
    assert (
        refusal(lambda: iterator(kinesis, "one", SHARD, "AT_SEQUENCE_NUMBER")) == "InvalidArgumentException"
    )
    assert refusal(lambda: iterator(kinesis, "one", "shardId-000000000009")) == "ResourceNotFoundException"


def test_an_iterator_can_be_requested_by_arn(kinesis: KinesisClient) -> None:
    put(kinesis, "one", "a")
    arn = kinesis.describe_stream_summary(StreamName="one")["StreamDescriptionSummary"]["StreamARN"]
    found = kinesis.get_shard_iterator(StreamARN=arn, ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")[
        "ShardIterator"
    ]
    assert [r["Data"] for r in kinesis.get_records(ShardIterator=found, StreamARN=arn)["Records"]] == [b"a"]


def test_an_iterator_expires_after_five_minutes(kinesis: KinesisClient, now: Clock) -> None:
    put(kinesis, "one", "a")
    found = iterator(kinesis, "one", SHARD)
    now.forward(300_000)
    following = kinesis.get_records(ShardIterator=found)["NextShardIterator"]
    now.forward(1)
    assert refusal(lambda: kinesis.get_records(ShardIterator=found)) == "ExpiredIteratorException"
    assert kinesis.get_records(ShardIterator=following)["Records"] == []


def test_an_iterator_of_a_deleted_stream_does_not_read_a_recreated_one(
    kinesis: KinesisClient, now: Clock
) -> None:
    old = iterator(kinesis, "one", SHARD)
    kinesis.delete_stream(StreamName="one")
    assert refusal(lambda: kinesis.get_records(ShardIterator=old)) == "ResourceNotFoundException"
    now.forward(1)
    kinesis.create_stream(StreamName="one", ShardCount=1)
    assert refusal(lambda: kinesis.get_records(ShardIterator=old)) == "ResourceNotFoundException"


def test_an_invalid_iterator_is_rejected(kinesis: KinesisClient) -> None:
    for broken in ("x", "AAAA", "////"):
        assert refusal(partial(kinesis.get_records, ShardIterator=broken)) == "InvalidArgumentException"


def test_millis_behind_latest_is_zero_only_at_the_end(kinesis: KinesisClient, now: Clock) -> None:
    put(kinesis, "one", *KEYS)
    now.forward(5_000)
    put(kinesis, "one", "later")
    first = kinesis.get_records(ShardIterator=iterator(kinesis, "one", SHARD), Limit=10)
    assert first["MillisBehindLatest"] == 5_000
    second = kinesis.get_records(ShardIterator=first["NextShardIterator"], Limit=1)
    assert [record["Data"] for record in second["Records"]] == [b"later"]
    assert second["MillisBehindLatest"] == 0
    third = kinesis.get_records(ShardIterator=second["NextShardIterator"])
    assert (third["Records"], third["MillisBehindLatest"]) == ([], 0)


def test_millis_behind_latest_is_not_zero_before_records_of_the_same_millisecond(
    kinesis: KinesisClient, now: Clock
) -> None:
    put(kinesis, "one", *KEYS)
    answer = kinesis.get_records(ShardIterator=iterator(kinesis, "one", SHARD), Limit=3)
    assert answer["MillisBehindLatest"] >= 1


def test_arrival_time_is_the_server_time_in_milliseconds(kinesis: KinesisClient, now: Clock) -> None:
    put(kinesis, "one", "a")
    arrived = read(kinesis, "one", SHARD)[0]["ApproximateArrivalTimestamp"]
    assert arrived.timestamp() == now.ms / 1_000
    assert arrived.microsecond % 1_000 == 0


def test_get_records_returns_at_most_10000_records_and_10_mib(kinesis: KinesisClient) -> None:
    for _ in range(11):
        put(kinesis, "one", *["k"] * 500)
    for _ in range(10):
        put(kinesis, "one", *["k"] * 500)
    found = iterator(kinesis, "one", SHARD)
    first = kinesis.get_records(ShardIterator=found)
    assert len(first["Records"]) == 10_000
    assert len(kinesis.get_records(ShardIterator=first["NextShardIterator"])["Records"]) == 500
    assert len(kinesis.get_records(ShardIterator=found, Limit=7)["Records"]) == 7
    assert (
        refusal(lambda: kinesis.get_records(ShardIterator=found, Limit=10_001)) == "InvalidArgumentException"
    )

    kinesis.create_stream(StreamName="large", ShardCount=1)
    mebibyte = b"x" * (1024 * 1024 - 1)
    for _ in range(11):
        kinesis.put_record(StreamName="large", Data=mebibyte, PartitionKey="k")
    first = kinesis.get_records(ShardIterator=iterator(kinesis, "large", SHARD))
    assert sum(len(r["Data"]) + len(r["PartitionKey"]) for r in first["Records"]) == reading.MAX_BYTES
    assert first["MillisBehindLatest"] > 0
    assert len(kinesis.get_records(ShardIterator=first["NextShardIterator"])["Records"]) == 1


def test_records_older_than_the_retention_period_are_removed(kinesis: KinesisClient, now: Clock) -> None:
    early = put(kinesis, "one", "early")[0]["SequenceNumber"]
    now.forward(12 * 3_600_000)
    put(kinesis, "one", "late")
    now.forward(12 * 3_600_000)
    assert datas(kinesis, "one", SHARD) == ["early", "late"]
    now.forward(1)
    assert datas(kinesis, "one", SHARD) == ["late"]
    # The sequence number of a trimmed record is valid: reading starts with the oldest record.
    assert datas(kinesis, "one", SHARD, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=early) == ["late"]
    assert datas(kinesis, "one", SHARD, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=early) == ["late"]


def test_a_longer_retention_period_keeps_records(kinesis: KinesisClient, now: Clock) -> None:
    kinesis.increase_stream_retention_period(StreamName="one", RetentionPeriodHours=48)
    put(kinesis, "one", "early")
    now.forward(47 * 3_600_000)
    assert datas(kinesis, "one", SHARD) == ["early"]
