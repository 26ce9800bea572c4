"""How far each shard is committed, read from KCL's lease table."""

from __future__ import annotations

from typing import Any


def read(dynamodb: Any, table: str) -> dict[str, str]:
    """Each shard's checkpoint by shard id: a position's token (`segment.token`), or KCL's TRIM_HORIZON, SHARD_END ….

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
                found[item["leaseKey"]["S"]] = _token(item)
        if "LastEvaluatedKey" not in page:
            return found
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def _token(item: dict[str, Any]) -> str:
    sequence: str = item["checkpoint"]["S"]
    sub = int(item.get("checkpointSubSequenceNumber", {}).get("N", "0"))
    return f"{sequence}.{sub}" if sub and sequence.isdigit() else sequence
