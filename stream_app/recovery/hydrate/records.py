"""Hydrates dead letters of this application's consumer: each names one record of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from stream_app.model.record import Record
from stream_app.recovery.dead_letters import DeadLetter
from stream_app.recovery.hydrate.dependencies import HydrateDependencies, Result, why
from stream_app.recovery.hydrate.results import State
from stream_app.recovery.store import failure, put
from stream_app.recovery.stream.read import user_records
from stream_app.recovery.stream.runs import Reader

Sent = tuple[int, DeadLetter]
if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Records held in memory at a time, in addition to the page that contains them.
_CHUNK = 100


def hydrate_records(dead_letters: Sequence[Sent], dependencies: HydrateDependencies) -> Iterator[Result]:
    """Find the record of each dead letter, store its failure, and yield a result for each. Idempotent.

    For a record that has expired from the stream, only the metadata is stored, with status `expired`. An error with
    one shard or object leaves only its dead letters waiting. The results are lazy, so that at most a page of records
    is in memory.
    """
    by_shard = sorted(dead_letters, key=lambda sent: (sent[1].stream, sent[1].shard, *sent[1].position.order))
    for (stream, shard), members in groupby(by_shard, key=lambda sent: (sent[1].stream, sent[1].shard)):
        of_shard = list(members)
        reader = Reader(dependencies.stream_client, stream, shard, dependencies.page_for(len(of_shard), 1))
        for start in range(0, len(of_shard), _CHUNK):
            yield from _hydrate_chunk(of_shard[start : start + _CHUNK], reader, dependencies)


def _hydrate_chunk(
    dead_letters: Sequence[Sent], reader: Reader, dependencies: HydrateDependencies
) -> Iterator[Result]:
    if dependencies.hurried:
        yield from (
            Result(at, dead_letter, State.WAITING, "no time was left for it")
            for at, dead_letter in dead_letters
        )
        return
    found: list[tuple[Sent, Sequence[Record] | None]] = []
    for sequence, members in groupby(dead_letters, key=lambda sent: sent[1].sequence):
        same = list(members)
        try:
            there = _find(reader, sequence, same[0][1].arrived)
        except Exception as error:
            # Only these dead letters are affected; they stay in the queue and are delivered again.
            yield from (Result(at, dead_letter, State.WAITING, why(error)) for at, dead_letter in same)
            continue
        found += ((sent, there) for sent in same)
    yield from dependencies.each(partial(_store, dependencies.s3, dependencies.bucket), found)


def _find(reader: Reader, sequence: str, arrived: int) -> Sequence[Record] | None:
    """Return the user records of a sequence number: None if it has expired, empty if it never existed."""
    for records in reader.run(sequence, sequence, (arrived, arrived)):
        return user_records(dict(records[0]))[0]
    return None if reader.has_left(sequence) else ()


def _store(s3: S3Client, bucket: str, found: tuple[Sent, Sequence[Record] | None]) -> Result:
    (at, dead_letter), records = found
    if records is not None and dead_letter.sub >= len(records):
        return Result(
            at,
            dead_letter,
            State.WAITING,
            f"{dead_letter.shard} has no record {dead_letter.sequence}.{dead_letter.sub}",
        )
    stored = failure(dead_letter, None if records is None else records[dead_letter.sub].data)
    try:
        new = put(s3, bucket, stored)
    except Exception as error:
        return Result(at, dead_letter, State.WAITING, why(error))
    state = State.EXPIRED if records is None else State.HYDRATED
    reason = "its record has expired from the stream" if records is None else ""
    return Result(at, dead_letter, state, reason, *(((stored.key,), ()) if new else ((), (stored.key,))))
