"""History of corrections: one DynamoDB item per position, written conditionally.

A position is corrected at most once, and refused at most once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import msgspec

from stream_app.aws.conditional_writes import met
from stream_app.model.record import Position
from stream_app.recovery.correct.history_entry import (
    PREFIX,
    Correction,
    Entry,
    Item,
    Refusal,
    Request,
    entry_of,
    item_key,
    item_of,
    json_attribute,
    sort_key,
)
from stream_app.sinks.dynamodb import batch_get

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

HISTORY = "STREAM_APP_HISTORY_TABLE"
"""Environment variable with the name of the table of corrections and redrives; overrides the template's name."""

A = TypeVar("A")
T = TypeVar("T")

_TRANSACTION_ITEMS = 100  # limit of TransactWriteItems
_EXISTS = "attribute_exists(pk)"
_NOT_EXISTS = "attribute_not_exists(pk)"
_OPEN = f"{_EXISTS} AND attribute_not_exists(done) AND attribute_not_exists(refusal)"


def history_table(application: str, environ: Mapping[str, str]) -> str:
    """Return the name of an application's history table: the environment variable, else the template's default."""
    return environ.get(HISTORY) or f"{application}-history"


class History:
    """The correction history in DynamoDB (keys `pk` and `sk`).

    `now_ms` is the clock. `start_all` and `finish_all` take requests for different positions; where one of them
    fails, its exception is returned in place of its result. All methods raise what boto3 raises.
    """

    def __init__(self, dynamodb: DynamoDBClient, table: str, now_ms: Callable[[], int]) -> None:
        self._dynamodb, self._table, self._now_ms = dynamodb, table, now_ms

    def start_all(self, requests: Sequence[Request]) -> list[Entry | Exception]:
        """Return each position's entry, as `start` does, with batched reads and writes."""
        keys = [item_key(request.consumer, request.position) for request in requests]
        items = batch_get(self._dynamodb, self._table, keys)
        known = {(item["pk"]["S"], item["sk"]["S"]): _result_or_error(entry_of, item) for item in items}
        existing = [known.get((key["pk"]["S"], key["sk"]["S"])) for key in keys]
        new = [
            Entry(request=r, at=self._now_ms()) for r, e in zip(requests, existing, strict=True) if e is None
        ]
        started = iter(
            self._write_all(new, _NOT_EXISTS, lambda entry: entry, lambda entry: self.start(entry.request))
        )
        return [next(started) if entry is None else entry for entry in existing]

    def finish_all(self, corrected: Sequence[tuple[Entry, Correction]]) -> list[bool | Exception]:
        """Record the corrections of several entries, as `finish` does."""
        now = self._now_ms()
        entries = [msgspec.structs.replace(entry, done=done, done_at=now) for entry, done in corrected]

        def write_one(entry: Entry) -> bool:
            return entry.done is not None and self.finish(entry.request, entry.done)

        return self._write_all(entries, _OPEN, lambda _entry: True, write_one)

    def _write_all(
        self,
        entries: Sequence[Entry],
        condition: str,
        written: Callable[[Entry], T],
        write_one: Callable[[Entry], T],
    ) -> list[T | Exception]:
        """Write entries conditionally in transactions.

        The entries of a failed transaction are written one by one, so that only those that fail are affected.
        """
        found: list[T | Exception] = []
        for start in range(0, len(entries), _TRANSACTION_ITEMS):
            part = entries[start : start + _TRANSACTION_ITEMS]
            if self._write_transaction(part, condition):
                found += map(written, part)
            else:
                found += [_result_or_error(write_one, entry) for entry in part]
        return found

    def _write_transaction(self, entries: Sequence[Entry], condition: str) -> bool:
        """Return whether the entries were written together in one transaction."""
        if len(entries) < 2:
            return False
        puts: list[TransactWriteItemTypeDef] = [
            {"Put": {"TableName": self._table, "Item": item_of(entry), "ConditionExpression": condition}}
            for entry in entries
        ]
        with suppress(Exception):
            self._dynamodb.transact_write_items(TransactItems=puts)
            return True
        return False

    def start(self, request: Request) -> Entry:
        """Return the position's entry; the first request creates it."""
        item = item_of(Entry(request=request, at=self._now_ms()))
        met(self._dynamodb.put_item, TableName=self._table, Item=item, ConditionExpression=_NOT_EXISTS)
        found = self.get(request.consumer, request.position)
        if found is None:
            raise LookupError(
                f"the history item of {request.position} was deleted while it was being written"
            )
        return found

    def finish(self, request: Request, done: Correction) -> bool:
        """Record the correction; return False, and keep the earlier one, if one was already recorded."""
        values = {":done": json_attribute(done), ":at": self._now()}
        condition = f"{_EXISTS} AND attribute_not_exists(done)"
        return self._update(request, "SET done = :done, done_at = :at", condition, values)

    def refuse(self, request: Request, reason: str, stored: str | None = None) -> bool:
        """Record the refusal; return False, and keep the earlier one, if one was already recorded."""
        refusal = Refusal(request=request, reason=reason, at=self._now_ms(), stored=stored)
        condition = f"{_EXISTS} AND attribute_not_exists(refusal)"
        return self._update(
            request, "SET refusal = :refusal", condition, {":refusal": json_attribute(refusal)}
        )

    def notified(self, request: Request) -> None:
        """Record that the refusal was sent to the manual queue or store."""
        self._update(request, "SET notified = :yes", _EXISTS, {":yes": {"BOOL": True}})

    def get(self, consumer: str, position: Position) -> Entry | None:
        """Return the entry of a position, or None."""
        answer = self._dynamodb.get_item(
            TableName=self._table, Key=item_key(consumer, position), ConsistentRead=True
        )
        return entry_of(answer["Item"]) if "Item" in answer else None

    def entries(
        self, consumer: str, first: Position | None = None, last: Position | None = None
    ) -> Iterator[Entry]:
        """Yield entries in the order of shard and position.

        Yields all entries of the consumer, or one shard's from `first` to `last`.
        """
        for item in _query(self._dynamodb, self._table, consumer, first, last):
            yield entry_of(item)

    def _update(self, request: Request, update: str, condition: str, values: Item) -> bool:
        return met(
            self._dynamodb.update_item,
            TableName=self._table,
            Key=item_key(request.consumer, request.position),
            UpdateExpression=update,
            ConditionExpression=condition,
            ExpressionAttributeValues=values,
        )

    def _now(self) -> dict[str, str]:
        return {"N": str(self._now_ms())}


def _result_or_error(function: Callable[[A], T], argument: A) -> T | Exception:
    try:
        return function(argument)
    except Exception as error:
        return error


def count_corrections(dynamodb: DynamoDBClient, table: str, consumer: str) -> dict[str, int]:
    """Count the corrected and the refused positions of a consumer. Reads every entry."""
    found = {"corrected": 0, "manual": 0}
    for item in _query(dynamodb, table, consumer, None, None):
        found["corrected"] += "done" in item
        found["manual"] += "refusal" in item
    return found


def _query(
    dynamodb: DynamoDBClient, table: str, consumer: str, first: Position | None, last: Position | None
) -> Iterator[Item]:
    values = {":pk": {"S": f"{PREFIX}{consumer}"}}
    condition = "pk = :pk"
    if first is not None and last is not None:
        condition += " AND sk BETWEEN :first AND :last"
        values |= {":first": {"S": sort_key(first)}, ":last": {"S": sort_key(last)}}
    pages = dynamodb.get_paginator("query").paginate(
        TableName=table,
        KeyConditionExpression=condition,
        ExpressionAttributeValues=values,
        ConsistentRead=True,
    )
    for page in pages:
        yield from page["Items"]
