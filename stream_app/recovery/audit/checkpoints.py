"""How far each shard is committed, read from KCL's lease table."""

from __future__ import annotations

from typing import Any, Final

from stream_app.errors import FatalError
from stream_app.model.segment import TOKEN

# KCL's checkpoints that are not positions.
WORDS: Final = frozenset({"TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", "SHARD_END"})


def read(dynamodb: Any, table: str) -> dict[str, str]:
    """Each shard's checkpoint by shard id: a position's token (`segment.token`), or KCL's TRIM_HORIZON, SHARD_END ….

    Empty when the application has no lease table yet. Raises FatalError where a checkpoint is neither.
    """
    found: dict[str, str] = {}
    request: dict[str, Any] = {"TableName": table, "ConsistentRead": True}
    while True:
        try:
            page = dynamodb.scan(**request)
        except dynamodb.exceptions.ResourceNotFoundException:
            return {}
        for item in page["Items"]:
            if "checkpoint" in item and "S" in item.get("leaseKey", {}):
                found[item["leaseKey"]["S"]] = _token(item, table)
        if "LastEvaluatedKey" not in page:
            return found
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def _token(item: dict[str, Any], table: str) -> str:
    sequence: str = item["checkpoint"].get("S", "")
    if sequence in WORDS:
        return sequence
    sub: str = item.get("checkpointSubSequenceNumber", {}).get("N", "0")
    text = f"{sequence}.{sub}" if sub != "0" else sequence
    if TOKEN.fullmatch(text) is None:
        shard = item["leaseKey"]["S"]
        raise FatalError(f"the lease table {table} has no valid checkpoint for shard {shard[:100]!r}")
    return text
