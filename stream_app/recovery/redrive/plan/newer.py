"""Devices that are already further than a record of theirs that failed: who they are, and what came after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from boto3.dynamodb.types import TypeDeserializer

from stream_app.aws.objects import get
from stream_app.errors import FatalError
from stream_app.model.event import Event
from stream_app.model.record import Position, Record
from stream_app.model.segment import utc_datetime
from stream_app.recovery.redrive.ledger.items import serialized
from stream_app.recovery.stream.read import user_records
from stream_app.recovery.stream.runs import Reader
from stream_app.sinks.dynamodb import KEY, batch_get
from stream_app.sinks.parquet import IDENTITY
from stream_app.sinks.s3 import EVENTS

_DESERIALIZER = TypeDeserializer()
_ZERO = 2**63  # what `sinks.dynamodb.standing` adds, so that its text sorts
_DIGITS = 20


class Latest(NamedTuple):
    """The newest row of a device: its event's time, ms since the epoch, and its values."""

    event: str
    device: str
    time: int
    values: Mapping[str, Any]


def name_of(event: str, device: Any) -> str:
    """A device's name in the latest table."""
    return f"{event}#{device}"


def newest(dynamodb: Any, table: str, names: Iterable[str]) -> dict[str, Latest]:
    """The newest rows of devices, by name (`name_of`), where there are any.

    Raises what boto3 raises, and FatalError for a row that cannot be read.
    """
    found: dict[str, Latest] = {}
    wanted = [serialized({KEY: name}) for name in dict.fromkeys(names)]
    for item in batch_get(dynamodb, table, wanted) if table else ():
        name, row = _latest(item, table)
        found[name] = row
    return found


def _latest(item: Mapping[str, Any], table: str) -> tuple[str, Latest]:
    row = {name: _DESERIALIZER.deserialize(value) for name, value in item.items()}
    try:
        name, event = row[KEY], row["event"]
        time = int(row["standing"][:_DIGITS]) - _ZERO
    except (KeyError, ValueError, TypeError) as error:
        raise FatalError(f"a row of {table} cannot be read: {type(error).__name__}") from error
    return name, Latest(event, name.removeprefix(f"{event}#"), time, row.get("values", {}))


class Later(NamedTuple):
    """A stored record of a device: where it was in the stream, and when it came (ms since the epoch)."""

    position: Position
    arrived: int
    id: str | None


def later(
    s3: Any,
    bucket: str,
    event: Event,
    device: str,
    time_field: str,
    after: int,
    since: datetime,
    threads: Executor,
) -> list[Later]:
    """The stored records of a device whose event time is past `after` (ms), in the order in which they came.

    Reads the event's files from the hour of `since` on: what came before that failed record was not late for it.
    Raises what boto3 raises.
    """
    keys = list(event_files(s3, bucket, event.name, since))
    read = partial(_later_in, s3, bucket, event, device, time_field, after)
    found = [one for some in threads.map(read, keys) for one in some]
    return sorted(found, key=lambda one: (one.arrived, one.position.order))


def _later_in(
    s3: Any, bucket: str, event: Event, device: str, time_field: str, after: int, key: str
) -> list[Later]:
    device_column, time, id = (column(event.name, name) for name in (event.key, time_field, event.id))
    table = columns(s3, bucket, key, ("shard", "sequence", "sub", "arrived", device_column, time, id))
    if table is None or not {device_column, time} <= set(table.column_names):
        return []
    if not pa.types.is_timestamp(table[time].type):
        return []
    compute: Any = pc
    times = table[time].cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64())
    mine = compute.equal(table[device_column].cast(pa.string()), device)
    rows = table.filter(compute.and_(mine, compute.greater(times, after))).to_pylist()
    return [
        Later(
            Position(row["shard"], row["sequence"], row["sub"]),
            round(row["arrived"].timestamp() * 1000),
            None if row.get(id) is None else str(row[id]),
        )
        for row in rows
    ]


def column(event: str, field: str) -> str:
    """What an event's field is called in its Parquet files."""
    return f"{event}_{field}" if field in IDENTITY else field


def event_files(
    s3: Any, bucket: str, event: str, since: datetime, until: datetime | None = None
) -> Iterator[str]:
    """The Parquet files of an event whose first record arrived in the hour of `since` or later, in order of time.

    Those of the hours after `until` are left out. Raises what boto3 raises.
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


def columns(s3: Any, bucket: str, key: str, names: Sequence[str]) -> pa.Table | None:
    """Some columns of an event file, those that it has; None where it is gone or no such file."""
    body = get(s3, bucket, key)
    if body is None:
        return None
    try:
        file = pq.ParquetFile(pa.BufferReader(body))
        here = set(file.schema_arrow.names)
        return file.read(columns=[name for name in dict.fromkeys(names) if name in here], use_threads=False)
    except (pa.ArrowException, OSError):
        return None


def fetch(kinesis: Any, stream: str, shard: str, sequence: str, sub: int, arrived: int) -> Record | None:
    """A record of the stream by its position, None when it has left. Raises what boto3 raises."""
    for records in Reader(kinesis, stream, shard).run(sequence, sequence, (arrived, arrived)):
        users = user_records(dict(records[0]))[0]
        return users[sub] if sub < len(users) else None
    return None


def hour_before(milliseconds: int, segment_seconds: int) -> datetime:
    """From when on to look at files for a record that came then: a segment is named by its first record."""
    return utc_datetime(milliseconds) - timedelta(seconds=segment_seconds)
