"""Whether everything that was sent has come to rest: queues empty, every shard committed to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Client = Callable[[str], Any]
_COUNTS = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")


def queued(sqs: Any, url: str) -> int:
    """Messages in a queue, those in flight included."""
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(_COUNTS))
    return sum(int(answer["Attributes"][name]) for name in _COUNTS)


def behind(kinesis: Any, stream: str, committed: dict[str, str]) -> list[str]:
    """Shards that hold records which no checkpoint covers yet."""
    shards = [shard["ShardId"] for shard in _shards(kinesis, stream)]
    return [shard for shard in shards if _has_more(kinesis, stream, shard, committed.get(shard))]


def _shards(kinesis: Any, stream: str) -> Sequence[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for page in kinesis.get_paginator("list_shards").paginate(StreamName=stream):
        found += page["Shards"]
    return found


def _has_more(kinesis: Any, stream: str, shard: str, checkpoint: str | None) -> bool:
    if checkpoint == "SHARD_END":
        return False
    where: dict[str, Any] = {"ShardIteratorType": "TRIM_HORIZON"}
    sequence = (checkpoint or "").partition(".")[0]
    if sequence.isdigit():
        where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": sequence}
    iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, **where)["ShardIterator"]
    page = kinesis.get_records(ShardIterator=iterator, Limit=1)
    # A closed shard that is read to its end, but not yet committed as ended, has its SHARD_END to come.
    return bool(page["Records"]) or page.get("NextShardIterator") is None
