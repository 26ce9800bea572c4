"""Hydrate: a dead letter becomes the full payload on S3, once, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from aws_kinesis_agg.aggregator import RecordAggregator
from botocore.exceptions import ClientError

from stream_app.record import Position
from stream_app.recovery.dead_letters import DeadLetter
from stream_app.recovery.hydrate import Hydrated, hydrate, hydrate_batch, make_handler
from stream_app.recovery.store import failure_keys, load, status
from tests.unit.test_recovery_store import letter

BUCKET = "failures-of-the-test"


@pytest.fixture
def s3(aws: Callable[[str], Any]) -> Any:
    client = aws("s3")
    client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture
def kinesis(aws: Callable[[str], Any], stream: str) -> Any:
    assert stream == "devices"
    return aws("kinesis")


class Counting:
    """A Kinesis client that counts its calls and can be told to fail for a shard."""

    def __init__(self, kinesis: Any, failing: str | None = None) -> None:
        self._kinesis, self._failing = kinesis, failing
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._kinesis, name)

        def counted(**request: Any) -> Any:
            self.calls.append(name)
            if self._failing is not None and request.get("ShardId") == self._failing:
                raise ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, name)
            return method(**request)

        return counted


def put(kinesis: Any, data: bytes, key: str = "Dongsi") -> DeadLetter:
    """Put a record; the dead letter that it would have."""
    answer = kinesis.put_record(StreamName="devices", Data=data, PartitionKey=key)
    return letter(Position(answer["ShardId"], answer["SequenceNumber"]), key)


def objects(s3: Any) -> dict[str, bytes]:
    keys = list(failure_keys(s3, BUCKET, "air"))
    return {key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


PAYLOADS = [b'{"pm25":1}', b"\x00\xff", b"", b"not json", b'{"pm25":2}']


def test_every_payload_is_found_whatever_it_is(kinesis: Any, s3: Any) -> None:
    letters = [put(kinesis, data, f"station {at}") for at, data in enumerate(PAYLOADS * 4)]
    done = hydrate(letters[::-1], kinesis, s3, BUCKET)
    assert (len(done.written), done.kept, done.expired, done.failed) == (20, [], [], {})
    stored = [load(body) for body in objects(s3).values()]
    found = {(one.shard, one.sequence): (one.data, one.partition_key) for one in stored}
    assert found == {
        (one.shard, one.sequence): (data, one.partition_key)
        for one, data in zip(letters, PAYLOADS * 4, strict=True)
    }
    assert {status(s3, BUCKET, key) for key in done.written} == {"open"}


def test_hydrating_twice_changes_nothing_nor_takes_back_a_status(kinesis: Any, s3: Any) -> None:
    letters = [put(kinesis, data) for data in PAYLOADS]
    first = hydrate(letters, kinesis, s3, BUCKET)
    before = objects(s3)
    tags = {"TagSet": [{"Key": "status", "Value": "processed"}]}
    s3.put_object_tagging(Bucket=BUCKET, Key=first.written[0], Tagging=tags)
    second = hydrate(letters, kinesis, s3, BUCKET)
    assert (second.written, sorted(second.kept)) == ([], sorted(first.written))
    assert objects(s3) == before
    assert [status(s3, BUCKET, key) for key in first.written[:2]] == ["processed", "open"]


def test_neighbours_share_a_page(kinesis: Any, s3: Any) -> None:
    letters = [put(kinesis, b"%d" % at) for at in range(40)]
    counting = Counting(kinesis)
    assert len(hydrate(letters, counting, s3, BUCKET).written) == 40
    assert counting.calls.count("get_shard_iterator") == 1
    assert counting.calls.count("get_records") == 1


def test_the_sub_sequence_number_finds_the_record_in_an_aggregate(kinesis: Any, s3: Any) -> None:
    packed = RecordAggregator()
    for at in range(3):
        packed.add_user_record(f"station {at}", b"payload %d" % at)
    whole = put(kinesis, packed.clear_and_get().get_contents()[2])
    letters = [msgspec.structs.replace(whole, sub=sub, partition_key=f"station {sub}") for sub in range(4)]
    done = hydrate(letters, kinesis, s3, BUCKET)
    assert sorted(load(body).data or b"" for body in objects(s3).values()) == [
        b"payload 0",
        b"payload 1",
        b"payload 2",
    ]
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
            raise ClientError({"Error": {"Code": "InvalidArgumentException"}}, "GetShardIterator")
        if asked is None or int(asked) <= int(self._last):
            request |= {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": self._last}
        return self._kinesis.get_shard_iterator(**request)


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("all_gone", [False, True])
def test_a_record_that_left_the_stream_is_kept_as_metadata(
    kinesis: Any, s3: Any, refuses: bool, all_gone: bool
) -> None:
    gone, here = put(kinesis, b"1"), put(kinesis, b"2")
    last_gone = here.sequence if all_gone else gone.sequence
    done = hydrate([gone, here], Trimmed(kinesis, last_gone, refuses), s3, BUCKET)
    stored = {
        one.sequence: (one.encoding, one.data, status(s3, BUCKET, one.key))
        for one in map(load, objects(s3).values())
    }
    newer = ("none", None, "expired") if all_gone else ("json", b"2", "open")
    assert stored == {gone.sequence: ("none", None, "expired"), here.sequence: newer}
    assert len(done.expired) == 1 + all_gone
    assert not done.failed


def test_a_shard_that_the_stream_has_forgotten_held_what_has_left(kinesis: Any, s3: Any) -> None:
    old = msgspec.structs.replace(put(kinesis, b"1"), shard="shardId-000000000099")
    done = hydrate([old], kinesis, s3, BUCKET)
    assert (len(done.written), len(done.expired), done.failed) == (1, 1, {})


def test_a_position_that_never_was_or_a_stream_that_is_not_fails(kinesis: Any, s3: Any) -> None:
    here = put(kinesis, b"1")
    letters = [
        msgspec.structs.replace(here, sequence=str(int(here.sequence) + 1)),
        msgspec.structs.replace(here, stream="nowhere"),
        here,
    ]
    done = hydrate(letters, kinesis, s3, BUCKET)
    assert sorted(done.failed) == [0, 1]
    assert len(objects(s3)) == len(done.written) == 1


def event(*bodies: str) -> dict[str, Any]:
    return {"Records": [{"messageId": f"m{at}", "body": body} for at, body in enumerate(bodies)]}


def body_of(one: DeadLetter) -> str:
    return msgspec.json.encode(one).decode()


def test_only_what_failed_comes_again(kinesis: Any, s3: Any) -> None:
    letters = [put(kinesis, b"%d" % at, f"k{at}") for at in range(12)]
    failing = letters[0].shard
    assert {one.shard for one in letters} != {failing}
    bodies = [body_of(one) for one in letters]
    reports: list[Hydrated] = []
    counting = Counting(kinesis, failing)
    answer = hydrate_batch(
        event("no json", *bodies, "{}"), kinesis=counting, s3=s3, bucket=BUCKET, report=reports.append
    )
    expected = [0, *(at + 1 for at, one in enumerate(letters) if one.shard == failing), 13]
    assert answer == {"batchItemFailures": [{"itemIdentifier": f"m{at}"} for at in expected]}
    assert sorted(reports[0].failed) == expected
    assert "ProvisionedThroughputExceeded" in reports[0].failed[1]
    assert len(objects(s3)) == sum(one.shard != failing for one in letters)
    again = hydrate_batch(event(*bodies), kinesis=kinesis, s3=s3, bucket=BUCKET)
    assert again == {"batchItemFailures": []}
    assert len(objects(s3)) == 12


def test_a_bucket_that_refuses_keeps_the_message_in_the_queue(kinesis: Any, s3: Any) -> None:
    body = body_of(put(kinesis, b"1"))
    answer = hydrate_batch(event(body), kinesis=kinesis, s3=s3, bucket="no-such-bucket")
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}]}


def test_the_handler_takes_its_world_from_who_made_it(kinesis: Any, s3: Any) -> None:
    @dataclass
    class World:
        kinesis: Any
        s3: Any
        bucket: str

    world = World(kinesis, s3, BUCKET)
    handler = make_handler(world, world)
    assert handler(event(body_of(put(kinesis, b"1"))), None) == {"batchItemFailures": []}
    assert len(objects(s3)) == 1


def test_keys_are_found_by_arrival(s3: Any, kinesis: Any) -> None:
    hours = [datetime(2024, 2, 28 + day, hour, 30, tzinfo=UTC) for day in (0, 1) for hour in range(0, 24, 5)]
    real = put(kinesis, b"1")
    letters = [msgspec.structs.replace(real, arrived=int(at.timestamp() * 1000), partition_key=key)
               for at in hours for key in ("~", "a", "ü/")]  # fmt: skip
    hydrate(letters, kinesis, s3, BUCKET)

    def arrivals(since: datetime | None, until: datetime | None) -> Iterator[str]:
        return failure_keys(s3, BUCKET, "air", since, until)

    bounds = [None, *hours, *(at.replace(minute=0) for at in hours), *(at.replace(minute=45) for at in hours)]
    for since in bounds[::3]:
        for until in bounds[::2]:
            expected = sum(3 for at in hours if (not since or at >= since) and (not until or at < until))
            assert len(list(arrivals(since, until))) == expected
