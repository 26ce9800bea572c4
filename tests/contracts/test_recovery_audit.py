"""The audit end to end: accepted records are accounted for, and every kind of damage is reported."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream_app.model.record import Batch, Code, Failure, Record
from stream_app.model.segment import Segment, store, token
from stream_app.recovery.audit.proof import Audit, audit
from stream_app.recovery.audit.waiting import OverdueCheck, arrived_at
from stream_app.recovery.dead_letters import messages, parse
from stream_app.recovery.hydrate.batch import HydrateDependencies, hydrate
from stream_app.recovery.store import failure_keys
from stream_app.recovery.stream.read import pages, shards, user_records
from stream_app.sinks.parquet import encode
from stream_app.sinks.s3 import ManifestSink, ParquetSink, event_key, manifest_key

BUCKET, STREAM, CONSUMER = "audited", "devices", "air"
SIZE = 7


@pytest.fixture
def kinesis(aws: Callable[[str], Any], stream: str) -> Any:
    client = aws("kinesis")
    records = [{"Data": b"%d" % at, "PartitionKey": f"station {at % 10}"} for at in range(60)]
    assert client.put_records(StreamName=stream, Records=records)["FailedRecordCount"] == 0
    return client


def read(kinesis: Any) -> dict[str, list[Record]]:
    """What a consumer is given of every shard."""
    found: dict[str, list[Record]] = {}
    for shard in shards(kinesis, STREAM):
        raw = [record for page in pages(kinesis, STREAM, shard.id) for record in page.records]
        given = [user_records(record, shard) for record in raw]
        found[shard.id] = [one for users, handed_on in given if handed_on for one in users]
    return found


def segment(shard: str, records: Sequence[Record]) -> Segment:
    """By its payload each record passes, fails or is a repeat."""
    kinds = [int(record.data or b"0") % 6 if record.data.isdigit() else 0 for record in records]
    rows = np.array([row for row, kind in enumerate(kinds) if kind < 4], dtype=np.int64)
    codes = (Code.RULE_BROKEN, Code.UNDECODABLE)
    return Segment(
        consumer=CONSUMER,
        stream=STREAM,
        shard=shard,
        records=records,
        passed={"parcel": Batch("parcel", {"n": rows}, rows)} if len(rows) else {},
        failed=[Failure(row, "verify", codes[row % 2], "no") for row, kind in enumerate(kinds) if kind == 4],
        repeated=np.array([row for row, kind in enumerate(kinds) if kind == 5], dtype=np.int64),
    )


def cut(kinesis: Any, size: int = SIZE) -> Iterator[Segment]:
    for shard, records in read(kinesis).items():
        for start in range(0, len(records), size):
            yield segment(shard, records[start : start + size])


def consume(kinesis: Any, s3: Any, segments: Sequence[Segment]) -> None:
    """What the consumer and the hydrate function do with segments."""
    for one in segments:
        after = store(one, [ParquetSink(s3, BUCKET), ManifestSink(s3, BUCKET)])
        dead_letters = [parse(message) for message in messages(after)]
        assert not hydrate(dead_letters, HydrateDependencies(kinesis, s3, BUCKET)).failed


@pytest.fixture
def done(kinesis: Any, s3: Any) -> list[Segment]:
    segments = list(cut(kinesis))
    assert len({one.shard for one in segments}) == 2
    consume(kinesis, s3, segments)
    return segments


def run(kinesis: Any, s3: Any, checkpoints: dict[str, str] | None = None) -> Audit:
    return audit(
        kinesis=kinesis, s3=s3, stream=STREAM, bucket=BUCKET, consumer=CONSUMER, checkpoints=checkpoints
    )


def faults(result: Audit) -> tuple[list[str], list[tuple[str, tuple[str, ...]]], list[str]]:
    """Every missing position, duplicate and unknown position."""
    return (
        [position for shard in result.shards for position in shard.missing],
        [(one.position, one.where) for shard in result.shards for one in shard.duplicated],
        [position for shard in result.shards for position in shard.unknown],
    )


def rows_of(one: Segment) -> list[str]:
    return [token(position) for position in one.positions(one.passed["parcel"].rows.tolist())]


def body(s3: Any, key: str) -> bytes:
    found: bytes = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return found


def test_consumed_records_balance(kinesis: Any, s3: Any, done: list[Segment]) -> None:
    seen: list[tuple[str, int]] = []
    result = audit(
        kinesis=kinesis, s3=s3, stream=STREAM, bucket=BUCKET, consumer=CONSUMER, checkpoints=None,
        progress=lambda shard, count: seen.append((shard, count)),
    )  # fmt: skip
    assert faults(result) == ([], [], [])
    assert result.balanced
    total = result.total
    assert (total.accepted, total.stored, total.repeated, sum(total.parked.values())) == (60, 40, 10, 10)
    by_code = {code: sum(f.code == code for one in done for f in one.failed) for code in total.parked}
    assert dict(total.parked) == by_code
    assert (total.pending, total.missing, total.trimmed, total.duplicated) == (0, 0, 0, 0)
    assert dict(seen) == {shard.shard: shard.count.accepted for shard in result.shards}


def test_the_audit_balances_after_a_replay(kinesis: Any, s3: Any, done: list[Segment]) -> None:
    consume(kinesis, s3, done[::-1])
    assert run(kinesis, s3) == run(kinesis, s3)
    assert run(kinesis, s3).balanced


def test_a_removed_row_is_reported_as_missing(kinesis: Any, s3: Any, done: list[Segment]) -> None:
    one = done[1]
    key = event_key(one, "parcel")
    table = pq.read_table(pa.BufferReader(body(s3, key)))
    s3.put_object(Bucket=BUCKET, Key=key, Body=encode(table.slice(1), {}))
    result = run(kinesis, s3)
    assert faults(result) == (rows_of(one)[:1], [], [])
    assert not result.balanced


def test_a_removed_file_manifest_or_failure_is_reported_as_missing(
    kinesis: Any, s3: Any, done: list[Segment]
) -> None:
    file, listed = done[0], next(one for one in done[1:] if len(one.repeated))
    parked = next(iter(failure_keys(s3, BUCKET, CONSUMER)))
    position = parked.rpartition("/")[2].split("-")[-2]
    for key in (event_key(file, "parcel"), manifest_key(listed), parked):
        s3.delete_object(Bucket=BUCKET, Key=key)
    result = run(kinesis, s3)
    repeated = [token(at) for at in listed.positions(listed.repeated.tolist())]
    assert sorted(faults(result)[0]) == sorted([*rows_of(file), *repeated, position])
    assert result.total.unhydrated == 1
    # The codes of what that manifest announced are read from the failures themselves.
    assert sum(result.total.parked.values()) == 9
    assert set(result.total.parked) <= set(Code)


@pytest.mark.parametrize(
    "name", ["date=2099-01-01/hour=00/{}", "date=2099-01-01/hour=00/copy.parquet", "elsewhere/copy.parquet"]
)
def test_a_duplicate_file_is_reported_under_any_key(
    kinesis: Any, s3: Any, done: list[Segment], name: str
) -> None:
    key = event_key(done[0], "parcel")
    copy = "events/parcel/" + name.format(key.rpartition("/")[2])
    s3.put_object(Bucket=BUCKET, Key=copy, Body=body(s3, key))
    result = run(kinesis, s3)
    missing, doubled, unknown = faults(result)
    assert (missing, unknown) == ([], [])
    assert {position: set(where) for position, where in doubled} == {
        position: {key, copy} for position in rows_of(done[0])
    }
    assert not result.balanced
    assert result.total.stored == 40


def test_overlapping_segments_are_reported(kinesis: Any, s3: Any, done: list[Segment]) -> None:
    shard = done[0].shard
    records = read(kinesis)[shard]
    other = segment(shard, records[3 : 3 + SIZE])
    consume(kinesis, s3, [other])
    missing, doubled, _ = faults(run(kinesis, s3))
    repeated = [token(at) for at in other.positions(other.repeated.tolist())]
    assert missing == []
    assert sorted(position for position, _ in doubled) == sorted(rows_of(other) + repeated)
    assert all(len(set(where)) == 2 for _, where in doubled)


def test_a_record_both_stored_and_failed_is_a_duplicate(kinesis: Any, s3: Any, done: list[Segment]) -> None:
    one = done[0]
    row = int(one.passed["parcel"].rows[0])
    wrong = dataclasses.replace(
        one, passed={}, failed=[Failure(row, "verify", Code.RULE_BROKEN, "no")], repeated=one.repeated
    )
    hydrate([parse(message) for message in messages(wrong)], HydrateDependencies(kinesis, s3, BUCKET))
    _, doubled, _ = faults(run(kinesis, s3))
    assert [(position, len(where)) for position, where in doubled] == [(rows_of(one)[0], 2)]


def test_records_are_pending_after_the_checkpoint_and_missing_before_it(kinesis: Any, s3: Any) -> None:
    by_shard: dict[str, list[Segment]] = {}
    for one in cut(kinesis):
        by_shard.setdefault(one.shard, []).append(one)
    (first, early), (_, late) = by_shard.items()
    consume(kinesis, s3, early[:2])
    everything = sum(len(one.records) for one in early + late)
    behind = sum(len(one.records) for one in early[:2])
    honest = run(kinesis, s3, {first: token(early[1].last)})
    assert honest.balanced
    assert (honest.total.pending, honest.total.missing) == (everything - behind, 0)
    ahead = run(kinesis, s3, {first: token(early[2].first)})
    assert faults(ahead)[0] == [token(early[2].first)]
    ended = run(kinesis, s3, {first: "SHARD_END"})
    assert ended.total.missing == sum(len(one.records) for one in early[2:])
    assert run(kinesis, s3).total.missing == everything - behind


def test_records_pending_beyond_the_limit_do_not_balance(kinesis: Any, s3: Any) -> None:
    read_again: list[int] = []

    def audited(later_s: float, moved: dict[str, str] | None = None) -> Audit:
        def checkpoints_after() -> dict[str, str]:
            read_again.append(1)
            return moved or {}

        return audit(
            kinesis=kinesis, s3=s3, stream=STREAM, bucket=BUCKET, consumer=CONSUMER, checkpoints={},
            overdue=OverdueCheck(
                timedelta(minutes=5), datetime.now(UTC) + timedelta(seconds=later_s), checkpoints_after
            ),
        )  # fmt: skip

    young = audited(200)
    assert young.balanced
    assert (young.total.pending, young.total.overdue, read_again) == (60, 0, [])
    stalled = audited(400)
    assert not stalled.balanced
    assert (stalled.total.pending, stalled.total.overdue, stalled.total.missing) == (60, 60, 0)
    assert len(read_again) == 1
    oldest = {shard: min(record.arrived for record in records) for shard, records in read(kinesis).items()}
    for one in stalled.shards:
        assert one.waiting is not None
        since = arrived_at(oldest[one.shard])
        assert (
            f"no consumer has read shard {one.shard} since {since}: {one.count.overdue} records"
            in one.waiting.message
        )
        assert "no segment was stored" in one.waiting.message
        assert (one.waiting.stored_at, one.waiting.checkpoint_moved) == (None, False)
    plain = json.loads(stalled.to_json())
    assert plain["balanced"] is False
    assert [one["waiting"]["oldest"] for one in plain["shards"]] == [
        arrived_at(oldest[k]) for k in sorted(oldest)
    ]
    moving, still = audited(400, {stalled.shards[0].shard: "1"}).shards
    assert moving.waiting is not None
    assert still.waiting is not None
    assert moving.waiting.message.startswith(f"the consumer of shard {moving.shard} is behind")
    assert still.waiting.message.startswith(f"no consumer has read shard {still.shard}")


def test_a_shard_without_a_consumer_is_reported_with_its_last_segment_and_checkpoint(
    kinesis: Any, s3: Any
) -> None:
    first, *_ = cut(kinesis)
    consume(kinesis, s3, [first])
    found = audit(
        kinesis=kinesis, s3=s3, stream=STREAM, bucket=BUCKET, consumer=CONSUMER,
        checkpoints={first.shard: token(first.last)},
        overdue=OverdueCheck(timedelta(minutes=5), datetime.now(UTC) + timedelta(minutes=6)),
    )  # fmt: skip
    assert not found.balanced
    (shard,) = [one for one in found.shards if one.shard == first.shard]
    assert shard.waiting is not None
    stored = s3.head_object(Bucket=BUCKET, Key=manifest_key(first))["LastModified"]
    assert datetime.fromisoformat(shard.waiting.stored_at or "") == stored
    message = shard.waiting.message
    assert message.startswith(f"no consumer has read shard {first.shard} since ")
    assert message.endswith(
        f"its checkpoint is {token(first.last)}, the last segment was stored at {shard.waiting.stored_at}"
    )


def test_objects_of_other_consumers_and_streams_are_ignored(
    kinesis: Any, s3: Any, done: list[Segment]
) -> None:
    table = pq.read_table(pa.BufferReader(body(s3, event_key(done[0], "parcel"))))
    for at, metadata in enumerate(
        ({"consumer": "other", "stream": STREAM}, {"consumer": CONSUMER, "stream": "other"})
    ):
        key = f"events/parcel/date=2099-01-01/hour=00/{done[0].shard}-{at}.parquet"
        s3.put_object(Bucket=BUCKET, Key=key, Body=encode(table, metadata))
    assert run(kinesis, s3).balanced


def test_an_unreadable_object_is_reported(kinesis: Any, s3: Any, done: list[Segment]) -> None:
    foreign = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1]}), foreign)
    wrong = {
        event_key(done[0], "parcel"): b"not parquet",
        f"events/parcel/date=2099-01-01/hour=00/{done[0].shard}-1.parquet": bytes(foreign.getvalue()),
        "events/parcel/date=2099-01-01/copy.parquet": b"",
        manifest_key(done[1]): b"{",
    }
    for key, content in wrong.items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=content)
    result = run(kinesis, s3)
    assert sorted(result.unreadable) == sorted(wrong)
    assert not result.balanced
    assert set(rows_of(done[0])) <= set(faults(result)[0])
