"""What was corrected: one item a position in the history table, written conditionally, so that nothing goes twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from stream_app.aws.conditional_writes import met
from stream_app.errors import FatalError
from stream_app.model.record import Position
from stream_app.model.segment import token
from stream_app.recovery.bounded import decoded, is_time
from stream_app.sinks.dynamodb import batch_get

HISTORY = "STREAM_APP_HISTORY_TABLE"
"""Names the table of corrections and redrives, where it is not the template's own name for it."""

G = TypeVar("G")
T = TypeVar("T")

_PREFIX = "correction#"
_AT_ONCE = 100  # items that a transaction takes
_DIGITS = 60  # a sequence number has 56
_SUB_DIGITS = 10
_THERE = "attribute_exists(pk)"
_ABSENT = "attribute_not_exists(pk)"
_OPEN = f"{_THERE} AND attribute_not_exists(done) AND attribute_not_exists(refusal)"


def table_of(application: str, environ: Mapping[str, str]) -> str:
    """The history table of an application, as the environment or else the template names it."""
    return environ.get(HISTORY) or f"{application}-history"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody asks for the correction of one stored record; `id` is the same for the same request.

    `arrived` is in ms since the epoch. `by` says who asks: a detector, a monitor, a person.
    """

    id: str
    event: str
    key: str
    consumer: str
    shard: str
    sequence: str
    sub: int = 0
    arrived: int
    by: str = ""

    @property
    def position(self) -> Position:
        """The record's identity."""
        return Position(self.shard, self.sequence, self.sub)


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A correction that was made: `before` and `after` hold the columns that changed, as JSON values.

    `version` is S3's id of the object's version that holds it, `version_before` of the one that it replaced, empty
    where that is not known. `affected` are the positions (tokens) of later rows that were calculated with the value
    as it was and are left so, those stored when the correction was made; rows of the device with a time before
    `affects_until` that came later belong to them as well. `rebuilt` says that the payload was gone, and the row's
    own columns took its place; `latest` that the device's latest value was of this row and was corrected too.
    """

    key: str
    version: str
    version_before: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    affected: Sequence[str] = ()
    affects_until: str | None = None
    rebuilt: bool = False
    latest: bool = False


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A request that people must look at, and why; `stored` is the key of its object where there is one."""

    request: Request
    reason: str
    at: int
    stored: str | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The history of one position. Times are in ms since the epoch.

    `request` is the first one. `notified` says that the refusal stands in the manual queue or the manual store.
    """

    request: Request
    at: int
    done: Done | None = None
    done_at: int | None = None
    refusal: Refusal | None = None
    notified: bool = False

    @property
    def status(self) -> str:
        """`corrected`, `manual`, both as `corrected, manual`, or `started`."""
        found = [name for name, has in (("corrected", self.done), ("manual", self.refusal)) if has]
        return ", ".join(found) or "started"


class History:
    """The history in DynamoDB (keys pk and sk). `now_ms` is the clock. Raises what boto3 raises.

    `start_all` and `finish_all` are for many requests, each of another position; an error stands in its place.
    """

    def __init__(self, dynamodb: Any, table: str, now_ms: Callable[[], int]) -> None:
        self._dynamodb, self._table, self._now_ms = dynamodb, table, now_ms

    def start_all(self, requests: Sequence[Request]) -> list[Entry | Exception]:
        """Each position's entry, as `start` gives it: those that are there are read together, new ones made so."""
        keys = [key_of(request.consumer, request.position) for request in requests]
        items = batch_get(self._dynamodb, self._table, keys)
        known = {(item["pk"]["S"], item["sk"]["S"]): _tried(entry_of, item) for item in items}
        there = [known.get((key["pk"]["S"], key["sk"]["S"])) for key in keys]
        new = [Entry(request=r, at=self._now_ms()) for r, e in zip(requests, there, strict=True) if e is None]
        made = iter(
            self._together(new, _ABSENT, lambda entry: entry, lambda entry: self.start(entry.request))
        )
        return [next(made) if entry is None else entry for entry in there]

    def finish_all(self, made: Sequence[tuple[Entry, Done]]) -> list[bool | Exception]:
        """Note the corrections of entries that were found without one, as `finish` does."""
        now = self._now_ms()
        entries = [msgspec.structs.replace(entry, done=done, done_at=now) for entry, done in made]

        def alone(entry: Entry) -> bool:
            return entry.done is not None and self.finish(entry.request, entry.done)

        return self._together(entries, _OPEN, lambda _entry: True, alone)

    def _together(
        self,
        entries: Sequence[Entry],
        condition: str,
        written: Callable[[Entry], T],
        alone: Callable[[Entry], T],
    ) -> list[T | Exception]:
        """Write entries in transactions, on a condition of each; those of one that is refused `alone`."""
        found: list[T | Exception] = []
        for start in range(0, len(entries), _AT_ONCE):
            part = entries[start : start + _AT_ONCE]
            if self._written(part, condition):
                found += map(written, part)
            else:
                found += [_tried(alone, entry) for entry in part]
        return found

    def _written(self, entries: Sequence[Entry], condition: str) -> bool:
        """Whether a transaction was made of them. What refuses it meets those alone that it is about."""
        if len(entries) < 2:
            return False
        put = {"TableName": self._table, "ConditionExpression": condition}
        with suppress(Exception):
            self._dynamodb.transact_write_items(
                TransactItems=[{"Put": {**put, "Item": _item(entry)}} for entry in entries]
            )
            return True
        return False

    def start(self, request: Request) -> Entry:
        """The position's entry; the first request makes it, every other one finds it."""
        item = _item(Entry(request=request, at=self._now_ms()))
        met(self._dynamodb.put_item, TableName=self._table, Item=item, ConditionExpression=_ABSENT)
        found = self.get(request.consumer, request.position)
        if found is None:
            raise LookupError(f"the history of {request.position} was deleted while it was written")
        return found

    def finish(self, request: Request, done: Done) -> bool:
        """Note the correction; False when one was noted before, which stays."""
        values = {":done": _text(done), ":at": self._now()}
        condition = f"{_THERE} AND attribute_not_exists(done)"
        return self._update(request, "SET done = :done, done_at = :at", condition, values)

    def refuse(self, request: Request, reason: str, stored: str | None = None) -> bool:
        """Note that people must look; False when they were asked before, which stays."""
        refusal = Refusal(request=request, reason=reason, at=self._now_ms(), stored=stored)
        condition = f"{_THERE} AND attribute_not_exists(refusal)"
        return self._update(request, "SET refusal = :refusal", condition, {":refusal": _text(refusal)})

    def notified(self, request: Request) -> None:
        """Note that the refusal has reached people."""
        self._update(request, "SET notified = :yes", _THERE, {":yes": {"BOOL": True}})

    def get(self, consumer: str, position: Position) -> Entry | None:
        """The entry of a position."""
        answer = self._dynamodb.get_item(
            TableName=self._table, Key=key_of(consumer, position), ConsistentRead=True
        )
        return entry_of(answer["Item"]) if "Item" in answer else None

    def entries(
        self, consumer: str, first: Position | None = None, last: Position | None = None
    ) -> Iterator[Entry]:
        """Entries in order of shard and position, all of them, or those of one shard from `first` to `last`."""
        for item in _query(self._dynamodb, self._table, consumer, first, last):
            yield entry_of(item)

    def _update(self, request: Request, update: str, condition: str, values: Mapping[str, Any]) -> bool:
        return met(
            self._dynamodb.update_item,
            TableName=self._table,
            Key=key_of(request.consumer, request.position),
            UpdateExpression=update,
            ConditionExpression=condition,
            ExpressionAttributeValues=values,
        )

    def _now(self) -> dict[str, str]:
        return {"N": str(self._now_ms())}


def _tried(act: Callable[[G], T], given: G) -> T | Exception:
    try:
        return act(given)
    except Exception as error:
        return error


def counts(dynamodb: Any, table: str, consumer: str) -> dict[str, int]:
    """How many positions of a consumer were corrected, and how many people must look at. Reads them all."""
    found = {"corrected": 0, "manual": 0}
    for item in _query(dynamodb, table, consumer, None, None):
        found["corrected"] += "done" in item
        found["manual"] += "refusal" in item
    return found


def _query(
    dynamodb: Any, table: str, consumer: str, first: Position | None, last: Position | None
) -> Iterator[Mapping[str, Any]]:
    values = {":pk": {"S": f"{_PREFIX}{consumer}"}}
    condition = "pk = :pk"
    if first is not None and last is not None:
        condition += " AND sk BETWEEN :first AND :last"
        values |= {":first": {"S": _sort_key(first)}, ":last": {"S": _sort_key(last)}}
    pages = dynamodb.get_paginator("query").paginate(
        TableName=table,
        KeyConditionExpression=condition,
        ExpressionAttributeValues=values,
        ConsistentRead=True,
    )
    for page in pages:
        yield from page["Items"]


def key_of(consumer: str, position: Position) -> dict[str, dict[str, str]]:
    """The key of a position's item."""
    return {"pk": {"S": f"{_PREFIX}{consumer}"}, "sk": {"S": _sort_key(position)}}


def _sort_key(position: Position) -> str:
    """Sorts as positions do."""
    return f"{position.shard}#{position.sequence.zfill(_DIGITS)}#{position.sub:0{_SUB_DIGITS}d}"


def _text(value: msgspec.Struct) -> dict[str, str]:
    return {"S": msgspec.json.encode(value).decode()}


def _item(entry: Entry) -> dict[str, Any]:
    """An entry without a refusal in the table's form."""
    request, done = entry.request, entry.done
    item = {**key_of(request.consumer, request.position), "request": _text(request)}
    item["at"] = {"N": str(entry.at)}
    return item if done is None else {**item, "done": _text(done), "done_at": {"N": str(entry.done_at)}}


def entry_of(item: Mapping[str, Any]) -> Entry:
    """The entry in an item of the table. Raises FatalError where the item is not one."""
    done, refusal = item.get("done"), item.get("refusal")
    try:
        entry = Entry(
            request=decoded(item["request"]["S"], Request),
            at=int(item["at"]["N"]),
            done=None if done is None else decoded(done["S"], Done),
            done_at=int(item["done_at"]["N"]) if "done_at" in item else None,
            refusal=None if refusal is None else decoded(refusal["S"], Refusal),
            notified=bool(item.get("notified", {}).get("BOOL", False)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FatalError(f"an item of the history of corrections cannot be read: {error}") from error
    if not (is_time(entry.at) and is_time(entry.done_at)):
        raise FatalError("an item of the history of corrections cannot be read: its time is none")
    return entry


def name_of(request: Request) -> str:
    """The position as people write it: `<shard>/<token>`."""
    return f"{request.shard}/{token(request.position)}"
