"""Reads the original payloads of stored records from the stream or the failure store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from stream_app.aws.objects import get
from stream_app.errors import aws_error_code
from stream_app.model.record import Position, Record
from stream_app.recovery.correct.request import ReadThrottledError
from stream_app.recovery.store import failure_key, load
from stream_app.recovery.stream.read import RawRecord, pages, user_records

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_s3 import S3Client

# Records per GetRecords call. A shard accepts 1,000 records/s, so one read per second keeps up with it.
PAGE_LIMIT = 1_000
# Records at most this many rows apart are read by one call. A call takes about as long as reading MIN_GAP
# records; a lower call rate justifies a larger gap.
MIN_GAP, MAX_GAP = 150, 500
# GetRecords may return empty pages before it reaches a record.
_EMPTY_PAGES = 20
_NOT_FOUND = frozenset({"InvalidArgumentException", "ResourceNotFoundException"})


class PayloadRequest(NamedTuple):
    """A stored record whose payload is needed.

    `row` is its row in its file, `arrived` in milliseconds since the epoch.
    """

    position: Position
    partition_key: str
    arrived: int
    row: int


# Tells whether a shard may be read now; may wait for the rate limit.
MayRead = Callable[[str], bool]
# Takes positions of one shard, ascending; returns their records, None for those that are not found.
# Raises ReadThrottledError when the stream may not be read now.
PayloadSource = Callable[[Sequence[PayloadRequest], MayRead], list[Record | None]]


def max_row_gap(per_second: float) -> int:
    """Return how many rows apart records may be to be read by one call.

    `per_second` is how many times per second the shard may be read.
    """
    return round(min(MAX_GAP, max(MIN_GAP, MAX_GAP / per_second)))


def from_stream(kinesis: KinesisClient, stream: str, max_gap: int = MAX_GAP) -> PayloadSource:
    """Return a source that reads records from the stream by their positions.

    Records at most `max_gap` rows apart are read together. Records that the stream does not hold (any longer) are
    None. Raises what boto3 raises.
    """

    def fetch(requests: Sequence[PayloadRequest], may_read: MayRead) -> list[Record | None]:
        reader = _Reader(kinesis, stream, may_read)
        found: dict[str, RawRecord] = {}
        for cluster in _clusters(requests, max_gap):
            found |= reader.records(cluster)
        return [_user_record(found.get(request.position.sequence), request.position) for request in requests]

    return fetch


class _Reader(NamedTuple):
    kinesis: KinesisClient
    stream: str
    may_read: MayRead

    def records(self, cluster: Sequence[PayloadRequest]) -> dict[str, RawRecord]:
        """Return the records that the stream still holds, by sequence number."""
        try:
            return self._read(cluster)
        except Exception as error:
            if aws_error_code(error) not in _NOT_FOUND:
                raise
        # The first record was trimmed. If the middle one was trimmed as well, so were all records before it.
        if len(cluster) == 1:
            return {}
        middle = len(cluster) // 2
        found = self.records(cluster[middle:])
        return found | self.records(cluster[:middle]) if cluster[middle].position.sequence in found else found

    def _read(self, cluster: Sequence[PayloadRequest]) -> dict[str, RawRecord]:
        first, last = cluster[0].position, cluster[-1].position
        missing, found, empty = {request.position.sequence for request in cluster}, dict[str, RawRecord](), 0
        limit = min(PAGE_LIMIT, cluster[-1].row - cluster[0].row + 1)
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

    def _pages(self, first: Position, limit: int) -> Iterator[Sequence[RawRecord]]:
        page_iterator = pages(self.kinesis, self.stream, first.shard, first.sequence, limit)
        while True:
            if not self.may_read(first.shard):
                raise ReadThrottledError("the rate limit does not allow reading the stream now")
            page = next(page_iterator, None)
            if page is None:
                return
            yield page.records


def _clusters(requests: Sequence[PayloadRequest], max_gap: int) -> list[Sequence[PayloadRequest]]:
    """Split the requests where the gap between two rows is too large."""
    cuts = [
        at for at, (before, after) in enumerate(pairwise(requests), 1) if after.row - before.row > max_gap
    ]
    return [requests[start:stop] for start, stop in pairwise([0, *cuts, len(requests)])]


def from_store(s3: S3Client, bucket: str, consumer: str) -> PayloadSource:
    """Return a source that reads the payloads of records that were parked before they were stored."""

    def load_record(request: PayloadRequest) -> Record | None:
        position = request.position
        body = get(s3, bucket, failure_key(consumer, position, request.partition_key, request.arrived))
        data = None if body is None else load(body).data
        if data is None:
            return None
        return Record(data, request.partition_key, position.sequence, request.arrived, position.sub)

    def fetch(requests: Sequence[PayloadRequest], _may_read: MayRead) -> list[Record | None]:
        return [load_record(request) for request in requests]

    return fetch


def first_of(*sources: PayloadSource) -> PayloadSource:
    """Return a source that asks each source in turn for the records that are still missing."""

    def fetch(requests: Sequence[PayloadRequest], may_read: MayRead) -> list[Record | None]:
        found: list[Record | None] = [None] * len(requests)
        for source in sources:
            missing = [at for at, record in enumerate(found) if record is None]
            fetched = source([requests[at] for at in missing], may_read) if missing else ()
            for at, record in zip(missing, fetched, strict=True):
                found[at] = record
        return found

    return fetch


def _user_record(record: RawRecord | None, position: Position) -> Record | None:
    if record is None:
        return None
    records_of, _ = user_records(record)
    return records_of[position.sub] if position.sub < len(records_of) else None
