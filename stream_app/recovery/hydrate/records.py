"""Dead letters of our own consumer: each names one record, which is looked for in its stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from stream_app.model.record import Record
from stream_app.recovery.dead_letters import DeadLetter
from stream_app.recovery.hydrate.dependencies import HydrateDependencies, Result, why
from stream_app.recovery.hydrate.results import State
from stream_app.recovery.store import failure, put
from stream_app.recovery.stream.read import user_records
from stream_app.recovery.stream.runs import Reader

Sent = tuple[int, DeadLetter]
# So many records are held at a time, besides the page that they were found in.
_AT_ONCE = 100


def hydrate_records(letters: Sequence[Sent], dependencies: HydrateDependencies) -> Iterator[Result]:
    """Find each letter's record and write its failure object; a result for every letter.

    A record that has left the stream is written as metadata only, with status `expired`. Safe to repeat, in any
    order. Whatever goes wrong with one shard or one object, only its letters wait. Lazy, so that no more than a
    page of records is held.
    """
    by_shard = sorted(letters, key=lambda sent: (sent[1].stream, sent[1].shard, *sent[1].position.order))
    for (stream, shard), members in groupby(by_shard, key=lambda sent: (sent[1].stream, sent[1].shard)):
        some = list(members)
        reader = Reader(dependencies.stream_client, stream, shard, dependencies.page_for(len(some), 1))
        for start in range(0, len(some), _AT_ONCE):
            yield from _some(some[start : start + _AT_ONCE], reader, dependencies)


def _some(letters: Sequence[Sent], reader: Reader, dependencies: HydrateDependencies) -> Iterator[Result]:
    if dependencies.hurried:
        yield from (Result(at, letter, State.WAITING, "no time was left for it") for at, letter in letters)
        return
    found: list[tuple[Sent, Sequence[Record] | None]] = []
    for sequence, members in groupby(letters, key=lambda sent: sent[1].sequence):
        same = list(members)
        try:
            there = _find(reader, sequence, same[0][1].arrived)
        except Exception as error:
            # Whatever it is, only these letters wait: they stay in the queue and come again.
            yield from (Result(at, letter, State.WAITING, why(error)) for at, letter in same)
            continue
        found += ((sent, there) for sent in same)
    yield from dependencies.each(partial(_store, dependencies.s3, dependencies.bucket), found)


def _find(reader: Reader, sequence: str, arrived: int) -> Sequence[Record] | None:
    """The user records under a sequence number; None when it has left the stream, nothing when it never was."""
    for records in reader.run(sequence, sequence, (arrived, arrived)):
        return user_records(dict(records[0]))[0]
    return None if reader.has_left(sequence) else ()


def _store(s3: Any, bucket: str, found: tuple[Sent, Sequence[Record] | None]) -> Result:
    (at, letter), records = found
    if records is not None and letter.sub >= len(records):
        return Result(
            at, letter, State.WAITING, f"{letter.shard} has no record {letter.sequence}.{letter.sub}"
        )
    stored = failure(letter, None if records is None else records[letter.sub].data)
    try:
        new = put(s3, bucket, stored)
    except Exception as error:
        return Result(at, letter, State.WAITING, why(error))
    state = State.EXPIRED if records is None else State.HYDRATED
    reason = "its record has left the stream" if records is None else ""
    return Result(at, letter, state, reason, *(((stored.key,), ()) if new else ((), (stored.key,))))
