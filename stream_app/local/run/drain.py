"""What a run has not processed yet: messages in queues, and shards whose last record is not checkpointed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_sqs import SQSClient

_VISIBLE: Final = "ApproximateNumberOfMessages"
_NOT_VISIBLE: Final = "ApproximateNumberOfMessagesNotVisible"


class Depth(NamedTuple):
    """The numbers of visible and of in-flight messages of a queue."""

    visible: int
    in_flight: int

    @property
    def total(self) -> int:
        """All messages."""
        return sum(self)


class Remaining(NamedTuple):
    """Outstanding work: messages by queue, and shards that are not committed to their end.

    `others` are queues that need not become empty, such as the one for manual review.
    """

    queues: Mapping[str, Depth]
    shards: Sequence[str]
    others: Mapping[str, Depth] = MappingProxyType({})

    @property
    def is_drained(self) -> bool:
        """Whether no work is outstanding."""
        return not self.shards and not any(depth.total for depth in self.queues.values())

    def __str__(self) -> str:
        parts = [
            f"queue {name} ({depth.visible} visible, {depth.in_flight} in flight)"
            for name, depth in self.queues.items()
            if depth.total
        ]
        parts += [f"shard {shard} (not committed to its end)" for shard in self.shards]
        return ", ".join(parts) or "nothing"


def depth(sqs: SQSClient, url: str) -> Depth:
    """Return the numbers of visible and in-flight messages of a queue."""
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[_VISIBLE, _NOT_VISIBLE])["Attributes"]
    return Depth(int(attributes[_VISIBLE]), int(attributes[_NOT_VISIBLE]))


def queued(sqs: SQSClient, url: str) -> int:
    """Return the number of messages in a queue, including those in flight."""
    return depth(sqs, url).total


def uncommitted_shards(kinesis: KinesisClient, stream: str, committed: Mapping[str, str]) -> list[str]:
    """Return the shards with records after their checkpoint. `committed` is the checkpoint by shard."""
    pages = kinesis.get_paginator("list_shards").paginate(StreamName=stream)
    shards = [shard["ShardId"] for page in pages for shard in page["Shards"]]
    return [shard for shard in shards if _has_more(kinesis, stream, shard, committed.get(shard))]


def _has_more(kinesis: KinesisClient, stream: str, shard: str, checkpoint: str | None) -> bool:
    if checkpoint == "SHARD_END":
        return False
    iterator = _iterator_after(kinesis, stream, shard, checkpoint)
    page = kinesis.get_records(ShardIterator=iterator, Limit=1)
    # A closed shard without further records still needs its SHARD_END checkpoint.
    return bool(page["Records"]) or page.get("NextShardIterator") is None


def _iterator_after(kinesis: KinesisClient, stream: str, shard: str, checkpoint: str | None) -> str:
    sequence = (checkpoint or "").partition(".")[0]
    if not sequence.isdigit():
        start = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    else:
        start = kinesis.get_shard_iterator(
            StreamName=stream,
            ShardId=shard,
            ShardIteratorType="AFTER_SEQUENCE_NUMBER",
            StartingSequenceNumber=sequence,
        )
    return start["ShardIterator"]
