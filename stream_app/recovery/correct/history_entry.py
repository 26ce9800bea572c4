"""The entry of a position in the history of corrections, and its form as a DynamoDB item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from stream_app.errors import FatalError
from stream_app.model.record import Position
from stream_app.model.segment import token
from stream_app.recovery.bounded import decoded, is_time

# A DynamoDB item or its attributes in the form of the low-level client: {"S": …}, {"N": …}.
Item = Mapping[str, Any]

PREFIX = "correction#"
_DIGITS = 60  # a sequence number has 56 digits
_SUB_DIGITS = 10


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request to correct one stored record; repeated deliveries of a request have the same `id`.

    `arrived` is in milliseconds since the epoch. `by` names the requester: a detector, a monitor or a person.
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
        """The position of the record."""
        return Position(self.shard, self.sequence, self.sub)


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """A completed correction; `before` and `after` hold the changed columns as JSON values.

    `version` is the S3 version ID of the object that holds the corrected row, `version_before` that of the object
    it replaced; both are empty where they are not known. `affected` lists the positions (tokens) of later rows,
    stored by the time of the correction, that were calculated from the old value and are left unchanged. Rows of
    the same device with a time before `affects_until` that are stored later are affected as well. `rebuilt` tells
    that the payload no longer existed and the row's own columns were used instead; `latest` that the device's
    latest value came from this row and was corrected, too.
    """

    key: str
    version: str
    version_before: str
    before: Mapping[str, object]
    after: Mapping[str, object]
    affected: Sequence[str] = ()
    affects_until: str | None = None
    rebuilt: bool = False
    latest: bool = False


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A request that needs manual handling, with the reason; `stored` is the key of its S3 object, if it has one."""

    request: Request
    reason: str
    at: int
    stored: str | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The history of one position. Times are in milliseconds since the epoch.

    `request` is the first request. `notified` tells that the refusal is in the manual queue or in the manual store.
    """

    request: Request
    at: int
    done: Correction | None = None
    done_at: int | None = None
    refusal: Refusal | None = None
    notified: bool = False

    @property
    def status(self) -> str:
        """`corrected`, `manual`, both as `corrected, manual`, or `started`."""
        found = [name for name, has in (("corrected", self.done), ("manual", self.refusal)) if has]
        return ", ".join(found) or "started"


def item_key(consumer: str, position: Position) -> dict[str, dict[str, str]]:
    """Return the key of a position's item."""
    return {"pk": {"S": f"{PREFIX}{consumer}"}, "sk": {"S": sort_key(position)}}


def sort_key(position: Position) -> str:
    """Return a sort key that sorts in the order of positions."""
    return f"{position.shard}#{position.sequence.zfill(_DIGITS)}#{position.sub:0{_SUB_DIGITS}d}"


def json_attribute(value: msgspec.Struct) -> dict[str, str]:
    """Return a struct as a DynamoDB attribute with JSON text."""
    return {"S": msgspec.json.encode(value).decode()}


def item_of(entry: Entry) -> Item:
    """Return the item of an entry that has no refusal."""
    request, done = entry.request, entry.done
    item = {**item_key(request.consumer, request.position), "request": json_attribute(request)}
    item["at"] = {"N": str(entry.at)}
    return (
        item if done is None else {**item, "done": json_attribute(done), "done_at": {"N": str(entry.done_at)}}
    )


def entry_of(item: Item) -> Entry:
    """Return the entry in an item of the table. Raises FatalError where the item is not an entry."""
    done, refusal = item.get("done"), item.get("refusal")
    try:
        entry = Entry(
            request=decoded(item["request"]["S"], Request),
            at=int(item["at"]["N"]),
            done=None if done is None else decoded(done["S"], Correction),
            done_at=int(item["done_at"]["N"]) if "done_at" in item else None,
            refusal=None if refusal is None else decoded(refusal["S"], Refusal),
            notified=bool(item.get("notified", {}).get("BOOL", False)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FatalError(f"cannot read an item of the correction history: {error}") from error
    if not (is_time(entry.at) and is_time(entry.done_at)):
        raise FatalError("cannot read an item of the correction history: its time is out of range")
    return entry


def position_name(request: Request) -> str:
    """Return the position in its printed form: `<shard>/<token>`."""
    return f"{request.shard}/{token(request.position)}"
