"""Dead letters of our own consumer: each becomes the full payload on S3, once, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from aws_kinesis_agg.aggregator import RecordAggregator

from stream_app.recovery.hydrate.batch import hydrate, hydrate_batch
from stream_app.recovery.store import failure_keys, load, status
from tests.contracts.hydrating import (
    ALL_DONE,
    BUCKET,
    Meddled,
    again,
    dependencies,
    event,
    everything,
    failures,
    own,
    put,
    put_all,
    refusal,
)

PAYLOADS = [b'{"pm25":1}', b"\x00\xff", b"", b"not json", b'{"pm25":2}']


def test_every_payload_is_found_whatever_it_is(kinesis: Any, s3: Any) -> None:
    dead_letters = [put(kinesis, data, f"station {at}") for at, data in enumerate(PAYLOADS * 4)]
    done = hydrate(dead_letters[::-1], dependencies(kinesis, s3))
    assert (len(done.written), done.kept, done.expired, done.failed) == (20, [], [], {})
    found = {(one.shard, one.sequence): (one.data, one.partition_key) for one in failures(s3)}
    assert found == {
        (one.shard, one.sequence): (data, one.partition_key)
        for one, data in zip(dead_letters, PAYLOADS * 4, strict=True)
    }
    assert {status(s3, BUCKET, key) for key in done.written} == {"open"}


def test_hydrating_twice_changes_nothing_nor_takes_back_a_status(kinesis: Any, s3: Any) -> None:
    dead_letters = [put(kinesis, data) for data in PAYLOADS]
    first = hydrate(dead_letters, dependencies(kinesis, s3))
    before = everything(s3)
    tags = {"TagSet": [{"Key": "status", "Value": "processed"}]}
    s3.put_object_tagging(Bucket=BUCKET, Key=first.written[0], Tagging=tags)
    second = hydrate(dead_letters, dependencies(kinesis, s3))
    assert (second.written, sorted(second.kept)) == ([], sorted(first.written))
    assert everything(s3) == before
    assert [status(s3, BUCKET, key) for key in first.written[:2]] == ["processed", "open"]


def test_neighbours_share_a_page(kinesis: Any, s3: Any) -> None:
    dead_letters = [put(kinesis, b"%d" % at) for at in range(140)]
    counting = Meddled(kinesis)
    assert len(hydrate(dead_letters, dependencies(counting, s3)).written) == 140
    assert counting.calls.count("get_shard_iterator") == 1
    assert counting.calls.count("get_records") == 1


@pytest.mark.parametrize("page", [1, 3, 500])
def test_they_are_found_whatever_lies_between_them(kinesis: Any, s3: Any, page: int) -> None:
    dead_letters = put_all(kinesis, [b"%d" % at for at in range(25)])
    wanted = [dead_letters[at] for at in (0, 1, 9, 24)]
    assert not hydrate(wanted, dependencies(kinesis, s3, page=page)).failed
    assert [one.data for one in failures(s3)] == [b"0", b"1", b"9", b"24"]


def test_the_sub_sequence_number_finds_the_record_in_an_aggregate(kinesis: Any, s3: Any) -> None:
    packed = RecordAggregator()
    for at in range(3):
        packed.add_user_record(f"station {at}", b"payload %d" % at)
    whole = put(kinesis, packed.clear_and_get().get_contents()[2])
    dead_letters = [
        msgspec.structs.replace(whole, sub=sub, partition_key=f"station {sub}") for sub in range(4)
    ]
    done = hydrate(dead_letters, dependencies(kinesis, s3))
    assert [one.data for one in failures(s3)] == [b"payload 0", b"payload 1", b"payload 2"]
    assert list(done.failed) == [3]


class Trimmed:
    """A stream whose records up to `last` have left it: it answers from the oldest on, or refuses the number."""

    def __init__(self, kinesis: Any, last: str, refuses: bool) -> None:
        self._kinesis, self._last, self._refuses = kinesis, last, refuses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kinesis, name)

    def get_shard_iterator(self, **request: Any) -> Any:
        asked = request.get("StartingSequenceNumber")
        if asked is not None and int(asked) <= int(self._last) and self._refuses:
            raise refusal("InvalidArgumentException", "GetShardIterator")
        if asked is None or int(asked) <= int(self._last):
            request.pop("Timestamp", None)
            request |= {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": self._last}
        return self._kinesis.get_shard_iterator(**request)


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("all_gone", [False, True])
def test_a_record_that_left_the_stream_is_kept_as_metadata(
    kinesis: Any, s3: Any, refuses: bool, all_gone: bool
) -> None:
    gone, here = put(kinesis, b"1"), put(kinesis, b"2")
    last_gone = here.sequence if all_gone else gone.sequence
    done = hydrate([gone, here], dependencies(Trimmed(kinesis, last_gone, refuses), s3))
    stored = {
        one.sequence: (one.encoding, one.data, one.dead_letter.reason, status(s3, BUCKET, one.key))
        for one in failures(s3)
    }
    expired = ("none", None, "pm25 is not negative", "expired")
    newer = expired if all_gone else ("json", b"2", "pm25 is not negative", "open")
    assert stored == {gone.sequence: expired, here.sequence: newer}
    assert done.expired == [gone, here][: 1 + all_gone]
    assert not done.failed


def test_a_shard_that_the_stream_has_forgotten_held_what_has_left(kinesis: Any, s3: Any) -> None:
    old = msgspec.structs.replace(put(kinesis, b"1"), shard="shardId-000000000099")
    done = hydrate([old], dependencies(kinesis, s3))
    assert (len(done.written), len(done.expired), done.failed) == (1, 1, {})


def test_a_position_that_never_was_or_a_stream_that_is_not_fails(kinesis: Any, s3: Any) -> None:
    here = put(kinesis, b"1")
    dead_letters = [
        msgspec.structs.replace(here, sequence=str(int(here.sequence) + 1)),
        msgspec.structs.replace(here, stream="nowhere"),
        here,
    ]
    done = hydrate(dead_letters, dependencies(kinesis, s3))
    assert sorted(done.failed) == [0, 1]
    assert len(failures(s3)) == len(done.written) == 1


def test_a_closed_shard_is_read_to_its_end(kinesis: Any, s3: Any) -> None:
    dead_letters = put_all(kinesis, [b"%d" % at for at in range(12)])
    shards = {one["ShardId"]: one for one in kinesis.list_shards(StreamName="devices")["Shards"]}
    hashes = shards[dead_letters[0].shard]["HashKeyRange"]
    middle = (int(hashes["StartingHashKey"]) + int(hashes["EndingHashKey"])) // 2
    kinesis.split_shard(
        StreamName="devices", ShardToSplit=dead_letters[0].shard, NewStartingHashKey=str(middle)
    )
    done = hydrate(dead_letters, dependencies(kinesis, s3, page=5))
    assert not done.failed
    assert [one.data for one in failures(s3)] == [b"%d" % at for at in range(12)]


def test_only_what_failed_comes_again(kinesis: Any, s3: Any) -> None:
    dead_letters = [put(kinesis, b"%d" % at, f"k{at}") for at in range(12)]
    failing = dead_letters[0].shard
    assert {one.shard for one in dead_letters} != {failing}
    bodies = [own(one) for one in dead_letters]
    meddled = Meddled(kinesis, {failing: "ProvisionedThroughputExceededException"})
    answer, done = hydrate_batch(event("no json", *bodies, "{}"), dependencies(meddled, s3))
    waiting = [at + 1 for at, one in enumerate(dead_letters) if one.shard == failing]
    assert answer == again(0, *waiting, 13)
    assert (sorted(done.failed), sorted(done.malformed)) == (waiting, [0, 13])
    assert "ProvisionedThroughputExceeded" in done.failed[1]
    assert len(failures(s3)) == sum(one.shard != failing for one in dead_letters)
    assert hydrate_batch(event(*bodies), dependencies(kinesis, s3))[0] == ALL_DONE
    assert len(failures(s3)) == 12


def test_a_bucket_that_refuses_keeps_the_message_in_the_queue(kinesis: Any, s3: Any) -> None:
    body = own(put(kinesis, b"1"))
    assert hydrate_batch(event(body), dependencies(kinesis, s3, bucket="no-such-bucket"))[0] == again(0)


def test_keys_are_found_by_arrival(s3: Any, kinesis: Any) -> None:
    hours = [datetime(2024, 2, 28 + day, hour, 30, tzinfo=UTC) for day in (0, 1) for hour in range(0, 24, 5)]
    real = put(kinesis, b"1")
    dead_letters = [msgspec.structs.replace(real, arrived=int(at.timestamp() * 1000), partition_key=key)
               for at in hours for key in ("~", "a", "ü/")]  # fmt: skip
    hydrate(dead_letters, dependencies(kinesis, s3))
    assert all(load(body).data == b"1" for body in everything(s3, "failures/").values())

    def arrivals(since: datetime | None, until: datetime | None) -> Iterator[str]:
        return failure_keys(s3, BUCKET, "air", since, until)

    bounds = [None, *hours, *(at.replace(minute=0) for at in hours), *(at.replace(minute=45) for at in hours)]
    for since in bounds[::3]:
        for until in bounds[::2]:
            expected = sum(3 for at in hours if (not since or at >= since) and (not until or at < until))
            assert len(list(arrivals(since, until))) == expected
