"""Creates the lease table in the form of KCL 3.1, so that a local consumer starts within seconds.

With an empty lease table, KCL waits a random 1 to 30 s, so that the workers of a new fleet do not all list the shards
at once, and each lease waits until the leader assigns it. KCL resumes immediately with a table whose leases have an
owner. It creates its other two tables (CoordinatorState, WorkerMetricStats) itself without waiting.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from botocore.exceptions import ClientError

from stream_app.errors import aws_error_code

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import UniversalAttributeValueTypeDef
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.type_defs import ShardTypeDef

OWNER_INDEX = "LeaseOwnerToLeaseKeyIndex"
InitialPosition = Literal["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"]


def write_leases(
    dynamodb: DynamoDBClient,
    kinesis: KinesisClient,
    *,
    application: str,
    stream: str,
    worker: str,
    position: InitialPosition = "TRIM_HORIZON",
) -> int:
    """Assign `worker` a lease on each shard with which a new application would start. Returns the number written.

    Writes nothing if the table has leases already, or if shards were split or merged so that only KCL can determine
    the starting shards; KCL then starts with its usual delay. Supports one worker only: KCL balances a fleet.
    """
    shards = starting_shards(_list_shards(kinesis, stream), position)
    _ensure_table(dynamodb, application)
    if dynamodb.scan(TableName=application, Limit=1, ConsistentRead=True)["Items"]:
        return 0
    for shard in shards:
        dynamodb.put_item(TableName=application, Item=lease(shard, worker, position))
    return len(shards)


def starting_shards(shards: Iterable[ShardTypeDef], position: InitialPosition) -> list[ShardTypeDef]:
    """Return the shards of ListShards that get a lease first; the others get theirs when their parents have ended.

    For TRIM_HORIZON these are the shards without a listed parent. For other positions these are all shards, or none
    if any shard is closed.
    """
    listed = list(shards)
    if position == "TRIM_HORIZON":
        ids = {shard["ShardId"] for shard in listed}
        return [shard for shard in listed if not ids.intersection(_parents(shard))]
    closed = any("EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in listed)
    return [] if closed else listed


def lease(
    shard: ShardTypeDef, worker: str, position: InitialPosition
) -> dict[str, UniversalAttributeValueTypeDef]:
    """Return the item that KCL writes for a shard of ListShards when it is assigned to `worker`."""
    item: dict[str, UniversalAttributeValueTypeDef] = {
        "leaseKey": {"S": shard["ShardId"]},
        "leaseOwner": {"S": worker},
        "leaseCounter": {"N": "1"},
        "ownerSwitchesSinceCheckpoint": {"N": "0"},
        "checkpoint": {"S": position},
        "checkpointSubSequenceNumber": {"N": "0"},
        "startingHashKey": {"S": shard["HashKeyRange"]["StartingHashKey"]},
        "endingHashKey": {"S": shard["HashKeyRange"]["EndingHashKey"]},
    }
    if parents := _parents(shard):
        item["parentShardId"] = {"SS": parents}
    return item


def _parents(shard: ShardTypeDef) -> list[str]:
    return [parent for parent in (shard.get("ParentShardId"), shard.get("AdjacentParentShardId")) if parent]


def _list_shards(kinesis: KinesisClient, stream: str) -> list[ShardTypeDef]:
    pages = kinesis.get_paginator("list_shards").paginate(StreamName=stream)
    return [shard for page in pages for shard in page["Shards"]]


def _ensure_table(dynamodb: DynamoDBClient, name: str) -> None:
    """Create the table with the index by owner, which a worker queries for the leases assigned to it."""
    try:
        dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": "leaseKey", "AttributeType": "S"},
                {"AttributeName": "leaseOwner", "AttributeType": "S"},
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": OWNER_INDEX,
                    "KeySchema": [
                        {"AttributeName": "leaseOwner", "KeyType": "HASH"},
                        {"AttributeName": "leaseKey", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }
            ],
        )
    except ClientError as error:
        if aws_error_code(error) != "ResourceInUseException":
            raise
    dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
