"""A shard's consumer: its effects for each KCL action."""

from __future__ import annotations

import gzip
import itertools
import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from stream_app.consumer import checkpoint_schedule
from stream_app.consumer import shard as shard_module
from stream_app.consumer.snapshots import SHARD_END, Lineage
from stream_app.errors import FatalError
from stream_app.model.record import Record
from stream_app.model.segment import token
from stream_app.telemetry.histogram import Histogram
from stream_app.testing import record
from tests.kcl import Kcl, Step, steps
from tests.samples import START, as_json, registry, shards
from tests.support import SHARD, Effect, Stores, entries_of

REGISTRY = registry()
MARGIN = 100


def reading(at: int, arrived: int = START, event: str = "reading", **fields: Any) -> Record:
    data = as_json(event, {"device": "a", "id": str(at), "time": START, "value": 1.0, **fields})
    return record(data, at, key="a", arrived=arrived)


def shard(*records: Record, now_ms: int = START, **values: Any) -> Kcl:
    """A consumer of these records; segments of two seconds, nothing is committed for a day."""
    defaults = {"segment_records": 99, "checkpoint_seconds": 86_400, **values}
    return Kcl(Stores(now_ms=now_ms), REGISTRY, records, defaults)


def segments(kcl: Kcl) -> list[list[str]]:
    return [list(rows) for rows in kcl.stores.stored.values()]


def positions(*records: Record) -> list[str]:
    return [token(item.position(SHARD)) for item in records]


def kinds(kcl: Kcl) -> list[str]:
    return [effect.kind for effect in kcl.stores.log]


# ---- The clock


@pytest.mark.parametrize("wait", [1, 1_999, 2_000, 2_000 + MARGIN - 1])
def test_a_tick_before_the_bucket_has_passed_closes_nothing(wait: int) -> None:
    kcl = shard(reading(0))
    kcl.arrive(1)
    kcl.deliver(1)
    kcl.tick(wait)
    assert kinds(kcl) == []


def test_a_tick_after_the_bucket_has_passed_closes_the_segment_and_commits_it_at_once() -> None:
    kcl = shard(reading(0), reading(1))
    kcl.arrive(2)
    kcl.deliver(2)
    kcl.tick(2_000 + MARGIN)
    assert kinds(kcl) == ["sink 1", "sink 2", "state", "checkpoint"]
    assert kcl.committed == [(kcl.records[1].sequence_number, 0)]
    kcl.tick(5_000)
    assert len(kinds(kcl)) == 4  # nothing is open any more


@pytest.mark.parametrize("behind", [1, 60_000, None])
def test_a_tick_of_a_consumer_that_is_behind_closes_nothing(behind: int | None) -> None:
    kcl = shard(reading(0))
    kcl.arrive(1)
    kcl.deliver(1)
    kcl.stores.now_ms += 60_000
    kcl.consumer.process([], behind, kcl)
    assert kinds(kcl) == []


def test_a_call_with_records_is_not_a_tick() -> None:
    kcl = shard(reading(0), reading(1))
    kcl.arrive(2)
    kcl.deliver(1)
    kcl.stores.now_ms += 60_000
    kcl.deliver(1)
    assert kinds(kcl) == []


def test_closed_segments_are_committed_with_the_one_the_clock_closes() -> None:
    kcl = shard(*(reading(at) for at in range(3)), segment_records=2)
    kcl.arrive(3)
    kcl.deliver(3)
    kcl.tick(2_000 + MARGIN)
    assert kinds(kcl) == ["sink 1", "sink 2", "sink 1", "sink 2", "state", "checkpoint"]
    assert kcl.committed == [(kcl.records[2].sequence_number, 0)]


# ---- Segments and checkpoints


def test_a_record_of_a_later_bucket_ends_the_segment_before_it() -> None:
    records = reading(0), reading(1), reading(2, START + 2_000), reading(3, START + 1)
    kcl = shard(*records)
    kcl.finish()
    assert segments(kcl) == [positions(*records[:2]), positions(*records[2:])]


@pytest.mark.parametrize("segment_bytes", [1, 300, 2**30])
@given(records=shards(), what=steps)
def test_segments_do_not_depend_on_how_records_are_batched(
    records: list[Record], what: list[Step], segment_bytes: int
) -> None:
    calm = Kcl(Stores(), REGISTRY, records, {"segment_bytes": segment_bytes})
    calm.finish()
    kcl = Kcl(Stores(), REGISTRY, records, {"clock_margin_ms": 10**9, "segment_bytes": segment_bytes})
    for step in what:
        kcl.act(step)
    kcl.finish()
    assert segments(kcl) == segments(calm)
    assert kcl.stores.stored == calm.stores.stored


def packed(at: int, size: int) -> Record:
    """A few hundred bytes of gzip that are a reading of some `size` bytes."""
    fields = {"event": "reading", "device": "a", "id": str(at), "time": START, "note": "x" * size}
    return record(gzip.compress(json.dumps(fields).encode(), mtime=0), at, key="a", arrived=START)


def test_a_segment_ends_with_the_record_that_reaches_the_decompressed_byte_limit() -> None:
    records = [packed(at, 3_000) if at % 2 else reading(at) for at in range(9)]
    kcl = shard(*records, segment_bytes=6_000)
    kcl.finish()
    assert segments(kcl) == [positions(*records[:4]), positions(*records[4:8]), positions(records[8])]


def test_a_batch_with_a_large_decompressed_size_is_processed_in_parts() -> None:
    size, count, limit = 200_000, 300, shard_module.BATCH_BYTES
    records = [packed(at, size) for at in range(count)]
    assert sum(len(item.data) for item in records) < 300 * count
    kcl = shard(*records, segment_records=count, max_record_bytes=262_144)
    kcl.arrive(count)
    kcl.deliver(count)
    processed = [summary.records for summary in kcl.stores.summaries]
    assert sum(processed) == count
    assert max(processed) <= limit // size
    assert len(processed) == -(-count // (limit // (size + 70)))
    assert {fate[0] for fate in kcl.stores.by_position().values()} == {"passed"}


def test_uncompressed_records_are_processed_in_one_part() -> None:
    records = [reading(at, note="x" * 400) for at in range(600)]
    kcl = shard(*records, segment_records=600)
    kcl.arrive(600)
    kcl.deliver(600)
    assert [summary.records for summary in kcl.stores.summaries] == [600]


def test_a_checkpoint_is_made_when_due_and_a_segment_was_closed() -> None:
    kcl = shard(*(reading(at) for at in range(7)), segment_records=2, checkpoint_seconds=60)
    kcl.arrive(7)
    kcl.deliver(2)
    assert kcl.committed == []
    kcl.stores.now_ms += 59_999
    kcl.deliver(1)
    assert kcl.committed == []
    kcl.stores.now_ms += 1
    kcl.consumer.process([], 1_000, kcl)
    # The segment that is open is not part of it, though its first record was read.
    assert kcl.committed == [(kcl.records[1].sequence_number, 0)]
    kcl.stores.now_ms += 59_999
    kcl.deliver(3)
    assert len(kcl.committed) == 1
    kcl.stores.now_ms += 1
    kcl.consumer.process([], 1_000, kcl)
    assert kcl.committed[1:] == [(kcl.records[5].sequence_number, 0)]
    kcl.stores.now_ms += 600_000
    kcl.consumer.process([], 1_000, kcl)
    assert len(kcl.committed) == 2


def test_the_state_committed_is_that_at_the_end_of_the_segment() -> None:
    kcl = shard(*(reading(at, value=float(at)) for at in range(4)), segment_records=2, checkpoint_seconds=1)
    kcl.arrive(4)
    kcl.stores.now_ms += 1_000
    kcl.deliver(3)
    half = shard(*kcl.records[:2])
    half.finish()
    name = positions(kcl.records[1])[0]
    assert entries_of(kcl.stores.snapshots[SHARD, name]) == entries_of(
        half.stores.snapshots[SHARD, SHARD_END]
    )


def test_the_last_two_snapshots_are_kept_and_older_ones_deleted_after_the_checkpoint() -> None:
    kcl = shard(*(reading(at) for at in range(5)), segment_records=1, checkpoint_seconds=1)
    kcl.arrive(5)
    for _ in range(5):
        kcl.stores.now_ms += 1_000
        kcl.deliver(1)
    names = positions(*kcl.records)
    assert [name for _, name in kcl.stores.snapshots] == names[3:]
    at = kcl.stores.log.index(Effect("forget", names[0]))
    assert kcl.stores.log[at - 1] == Effect("checkpoint", names[2])
    kcl.start()
    kcl.consumer.shard_ended(kcl)
    assert [name for _, name in kcl.stores.snapshots] == [*names[3:], SHARD_END]


def test_slow_snapshots_take_at_most_a_fortieth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 0.5)
    monkeypatch.setattr(time, "thread_time", lambda: next(clock))
    monkeypatch.setattr(checkpoint_schedule, "_SMALL_STATE", 0)
    kcl = shard(*(reading(at) for at in range(90)), segment_records=1, checkpoint_seconds=2)
    kcl.arrive(90)
    committed = []
    for second in range(90):
        kcl.stores.now_ms += 1_000
        before = len(kcl.committed)
        kcl.deliver(1)
        committed += [second] * (len(kcl.committed) - before)
    # The first says how long it takes, half a second and half a second to keep it.
    assert committed == [0, 40, 80]


def test_a_snapshot_of_a_parent_is_never_deleted() -> None:
    kcl = shard(*(reading(at) for at in range(4)), segment_records=1, checkpoint_seconds=1)
    kcl.stores.snapshots["parent", SHARD_END] = kcl.consumer._state.snapshot()
    kcl.stores.lineages[SHARD] = Lineage(("parent",), 0, 2**128 - 1)
    kcl.start()
    kcl.finish()
    assert ("parent", SHARD_END) in kcl.stores.snapshots


# ---- The end


def test_a_shutdown_commits_closed_segments_only_and_the_open_one_is_read_again() -> None:
    kcl = shard(*(reading(at) for at in range(5)), segment_records=2)
    kcl.arrive(5)
    kcl.deliver(5)
    kcl.shut_down()
    assert kcl.committed == [(kcl.records[3].sequence_number, 0)]
    kcl.start()
    assert kcl.at == 4
    kcl.finish()
    assert segments(kcl) == [positions(*kcl.records[at : at + 2]) for at in (0, 2, 4)]


def test_a_shutdown_with_nothing_closed_commits_nothing() -> None:
    kcl = shard(reading(0))
    kcl.arrive(1)
    kcl.deliver(1)
    kcl.shut_down()
    assert kinds(kcl) == []


def test_shard_end_closes_the_open_segment_saves_the_state_and_commits() -> None:
    kcl = shard(reading(0), reading(1))
    kcl.finish()
    assert kinds(kcl) == ["sink 1", "sink 2", "state", "checkpoint"]
    assert kcl.committed == [(None, None)]
    assert list(kcl.stores.snapshots) == [(SHARD, SHARD_END)]


def test_the_end_of_an_empty_shard_leaves_its_parents_state_to_its_children() -> None:
    parent = shard(reading(0))
    parent.finish()
    child = shard()
    child.stores.snapshots["parent", SHARD_END] = parent.stores.snapshots[SHARD, SHARD_END]
    child.stores.lineages[SHARD] = Lineage(("parent",), 0, 2**128 - 1)
    child.start()
    child.finish()
    assert child.stores.snapshots[SHARD, SHARD_END] == parent.stores.snapshots[SHARD, SHARD_END]


def test_after_a_lost_lease_there_are_no_effects() -> None:
    kcl = shard(*(reading(at) for at in range(4)), segment_records=2)
    kcl.arrive(4)
    kcl.deliver(3)
    log = list(kcl.stores.log)
    kcl.consumer.lease_lost()
    kcl.deliver(1)
    kcl.tick(60_000)
    kcl.shut_down()
    kcl.consumer.shard_ended(kcl)
    assert kcl.stores.log == log
    assert kcl.committed == []


# ---- The beginning


def test_a_checkpoint_without_a_snapshot_is_fatal_unless_fresh_state_is_allowed() -> None:
    kcl = shard(*(reading(at) for at in range(4)), segment_records=2)
    kcl.arrive(4)
    kcl.deliver(2)
    kcl.shut_down()
    kcl.stores.snapshots.clear()
    with pytest.raises(FatalError, match="no state snapshot"):
        kcl.start()
    kcl.values["missing_state"] = "fresh"
    kcl.start()
    assert kcl.stores.notes[-1] == (
        "initialized",
        {"checkpoint": kcl.records[1].sequence_number, "state": "fresh"},
    )


# ---- Alerts and summaries


def test_alerts_are_sent_before_their_segment_closes() -> None:
    kcl = shard(*(reading(at, value=90.0 if at == 3 else 1.0) for at in range(4)))
    kcl.arrive(4)
    kcl.deliver(4)
    assert kcl.stores.alerts == [str(kcl.records[3].position(SHARD))]
    assert kinds(kcl) == []


def test_a_summary_accounts_for_every_record() -> None:
    records = [
        reading(0, sent_at=START - 250),
        reading(0),
        reading(1, value=101),
        reading(2, event="step"),
        record(b"broken", 3, arrived=START),
    ]
    kcl = shard(*records)
    kcl.arrive(5)
    kcl.deliver(5)
    (summary,) = kcl.stores.summaries
    assert (summary.records, summary.stored, summary.repeated) == (5, 2, 1)
    assert summary.failed == {"RULE_BROKEN": 1, "UNDECODABLE": 1}
    assert (summary.shard, summary.behind_ms, summary.anomalies) == (SHARD, 0, 0)
    assert summary.busy_ms > 0
    assert Histogram(summary.latency).percentile(1) == pytest.approx(250, rel=0.02)
    json.dumps(summary.to_json())


def test_a_failing_metric_does_not_stop_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OverflowError("a latency that cannot be counted")

    monkeypatch.setattr(Histogram, "add", fail)
    kcl = shard(*(reading(at, sent_at=START) for at in range(3)))
    kcl.arrive(3)
    kcl.deliver(3)
    kcl.tick(2_000 + MARGIN)
    assert kcl.committed == [(kcl.records[2].sequence_number, 0)]
    assert kcl.stores.summaries == []
    ((_, told),) = [note for note in kcl.stores.notes if note[0] == "report failed"]
    assert told["records"] == 3


@given(shards(), steps)
def test_summaries_count_every_record_that_was_read_once(records: list[Record], what: list[Step]) -> None:
    kcl = Kcl(Stores(), REGISTRY, records)
    for step in what:
        kcl.act(step)
    kcl.finish()
    total = sum(s.stored + s.repeated + sum(s.failed.values()) for s in kcl.stores.summaries)
    assert total == sum(s.records for s in kcl.stores.summaries) == len(records)
    stored = [fate for fate in kcl.stores.by_position().values() if fate[0] == "passed"]
    assert sum(s.anomalies for s in kcl.stores.summaries) == len(kcl.stores.alerts)
    assert sum(s.anomalies for s in kcl.stores.summaries) == sum(
        bool(np.frombuffer(columns["anomaly"][1], dtype=np.bool_)[0]) for _, _, columns in stored
    )
