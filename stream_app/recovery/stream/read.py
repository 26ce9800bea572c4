"""Direct reading of a stream: its shards, and the records of a shard from a position or time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.utils import parse_timestamp

from stream_app.errors import aws_error_code
from stream_app.model.record import Record
from stream_app.recovery.stream.kpl import UserRecord, delivered, unpack

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

_PAGE = 10_000
_EXPIRED = "ExpiredIteratorException"

# A record as returned by boto3's GetRecords (`RecordTypeDef`) or built from a Lambda event.
RawRecord = Mapping[str, Any]
# Parameters of a Kinesis request, which are given by keyword.
Parameters = dict[str, Any]


class Shard(NamedTuple):
    """A shard and its range of hash keys, both ends inclusive."""

    id: str
    first_hash: int
    last_hash: int


class Page(NamedTuple):
    """The result of one GetRecords: its records, and the milliseconds they are behind the tip of the shard."""

    records: Sequence[RawRecord]
    behind_ms: int


def shards(kinesis: KinesisClient, stream: str) -> list[Shard]:
    """Return all shards of a stream (name or ARN), including closed ones, by id."""
    found = []
    for page in kinesis.get_paginator("list_shards").paginate(**named(stream)):
        for shard in page["Shards"]:
            hashes = shard["HashKeyRange"]
            found.append(
                Shard(shard["ShardId"], int(hashes["StartingHashKey"]), int(hashes["EndingHashKey"]))
            )
    return sorted(found)


def pages(
    kinesis: KinesisClient, stream: str, shard: str, sequence: str | None = None, limit: int = _PAGE
) -> Iterator[Page]:
    """Read a shard from `sequence` (default: TRIM_HORIZON) to its end or tip. Raises boto3 errors.

    A page may be empty. Also ends if records are still being written: at the second consecutive page that reaches
    the tip.
    """
    return _pages(kinesis, stream, shard, _place("AT_SEQUENCE_NUMBER", sequence), limit)


def pages_since(
    kinesis: KinesisClient, stream: str, shard: str, arrived: int, limit: int = _PAGE
) -> Iterator[Page]:
    """Read a shard like `pages`, from the first record that arrived at `arrived` (ms since the epoch) or later."""
    place = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": datetime.fromtimestamp(arrived / 1_000, UTC)}
    return _pages(kinesis, stream, shard, place, limit)


def _pages(kinesis: KinesisClient, stream: str, shard: str, place: Parameters, limit: int) -> Iterator[Page]:
    where = {**named(stream), "ShardId": shard}
    iterator = kinesis.get_shard_iterator(**where, **place)["ShardIterator"]
    at_tip = 0
    while iterator and at_tip < 2:
        try:
            answer = kinesis.get_records(ShardIterator=iterator, Limit=limit)
        except Exception as error:
            if aws_error_code(error) != _EXPIRED:
                raise
            # The caller took more than five minutes for the last page.
            iterator = kinesis.get_shard_iterator(**where, **place)["ShardIterator"]
            continue
        if answer["Records"]:
            place = _place("AFTER_SEQUENCE_NUMBER", answer["Records"][-1]["SequenceNumber"])
        page = Page(answer["Records"], answer.get("MillisBehindLatest", 0))
        yield page
        iterator = answer.get("NextShardIterator")
        at_tip = at_tip + 1 if page.behind_ms == 0 and len(page.records) < limit else 0


def named(stream: str) -> Parameters:
    """Return the request parameter that identifies a stream by name or ARN."""
    return {"StreamARN": stream} if stream.startswith("arn:") else {"StreamName": stream}


def _place(kind: str, sequence: str | None) -> Parameters:
    if sequence is None:
        return {"ShardIteratorType": "TRIM_HORIZON"}
    return {"ShardIteratorType": kind, "StartingSequenceNumber": sequence}


def timestamp(value: float | str) -> datetime:
    """Parse a timestamp; a faster replacement for botocore's `timestamp_parser`.

    The default parser takes more time for a record's arrival than all other parsing of the record. With this one,
    reading is three times as fast. Set it on the session of a client that reads many records:
    `session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=timestamp)`.
    """
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    parsed: datetime = parse_timestamp(value)
    return parsed


def user_records(record: RawRecord, shard: Shard | None = None) -> tuple[list[Record], bool]:
    """Return the user records of a Kinesis record, and whether KCL delivers them from `shard`."""
    packed = unpack(record["Data"])
    is_delivered = packed is None or shard is None or delivered(packed, shard.first_hash, shard.last_hash)
    if packed is None:
        packed = (UserRecord(record["PartitionKey"], record["Data"]),)
    arrived = round(record["ApproximateArrivalTimestamp"].timestamp() * 1000)
    found = [
        Record(user.data, user.partition_key, record["SequenceNumber"], arrived, sub)
        for sub, user in enumerate(packed)
    ]
    return found, is_delivered
