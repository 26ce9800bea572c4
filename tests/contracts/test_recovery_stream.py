"""Reading a stream directly: every record once, to the end of a closed shard or the tip of an open one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.utils import parse_timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_app.recovery.stream.read import pages, shards, timestamp


@pytest.fixture
def kinesis(aws: Callable[[str], Any], stream: str) -> Any:
    client = aws("kinesis")
    for at in range(30):
        client.put_record(StreamName=stream, Data=b"%d" % at, PartitionKey=f"k{at}")
    return client


def data(kinesis: Any, shard: str, sequence: str | None = None, limit: int = 1000) -> list[tuple[str, bytes]]:
    found = pages(kinesis, "devices", shard, sequence, limit)
    return [(record["SequenceNumber"], record["Data"]) for page in found for record in page.records]


@given(limit=st.integers(1, 40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
def test_every_record_is_read_once_with_any_page_size(kinesis: Any, limit: int) -> None:
    both = [data(kinesis, shard.id, limit=limit) for shard in shards(kinesis, "devices")]
    assert sorted(int(payload) for one in both for _, payload in one) == list(range(30))
    assert [sorted(one, key=lambda pair: int(pair[0])) for one in both] == both


def test_reading_starts_at_the_sequence_number(kinesis: Any) -> None:
    shard = shards(kinesis, "devices")[0].id
    whole = data(kinesis, shard)
    assert data(kinesis, shard, whole[3][0]) == whole[3:]


def test_a_split_parent_is_read_to_its_end(kinesis: Any) -> None:
    first = shards(kinesis, "devices")[0]
    before = data(kinesis, first.id)
    middle = (first.first_hash + first.last_hash) // 2
    kinesis.split_shard(StreamName="devices", ShardToSplit=first.id, NewStartingHashKey=str(middle))
    after = shards(kinesis, "devices")
    assert len(after) == 4
    assert data(kinesis, first.id) == before


class Expiring:
    """A Kinesis client whose iterators expire at some of the calls."""

    def __init__(self, kinesis: Any, expires: list[bool]) -> None:
        self._kinesis, self._expires = kinesis, expires

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kinesis, name)

    def get_records(self, **request: Any) -> Any:
        if self._expires and self._expires.pop():
            raise ClientError({"Error": {"Code": "ExpiredIteratorException"}}, "GetRecords")
        return self._kinesis.get_records(**request)


@given(expires=st.lists(st.booleans(), max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
def test_an_expired_iterator_neither_loses_nor_repeats_records(kinesis: Any, expires: list[bool]) -> None:
    shard = shards(kinesis, "devices")[1].id
    whole = data(kinesis, shard)
    assert data(Expiring(kinesis, list(expires)), shard, limit=3) == whole
    assert data(Expiring(kinesis, list(expires)), shard, whole[2][0], limit=3) == whole[2:]


@given(st.integers(0, 4_000_000_000_000))
def test_timestamps_are_parsed_like_botocore(milliseconds: int) -> None:
    values: tuple[Any, ...] = (milliseconds / 1000, milliseconds // 1000, "2016-12-01T00:00:00Z")
    for value in values:
        assert timestamp(value) == parse_timestamp(value)


class Busy:
    """A shard that is written to without pause: no page is ever empty, none leaves anything behind."""

    def __init__(self) -> None:
        self.calls = 0

    def get_shard_iterator(self, **_: Any) -> Any:
        return {"ShardIterator": "0"}

    def get_records(self, **_: Any) -> Any:
        self.calls += 1
        assert self.calls < 50, "reading does not end"
        return {
            "Records": [{"SequenceNumber": str(self.calls)}],
            "NextShardIterator": "1",
            "MillisBehindLatest": 0,
        }


def test_reading_ends_at_the_tip_of_an_active_shard() -> None:
    busy: Any = Busy()
    assert sum(len(page.records) for page in pages(busy, "devices", "s")) == 2
