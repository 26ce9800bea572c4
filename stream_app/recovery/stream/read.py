"""Reading a stream directly: its shards, and the records of a shard from a place on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from botocore.utils import parse_timestamp

from stream_app.errors import aws_error_code
from stream_app.model.record import Record
from stream_app.recovery.stream.kpl import UserRecord, delivered, unpack

_PAGE = 10_000
_EXPIRED = "ExpiredIteratorException"

# A record in the form in which boto3's GetRecords gives it.
RawRecord = Mapping[str, Any]


class Shard(NamedTuple):
    """A shard and the hash keys that are its own, both ends included."""

    id: str
    first_hash: int
    last_hash: int


class Page(NamedTuple):
    """What one GetRecords gave: Kinesis records as boto3 gives them, and how far behind the tip they end."""

    records: Sequence[dict[str, Any]]
    behind_ms: int


def shards(kinesis: Any, stream: str) -> list[Shard]:
    """Every shard that the stream (name or ARN) still knows, closed ones too, by id."""
    found = []
    for page in kinesis.get_paginator("list_shards").paginate(**named(stream)):
        for shard in page["Shards"]:
            hashes = shard["HashKeyRange"]
            found.append(
                Shard(shard["ShardId"], int(hashes["StartingHashKey"]), int(hashes["EndingHashKey"]))
            )
    return sorted(found)


def pages(
    kinesis: Any, stream: str, shard: str, sequence: str | None = None, limit: int = _PAGE
) -> Iterator[Page]:
    """The records of a shard from `sequence` on (from TRIM_HORIZON without one), up to its end or its tip.

    A page may be empty. Ends at a tip that is still written to as well: at the second page in a row that leaves
    nothing behind. Raises what boto3 raises.
    """
    return _pages(kinesis, stream, shard, _place("AT_SEQUENCE_NUMBER", sequence), limit)


def pages_since(kinesis: Any, stream: str, shard: str, arrived: int, limit: int = _PAGE) -> Iterator[Page]:
    """Like `pages`, from the first record on that arrived then (ms since the epoch) or later."""
    place = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": datetime.fromtimestamp(arrived / 1_000, UTC)}
    return _pages(kinesis, stream, shard, place, limit)


def _pages(kinesis: Any, stream: str, shard: str, place: Mapping[str, Any], limit: int) -> Iterator[Page]:
    where = {**named(stream), "ShardId": shard}
    iterator = kinesis.get_shard_iterator(**where, **place)["ShardIterator"]
    at_tip = 0
    while iterator and at_tip < 2:
        try:
            answer = kinesis.get_records(ShardIterator=iterator, Limit=limit)
        except Exception as error:
            if aws_error_code(error) != _EXPIRED:
                raise
            # Five minutes went by since the last page, while whoever reads was busy with it.
            iterator = kinesis.get_shard_iterator(**where, **place)["ShardIterator"]
            continue
        if answer["Records"]:
            place = _place("AFTER_SEQUENCE_NUMBER", answer["Records"][-1]["SequenceNumber"])
        page = Page(answer["Records"], answer.get("MillisBehindLatest", 0))
        yield page
        iterator = answer.get("NextShardIterator")
        at_tip = at_tip + 1 if page.behind_ms == 0 and len(page.records) < limit else 0


def named(stream: str) -> dict[str, str]:
    """How a request of Kinesis says which stream it means: by name, or by ARN."""
    return {"StreamARN": stream} if stream.startswith("arn:") else {"StreamName": stream}


def _place(kind: str, sequence: str | None) -> dict[str, str]:
    if sequence is None:
        return {"ShardIteratorType": "TRIM_HORIZON"}
    return {"ShardIteratorType": kind, "StartingSequenceNumber": sequence}


def timestamp(value: Any) -> datetime:
    """For botocore's `timestamp_parser`, which spends more on each record's arrival than on all the rest of it.

    Set on the session of a client that reads many records, it makes reading three times as fast:
    `session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=timestamp)`.
    """
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    parsed: datetime = parse_timestamp(value)
    return parsed


def user_records(record: RawRecord, shard: Shard | None = None) -> tuple[list[Record], bool]:
    """The user records in one record of GetRecords, and whether KCL hands them on from `shard`."""
    packed = unpack(record["Data"])
    handed_on = packed is None or shard is None or delivered(packed, shard.first_hash, shard.last_hash)
    if packed is None:
        packed = (UserRecord(record["PartitionKey"], record["Data"]),)
    arrived = round(record["ApproximateArrivalTimestamp"].timestamp() * 1000)
    found = [
        Record(user.data, user.partition_key, record["SequenceNumber"], arrived, sub)
        for sub, user in enumerate(packed)
    ]
    return found, handed_on
