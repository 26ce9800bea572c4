"""The result of `process` depends on the order of the records, not on how they are batched."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import ConfigError, FatalError
from stream_app.model.record import Code, Outcome, Record
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.packing import compress_state, unpack
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.testing import record
from tests.samples import (
    EVENTS,
    HOUR,
    MAX_BYTES,
    READING,
    SCHEMAS,
    START,
    as_envelope,
    as_json,
    registry,
    shards,
    splits,
)
from tests.support import RowOutcome, outcomes_of

REGISTRY = registry()


def new_state(seen_ids: int = 3) -> ShardState:
    return ShardState(EVENTS, seen_ids)


def run(records: list[Record], state: ShardState) -> dict[int, RowOutcome]:
    return outcomes_of(process(records, REGISTRY, state, MAX_BYTES))


def reading(**fields: Any) -> bytes:
    return as_json("reading", {"device": "a", "time": START, **fields})


def step(**fields: Any) -> bytes:
    return as_json("step", {"device": "a", "time": START, **fields})


def statuses_of(*payloads: bytes, seen_ids: int = 3) -> list[str]:
    """Return the status of each payload, processed in one call each."""
    state = new_state(seen_ids)
    return [run([record(payload, at)], state)[0][0] for at, payload in enumerate(payloads)]


@given(st.data())
def test_any_split_into_calls_gives_identical_results(data: st.DataObject) -> None:
    records = data.draw(shards())
    seen_ids = data.draw(st.integers(1, 5))
    state = new_state(seen_ids)
    whole = run(records, state)
    assert sorted(whole) == list(range(len(records)))

    parts: dict[int, RowOutcome] = {}
    other, start = new_state(seen_ids), 0
    for part in data.draw(splits(records)):
        if data.draw(st.booleans(), label="restart"):
            snapshot = other.snapshot()
            other = new_state(seen_ids)
            other.restore(snapshot)
        parts |= outcomes_of(process(part, REGISTRY, other, MAX_BYTES), start)
        start += len(part)
    assert parts == whole
    # Later calls give the same result too.
    assert run(records, other) == run(records, state)


@given(st.data())
def test_rows_of_events_do_not_depend_on_rows_of_other_devices(data: st.DataObject) -> None:
    records = data.draw(shards())
    both = run(records, new_state())
    for device in ("a", "b", "c"):
        mine = [at for at, item in enumerate(records) if item.partition_key == device]
        alone = run([records[at] for at in mine], new_state())
        assert [alone[at] for at in range(len(mine))] == [both[at] for at in mine]


def test_an_empty_call_changes_nothing() -> None:
    state = new_state()
    before = state.snapshot()
    result = process([], REGISTRY, state, MAX_BYTES)
    assert (dict(result.passed), list(result.failed), result.repeated.tolist()) == ({}, [], [])
    assert state.snapshot() == before


def test_only_accepted_ids_are_repeats() -> None:
    assert statuses_of(reading(id="1"), reading(id="1")) == ["passed", "repeated"]
    assert statuses_of(reading(id="1", value=101), reading(id="1")) == ["failed", "passed"]
    assert statuses_of(reading(id="1", note="calculate raises"), reading(id="1"), reading(id="1")) == [
        "failed",
        "passed",
        "repeated",
    ]
    assert statuses_of(reading(id="1", note="verify raises"), reading(id="1")) == ["failed", "passed"]
    assert statuses_of(reading(id="1", value="x"), reading(id="1")) == ["failed", "passed"]


def test_repeats_are_per_device_and_event_and_require_an_id() -> None:
    assert statuses_of(reading(id="1"), reading(id="1", device="b"), step(id="1")) == ["passed"] * 3
    assert statuses_of(reading(), reading(), reading(id=None)) == ["passed"] * 3


def test_ids_are_forgotten_after_the_configured_number_of_events_of_the_device() -> None:
    others = [reading(id=str(at)) for at in range(2, 5)]
    assert statuses_of(reading(id="1"), *others[:2], reading(id="1"))[-1] == "repeated"
    assert statuses_of(reading(id="1"), *others, reading(id="1"))[-1] == "passed"
    elsewhere = [reading(id=str(at), device="b") for at in range(2, 9)]
    assert statuses_of(reading(id="1"), *elsewhere, reading(id="1"))[-1] == "repeated"


@given(st.lists(st.sampled_from("123456789"), max_size=60), st.integers(1, 4))
def test_the_number_of_ids_per_device_is_bounded(ids: list[str], limit: int) -> None:
    state = new_state(limit)
    run([record(reading(id=name), at) for at, name in enumerate(ids)], state)
    known = unpack(compress_state(state["reading"].recent_ids.dump(1)))
    assert np.frombuffer(known["counts"], np.int64).tolist() == [len(ids)]
    assert np.frombuffer(known["lengths"], np.int64).tolist() == [min(len(ids), limit)]
    assert len(np.frombuffer(known["marks"], np.int64)) <= limit


def test_the_envelope_id_is_used_if_the_device_sent_none() -> None:
    fields = {"device": "a", "time": START}
    first = as_envelope("reading", fields, "envelope")
    assert statuses_of(first, first) == ["passed", "repeated"]
    own = as_envelope("reading", {**fields, "id": "1"}, "envelope")
    assert statuses_of(first, own, reading(id="1")) == ["passed", "passed", "repeated"]


def test_the_previous_values_are_those_of_the_last_accepted_event() -> None:
    rows = [step(value=1), step(value=500), step(value=3, note="calculate raises"), step(value=4)]
    result = process([record(row, at) for at, row in enumerate(rows)], REGISTRY, new_state(), MAX_BYTES)
    assert [failure.row for failure in result.failed] == [1, 2]
    previous = result.passed["step"]["previous.value"].tolist()
    assert math.isnan(previous[0])
    assert previous[1] == 1.0


def test_calculate_cannot_replace_a_field_of_the_record() -> None:
    event = replace(READING, calculate=lambda batch: {"value": -batch["value"]})
    with pytest.raises(ConfigError, match="returned column 'value', which is a field of the schema"):
        Registry.of([event], {"reading": [SCHEMAS["reading"]]})
    unchecked = Registry.of([event], {"reading": [SCHEMAS["reading"]]}, dry_run=False)
    rows = [record(reading(value=value), at) for at, value in enumerate((1, 2, 3))]
    result = process(rows, unchecked, ShardState({"reading": event}, 3), MAX_BYTES)
    assert not result.passed
    assert [(f.row, f.stage, f.code) for f in result.failed] == [
        (row, "calculate", Code.CALCULATION_FAILED) for row in range(3)
    ]


def test_a_window_contains_the_devices_past_with_late_readings_in_place() -> None:
    hours = [0, 2, 1, 3]
    rows = [reading(id=str(hour), time=START + hour * HOUR, value=float(hour)) for hour in hours]
    batch = process([record(r, at) for at, r in enumerate(rows)], REGISTRY, new_state(), MAX_BYTES)
    window = np.nan_to_num(batch.passed["reading"]["window.value"], nan=-1.0).tolist()
    assert window == [[0.0, -1.0, -1.0], [2.0, -1.0, 0.0], [1.0, 0.0, -1.0], [3.0, 2.0, 1.0]]


def test_failures_are_in_row_order_with_stage_code_and_reason() -> None:
    rows = [b"{", reading(value=101), step(time=None), b'{"event": "nothing"}', reading(note="verify raises")]
    failed = process([record(r, at) for at, r in enumerate(rows)], REGISTRY, new_state(), MAX_BYTES).failed
    assert [(f.row, f.stage, f.code, f.event) for f in failed] == [
        (0, "decode", Code.UNDECODABLE, None),
        (1, "verify", Code.RULE_BROKEN, "reading"),
        (2, "verify", Code.FIELD_MISSING, "step"),
        (3, "decode", Code.UNKNOWN_SCHEMA, None),
        (4, "verify", Code.CALCULATION_FAILED, "reading"),
    ]
    assert failed[1].reason == "value is at most 100"
    assert failed[2].reason == "time"


def test_a_lost_row_is_a_fatal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def loses_a_row(batch: Any, _codec: Any) -> Outcome:
        return Outcome(batch.take(slice(1, None)))

    monkeypatch.setattr("stream_app.pipeline.flow.verify", loses_a_row)
    with pytest.raises(FatalError, match=r"rows \[0\] of 2 are not accounted for"):
        run([record(reading(id="1")), record(reading(id="2"), 1)], new_state())


def test_score_and_anomaly_columns_require_a_detector() -> None:
    assert "score" in process([record(reading())], REGISTRY, new_state(), MAX_BYTES).passed["reading"]
    plain = type(READING)(name="reading", key="device")
    registry = Registry.of([plain], {"reading": [SCHEMAS["reading"]]})
    batch = process([record(reading())], registry, ShardState({"reading": plain}, 3), MAX_BYTES)
    assert "score" not in batch.passed["reading"]
    assert "anomaly" not in batch.passed["reading"]
