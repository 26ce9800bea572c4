"""The initial position of a consumer: a timestamp for a new application, and leases written in advance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from stream_app.daemon.initial_position import parse_timestamp, require_no_leases, starting_at
from stream_app.daemon.properties import effective
from stream_app.errors import ConfigError
from stream_app.local.leases import OWNER_INDEX, lease, starting_shards, write_leases

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
PAST = st.datetimes(datetime(1990, 1, 1), datetime(2026, 1, 1), timezones=ZONES)
NOW = datetime(2026, 6, 1, tzinfo=UTC).timestamp()


@given(PAST)
def test_a_timestamp_is_rounded_down_to_its_second(moment: datetime) -> None:
    seconds = parse_timestamp(moment.isoformat(), NOW)
    assert seconds == math.floor(moment.timestamp())
    assert parse_timestamp(moment.astimezone(UTC).isoformat().replace("+00:00", "Z"), NOW) == seconds


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2016-12-01T00:00:00", "zone"),
        ("2016-12-01", "zone"),
        ("yesterday", "not a timestamp"),
        ("", "not a timestamp"),
        ("1480550400", "not a timestamp"),
        ("2016-13-01T00:00:00Z", "not a timestamp"),
        ("2027-01-01T00:00:00Z", "not in the past"),
    ],
)
def test_an_invalid_timestamp_is_rejected(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_timestamp(text, NOW)


def test_a_timestamp_replaces_another_initial_position() -> None:
    assert effective({"initialPositionInStream": "LATEST", "a": "b"}, starting_at(7)) == {
        "initialPositionInStreamExtended": "7",
        "a": "b",
    }


def client(service: str) -> Any:
    make: Any = boto3.client
    return make(service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")


@pytest.fixture
def dynamodb() -> Iterator[Any]:
    with mock_aws():
        client("kinesis").create_stream(StreamName="s", ShardCount=3)
        yield client("dynamodb")


def test_a_new_application_can_start_at_any_position(dynamodb: Any) -> None:
    require_no_leases(dynamodb, "new")


def test_an_application_with_leases_cannot_change_its_position(dynamodb: Any) -> None:
    write_leases(dynamodb, client("kinesis"), application="old", stream="s", worker="w")
    with pytest.raises(ConfigError, match=r"lease table old has leases.*new applicationName"):
        require_no_leases(dynamodb, "old")
    dynamodb.delete_item(TableName="old", Key={"leaseKey": {"S": "shardId-000000000000"}})
    with pytest.raises(ConfigError):
        require_no_leases(dynamodb, "old")


def test_an_empty_lease_table_is_ignored(dynamodb: Any) -> None:
    write_leases(dynamodb, client("kinesis"), application="old", stream="s", worker="w")
    for item in dynamodb.scan(TableName="old")["Items"]:
        dynamodb.delete_item(TableName="old", Key={"leaseKey": item["leaseKey"]})
    require_no_leases(dynamodb, "old")


def test_leases_cover_the_stream_and_have_an_owner(dynamodb: Any) -> None:
    assert write_leases(dynamodb, client("kinesis"), application="a", stream="s", worker="w") == 3
    found = dynamodb.query(
        TableName="a",
        IndexName=OWNER_INDEX,
        KeyConditionExpression="leaseOwner = :w",
        ExpressionAttributeValues={":w": {"S": "w"}},
    )["Items"]
    shards = client("kinesis").list_shards(StreamName="s")["Shards"]
    assert [item["leaseKey"]["S"] for item in found] == [shard["ShardId"] for shard in shards]


def test_existing_leases_are_not_changed(dynamodb: Any) -> None:
    kinesis = client("kinesis")
    write_leases(dynamodb, kinesis, application="a", stream="s", worker="w")
    before = dynamodb.scan(TableName="a")["Items"]
    assert write_leases(dynamodb, kinesis, application="a", stream="s", worker="x", position="LATEST") == 0
    assert dynamodb.scan(TableName="a")["Items"] == before


def test_a_lease_has_the_form_of_kcl_3() -> None:
    # As written by KCL 3.1.3 for an open shard that was assigned but not yet renewed.
    shard: Any = {
        "ShardId": "shardId-000000000001",
        "HashKeyRange": {"StartingHashKey": "85070591730234615865843651857942052864", "EndingHashKey": "9"},
    }
    assert lease(shard, "w1", "TRIM_HORIZON") == {
        "leaseKey": {"S": "shardId-000000000001"},
        "leaseOwner": {"S": "w1"},
        "leaseCounter": {"N": "1"},
        "checkpoint": {"S": "TRIM_HORIZON"},
        "checkpointSubSequenceNumber": {"N": "0"},
        "ownerSwitchesSinceCheckpoint": {"N": "0"},
        "startingHashKey": {"S": "85070591730234615865843651857942052864"},
        "endingHashKey": {"S": "9"},
    }


def a_shard(name: str, parents: tuple[str, ...] = (), closed: bool = False) -> Any:
    ends = {"EndingSequenceNumber": "9"} if closed else {}
    named = dict(zip(("ParentShardId", "AdjacentParentShardId"), parents, strict=False))
    return {"ShardId": name, "SequenceNumberRange": {"StartingSequenceNumber": "1", **ends}, **named}


def test_after_a_reshard_the_oldest_shards_are_leased_first() -> None:
    shards = [
        a_shard("0", ("gone",), closed=True),
        a_shard("1", closed=True),
        a_shard("2", ("0", "1")),
        a_shard("3"),
    ]
    assert [shard["ShardId"] for shard in starting_shards(shards, "TRIM_HORIZON")] == ["0", "1", "3"]
    assert starting_shards(shards, "LATEST") == starting_shards(shards, "AT_TIMESTAMP") == []
    assert starting_shards(shards[3:], "LATEST") == shards[3:]
