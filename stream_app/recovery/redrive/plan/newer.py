"""Newer records of a device: its latest processed event, and its stored records after a failed one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from boto3.dynamodb.types import TypeDeserializer

from stream_app.aws.objects import get
from stream_app.errors import FatalError
from stream_app.model.event import Event
from stream_app.model.record import Position, Record
from stream_app.model.segment import utc_datetime
from stream_app.recovery.redrive.ledger.items import Item, serialized
from stream_app.recovery.stream.read import user_records
from stream_app.recovery.stream.runs import Reader
from stream_app.sinks.dynamodb import KEY, batch_get
from stream_app.sinks.parquet import IDENTITY
from stream_app.sinks.s3 import EVENTS

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_s3 import S3Client

_DESERIALIZER = TypeDeserializer()
_ZERO = 2**63  # the offset that `sinks.dynamodb.standing` adds, so that the text sorts numerically
_DIGITS = 20


class Latest(NamedTuple):
    """The latest row of a device: the time of its event, ms since the epoch, and its values."""

    event: str
    device: str
    time: int
    values: Mapping[str, object]


def name_of(event: str, device: object) -> str:
    """Return the key of a device in the latest table."""
    return f"{event}#{device}"


def newest(dynamodb: DynamoDBClient, table: str, names: Iterable[str]) -> dict[str, Latest]:
    """Return the latest rows of devices by name (`name_of`), if any; none without a table.

    Raises boto3 errors, and FatalError if a row is malformed.
    """
    found: dict[str, Latest] = {}
    wanted = [serialized({KEY: name}) for name in dict.fromkeys(names)]
    for item in batch_get(dynamodb, table, wanted) if table else ():
        name, row = _latest(item, table)
        found[name] = row
    return found


def _latest(item: Item, table: str) -> tuple[str, Latest]:
    row = {name: _DESERIALIZER.deserialize(value) for name, value in item.items()}
    try:
        name, event = row[KEY], row["event"]
        time = int(row["standing"][:_DIGITS]) - _ZERO
    except (KeyError, ValueError, TypeError) as error:
        raise FatalError(f"malformed row in {table}: {type(error).__name__}") from error
    return name, Latest(event, name.removeprefix(f"{event}#"), time, row.get("values", {}))


class NewerRecord(NamedTuple):
    """A stored record of a device: its stream position, arrival (ms since the epoch) and event id."""

    position: Position
    arrived: int
    id: str | None


@dataclass(frozen=True, slots=True)
class DeviceHistory:
    """The event files of one event type, from which the records of one device are read."""

    s3: S3Client
    bucket: str
    event: Event
    device: str
    time_field: str


def newer_records(
    history: DeviceHistory, after: int, since: datetime, threads: Executor
) -> list[NewerRecord]:
    """Return the stored records of a device with an event time after `after` (ms), in order of arrival.

    Reads the event files from the hour of `since` on, because records that arrived before the failed one were not
    processed after it. Raises boto3 errors.
    """
    keys = list(event_files(history.s3, history.bucket, history.event.name, since))
    found = chain.from_iterable(threads.map(partial(_newer_in, history, after), keys))
    return sorted(found, key=lambda one: (one.arrived, one.position.order))


def _newer_in(history: DeviceHistory, after: int, key: str) -> list[NewerRecord]:
    event = history.event
    device, time, id = (column(event.name, name) for name in (event.key, history.time_field, event.id))
    names = ("shard", "sequence", "sub", "arrived", device, time, id)
    table = columns(history.s3, history.bucket, key, names)
    if table is None or not {device, time} <= set(table.column_names):
        return []
    if not pa.types.is_timestamp(table[time].type):
        return []
    compute: Any = pc  # its functions are generated at import, unknown to type checkers
    times = table[time].cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64())
    same_device = compute.equal(table[device].cast(pa.string()), history.device)
    rows = table.filter(compute.and_(same_device, compute.greater(times, after))).to_pylist()
    return [
        NewerRecord(
            Position(row["shard"], row["sequence"], row["sub"]),
            round(row["arrived"].timestamp() * 1000),
            None if row.get(id) is None else str(row[id]),
        )
        for row in rows
    ]


def column(event: str, field: str) -> str:
    """Return the column name of an event's field in its Parquet files."""
    return f"{event}_{field}" if field in IDENTITY else field


def event_files(
    s3: S3Client, bucket: str, event: str, since: datetime, until: datetime | None = None
) -> Iterator[str]:
    """Iterate over an event's Parquet files, in order of time. Raises boto3 errors.

    Includes the files whose first record arrived from the hour of `since` through the hour of `until`.
    """
    prefix = f"{EVENTS}{event}/"
    first = since.astimezone(UTC).strftime("date=%Y-%m-%d/hour=%H/")
    last = f"{until.astimezone(UTC):date=%Y-%m-%d/hour=%H}/~" if until else "~"
    lister = s3.get_paginator("list_objects_v2")
    for page in lister.paginate(Bucket=bucket, Prefix=prefix, StartAfter=prefix + first):
        for item in page.get("Contents", ()):
            if item["Key"] > prefix + last:
                return
            if item["Key"].endswith(".parquet"):
                yield item["Key"]


def columns(s3: S3Client, bucket: str, key: str, names: Sequence[str]) -> pa.Table | None:
    """Read the existing ones of some columns of an event file; None if the file is missing or malformed."""
    body = get(s3, bucket, key)
    if body is None:
        return None
    try:
        file = pq.ParquetFile(pa.BufferReader(body))
        existing = set(file.schema_arrow.names)
        chosen = [name for name in dict.fromkeys(names) if name in existing]
        return file.read(columns=chosen, use_threads=False)
    except (pa.ArrowException, OSError):
        return None


def fetch(kinesis: KinesisClient, stream: str, position: Position, arrived: int) -> Record | None:
    """Read a record of the stream by its position, None if it has expired. Raises boto3 errors."""
    reader, sequence = Reader(kinesis, stream, position.shard), position.sequence
    for records in reader.run(sequence, sequence, (arrived, arrived)):
        users = user_records(dict(records[0]))[0]
        return users[position.sub] if position.sub < len(users) else None
    return None


def hour_before(milliseconds: int, segment_seconds: int) -> datetime:
    """Return the time from which event files can contain a record that arrived then.

    A segment is named after its first record, which may be `segment_seconds` older.
    """
    return utc_datetime(milliseconds) - timedelta(seconds=segment_seconds)
