"""Runs of a shard are read completely, despite earlier reads, trimmed records and throttling."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from stream_app.aws.retry import Policy
from stream_app.errors import FatalError
from stream_app.recovery.stream.runs import Reader, number, with_retries

BEGIN = 1_480_550_400_000
STEP_MS = 700


def arrived(at: int) -> int:
    return BEGIN + at * STEP_MS


class Shard:
    """A shard of records 0 to `count`, numbered by tens, those before `trimmed` gone; it counts what it gives.

    It refuses the numbers of what is gone, where `refuses` says so; every `empties`th page is empty.
    """

    def __init__(self, count: int, trimmed: int = 0, *, refuses: bool = False, empties: int = 0) -> None:
        self._count, self._trimmed, self._refuses, self._empties = count, trimmed, refuses, empties
        self.pages = 0

    def get_shard_iterator(self, ShardIteratorType: str, **place: Any) -> dict[str, str]:
        if ShardIteratorType == "AT_TIMESTAMP":
            wanted = place["Timestamp"].timestamp() * 1000
            at = next((n for n in range(self._count) if arrived(n) >= wanted), self._count)
        elif ShardIteratorType == "TRIM_HORIZON":
            at = 0
        else:
            asked = int(place["StartingSequenceNumber"])
            if self._refuses and asked < self._trimmed * 10:
                raise error("InvalidArgumentException")
            at = -(-asked // 10) + (ShardIteratorType == "AFTER_SEQUENCE_NUMBER" and asked % 10 == 0)
        return {"ShardIterator": str(max(at, self._trimmed))}

    def get_records(self, ShardIterator: str, Limit: int) -> dict[str, Any]:
        self.pages += 1
        at = int(ShardIterator)
        if self._empties and self.pages % self._empties == 0:
            return {"Records": [], "NextShardIterator": ShardIterator, "MillisBehindLatest": 1}
        end = min(at + Limit, self._count)
        some = [
            {
                "SequenceNumber": str(n * 10),
                "ApproximateArrivalTimestamp": datetime.fromtimestamp(arrived(n) / 1000, UTC),
            }
            for n in range(at, end)
        ]
        behind = 0 if end >= self._count else 1
        return {"Records": some, "NextShardIterator": str(end), "MillisBehindLatest": behind}

    def describe_stream_summary(self, **_: Any) -> dict[str, Any]:
        return {}


def error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}}, "GetRecords")


def read(reader: Reader, first: int, last: int) -> list[int]:
    pages = reader.run(str(first * 10), str(last * 10), (arrived(first), arrived(last)))
    found = [number(record) // 10 for page in pages for record in page]
    assert found == sorted(set(found))
    return found


RUNS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted), min_size=1, max_size=6)


@given(RUNS, st.integers(1, 45), st.integers(0, 40), st.booleans(), st.sampled_from([0, 2, 3]))
def test_every_run_is_read_completely_in_any_order(
    runs: list[Sequence[int]], page: int, trimmed: int, refuses: bool, empties: int
) -> None:
    shard: Any = Shard(41, trimmed, refuses=refuses, empties=empties)
    reader = Reader(shard, "devices", "shardId-0", page)
    for first, last in runs:
        assert read(reader, first, last) == list(range(max(first, trimmed), last + 1))
        assert reader.has_left(str(first * 10)) == (first < trimmed)


def test_a_buffered_run_makes_no_request() -> None:
    shard: Any = Shard(1_000)
    reader = Reader(shard, "devices", "shardId-0", 100)
    assert read(reader, 10, 20) == list(range(10, 21))
    assert [read(reader, n, n + 3) for n in range(20, 100)] == [list(range(n, n + 4)) for n in range(20, 100)]
    assert shard.pages == 1


def test_reading_stops_at_the_end_of_the_run() -> None:
    shard: Any = Shard(100_000)
    assert len(read(Reader(shard, "devices", "shardId-0", 100), 7, 950)) == 944
    assert shard.pages == 10


def test_an_unknown_sequence_number_does_not_read_the_whole_shard() -> None:
    shard: Any = Shard(100_000, 5, refuses=True)
    reader = Reader(shard, "devices", "shardId-0", 100)
    assert list(reader.run("1", str(10**30), (arrived(0), arrived(3)))) != []
    assert shard.pages < 10


def test_a_throttled_call_is_retried_and_other_errors_are_raised() -> None:
    said: list[str] = []
    pauses: list[float] = []

    class Client:
        def get_records(self, code: str, times: int) -> str:
            said.append(code)
            if len(said) <= times:
                raise error(code)
            return "records"

    calm = with_retries(Client(), Policy(4, 100, 1_000), sleep=pauses.append, rng=random.Random(1))
    assert calm.get_records(code="ProvisionedThroughputExceededException", times=3) == "records"
    assert (len(said), len(pauses)) == (4, 3)
    said.clear()
    with pytest.raises(FatalError, match="kinesis get_records: gave up after 4"):
        calm.get_records(code="LimitExceededException", times=9)
    said.clear()
    with pytest.raises(ClientError):
        calm.get_records(code="AccessDeniedException", times=9)
    assert len(said) == 1
