"""The original payload of a stored record: from its stream, else from the failure store."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from stream_app.errors import code_of
from stream_app.record import Position, Record
from stream_app.recovery.store import failure_key, load
from stream_app.recovery.stream.read import pages, user_records
from stream_app.sinks.objects import get

# (position, partition key, arrival in ms since the epoch) -> the record, None when it is not to be had there.
Payload = Callable[[Position, str, int], Record | None]

# Pages may be empty on the way to a record; the stream is asked for one record at a time, to leave the consumer
# its share of the shard.
_PAGES = 20
_NOT_THERE = frozenset({"InvalidArgumentException", "ResourceNotFoundException"})


def from_stream(kinesis: Any, stream: str) -> Payload:
    """Reads one record by its position. Raises what boto3 raises, but for a place that is none any more."""

    def look(position: Position, _partition_key: str, _arrived: int) -> Record | None:
        try:
            for page in islice(pages(kinesis, stream, position.shard, position.sequence, 1), _PAGES):
                for record in page.records:
                    return _user_record(record, position)
        except Exception as error:
            if code_of(error) not in _NOT_THERE:
                raise
        return None

    return look


def from_store(s3: Any, bucket: str, consumer: str) -> Payload:
    """Reads the failure's object, where a record was parked before it was stored."""

    def look(position: Position, partition_key: str, arrived: int) -> Record | None:
        body = get(s3, bucket, failure_key(consumer, position, partition_key, arrived))
        data = None if body is None else load(body).data
        if data is None:
            return None
        return Record(data, partition_key, position.sequence, arrived, position.sub)

    return look


def first_of(*sources: Payload) -> Payload:
    """Asks one after the other."""

    def look(position: Position, partition_key: str, arrived: int) -> Record | None:
        found = (source(position, partition_key, arrived) for source in sources)
        return next((record for record in found if record is not None), None)

    return look


def _user_record(record: dict[str, Any], position: Position) -> Record | None:
    if record["SequenceNumber"] != position.sequence:
        return None  # the place was trimmed: this is the oldest that is left
    users, _ = user_records(record)
    return users[position.sub] if position.sub < len(users) else None
