"""Runs of records of one shard, read again: as many pages as it takes, until the run's end is found."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from stream_app.aws.retry import Policy, Sleep, call
from stream_app.errors import aws_error_code
from stream_app.recovery.stream.read import Page, RawRecord, named, pages, pages_since

# A page is kept for the neighbours of what was asked for; failures often come together.
PAGE = 500
_NOT_FOUND = "ResourceNotFoundException"
_NOT_A_PLACE = "InvalidArgumentException"
# Arrival times are approximate, and may go back a little within a shard.
_MARGIN_MS = 1_000
_LATEST_MS = 300_000


class Reader:
    """Reads runs of one shard. What was read last is kept: the next run often lies in the same page.

    `stream` is a name or an ARN, `page` the most records of one GetRecords.
    """

    def __init__(self, kinesis: Any, stream: str, shard: str, page: int = PAGE) -> None:
        self._kinesis, self._stream, self._shard, self._page = kinesis, stream, shard, page
        self._near: Sequence[RawRecord] = ()

    def run(self, first: str, last: str, arrived: tuple[int, int]) -> Iterator[Sequence[RawRecord]]:
        """The records from `first` to `last` that the shard still holds, in order, a page's worth at a time.

        `arrived` is about when the first and the last came (ms since the epoch): where the number itself is
        refused, reading begins by time. Nothing comes where the shard is closed and forgotten. Raises what boto3
        raises.
        """
        low, high = int(first), int(last)
        for records in self._from(first, arrived):
            inside = [record for record in records if low <= number(record) <= high]
            if inside:
                yield inside
            if records and number(records[-1]) >= high:
                return

    def has_left(self, first: str) -> bool:
        """Whether a number that is not in the shard is older than all that is, so that it may have been there.

        Raises what boto3 raises.
        """
        try:
            oldest = next((number(page.records[0]) for page in self._pages(None) if page.records), None)
        except Exception as error:
            if not self._forgotten(error):
                raise
            return True  # the shard was closed, and forgotten when its last record left
        return oldest is None or int(first) < oldest

    def _from(self, first: str, ends: tuple[int, int]) -> Iterator[Sequence[RawRecord]]:
        """What is at hand, where it holds the number; then what follows."""
        at = next((n for n, record in enumerate(self._near) if record["SequenceNumber"] == first), None)
        if at is None:
            yield from self._read(partial(self._pages, first), partial(self._pages_of_time, *ends))
            return
        near = self._near[at:]
        yield near
        onwards = near[-1]["SequenceNumber"]
        # The last one at hand comes again, at the beginning of the next page, and is passed over.
        for records in self._read(partial(self._pages, onwards), partial(self._pages_of_time, *ends)):
            yield [record for record in records if number(record) > int(onwards)]

    def _read(self, *starts: Callable[[], Iterator[Page]]) -> Iterator[Sequence[RawRecord]]:
        """The pages from the first start that Kinesis accepts; none where it accepts none, or forgot the shard."""
        for start in starts:
            try:
                for page in start():
                    if page.records:
                        self._near = page.records
                    yield page.records
                return
            except Exception as error:
                if aws_error_code(error) != _NOT_A_PLACE and not self._forgotten(error):
                    raise

    def _pages(self, sequence: str | None) -> Iterator[Page]:
        return pages(self._kinesis, self._stream, self._shard, sequence, self._page)

    def _pages_of_time(self, since: int, until: int) -> Iterator[Page]:
        """Not to the tip of the shard, lest a number that never was makes us read all of it."""
        start = max(0, since - _MARGIN_MS)
        for page in pages_since(self._kinesis, self._stream, self._shard, start, self._page):
            if page.records and arrival(page.records[0]) > until + _LATEST_MS:
                return
            yield page

    def _forgotten(self, error: Exception) -> bool:
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
    """A record's sequence number."""
    return int(record["SequenceNumber"])


def arrival(record: RawRecord) -> int:
    """When a record came to Kinesis, milliseconds since the epoch."""
    seconds: float = record["ApproximateArrivalTimestamp"].timestamp()
    return round(seconds * 1_000)


def patient(client: Any, policy: Policy, *, sleep: Sleep, rng: random.Random) -> Any:
    """The client, whose calls are tried again in place while their error is transient (throttled, unavailable).

    A call raises FatalError when the attempts are spent, and any other error as it is, at once.
    """
    return _Patient(client, policy, sleep, rng)


class _Patient:
    def __init__(self, client: Any, policy: Policy, sleep: Sleep, rng: random.Random) -> None:
        self._client, self._policy, self._sleep, self._rng = client, policy, sleep, rng

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def attempt(**request: Any) -> Any:
            return call(
                lambda: method(**request),
                self._policy,
                sleep=self._sleep,
                rng=self._rng,
                what=f"kinesis {name}",
            )

        return attempt
