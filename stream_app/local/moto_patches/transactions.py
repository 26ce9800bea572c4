"""Transactions without a copy of the whole table for each of their items.

moto copies the table of each item, to be able to undo what a transaction wrote before a condition failed: with a
hundred items in a table of a thousand that takes seconds. Items of a transaction are distinct, so every condition can
be checked before anything is written, and then nothing has to be undone.
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

Refused = tuple[str | None, str | None, Any]


def transact_write_items(self: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> None:
    """As AWS: all of the items are written, or none where a condition is not met.

    Transactions of anything but puts and updates of different items are left to moto.
    """
    if not _is_plain(self, transact_items):
        _original(self, transact_items)
        return
    operations = [next(iter(item.items())) for item in transact_items]
    errors: Any = [_refused(self, operation) for _, operation in operations]
    if any(code is not None for code, _, _ in errors):
        raise TransactionCanceledException(errors)
    for kind, operation in operations:
        _write(self, kind, operation)


def _is_plain(backend: DynamoDBBackend, items: Sequence[Mapping[str, Any]]) -> bool:
    if len(items) > _MOST or any(len(item) != 1 or not {"Put", "Update"} & item.keys() for item in items):
        return False
    operations = [next(iter(item.values())) for item in items]
    if any(operation["TableName"] not in backend.tables for operation in operations):
        return False
    keys = {(each["TableName"], str(sorted(_key(backend, each).items()))) for each in operations}
    return len(keys) == len(items)


def _key(backend: DynamoDBBackend, operation: Mapping[str, Any]) -> dict[str, Any]:
    if "Key" in operation:
        return dict(operation["Key"])
    table, item = backend.get_table(operation["TableName"]), operation["Item"]
    names = (table.hash_key_attr, table.range_key_attr)
    return {name: item[name] for name in names if name is not None and name in item}


def _refused(backend: DynamoDBBackend, operation: Mapping[str, Any]) -> Refused:
    """The reason why an item may not be written: code, message and the item, if that was asked for."""
    condition = operation.get("ConditionExpression")
    if condition is None:
        return None, None, None
    names, values = (operation.get(f"ExpressionAttribute{what}") for what in ("Names", "Values"))
    there = backend.get_item(operation["TableName"], _key(backend, operation))
    if get_filter_expression(condition, names, values).expr(there):
        return None, None, None
    wanted = operation.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" and there is not None
    item = there.to_json()["Attributes"] if wanted and there is not None else None
    return "ConditionalCheckFailed", "The conditional request failed", item


def _write(backend: DynamoDBBackend, kind: str, operation: Mapping[str, Any]) -> None:
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
    """Put the correction in place."""
    replace(DynamoDBBackend, "transact_write_items", transact_write_items)
