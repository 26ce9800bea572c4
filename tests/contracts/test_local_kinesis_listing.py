"""ListShards and its filters as AWS documents them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from stream_app.local.moto_patches import clock
from tests.contracts.local_kinesis import shards, split

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

    from stream_app.aws.clients import ClientFactory


FIRST, SECOND = "shardId-000000000000", "shardId-000000000001"
HOUR = 3_600_000


class Clock:
    ms = 0

    def forward(self, ms: int) -> None:
        self.ms += ms


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Clock:
    ticking = Clock()
    ticking.ms = clock.now_ms() + 1_000
    monkeypatch.setattr(clock, "now_ms", lambda: ticking.ms)
    return ticking


@pytest.fixture
def kinesis(aws: ClientFactory, now: Clock) -> KinesisClient:
    aws("kinesis").create_stream(StreamName="devices", ShardCount=2)
    return aws("kinesis")


def listed(kinesis: KinesisClient, kind: Any = None, **how: Any) -> list[str]:
    return shards(kinesis, "devices", kind, **how)


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as refused:
        act()
    return refused.value.response["Error"]["Code"]


def test_shard_filters_distinguish_parents_and_children(kinesis: KinesisClient, now: Clock) -> None:
    created = now.ms
    now.forward(10_000)
    split_at = now.ms
    children = split(kinesis, "devices", FIRST)
    now.forward(10_000)
    everything = [FIRST, SECOND, *children]

    def at(kind: Any, ms: int) -> list[str]:
        return listed(kinesis, kind, Timestamp=ms / 1_000)

    assert listed(kinesis) == everything
    assert listed(kinesis, "FROM_TRIM_HORIZON") == everything
    assert listed(kinesis, "AT_TRIM_HORIZON") == [FIRST, SECOND]
    assert listed(kinesis, "AT_LATEST") == [SECOND, *children]
    assert listed(kinesis, "AFTER_SHARD_ID", ShardId=SECOND) == children
    assert at("AT_TIMESTAMP", created) == [FIRST, SECOND]
    assert at("AT_TIMESTAMP", split_at) == everything
    assert at("AT_TIMESTAMP", split_at + 1) == [SECOND, *children]
    assert at("FROM_TIMESTAMP", split_at) == everything
    assert at("FROM_TIMESTAMP", split_at + 1) == [SECOND, *children]
    # A time before the trim horizon is equivalent to it.
    assert at("AT_TIMESTAMP", created - HOUR) == [FIRST, SECOND]
    assert at("FROM_TIMESTAMP", created - HOUR) == everything


def test_a_closed_shard_expires_after_the_retention_period(kinesis: KinesisClient, now: Clock) -> None:
    children = split(kinesis, "devices", FIRST)
    now.forward(24 * HOUR)
    assert listed(kinesis) == [FIRST, SECOND, *children]
    assert listed(kinesis, "AT_TRIM_HORIZON") == [FIRST, SECOND, *children]
    now.forward(1)
    for kind in (None, "FROM_TRIM_HORIZON", "AT_TRIM_HORIZON", "AT_LATEST"):
        assert listed(kinesis, kind) == [SECOND, *children]
    described = kinesis.describe_stream(StreamName="devices")["StreamDescription"]["Shards"]
    assert [shard["ShardId"] for shard in described] == [SECOND, *children]


def test_a_filter_without_its_parameter_is_rejected(kinesis: KinesisClient) -> None:
    for kind in ("AT_TIMESTAMP", "FROM_TIMESTAMP", "AFTER_SHARD_ID"):
        assert refusal(partial(listed, kinesis, kind)) == "InvalidArgumentException"
    assert refusal(lambda: listed(kinesis, "SOMETHING")) == "ValidationException"


def test_pagination_keeps_the_filter_and_terminates(kinesis: KinesisClient, now: Clock) -> None:
    kinesis.update_shard_count(StreamName="devices", TargetShardCount=8, ScalingType="UNIFORM_SCALING")
    wanted = listed(kinesis, "AT_LATEST")
    page = kinesis.list_shards(StreamName="devices", ShardFilter={"Type": "AT_LATEST"}, MaxResults=3)
    found = [shard["ShardId"] for shard in page["Shards"]]
    while "NextToken" in page:
        page = kinesis.list_shards(NextToken=page["NextToken"], MaxResults=3)
        found += [shard["ShardId"] for shard in page["Shards"]]
        assert len(page["Shards"]) <= 3
    assert len(wanted) == 8
    assert found == wanted


def test_a_page_token_excludes_other_parameters_and_expires(kinesis: KinesisClient, now: Clock) -> None:
    token = kinesis.list_shards(StreamName="devices", MaxResults=1)["NextToken"]
    both: Any = {"NextToken": token, "StreamName": "devices"}
    assert refusal(lambda: kinesis.list_shards(**both)) == "InvalidArgumentException"
    assert refusal(lambda: kinesis.list_shards(NextToken="x")) == "InvalidArgumentException"
    now.forward(300_001)
    assert refusal(lambda: kinesis.list_shards(NextToken=token)) == "ExpiredNextTokenException"


def test_listing_can_start_after_a_shard(kinesis: KinesisClient) -> None:
    answer = kinesis.list_shards(StreamName="devices", ExclusiveStartShardId=FIRST)
    assert [shard["ShardId"] for shard in answer["Shards"]] == [SECOND]
