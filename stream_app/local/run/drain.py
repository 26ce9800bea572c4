"""Whether everything that was sent has come to rest: queues empty, every shard committed to its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

Client = Callable[[str], Any]
_COUNTS = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")


class Depth(NamedTuple):
    """How many messages of a queue can be received, and how many were, or are hidden until later."""

    visible: int
    in_flight: int

    @property
    def total(self) -> int:
        """All of its messages."""
        return sum(self)


class Remaining(NamedTuple):
    """What is still to be done: messages by queue, and shards that are not committed to their end.

    `others` are queues that need not be empty, such as those that people read.
    """

    queues: Mapping[str, Depth]
    shards: Sequence[str]
    others: Mapping[str, Depth] = MappingProxyType({})

    @property
    def at_rest(self) -> bool:
        """Whether nothing is left."""
        return not self.shards and not any(depth.total for depth in self.queues.values())

    def __str__(self) -> str:
        told = [
            f"queue {name} ({depth.visible} visible, {depth.in_flight} in flight)"
            for name, depth in self.queues.items()
            if depth.total
        ]
        told += [f"shard {shard} (not committed to its end)" for shard in self.shards]
        return ", ".join(told) or "nothing"


def depth(sqs: Any, url: str) -> Depth:
    """How many messages a queue has."""
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(_COUNTS))
    return Depth(*(int(answer["Attributes"][name]) for name in _COUNTS))


def queued(sqs: Any, url: str) -> int:
    """Messages in a queue, those in flight included."""
    return depth(sqs, url).total


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
