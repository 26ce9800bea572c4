"""Stores the latest row of every device in a DynamoDB table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from boto3.dynamodb.types import TypeSerializer

from stream_app.aws.conditional_writes import met
from stream_app.model.event import Event
from stream_app.model.record import Batch, Code, Failure, IntVector, Position, Record
from stream_app.model.record_metadata import record_metadata
from stream_app.model.segment import Segment, utc_datetime
from stream_app.sinks.columns import stored_columns

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Item = dict[str, Any]
"""An item in the form of the DynamoDB API: each value is an object such as `{"S": "text"}`."""
KEY = "device"
_THREADS = 8
_READ_AT_ONCE = 100  # the limit of keys in a BatchGetItem request
_FEW = 16  # up to this many items are put without threads, whose connections take memory in every shard
_KEY_BYTES = 2048
_ITEM_BYTES = 400 * 1024
_SERIALIZER = TypeSerializer()
# The attribute by which rows are ordered in time, a text (see `standing`).
_ORDER = "standing"
_CONDITION = "attribute_not_exists(#key) OR #standing < :standing"


def newest(batch: Batch, key: str, time: IntVector) -> IntVector:
    """Return the indexes of each device's newest row, in ascending order; newest by event time, then by position.

    `time` is in milliseconds, shape (n,). Rows without a key are skipped.
    """
    found: dict[str, int] = {}
    times = time.tolist()
    for at, device in enumerate(batch[key].tolist()):
        if device is not None and (device not in found or times[at] >= times[found[device]]):
            found[device] = at
    return np.array(sorted(found.values()), dtype=np.int64)


def event_times(batch: Batch, name: str, arrived: IntVector) -> IntVector:
    """Return the event time of each row, or else its arrival, in milliseconds since the epoch, shape (n,)."""
    if name not in batch or batch[name].dtype.kind != "M":
        return arrived
    times = batch[name].astype("datetime64[ms]")
    return np.where(np.isnat(times), arrived, times.astype(np.int64))


def latest_key(event: str, device: str) -> str:
    """Return the key of a device's item."""
    return f"{event}#{device}"


def time_field(event: Event) -> str:
    """Return the name of an event's time field."""
    return event.window.time if event.window else "time"


def standing(time: int, position: Position) -> str:
    """Return a text that sorts like (event time in milliseconds, sequence number, sub-sequence number)."""
    return f"{time + 2**63:020d}/{position.sequence:0>64}/{position.sub:010d}"


def to_item(batch: Batch, at: int, device: str, record: Record, shard: str, time: int) -> Item:
    """Return a row as an item of Python values; the event's columns are in the map `values`.

    Numbers are Decimal and times ISO 8601. Missing values and numbers beyond DynamoDB's range are omitted.
    """
    position = record.position(shard)
    row = batch.take(slice(at, at + 1))
    values = {name: to_value(row.exact(name)[0]) for name in stored_columns(row)}
    return {
        KEY: device,
        "event": batch.event,
        "time": _iso(time),
        "arrived": _iso(record.arrived),
        "shard": shard,
        "sequence": position.sequence,
        "sub": position.sub,
        _ORDER: standing(time, position),
        "values": {name: value for name, value in values.items() if value is not None},
    }


def to_value(value: Any) -> Any:
    """Convert a NumPy, Arrow or Python value to a type that boto3 can serialize; None if there is none."""
    if isinstance(value, datetime):
        value = np.datetime64(value.astimezone(UTC).replace(tzinfo=None))
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else _iso(int(value.astype("datetime64[ms]").astype(np.int64)))
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int | float | Decimal):
        return _number(value)
    if isinstance(value, Mapping):
        return {str(name): inner for name, item in value.items() if (inner := to_value(item)) is not None}
    if isinstance(value, list | tuple):
        return [to_value(item) for item in value]
    return str(value)


def _number(value: float | Decimal) -> Decimal | None:
    if not math.isfinite(value):
        return None
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    # DynamoDB supports 38 digits and magnitudes from 1E-130 to 9.9E+125.
    if number and not (-130 <= number.adjusted() <= 125 and len(number.as_tuple().digits) <= 38):
        return None
    return number


def _iso(milliseconds: int) -> str:
    try:
        return utc_datetime(milliseconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):  # a year outside 1 to 9999
        return str(np.datetime64(milliseconds, "ms")) + "Z"


class LatestSink:
    """Stores the newest row of each event and device in an item with the key `device` = `<event>#<device key>`.

    A conditional write replaces an item only by a newer row, so writing a segment again changes nothing. `events`
    name the fields of the device key and of the event time.
    """

    def __init__(
        self, dynamodb: DynamoDBClient, table: str, events: Mapping[str, Event], threads: int = _THREADS
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._events = events
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="latest")

    def write(self, segment: Segment) -> Sequence[Failure]:
        """Put each device's newest row. Rejects a row whose key or item exceeds DynamoDB's limits.

        Raises the first error of boto3 after the attempt to put every item.
        """
        failures: list[Failure] = []
        items: list[Item] = []
        for row, event, item in self._items(segment):
            reason = _too_large(item)
            if reason is None:
                items.append(item)
            else:
                failures.append(Failure(row, "sink", Code.SINK_REJECTED, reason, event))
        if len(items) <= _FEW:
            results = [self._put_safely(item) for item in items]
        else:
            results = list(self._threads.map(self._put_safely, items))
        errors = [error for error in results if error is not None]
        if errors:
            raise errors[0]
        return failures

    def build(self, segment: Segment) -> None:
        """Create the items without storing them (protocol `segment.PrebuildingSink`)."""
        for _row, _event, item in self._items(segment):
            _too_large(item)

    def close(self) -> None:
        """Wait for the threads to end."""
        self._threads.shutdown()

    def _items(self, segment: Segment) -> Iterator[tuple[int, str, Item]]:
        for name, batch in segment.passed.items():
            event = self._events[name]
            arrived = record_metadata(segment.records).arrived[batch.rows]
            times = event_times(batch, time_field(event), arrived)
            for at in newest(batch, event.key, times).tolist():
                device = latest_key(name, to_value(batch[event.key][at]))
                row = int(batch.rows[at])
                item = to_item(batch, at, device, segment.records[row], segment.shard, int(times[at]))
                yield row, name, {k: _SERIALIZER.serialize(v) for k, v in item.items()}

    def _put_safely(self, item: Item) -> Exception | None:
        try:
            self._put(item)
        except Exception as error:
            return error
        return None

    def _put(self, item: Item) -> None:
        met(
            self._dynamodb.put_item,
            TableName=self._table,
            Item=item,
            ConditionExpression=_CONDITION,
            ExpressionAttributeNames={"#key": KEY, "#standing": _ORDER},
            ExpressionAttributeValues={":standing": item[_ORDER]},
        )


def _too_large(item: Item) -> str | None:
    """Return why the item exceeds DynamoDB's limits, else None. Sizes are those of the values as text."""
    if len(item[KEY]["S"].encode()) > _KEY_BYTES:
        return f"the device key exceeds {_KEY_BYTES} bytes"
    size = _size(item)
    return f"{size} bytes exceed DynamoDB's limit of {_ITEM_BYTES}" if size > _ITEM_BYTES else None


def _size(value: object) -> int:
    if isinstance(value, Mapping):
        return sum(len(str(name).encode()) + _size(item) + 1 for name, item in value.items())
    if isinstance(value, list):
        return sum(_size(item) + 1 for item in value)
    return len(value) if isinstance(value, bytes) else len(str(value).encode())


def batch_get(dynamodb: DynamoDBClient, table: str, keys: Sequence[Mapping[str, Any]]) -> Iterator[Item]:
    """Yield the items of distinct keys in any order, with consistent reads. Raises the errors of boto3."""
    for start in range(0, len(keys), _READ_AT_ONCE):
        waiting: Any = {table: {"Keys": list(keys[start : start + _READ_AT_ONCE]), "ConsistentRead": True}}
        while waiting:
            response = dynamodb.batch_get_item(RequestItems=waiting)
            yield from response["Responses"].get(table, ())
            waiting = response.get("UnprocessedKeys")
