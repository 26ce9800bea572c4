"""Helper functions for the contract tests of the embedded Kinesis."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.literals import ShardFilterTypeType, ShardIteratorTypeType
    from mypy_boto3_kinesis.type_defs import (
        PutRecordsRequestEntryTypeDef,
        PutRecordsResultEntryTypeDef,
        RecordTypeDef,
    )

HIGHEST = 2**128 - 1


def put(kinesis: KinesisClient, stream: str, *keys: str) -> list[PutRecordsResultEntryTypeDef]:
    """Write one record per key, with the key as its data. Returns the entries of the response."""
    records: list[PutRecordsRequestEntryTypeDef] = [
        {"Data": key.encode(), "PartitionKey": key} for key in keys
    ]
    return kinesis.put_records(StreamName=stream, Records=records)["Records"]


def iterator(
    kinesis: KinesisClient, stream: str, shard: str, kind: ShardIteratorTypeType = "TRIM_HORIZON", **how: Any
) -> str:
    return kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType=kind, **how)[
        "ShardIterator"
    ]


def read(
    kinesis: KinesisClient, stream: str, shard: str, kind: ShardIteratorTypeType = "TRIM_HORIZON", **how: Any
) -> list[RecordTypeDef]:
    """Return the response of one GetRecords call."""
    return kinesis.get_records(ShardIterator=iterator(kinesis, stream, shard, kind, **how))["Records"]


def datas(
    kinesis: KinesisClient, stream: str, shard: str, kind: ShardIteratorTypeType = "TRIM_HORIZON", **how: Any
) -> list[str]:
    return [record["Data"].decode() for record in read(kinesis, stream, shard, kind, **how)]


def shards(
    kinesis: KinesisClient, stream: str, kind: ShardFilterTypeType | None = None, **how: Any
) -> list[str]:
    """Return the shard IDs of ListShards for a filter."""
    shard_filter: Any = {"ShardFilter": {"Type": kind, **how}} if kind else {}
    return [shard["ShardId"] for shard in kinesis.list_shards(StreamName=stream, **shard_filter)["Shards"]]


def hash_of(key: str) -> int:
    return int(hashlib.md5(key.encode()).hexdigest(), 16)


def split(kinesis: KinesisClient, stream: str, shard: str) -> list[str]:
    """Split a shard in half. Returns the IDs of the child shards."""
    described = next(s for s in kinesis.list_shards(StreamName=stream)["Shards"] if s["ShardId"] == shard)
    low, high = (int(described["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
    kinesis.split_shard(StreamName=stream, ShardToSplit=shard, NewStartingHashKey=str((low + high + 1) // 2))
    listed = kinesis.list_shards(StreamName=stream)["Shards"]
    return [s["ShardId"] for s in listed if s.get("ParentShardId") == shard]
