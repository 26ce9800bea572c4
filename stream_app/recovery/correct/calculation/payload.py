"""Original payloads of stored records: from their stream, else from the failure store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from stream_app.aws.objects import get
from stream_app.errors import aws_error_code
from stream_app.model.record import Position, Record
from stream_app.recovery.correct.request import BusyError
from stream_app.recovery.store import failure_key, load
from stream_app.recovery.stream.read import pages, user_records

# Records of one GetRecords at most. A shard takes 1,000 a second, so that one read a second keeps up with it.
PAGE = 1_000
# Records that lie within so many rows of each other are read together. A call costs about as much time as
# reading NEAR records does; where calls are few, farther ones are read together, too.
NEAR, FAR = 150, 500
# Pages may be empty on the way to a record.
_EMPTY_PAGES = 20
_NOT_THERE = frozenset({"InvalidArgumentException", "ResourceNotFoundException"})


class Wanted(NamedTuple):
    """A stored record whose payload is wanted; `row` is its row in its file, `arrived` in ms since the epoch."""

    position: Position
    partition_key: str
    arrived: int
    row: int


# Whether a shard may be read once more now; may wait for it.
MayRead = Callable[[str], bool]
# Positions of one shard, ascending -> their records; None for one that is not to be had there.
# Raises BusyError when the stream may not be read now.
Payloads = Callable[[Sequence[Wanted], MayRead], list[Record | None]]


def near(per_second: float) -> int:
    """How far apart records may be to be read together, where a shard may be read so many times a second."""
    return round(min(FAR, max(NEAR, FAR / per_second)))


def from_stream(kinesis: Any, stream: str, apart: int = FAR) -> Payloads:
    """Reads records by their positions, those at most so many rows `apart` at once. Raises what boto3 raises.

    A position that the stream does not know (any more) has no record.
    """

    def look(wanted: Sequence[Wanted], may_read: MayRead) -> list[Record | None]:
        reader = _Reader(kinesis, stream, may_read)
        found: dict[str, dict[str, Any]] = {}
        for run in _runs(wanted, apart):
            found |= reader.records(run)
        return [_user_record(found.get(one.position.sequence), one.position) for one in wanted]

    return look


class _Reader(NamedTuple):
    kinesis: Any
    stream: str
    may_read: MayRead

    def records(self, run: Sequence[Wanted]) -> dict[str, dict[str, Any]]:
        """Records as GetRecords gives them, by sequence number, those that are there."""
        try:
            return self._read(run)
        except Exception as error:
            if aws_error_code(error) not in _NOT_THERE:
                raise
        # The first one was trimmed. When one in the middle was, too, so were all before it.
        if len(run) == 1:
            return {}
        middle = len(run) // 2
        found = self.records(run[middle:])
        return found | self.records(run[:middle]) if run[middle].position.sequence in found else found

    def _read(self, run: Sequence[Wanted]) -> dict[str, dict[str, Any]]:
        first, last = run[0].position, run[-1].position
        missing, found, empty = {one.position.sequence for one in run}, dict[str, dict[str, Any]](), 0
        limit = min(PAGE, run[-1].row - run[0].row + 1)
        for records in self._pages(first, limit):
            empty = 0 if records else empty + 1
            for record in records:
                if record["SequenceNumber"] in missing:
                    found[record["SequenceNumber"]] = record
            if empty == _EMPTY_PAGES or (
                records and int(records[-1]["SequenceNumber"]) >= int(last.sequence)
            ):
                break
        return found

    def _pages(self, first: Position, limit: int) -> Iterator[Sequence[dict[str, Any]]]:
        given = pages(self.kinesis, self.stream, first.shard, first.sequence, limit)
        while True:
            if not self.may_read(first.shard):
                raise BusyError("the stream may not be read more often now")
            page = next(given, None)
            if page is None:
                return
            yield page.records


def _runs(wanted: Sequence[Wanted], apart: int) -> list[Sequence[Wanted]]:
    """Cut where the next one is far."""
    cuts = [at for at, (one, other) in enumerate(pairwise(wanted), 1) if other.row - one.row > apart]
    return [wanted[start:stop] for start, stop in pairwise([0, *cuts, len(wanted)])]


def from_store(s3: Any, bucket: str, consumer: str) -> Payloads:
    """Reads the failures' objects, where records were parked before they were stored."""

    def one(wanted: Wanted) -> Record | None:
        position = wanted.position
        body = get(s3, bucket, failure_key(consumer, position, wanted.partition_key, wanted.arrived))
        data = None if body is None else load(body).data
        if data is None:
            return None
        return Record(data, wanted.partition_key, position.sequence, wanted.arrived, position.sub)

    def look(wanted: Sequence[Wanted], _may_read: MayRead) -> list[Record | None]:
        return [one(each) for each in wanted]

    return look


def first_of(*sources: Payloads) -> Payloads:
    """Asks one after the other for what is still missing."""

    def look(wanted: Sequence[Wanted], may_read: MayRead) -> list[Record | None]:
        found: list[Record | None] = [None] * len(wanted)
        for source in sources:
            missing = [at for at, record in enumerate(found) if record is None]
            more = source([wanted[at] for at in missing], may_read) if missing else ()
            for at, record in zip(missing, more, strict=True):
                found[at] = record
        return found

    return look


def _user_record(record: dict[str, Any] | None, position: Position) -> Record | None:
    if record is None:
        return None
    users, _ = user_records(record)
    return users[position.sub] if position.sub < len(users) else None
