"""A pipe with a stream source: order, retries, bisection, and dead letters with metadata only."""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.aws.retry import Policy
from stream_app.local.pipes.counters import Counters
from stream_app.local.pipes.patterns import compile_filters
from stream_app.local.pipes.pipe_route import PipeRoute
from stream_app.local.pipes.stream_pipe import StreamPipe, StreamSettings, StreamSource, dead_letter
from stream_app.local.pipes.stream_reader import StreamReader

Clients = Callable[[str], Any]
NOW = 1_700_000_000.0
SOURCE = StreamSource("arn:stream", "arn:role", "us-east-1")


class RejectingTarget:
    """A target that rejects a whole batch if one of its records begins with "bad"."""

    max_batch = 500

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.tries: dict[str, int] = {}

    def prepare(self, seen: Mapping[str, Any], data: bytes) -> Any:
        return data.decode()

    def send(self, entries: Sequence[Any]) -> list[int]:
        for entry in entries:
            self.tries[entry] = self.tries.get(entry, 0) + 1
        if any(entry.startswith("bad") for entry in entries):
            return list(range(len(entries)))
        self.taken += entries
        return []


class RecordingSqs:
    """An SQS client that keeps the messages sent."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    def send_message(self, QueueUrl: str, MessageBody: str) -> None:
        assert QueueUrl == "url"
        self.bodies.append(json.loads(MessageBody))


def record(n: int, data: str, age: float = 0.0) -> dict[str, Any]:
    return {
        "PartitionKey": "d",
        "SequenceNumber": str(n),
        "Data": data.encode(),
        "ApproximateArrivalTimestamp": datetime.fromtimestamp(NOW - age, UTC),
    }


def route(target: Any) -> PipeRoute:
    return PipeRoute(
        name="p",
        arn="arn:pipe",
        payload="data",
        body=lambda raw: b"",
        matches=compile_filters([]),
        transform=lambda raw, seen: base64.b64decode(str(raw["data"])),
        target=target,
    )


def delivered(
    records: list[dict[str, Any]], settings: StreamSettings
) -> tuple[RejectingTarget, list[dict[str, Any]], dict[str, int]]:
    target, messages, counters = RejectingTarget(), RecordingSqs(), Counters()
    sqs: Any = messages
    policy = Policy(base_ms=0, cap_ms=0)
    pipe = StreamPipe(
        route(target), settings, SOURCE, sqs, counters, now=lambda: NOW, rng=random.Random(1), policy=policy
    )
    pipe.deliver("shardId-000000000000", records, threading.Event())
    return target, messages.bodies, counters.snapshot()


RECORDS = st.lists(st.booleans(), max_size=40).map(
    lambda bad: [record(n, f"{'bad' if is_bad else 'good'}-{n}") for n, is_bad in enumerate(bad)]
)


@given(RECORDS, st.integers(1, 9), st.integers(0, 3))
def test_bisection_dead_letters_only_the_failing_records(
    records: list[dict[str, Any]], batch: int, attempts: int
) -> None:
    settings = StreamSettings(batch=batch, attempts=attempts, bisect=True, dead_letters="url")
    target, messages, counts = delivered(records, settings)
    good = [r["Data"].decode() for r in records if r["Data"].startswith(b"good")]
    bad = [r["SequenceNumber"] for r in records if r["Data"].startswith(b"bad")]
    assert target.taken == good
    assert [message["KinesisBatchInfo"]["startSequenceNumber"] for message in messages] == bad
    assert all(message["KinesisBatchInfo"]["batchSize"] == 1 for message in messages)
    assert (counts["received"], counts["delivered"], counts["dead_lettered"]) == (
        len(records),
        len(good),
        len(bad),
    )


@given(RECORDS, st.integers(1, 9), st.integers(0, 3))
def test_without_bisection_the_whole_batch_is_dead_lettered(
    records: list[dict[str, Any]], batch: int, attempts: int
) -> None:
    target, messages, counts = delivered(
        records, StreamSettings(batch=batch, attempts=attempts, dead_letters="url")
    )
    parts = [records[start : start + batch] for start in range(0, len(records), batch)]
    bad = [part for part in parts if any(r["Data"].startswith(b"bad") for r in part)]
    assert [message["KinesisBatchInfo"]["batchSize"] for message in messages] == [len(part) for part in bad]
    assert all(target.tries[r["Data"].decode()] == attempts + 1 for part in bad for r in part)
    assert counts["delivered"] + counts["dead_lettered"] == len(records)


@given(st.lists(st.booleans(), max_size=30))
def test_a_record_older_than_the_maximum_age_is_not_sent(old: list[bool]) -> None:
    records = [record(n, f"good-{n}", age=101 if is_old else 99) for n, is_old in enumerate(old)]
    target, messages, _ = delivered(records, StreamSettings(max_age_seconds=100, dead_letters="url"))
    assert target.taken == [f"good-{n}" for n, is_old in enumerate(old) if not is_old]
    assert sum(message["KinesisBatchInfo"]["batchSize"] for message in messages) == sum(old)
    assert all(message["context"]["condition"] == "RecordAgeExceeded" for message in messages)


def test_without_a_dead_letter_queue_failed_records_are_counted() -> None:
    _, messages, counts = delivered([record(1, "bad")], StreamSettings(attempts=0))
    assert (messages, counts["dead_lettered"]) == ([], 1)


def test_the_dead_letter_has_the_form_of_pipes() -> None:
    batch = [record(7, "secret payload", age=2.5), record(9, "secret payload", age=1)]
    text = dead_letter("arn:pipe", "arn:stream", "shardId-000000000003", batch, "RetryAttemptsExhausted", NOW)
    assert "secret" not in text
    assert json.loads(text) == {
        "context": {"partnerResourceArn": "arn:pipe", "condition": "RetryAttemptsExhausted"},
        "version": "1.0",
        "timestamp": "2023-11-14T22:13:20.000Z",
        "KinesisBatchInfo": {
            "shardId": "shardId-000000000003",
            "startSequenceNumber": "7",
            "endSequenceNumber": "9",
            "approximateArrivalOfFirstRecord": "2023-11-14T22:13:17.500Z",
            "approximateArrivalOfLastRecord": "2023-11-14T22:13:19.000Z",
            "batchSize": 2,
            "streamArn": "arn:stream",
        },
    }


def test_child_shards_are_read_after_their_parents(clients: Clients) -> None:
    kinesis = clients("kinesis")
    kinesis.create_stream(StreamName="s", ShardCount=1)
    arn = kinesis.describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["StreamARN"]
    for n in range(30):
        kinesis.put_record(StreamName="s", Data=str(n).encode(), PartitionKey=f"k{n}")
    [shard] = kinesis.list_shards(StreamName="s")["Shards"]
    kinesis.split_shard(StreamName="s", ShardToSplit=shard["ShardId"], NewStartingHashKey=str(2**127))
    for n in range(30, 60):
        kinesis.put_record(StreamName="s", Data=str(n).encode(), PartitionKey=f"k{n}")
    stop, lock = threading.Event(), threading.Lock()
    taken: list[tuple[str, int]] = []

    def take(name: str, records: Sequence[Mapping[str, Any]], _: threading.Event) -> None:
        with lock:
            taken.extend((name, int(r["Data"])) for r in records)
            if len(taken) == 60:
                stop.set()

    [loop] = StreamReader(kinesis, arn, {"ShardIteratorType": "TRIM_HORIZON"}, take).loops
    loop(stop)
    assert [n for _, n in taken[:30]] == list(range(30))
    assert sorted(n for _, n in taken) == list(range(60))
    for name in {name for name, _ in taken}:
        mine = [n for shard_name, n in taken if shard_name == name]
        assert mine == sorted(mine)


def test_a_permanent_reader_failure_is_raised(clients: Clients) -> None:
    clients("kinesis").create_stream(StreamName="s", ShardCount=2)
    arn = clients("kinesis").describe_stream_summary(StreamName="s")["StreamDescriptionSummary"]["StreamARN"]
    clients("kinesis").put_record(StreamName="s", Data=b"x", PartitionKey="k")

    def take(*_: Any) -> None:
        raise ZeroDivisionError

    [loop] = StreamReader(clients("kinesis"), arn, {"ShardIteratorType": "TRIM_HORIZON"}, take).loops
    with pytest.raises(ZeroDivisionError):
        loop(threading.Event())
