"""The audit beside a stream that moves on: trimmed records, forgotten shards, aggregates, later records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from aws_kinesis_agg.aggregator import RecordAggregator

from stream_app.record import Record
from stream_app.recovery.stream.read import shards
from stream_app.sinks.segment import Segment
from tests.contracts.test_recovery_audit import (
    BUCKET,
    STREAM,
    consume,
    cut,
    done,
    faults,
    kinesis,
    read,
    run,
    segment,
)

__all__ = ["BUCKET", "done", "kinesis"]


class Trimmed:
    """A stream whose records below `oldest` have left it."""

    def __init__(self, kinesis: Any, oldest: dict[str, str]) -> None:
        self._kinesis, self._oldest = kinesis, oldest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kinesis, name)

    def get_shard_iterator(self, **request: Any) -> Any:
        oldest = self._oldest.get(request["ShardId"])
        if oldest is not None and request["ShardIteratorType"] == "TRIM_HORIZON":
            request |= {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": oldest}
        return self._kinesis.get_shard_iterator(**request)


def test_what_left_the_stream_is_trimmed_and_the_rest_stays_balanced(
    kinesis: Any, s3: Any, done: list[Segment]
) -> None:
    first, second = done[:2]
    assert first.shard == second.shard
    middle = second.records[2]
    result = run(Trimmed(kinesis, {first.shard: middle.sequence_number}), s3)
    assert result.balanced
    gone = len(first.passed["parcel"]) + int((second.passed["parcel"].rows < 2).sum())
    assert result.total.trimmed == gone
    assert result.total.accepted == 60 - len(first.records) - 2


def test_a_shard_that_the_stream_has_forgotten_is_trimmed(kinesis: Any, s3: Any, done: list[Segment]) -> None:
    gone = dataclasses.replace(done[0], shard="shardId-000000000099")
    consume(kinesis, s3, [gone])
    result = run(kinesis, s3)
    assert result.balanced
    assert result.total.trimmed == len(gone.passed["parcel"])


def test_a_stored_position_that_the_stream_never_had_is_unknown_and_a_later_one_is_left_out(
    kinesis: Any, s3: Any, done: list[Segment]
) -> None:
    one = done[0]
    records = read(kinesis)[one.shard]
    for sequence, unknown in ((int(records[-1].sequence_number) + 5, 0), (_gap(records), 1)):
        strange = Record(b"0", "k", str(sequence), records[0].arrived)
        consume(kinesis, s3, [segment(one.shard, [strange])])
        assert run(kinesis, s3).total.unknown == unknown


def _gap(records: Sequence[Record]) -> int:
    """A number within a shard that it never gave."""
    numbers = {int(record.sequence_number) for record in records}
    return next(number for number in range(min(numbers), max(numbers)) if number not in numbers)


def test_aggregates_are_accounted_for_by_sub_sequence_and_misrouted_ones_are_told(
    kinesis: Any, s3: Any
) -> None:
    low, high = shards(kinesis, STREAM)
    for at, places in enumerate(((low, low, low), (high, high), (low, high))):
        packed = RecordAggregator()
        for place in places:
            packed.add_user_record("k", b"0", str(place.first_hash + at))
        content = packed.clear_and_get().get_contents()[2]
        kinesis.put_record(
            StreamName=STREAM, Data=content, PartitionKey="k", ExplicitHashKey=str(places[0].first_hash)
        )
    segments = list(cut(kinesis, size=4))
    consume(kinesis, s3, segments)
    result = run(kinesis, s3)
    assert result.total.accepted == 60 + 7
    missing, doubled, _ = faults(result)
    # KCL hands no record of the third on: the audit says so, and why.
    assert [position.partition(".")[2] for position in missing] == ["", "1"]
    assert (result.total.missing, result.total.misrouted, doubled) == (2, 2, [])


def test_an_empty_stream_is_balanced(aws: Callable[[str], Any], s3: Any) -> None:
    kinesis = aws("kinesis")
    kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    result = run(kinesis, s3)
    assert result.balanced
    assert result.total.accepted == 0
