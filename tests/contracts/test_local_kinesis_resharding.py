"""Splits and merges as documented in "Data routing, data persistence, and shard state after a reshard"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.contracts.local_kinesis import HIGHEST, datas, hash_of, iterator, put, read, shards, split

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

    from stream_app.aws.clients import ClientFactory


FIRST, SECOND = "shardId-000000000000", "shardId-000000000001"
KEYS = [f"device-{n}" for n in range(60)]


@pytest.fixture
def kinesis(aws: ClientFactory, stream: str) -> KinesisClient:
    return aws("kinesis")


def test_after_a_split_records_go_to_the_open_children_only(kinesis: KinesisClient, stream: str) -> None:
    children = split(kinesis, stream, FIRST)
    used = {entry["ShardId"] for entry in put(kinesis, stream, *KEYS)}
    assert used == {*children, SECOND}


def test_a_record_is_routed_to_the_open_shard_for_its_hash_key(kinesis: KinesisClient, stream: str) -> None:
    split(kinesis, stream, SECOND)
    listed = kinesis.list_shards(StreamName=stream, ShardFilter={"Type": "AT_LATEST"})["Shards"]
    for key, entry in zip(KEYS, put(kinesis, stream, *KEYS), strict=True):
        limits = next(s["HashKeyRange"] for s in listed if s["ShardId"] == entry["ShardId"])
        assert int(limits["StartingHashKey"]) <= hash_of(key) <= int(limits["EndingHashKey"])


def test_a_split_keeps_the_records_in_the_parent(kinesis: KinesisClient, stream: str) -> None:
    put(kinesis, stream, *KEYS)
    before = datas(kinesis, stream, FIRST)
    children = split(kinesis, stream, FIRST)
    assert before
    assert datas(kinesis, stream, FIRST) == before
    assert [datas(kinesis, stream, child) for child in children] == [[], []]


def test_a_merge_keeps_the_records_in_the_parents(kinesis: KinesisClient, stream: str) -> None:
    put(kinesis, stream, *KEYS)
    before = [datas(kinesis, stream, shard) for shard in (FIRST, SECOND)]
    # The order of the two shards does not matter.
    kinesis.merge_shards(StreamName=stream, ShardToMerge=SECOND, AdjacentShardToMerge=FIRST)
    child = kinesis.list_shards(StreamName=stream)["Shards"][-1]
    assert [datas(kinesis, stream, shard) for shard in (FIRST, SECOND)] == before
    assert datas(kinesis, stream, child["ShardId"]) == []
    assert child["HashKeyRange"] == {"StartingHashKey": "0", "EndingHashKey": str(HIGHEST)}
    assert {child["ParentShardId"], child["AdjacentParentShardId"]} == {FIRST, SECOND}
    assert {entry["ShardId"] for entry in put(kinesis, stream, *KEYS)} == {child["ShardId"]}


def test_reading_a_closed_shard_ends_with_its_child_shards(kinesis: KinesisClient, stream: str) -> None:
    put(kinesis, stream, *KEYS)
    children = split(kinesis, stream, FIRST)
    answer: Mapping[str, Any] = kinesis.get_records(ShardIterator=iterator(kinesis, stream, FIRST), Limit=1)
    seen = len(answer["Records"])
    while "NextShardIterator" in answer:
        assert "ChildShards" not in answer
        answer = kinesis.get_records(ShardIterator=answer["NextShardIterator"], Limit=7)
        seen += len(answer["Records"])
    assert seen == len(read(kinesis, stream, FIRST))
    assert answer["MillisBehindLatest"] == 0
    assert [child["ShardId"] for child in answer["ChildShards"]] == children
    assert all(child["ParentShards"] == [FIRST] for child in answer["ChildShards"])


def test_both_parents_of_a_merge_end_with_the_child_shard(kinesis: KinesisClient, stream: str) -> None:
    kinesis.merge_shards(StreamName=stream, ShardToMerge=FIRST, AdjacentShardToMerge=SECOND)
    for parent in (FIRST, SECOND):
        latest = iterator(kinesis, stream, parent, "LATEST")
        answer: Mapping[str, Any] = kinesis.get_records(ShardIterator=latest)
        assert "NextShardIterator" not in answer
        assert [set(child["ParentShards"]) for child in answer["ChildShards"]] == [{FIRST, SECOND}]


def test_an_open_shard_never_ends(kinesis: KinesisClient, stream: str) -> None:
    answer = kinesis.get_records(ShardIterator=iterator(kinesis, stream, FIRST))
    assert answer["NextShardIterator"]
    assert "ChildShards" not in answer


def test_an_iterator_from_before_the_split_reads_to_the_end(kinesis: KinesisClient, stream: str) -> None:
    waiting = kinesis.get_records(ShardIterator=iterator(kinesis, stream, FIRST, "LATEST"))[
        "NextShardIterator"
    ]
    put(kinesis, stream, *KEYS)
    split(kinesis, stream, FIRST)
    answer = kinesis.get_records(ShardIterator=waiting)
    assert len(answer["Records"]) == len(read(kinesis, stream, FIRST))
    assert "NextShardIterator" not in answer


def test_child_shards_have_higher_sequence_numbers(kinesis: KinesisClient, stream: str) -> None:
    put(kinesis, stream, *KEYS)
    children = split(kinesis, stream, FIRST)
    put(kinesis, stream, *KEYS)
    listed = {
        shard["ShardId"]: shard["SequenceNumberRange"]
        for shard in kinesis.list_shards(StreamName=stream)["Shards"]
    }
    highest = max(int(record["SequenceNumber"]) for record in read(kinesis, stream, FIRST))
    assert highest <= int(listed[FIRST]["EndingSequenceNumber"])
    for child in children:
        start = int(listed[child]["StartingSequenceNumber"])
        assert int(listed[FIRST]["EndingSequenceNumber"]) < start
        assert all(int(record["SequenceNumber"]) >= start for record in read(kinesis, stream, child))
        assert "EndingSequenceNumber" not in listed[child]


@pytest.mark.parametrize("count", [1, 3, 5, 8])
def test_update_shard_count_covers_the_hash_key_range(
    kinesis: KinesisClient, stream: str, count: int
) -> None:
    kinesis.update_shard_count(StreamName=stream, TargetShardCount=count, ScalingType="UNIFORM_SCALING")
    live = kinesis.list_shards(StreamName=stream, ShardFilter={"Type": "AT_LATEST"})["Shards"]
    ranges = sorted(
        (int(s["HashKeyRange"]["StartingHashKey"]), int(s["HashKeyRange"]["EndingHashKey"])) for s in live
    )
    assert len(ranges) == count
    assert (ranges[0][0], ranges[-1][1]) == (0, HIGHEST)
    assert all(low[1] + 1 == high[0] for low, high in pairwise(ranges))
    summary = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    assert summary["OpenShardCount"] == count


def test_resharding_rejects_closed_and_nonadjacent_shards(kinesis: KinesisClient, stream: str) -> None:
    children = split(kinesis, stream, FIRST)
    wrong: list[Callable[[], object]] = [
        lambda: split(kinesis, stream, FIRST),
        lambda: kinesis.merge_shards(StreamName=stream, ShardToMerge=FIRST, AdjacentShardToMerge=SECOND),
        lambda: kinesis.merge_shards(
            StreamName=stream, ShardToMerge=children[0], AdjacentShardToMerge=SECOND
        ),
        lambda: kinesis.split_shard(StreamName=stream, ShardToSplit=SECOND, NewStartingHashKey=str(HIGHEST)),
    ]
    for act in wrong:
        with pytest.raises(ClientError) as refused:
            act()
        assert refused.value.response["Error"]["Code"] == "InvalidArgumentException"
    assert shards(kinesis, stream, "AT_LATEST") == [SECOND, *children]
