"""DynamoDB transactions without copying the table.

moto copies each item's table to roll back a transaction whose condition fails, which takes seconds for a hundred
items in a table of a thousand. The items of a transaction are distinct, so all conditions can be checked before the
first write, and no rollback is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moto.dynamodb.comparisons import get_filter_expression
from moto.dynamodb.exceptions import TransactionCanceledException
from moto.dynamodb.models import DynamoDBBackend

from stream_app.local.moto_patches.patch import replace

_MOST = 100
_original = DynamoDBBackend.transact_write_items

# One operation of TransactWriteItems (Put, Update, …): decoded JSON, which moto keeps without a type.
Operation = Mapping[str, Any]
# Code, message and, if requested, the existing item; all None for an operation whose condition holds.
CancellationReason = tuple[str | None, str | None, object]


def transact_write_items(self: DynamoDBBackend, transact_items: list[dict[str, Operation]]) -> None:
    """Write all items, or none if a condition fails. Raises TransactionCanceledException.

    Transactions with operations other than Put and Update, or with duplicate items, are passed on to moto.
    """
    if not _is_plain(self, transact_items):
        _original(self, transact_items)
        return
    operations = [next(iter(item.items())) for item in transact_items]
    errors = [_cancellation_reason(self, operation) for _, operation in operations]
    if any(code is not None for code, _, _ in errors):
        raise TransactionCanceledException(errors)
    for kind, operation in operations:
        _write(self, kind, operation)


def _is_plain(backend: DynamoDBBackend, items: Sequence[Mapping[str, Operation]]) -> bool:
    if len(items) > _MOST or any(len(item) != 1 or not {"Put", "Update"} & item.keys() for item in items):
        return False
    operations = [next(iter(item.values())) for item in items]
    if any(operation["TableName"] not in backend.tables for operation in operations):
        return False
    keys = {(each["TableName"], str(sorted(_key(backend, each).items()))) for each in operations}
    return len(keys) == len(items)


def _key(backend: DynamoDBBackend, operation: Operation) -> dict[str, dict[str, str]]:
    if "Key" in operation:
        return dict(operation["Key"])
    table, item = backend.get_table(operation["TableName"]), operation["Item"]
    names = (table.hash_key_attr, table.range_key_attr)
    return {name: item[name] for name in names if name is not None and name in item}


def _cancellation_reason(backend: DynamoDBBackend, operation: Operation) -> CancellationReason:
    """Check the operation's condition."""
    condition = operation.get("ConditionExpression")
    if condition is None:
        return None, None, None
    names, values = (operation.get(f"ExpressionAttribute{what}") for what in ("Names", "Values"))
    existing = backend.get_item(operation["TableName"], _key(backend, operation))
    if get_filter_expression(condition, names, values).expr(existing):
        return None, None, None
    wanted = operation.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
    item = existing.to_json()["Attributes"] if wanted and existing is not None else None
    return "ConditionalCheckFailed", "The conditional request failed", item


def _write(backend: DynamoDBBackend, kind: str, operation: Operation) -> None:
    names, values = (operation.get(f"ExpressionAttribute{what}") for what in ("Names", "Values"))
    if kind == "Put":
        backend.put_item(operation["TableName"], operation["Item"])
        return
    backend.update_item(
        operation["TableName"],
        operation["Key"],
        update_expression=operation["UpdateExpression"],
        expression_attribute_names=names or {},
        expression_attribute_values=values or {},
    )


def apply() -> None:
    """Install the patch."""
    replace(DynamoDBBackend, "transact_write_items", transact_write_items)
