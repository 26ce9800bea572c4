"""Reads the checkpoint of each shard from KCL's lease table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_app.errors import FatalError
from stream_app.model.segment import TOKEN

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# KCL's checkpoints that are not positions (SentinelCheckpoint).
WORDS: Final = frozenset({"TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", "SHARD_END"})


def read(dynamodb: DynamoDBClient, table: str) -> dict[str, str]:
    """Return each shard's checkpoint by shard ID.

    A checkpoint is a position's token (`segment.token`) or one of KCL's TRIM_HORIZON, SHARD_END and so on. Returns
    an empty dictionary when the application has no lease table yet. Raises FatalError for any other checkpoint.
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
        raise FatalError(f"the lease table {table} has an invalid checkpoint for shard {shard[:100]!r}")
    return text
