"""Reads ranges of records of one shard again, page by page up to the end of the range."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from stream_app.aws.retry import Policy, Sleep, call
from stream_app.errors import aws_error_code
from stream_app.recovery.stream.read import Page, RawRecord, named, pages, pages_since

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

T = TypeVar("T")
# Records of a page. The last page is cached, because failed records are often close together.
PAGE = 500
_NOT_FOUND = "ResourceNotFoundException"
_INVALID_POSITION = "InvalidArgumentException"
# Arrival times are approximate, and not strictly increasing within a shard.
_MARGIN_MS = 1_000
_LATEST_MS = 300_000


class Reader:
    """Reads ranges of one shard and caches the last page, which often contains the next range too.

    `stream` is a name or an ARN, `page` the maximum number of records of one GetRecords.
    """

    def __init__(self, kinesis: KinesisClient, stream: str, shard: str, page: int = PAGE) -> None:
        self._kinesis, self._stream, self._shard, self._page = kinesis, stream, shard, page
        self._cached: Sequence[RawRecord] = ()

    def run(self, first: str, last: str, arrived: tuple[int, int]) -> Iterator[Sequence[RawRecord]]:
        """Yield the retained records from `first` to `last`, at most a page at a time. Raises boto3 errors.

        `arrived` has the approximate arrival times of the first and last record (ms since the epoch): if Kinesis
        rejects the sequence number, reading starts by time. Yields nothing if the shard is closed and deleted.
        """
        low, high = int(first), int(last)
        for records in self._from(first, arrived):
            inside = [record for record in records if low <= number(record) <= high]
            if inside:
                yield inside
            if records and number(records[-1]) >= high:
                return

    def has_left(self, first: str) -> bool:
        """Return whether a missing sequence number is older than all retained records, and so may have expired.

        Raises boto3 errors.
        """
        try:
            oldest = next((number(page.records[0]) for page in self._pages(None) if page.records), None)
        except Exception as error:
            if not self._is_deleted(error):
                raise
            return True  # a closed shard is deleted when its last record expires
        return oldest is None or int(first) < oldest

    def _from(self, first: str, ends: tuple[int, int]) -> Iterator[Sequence[RawRecord]]:
        """Yield the cached page from the sequence number on, if it contains it, then the records that follow."""
        at = next((n for n, record in enumerate(self._cached) if record["SequenceNumber"] == first), None)
        if at is None:
            yield from self._read(partial(self._pages, first), partial(self._pages_of_time, *ends))
            return
        cached = self._cached[at:]
        yield cached
        last = cached[-1]["SequenceNumber"]
        # The next page begins with the last cached record, which is skipped.
        for records in self._read(partial(self._pages, last), partial(self._pages_of_time, *ends)):
            yield [record for record in records if number(record) > int(last)]

    def _read(self, *starts: Callable[[], Iterator[Page]]) -> Iterator[Sequence[RawRecord]]:
        """Yield the pages from the first start that Kinesis accepts, if any; none if the shard is deleted."""
        for start in starts:
            try:
                for page in start():
                    if page.records:
                        self._cached = page.records
                    yield page.records
                return
            except Exception as error:
                if aws_error_code(error) != _INVALID_POSITION and not self._is_deleted(error):
                    raise

    def _pages(self, sequence: str | None) -> Iterator[Page]:
        return pages(self._kinesis, self._stream, self._shard, sequence, self._page)

    def _pages_of_time(self, since: int, until: int) -> Iterator[Page]:
        """Yield pages by time, only up to `until`: the sequence number may never have existed."""
        start = max(0, since - _MARGIN_MS)
        for page in pages_since(self._kinesis, self._stream, self._shard, start, self._page):
            if page.records and arrival(page.records[0]) > until + _LATEST_MS:
                return
            yield page

    def _is_deleted(self, error: Exception) -> bool:
        return aws_error_code(error) == _NOT_FOUND and self._exists()

    def _exists(self) -> bool:
        try:
            self._kinesis.describe_stream_summary(**named(self._stream))
        except Exception as error:
            if aws_error_code(error) == _NOT_FOUND:
                return False
            raise
        return True


def number(record: RawRecord) -> int:
    """Return a record's sequence number."""
    return int(record["SequenceNumber"])


def arrival(record: RawRecord) -> int:
    """Return the approximate arrival of a record, milliseconds since the epoch."""
    seconds: float = record["ApproximateArrivalTimestamp"].timestamp()
    return round(seconds * 1_000)


def with_retries(client: T, policy: Policy, *, sleep: Sleep, rng: random.Random) -> T:
    """Wrap a Kinesis client so that each call retries transient errors (throttling, unavailability).

    A call raises FatalError after the last attempt. Other errors are raised immediately.
    """
    return cast("T", _Retrying(client, policy, sleep, rng))  # forwards every attribute to the client


class _Retrying:
    def __init__(self, client: object, policy: Policy, sleep: Sleep, rng: random.Random) -> None:
        self._client, self._policy, self._sleep, self._rng = client, policy, sleep, rng

    def __getattr__(self, name: str) -> Callable[..., object]:
        method = getattr(self._client, name)

        def attempt(**request: object) -> object:
            return call(
                lambda: method(**request),
                self._policy,
                sleep=self._sleep,
                rng=self._rng,
                what=f"kinesis {name}",
            )

        return attempt
