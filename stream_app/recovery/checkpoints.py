"""How far each shard is committed, read from KCL's lease table."""

from __future__ import annotations

from typing import Any


def read(dynamodb: Any, table: str) -> dict[str, str]:
    """Each shard's checkpoint as KCL keeps it (a sequence number, TRIM_HORIZON, SHARD_END …), by shard id.

    Empty when the application has no lease table yet.
    """
    found: dict[str, str] = {}
    request: dict[str, Any] = {"TableName": table, "ConsistentRead": True}
    while True:
        try:
            page = dynamodb.scan(**request)
        except dynamodb.exceptions.ResourceNotFoundException:
            return {}
        for item in page["Items"]:
            if "checkpoint" in item and "leaseKey" in item:
                found[item["leaseKey"]["S"]] = item["checkpoint"]["S"]
        if "LastEvaluatedKey" not in page:
            return found
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"]
