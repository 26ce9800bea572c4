"""Invariants of a segment, and the order of sinks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import FatalError
from stream_app.model.record import Batch, Code, Failure, Position, Record
from stream_app.model.segment import Segment, position_from_token, store, token, utc_datetime

SHARD = "shardId-000000000003"
BASE = 49_600_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000
ARRIVED = 1_480_550_400_000  # 2016-12-01T00:00:00Z
PLACES = ("air_quality", "parcel", "failed", "repeated")


def record(at: int, data: bytes = b"{}", key: str = "Dongsi", sub: int = 0) -> Record:
    return Record(data, key, str(BASE + at), ARRIVED + at, sub)


def batch(event: str, rows: Sequence[int], values: Sequence[float] | None = None) -> Batch:
    """Rows with a column of every kind that a pipeline makes."""
    n = len(rows)
    pm25 = np.array(list(values) if values is not None else [float(row) for row in rows], dtype=np.float64)
    columns = {
        "id": np.array([f"Dongsi/{row}" for row in rows], dtype=object),
        "station": np.array([f"S{row % 3}" for row in rows], dtype=object),
        "time": np.array([ARRIVED - 3_600_000 + row for row in rows], dtype="datetime64[ms]"),
        "pm25": pm25,
        "wind": np.array([None if row % 2 else "NW" for row in rows], dtype=object),
        "arrived": np.array([ARRIVED + row for row in rows], dtype="datetime64[ms]"),
        "window.pm25": np.zeros((n, 4)),
        "previous.pm25": pm25,
        "score": np.abs(pm25),
        "anomaly": pm25 > 10,
        "aqi": np.array(rows, dtype=np.int64),
    }
    return Batch(event, columns, np.array(rows, dtype=np.int64))


def segment(places: Sequence[str], start: int = 0, consumer: str = "air") -> Segment:
    """A segment whose row i went to `places[i]`; codes of the failed ones vary."""
    rows = {place: [at for at, chosen in enumerate(places) if chosen == place] for place in PLACES}
    codes = list(Code)
    return Segment(
        consumer=consumer,
        stream="devices",
        shard=SHARD,
        records=[record(start + at) for at in range(len(places))],
        passed={event: batch(event, rows[event]) for event in PLACES[:2] if rows[event]},
        failed=[
            Failure(row, "verify", codes[row % 3], "pm25 is not negative", "air_quality", "ab" * 8)
            for row in rows["failed"]
        ],
        repeated=np.array(rows["repeated"], dtype=np.int64),
    )


segments = st.lists(st.sampled_from(PLACES), min_size=1, max_size=30).map(segment)


@given(segments)
def test_a_segment_that_accounts_for_all_rows_passes_the_check(one: Segment) -> None:
    one.check()
    assert (one.first, one.last) == (one.records[0].position(SHARD), one.records[-1].position(SHARD))


@given(segments, st.data())
def test_a_missing_or_duplicate_row_is_named(one: Segment, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(one.records) - 1))
    doubled = dataclasses.replace(one, repeated=np.append(one.repeated, row))
    more = dataclasses.replace(one, records=[*one.records, record(len(one.records))])
    for wrong, named in ((doubled, row), (more, len(one.records))):
        with pytest.raises(FatalError, match=rf"\[{named}\]"):
            wrong.check()


def test_a_row_outside_the_records_is_named() -> None:
    with pytest.raises(FatalError, match=r"\[7\]"):
        dataclasses.replace(segment(["failed"]), repeated=np.array([7])).check()


@given(st.integers(0, 10**56), st.integers(0, 10_000))
def test_a_token_encodes_the_position(sequence: int, sub: int) -> None:
    position = Position(SHARD, str(sequence), sub)
    assert position_from_token(SHARD, token(position)) == position


@pytest.mark.parametrize("text", ["", "x", "1.", "-1", "1.x", "١", "1.-2", "SHARD_END"])
def test_an_invalid_token_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a position"):
        position_from_token(SHARD, text)


def test_the_name_has_shard_first_sequence_and_sub_sequence_number() -> None:
    whole = segment(["failed", "failed"])
    assert whole.name == f"{SHARD}-{BASE}"
    cut = dataclasses.replace(whole, records=[record(0, sub=2), record(1)])
    assert cut.name == f"{SHARD}-{BASE}.2"


@given(st.integers(0, 4_000_000_000_000))
def test_instants_are_exact_to_the_millisecond(milliseconds: int) -> None:
    assert utc_datetime(milliseconds) - datetime(1970, 1, 1, tzinfo=UTC) == timedelta(
        milliseconds=milliseconds
    )


class Rejecting:
    """A sink that rejects some rows and remembers what it was given."""

    def __init__(self, rows: Sequence[int]) -> None:
        self.rows = set(rows)
        self.given: list[int] = []

    def write(self, one: Segment) -> Sequence[Failure]:
        self.given = sorted(row for part in one.passed.values() for row in part.rows.tolist())
        return [Failure(r, "sink", Code.SINK_REJECTED, "too large") for r in self.given if r in self.rows]

    def close(self) -> None: ...


@given(segments, st.sets(st.integers(0, 29)), st.sets(st.integers(0, 29)))
def test_a_rejected_row_is_parked_and_not_given_to_later_sinks(
    one: Segment, first: set[int], second: set[int]
) -> None:
    sinks = [Rejecting(sorted(first)), Rejecting(sorted(second)), Rejecting([])]
    after = store(one, sinks)
    passed = {row for part in one.passed.values() for row in part.rows.tolist()}
    assert sinks[0].given == sorted(passed)
    assert sinks[2].given == sorted(passed - first - second)
    rejected = {f.row for f in after.failed if f.code is Code.SINK_REJECTED and f.stage == "sink"}
    assert rejected == passed & (first | second)
    assert [f.row for f in after.failed] == sorted(f.row for f in after.failed)
    after.check()
