"""Releases the leader lock of a KCL worker that was killed.

The leader assigns leases, including those of new child shards. Its lock is valid for two minutes after it died, and a
restarted worker does not recognize its own lock. Without a release, child shards would remain unread for that time
after a worker crashed during a split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_app.errors import aws_error_code

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_ABSENT = frozenset({"ConditionalCheckFailedException", "ResourceNotFoundException"})


def release(dynamodb: DynamoDBClient, application: str, worker: str) -> bool:
    """Delete the lock if `worker` holds it, and return whether it did. Raises the errors of boto3.

    Call it only if that worker is no longer running.
    """
    try:
        dynamodb.delete_item(
            TableName=f"{application}-CoordinatorState",
            Key={"key": {"S": "Leader"}},
            ConditionExpression="ownerName = :worker",
            ExpressionAttributeValues={":worker": {"S": worker}},
        )
    except Exception as error:
        if aws_error_code(error) in _ABSENT:
            return False
        raise
    return True
