"""The lease table as KCL 3.1 would write it, so that a local consumer starts in seconds.

On an empty table KCL waits a random 1 to 30 s, lest all workers of a new fleet list the shards at once; and each
lease waits for the leader to assign it. A table whose leases have an owner is one that KCL had before.
The other two tables (CoordinatorState, WorkerMetricStats) KCL makes itself, without waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from botocore.exceptions import ClientError

from stream_app.errors import code_of

OWNER_INDEX = "LeaseOwnerToLeaseKeyIndex"
InitialPosition = Literal["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"]


def write_leases(
    dynamodb: Any,
    kinesis: Any,
    *,
    application: str,
    stream: str,
    worker: str,
    position: InitialPosition = "TRIM_HORIZON",
) -> int:
    """Give `worker` a lease on each shard at which a new application would begin; how many were written.

    `dynamodb` and `kinesis` are boto3 clients.

    Writes nothing where the table has leases already, or where shards were split or merged and only KCL can tell
    from which to begin: then KCL starts in its own time. For one worker; a fleet is KCL's to balance.
    """
    shards = starting_shards(_list_shards(kinesis, stream), position)
    _ensure_table(dynamodb, application)
    if dynamodb.scan(TableName=application, Limit=1, ConsistentRead=True)["Items"]:
        return 0
    for shard in shards:
        dynamodb.put_item(TableName=application, Item=lease(shard, worker, position))
    return len(shards)


def starting_shards(
    shards: Iterable[Mapping[str, Any]], position: InitialPosition
) -> list[Mapping[str, Any]]:
    """The shards of a ListShards answer that get a lease first; the others follow when their parents have ended.

    From TRIM_HORIZON those without a listed parent. Else all, provided that none is closed, and none otherwise.
    """
    listed = list(shards)
    if position == "TRIM_HORIZON":
        ids = {shard["ShardId"] for shard in listed}
        return [shard for shard in listed if not ids.intersection(_parents(shard))]
    closed = any("EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in listed)
    return [] if closed else listed


def lease(shard: Mapping[str, Any], worker: str, position: InitialPosition) -> dict[str, Any]:
    """The row that KCL writes for a shard of ListShards, once `worker` was assigned it."""
    row: dict[str, Any] = {
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
        row["parentShardId"] = {"SS": parents}
    return row


def _parents(shard: Mapping[str, Any]) -> list[str]:
    return [shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if shard.get(name)]


def _list_shards(kinesis: Any, stream: str) -> list[Mapping[str, Any]]:
    pages = kinesis.get_paginator("list_shards").paginate(StreamName=stream)
    return [shard for page in pages for shard in page["Shards"]]


def _ensure_table(dynamodb: Any, name: str) -> None:
    """The table with the index by owner, in which a worker looks for the leases that it was assigned."""
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
        if code_of(error) != "ResourceInUseException":
            raise
    dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
