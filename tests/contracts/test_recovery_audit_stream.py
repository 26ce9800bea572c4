"""The audit of a changing stream: trimmed records, expired shards, aggregates, later records."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

from aws_kinesis_agg.aggregator import RecordAggregator
from rich.console import Console

from stream_app.cli.views.audit import show
from stream_app.model.record import Record
from stream_app.model.segment import Segment
from stream_app.recovery.stream.read import shards
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


def test_expired_records_are_trimmed_and_the_rest_balances(
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


def test_a_shard_removed_from_the_stream_is_trimmed(kinesis: Any, s3: Any, done: list[Segment]) -> None:
    gone = dataclasses.replace(done[0], shard="shardId-000000000099")
    consume(kinesis, s3, [gone])
    result = run(kinesis, s3)
    assert result.balanced
    assert result.total.trimmed == len(gone.passed["parcel"])


def test_a_position_not_in_the_stream_is_unknown_and_later_ones_are_ignored(
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


def test_aggregates_are_audited_by_sub_sequence_number_and_misrouted_ones_are_reported(
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


def test_an_empty_stream_balances(aws: Callable[[str], Any], s3: Any) -> None:
    kinesis = aws("kinesis")
    kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    result = run(kinesis, s3)
    assert result.balanced
    assert result.total.accepted == 0


def aggregate_of(explicit: Sequence[str]) -> bytes:
    packed = RecordAggregator()
    for hash_key in explicit:
        packed.add_user_record("k", b"0", hash_key)
    content: bytes = packed.clear_and_get().get_contents()[2]
    return content


def test_records_dropped_by_kcl_after_an_invalid_hash_key_are_reported(kinesis: Any, s3: Any) -> None:
    low, _ = shards(kinesis, STREAM)
    good = str(low.first_hash)
    sequences = [
        kinesis.put_record(
            StreamName=STREAM, Data=aggregate_of(keys), PartitionKey="k", ExplicitHashKey=good
        )["SequenceNumber"]
        for keys in ((good, "undefined", good), ("undefined", good), (good, good), ("9" * 4_301, good))
    ]
    consume(kinesis, s3, list(cut(kinesis, size=4)))
    result = run(kinesis, s3)
    assert not result.balanced
    total = result.total
    assert (total.accepted, total.dropped, total.missing, total.misrouted) == (60 + 9, 2 + 2, 2, 2)
    (shard,) = [one for one in result.shards if one.shard == low.id]
    assert shard.dropped == (f"{sequences[0]}.1", f"{sequences[0]}.2", sequences[1], f"{sequences[1]}.1")
    # A hash key of 4,301 digits is a number to KCL, and outside of every shard's range.
    assert shard.missing == (sequences[3], f"{sequences[3]}.1")
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(show(result, 20))
    text = console.export_text()
    assert f"dropped by KCL: {low.id}/{sequences[0]}.1" in text
    assert "4 records are dropped by KCL" in text
    assert "2 of the missing are dropped by KCL" in text
    assert "NOT balanced" in text
