"""KCL's leader lock, and how a daemon that was killed gives it back.

The leader assigns leases, those of new child shards too. Its lock is held for two minutes beyond its death, and KCL
does not know its own: without this, a worker that crashed just when shards were split would leave the children
unread for as long.
"""

from __future__ import annotations

from typing import Any

from stream_app.errors import aws_error_code

_ABSENT = frozenset({"ConditionalCheckFailedException", "ResourceNotFoundException"})


def release(dynamodb: Any, application: str, worker: str) -> bool:
    """Delete the lock if `worker` holds it; whether it did. To be called only when that worker is dead.

    Raises what boto3 raises.
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
