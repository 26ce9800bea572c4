"""DynamoDB transactions are atomic and do not copy the table."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.dynamodb.models.table import Table

ABSENT = "attribute_not_exists(k)"


@pytest.fixture
def dynamodb(aws: Callable[[str], Any]) -> Any:
    client = aws("dynamodb")
    client.create_table(
        TableName="table",
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return client


def put(key: str, value: str, condition: str = ABSENT) -> dict[str, Any]:
    item = {"k": {"S": key}, "v": {"S": value}}
    return {"Put": {"TableName": "table", "Item": item, "ConditionExpression": condition}}


def update(key: str, value: str) -> dict[str, Any]:
    return {
        "Update": {
            "TableName": "table",
            "Key": {"k": {"S": key}},
            "UpdateExpression": "SET #v = :v",
            "ConditionExpression": "attribute_exists(k)",
            "ExpressionAttributeNames": {"#v": "v"},
            "ExpressionAttributeValues": {":v": {"S": value}},
        }
    }


def items(dynamodb: Any) -> dict[str, str]:
    return {item["k"]["S"]: item["v"]["S"] for item in dynamodb.scan(TableName="table")["Items"]}


def test_a_transaction_writes_all_items_or_none_with_reasons(dynamodb: Any) -> None:
    dynamodb.transact_write_items(TransactItems=[put("a", "1"), put("b", "1")])
    dynamodb.transact_write_items(TransactItems=[update("a", "2"), put("c", "1")])
    assert items(dynamodb) == {"a": "2", "b": "1", "c": "1"}
    with pytest.raises(ClientError) as refused:
        dynamodb.transact_write_items(TransactItems=[update("a", "3"), put("b", "3"), update("d", "3")])
    assert refused.value.response["Error"]["Code"] == "TransactionCanceledException"
    reasons = [reason["Code"] for reason in refused.value.response["CancellationReasons"]]
    assert reasons == ["None", "ConditionalCheckFailed", "ConditionalCheckFailed"]
    assert items(dynamodb) == {"a": "2", "b": "1", "c": "1"}


def test_invalid_transactions_are_rejected(dynamodb: Any) -> None:
    with pytest.raises(ClientError, match="multiple operations on one item"):
        dynamodb.transact_write_items(TransactItems=[put("a", "1"), put("a", "2")])
    with pytest.raises(ClientError):
        dynamodb.transact_write_items(TransactItems=[put(str(number), "1") for number in range(101)])
    assert items(dynamodb) == {}


def test_a_transaction_does_not_copy_the_table(dynamodb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[Any] = []
    whole = copy.deepcopy

    def watched(value: Any, *arguments: Any) -> Any:
        copied.append(value)
        return whole(value, *arguments)

    monkeypatch.setattr(copy, "deepcopy", watched)
    dynamodb.transact_write_items(TransactItems=[put(str(number), "1") for number in range(100)])
    assert not [one for one in copied if isinstance(one, Table)]
    assert len(items(dynamodb)) == 100
