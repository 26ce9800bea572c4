"""PutRecord and PutRecords as AWS documents them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from stream_app.local.moto_patches.kinesis.writing import hash_key
from tests.contracts.local_kinesis import HIGHEST, datas, hash_of, iterator, read, shards

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.type_defs import PutRecordsRequestEntryTypeDef

    from stream_app.aws.clients import ClientFactory


SHARD = "shardId-000000000000"
MEBIBYTE = 1024 * 1024


@pytest.fixture
def kinesis(aws: ClientFactory, stream: str) -> KinesisClient:
    return aws("kinesis")


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as refused:
        act()
    return refused.value.response["Error"]["Code"]


def records_of(kinesis: KinesisClient, stream: str) -> int:
    """Count the records by reading to the end, because a call returns at most 10 MiB."""
    count = 0
    for shard in shards(kinesis, stream):
        answer = kinesis.get_records(ShardIterator=iterator(kinesis, stream, shard))
        while answer["Records"]:
            count += len(answer["Records"])
            answer = kinesis.get_records(ShardIterator=answer["NextShardIterator"])
    return count


@pytest.mark.parametrize(("explicit", "place"), [(0, 0), (2**127 - 1, 0), (2**127, 1), (HIGHEST, 1)])
def test_every_explicit_hash_key_is_routed_including_the_highest(
    kinesis: KinesisClient, stream: str, explicit: int, place: int
) -> None:
    wanted = shards(kinesis, stream)[place]
    one = kinesis.put_record(StreamName=stream, Data=b"x", PartitionKey="k", ExplicitHashKey=str(explicit))
    entry: PutRecordsRequestEntryTypeDef = {
        "Data": b"x",
        "PartitionKey": "k",
        "ExplicitHashKey": str(explicit),
    }
    many = kinesis.put_records(StreamName=stream, Records=[entry])
    assert (one["ShardId"], many["Records"][0]["ShardId"]) == (wanted, wanted)


def test_an_explicit_hash_key_out_of_range_is_rejected(kinesis: KinesisClient, stream: str) -> None:
    def put(explicit: str) -> None:
        kinesis.put_record(StreamName=stream, Data=b"x", PartitionKey="k", ExplicitHashKey=explicit)

    assert refusal(lambda: put(str(HIGHEST + 1))) == "InvalidArgumentException"
    for malformed in ("-1", "007", "x", "9" * 40):
        assert refusal(partial(put, malformed)) == "ValidationException"
    assert records_of(kinesis, stream) == 0


@given(st.text(min_size=1, max_size=256))
def test_the_hash_key_of_a_partition_key_is_its_md5(key: str) -> None:
    assert hash_key(key) == hash_of(key)


def test_data_and_partition_key_are_preserved(kinesis: KinesisClient, stream: str) -> None:
    entry: PutRecordsRequestEntryTypeDef = {"Data": bytes(range(256)), "PartitionKey": 'é"\\\n☃'}
    where = kinesis.put_record(StreamName=stream, **entry)["ShardId"]
    record = read(kinesis, stream, where)[0]
    assert {"Data": record["Data"], "PartitionKey": record["PartitionKey"]} == entry


def test_a_record_is_limited_to_one_mebibyte_including_its_key(kinesis: KinesisClient, stream: str) -> None:
    def both(size: int) -> None:
        kinesis.put_record(StreamName=stream, Data=b"x" * (size - 3), PartitionKey="key")
        kinesis.put_records(StreamName=stream, Records=[{"Data": b"x" * (size - 3), "PartitionKey": "key"}])

    both(MEBIBYTE)
    assert refusal(lambda: both(MEBIBYTE + 1)) == "ValidationException"
    good: PutRecordsRequestEntryTypeDef = {"Data": b"x", "PartitionKey": "k"}
    large: PutRecordsRequestEntryTypeDef = {"Data": b"x" * MEBIBYTE, "PartitionKey": "k"}
    assert (
        refusal(lambda: kinesis.put_records(StreamName=stream, Records=[good, large]))
        == "ValidationException"
    )
    assert records_of(kinesis, stream) == 2


def test_the_maximum_record_size_can_be_raised_to_10_mib(kinesis: KinesisClient, stream: str) -> None:
    arn = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]["StreamARN"]
    kinesis.update_max_record_size(StreamARN=arn, MaxRecordSizeInKiB=2_048)
    kinesis.put_record(StreamName=stream, Data=b"x" * (2 * MEBIBYTE - 1), PartitionKey="k")
    summary = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    assert summary["MaxRecordSizeInKiB"] == 2_048
    code = refusal(lambda: kinesis.update_max_record_size(StreamARN=arn, MaxRecordSizeInKiB=10_241))
    assert code == "ValidationException"
    kinesis.create_stream(StreamName="large", ShardCount=1, MaxRecordSizeInKiB=10_240)
    kinesis.put_record(StreamName="large", Data=b"x" * (10 * MEBIBYTE - 1), PartitionKey="k")


def test_a_request_is_limited_to_500_records_and_10_mib(kinesis: KinesisClient, stream: str) -> None:
    entry: PutRecordsRequestEntryTypeDef = {"Data": b"x", "PartitionKey": "k"}
    kinesis.put_records(StreamName=stream, Records=[entry] * 500)
    assert (
        refusal(lambda: kinesis.put_records(StreamName=stream, Records=[entry] * 501))
        == "ValidationException"
    )
    tenth: PutRecordsRequestEntryTypeDef = {"Data": b"x" * (MEBIBYTE - 1), "PartitionKey": "k"}
    kinesis.put_records(StreamName=stream, Records=[tenth] * 10)
    many = [*[tenth] * 10, entry]
    assert refusal(lambda: kinesis.put_records(StreamName=stream, Records=many)) == "InvalidArgumentException"
    assert records_of(kinesis, stream) == 510


def test_a_partition_key_is_limited_to_256_characters(kinesis: KinesisClient, stream: str) -> None:
    kinesis.put_record(StreamName=stream, Data=b"x", PartitionKey="é" * 256)
    code = refusal(lambda: kinesis.put_record(StreamName=stream, Data=b"x", PartitionKey="k" * 257))
    assert code == "ValidationException"


def test_an_unknown_stream_is_not_found(kinesis: KinesisClient) -> None:
    code = refusal(lambda: kinesis.put_record(StreamName="none", Data=b"x", PartitionKey="k"))
    assert code == "ResourceNotFoundException"


def test_concurrent_writers_lose_no_record_and_keep_their_order(kinesis: KinesisClient, stream: str) -> None:
    """Sequence numbers are unique and increase within each shard, and each writer's records are in order."""
    writers = 6

    def write(who: int) -> None:
        for turn in range(20):
            entries: list[PutRecordsRequestEntryTypeDef] = [
                {"Data": b"%d-%d" % (who, turn * 10 + n), "PartitionKey": str(n)} for n in range(10)
            ]
            kinesis.put_records(StreamName=stream, Records=entries)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for shard in shards(kinesis, stream):
        numbers = [int(record["SequenceNumber"]) for record in read(kinesis, stream, shard)]
        assert numbers == sorted(set(numbers))
        for who in range(writers):
            mine = [int(d.split("-")[1]) for d in datas(kinesis, stream, shard) if d.startswith(f"{who}-")]
            assert mine == sorted(mine)
    assert records_of(kinesis, stream) == writers * 200
