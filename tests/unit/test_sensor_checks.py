"""Checks flag rows before the model, from the device's own history; without checks nothing changes."""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.consumer.alerting.alerts import details
from stream_app.errors import ConfigError
from stream_app.model.event import Check, Event, Range, Rate, Stuck
from stream_app.model.record import Batch
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.sensor_checks import SensorChecks
from stream_app.pipeline.state.key_index import KeyIndex
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.testing import record
from tests.samples import HOUR, MAX_BYTES, READING, SCHEMAS, START, Drift, as_json, shards, splits
from tests.support import outcomes_of

CHECKS: tuple[Check, ...] = (
    Stuck("value", 3, besides=(0.0,)),
    Rate("value", 10.0),
    Range("value", -50.0, 60.0),
    Rate("level", 2.0, timedelta(minutes=30)),
)
CHECKED = dataclasses.replace(READING, checks=CHECKS)
REGISTRY = Registry.of([CHECKED], {"reading": [SCHEMAS["reading"]]})
NAN = math.nan

Row = tuple[str, int, float, float]
number = st.sampled_from([0.0, 1.0, 5.0, 11.0, 30.0, 70.0, -60.0, math.inf, NAN])
rows_of = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), number, number), max_size=40)


def batch_of(rows: list[Row], event: str = "reading") -> tuple[Any, Batch]:
    keys = np.array([row[0] for row in rows], dtype=object)
    minutes = np.array([START + row[1] * HOUR // 2 for row in rows], dtype=np.int64)
    columns = {
        "time": minutes.view("datetime64[ms]"),
        "value": np.array([row[2] for row in rows], dtype=np.float64),
        "level": np.array([None if math.isnan(row[3]) else row[3] for row in rows], dtype=object),
    }
    return keys, Batch(event, columns, np.arange(len(rows)))


def one_by_one(rows: list[Row]) -> list[str | None]:
    """Reference model of the checks, one row at a time, without arrays."""
    low_high, value_rate, level_rate, stuck = CHECKS[2], CHECKS[1], CHECKS[3], CHECKS[0]
    assert isinstance(low_high, Range)
    assert isinstance(stuck, Stuck)
    last: dict[tuple[str, str], tuple[int, float]] = {}
    run: dict[str, tuple[float, int]] = {}
    flags = []
    for key, half_hour, value, level in rows:
        out = value < low_high.low or value > low_high.high
        found = [low_high.name] if out else []
        for rate, now, spoilt in ((value_rate, value, out), (level_rate, level, False)):
            assert isinstance(rate, Rate)
            before = last.get((key, rate.field))
            if math.isnan(now) or (before and half_hour <= before[0]):
                continue
            if before:
                allowed = rate.most * max(1.0, (half_hour - before[0]) * timedelta(minutes=30) / rate.per)
                if abs(now - before[1]) > allowed:
                    found.append(rate.name)
                    continue
            if not spoilt:
                last[key, rate.field] = half_hour, now
        if not math.isnan(value):
            same, count = run.get(key, (NAN, 0))
            run[key] = value, count + 1 if value == same else 1
            if run[key][1] >= stuck.times and value not in stuck.besides:
                found.append(stuck.name)
        flags.append(found[0] if found else None)
    return flags


@given(rows_of)
def test_a_batch_is_flagged_like_its_rows_one_by_one(rows: list[Row]) -> None:
    keys, batch = batch_of(rows)
    assert SensorChecks(CHECKS).flag(KeyIndex().slots(keys), batch).tolist() == one_by_one(rows)


@given(rows_of, st.data())
def test_splits_and_restarts_do_not_change_flags(rows: list[Row], data: st.DataObject) -> None:
    keys, batch = batch_of(rows)
    devices = KeyIndex()
    numbers = devices.slots(keys)
    whole, parts = SensorChecks(CHECKS).flag(numbers, batch).tolist(), []
    checks, start = SensorChecks(CHECKS), 0
    for part in data.draw(splits(rows)):
        if data.draw(st.booleans(), label="restart"):
            dumped, checks = checks.dump(len(devices)), SensorChecks(CHECKS)
            checks.load(dumped, np.arange(len(devices)), np.arange(len(devices)))
        here = slice(start, start + len(part))
        parts += checks.flag(numbers[here], batch.take(here)).tolist()
        start += len(part)
    assert parts == whole


@given(shards(), st.data())
def test_pipeline_flags_do_not_depend_on_batches(records: list[Any], data: st.DataObject) -> None:
    events = {"reading": CHECKED}
    whole = outcomes_of(process(records, REGISTRY, ShardState(events, 3), MAX_BYTES))
    state, start = ShardState(events, 3), 0
    parts: dict[int, Any] = {}
    for part in data.draw(splits(records)):
        if data.draw(st.booleans(), label="restart"):
            snapshot, state = state.snapshot(), ShardState(events, 3)
            state.restore(snapshot)
        parts |= outcomes_of(process(part, REGISTRY, state, MAX_BYTES), start)
        start += len(part)
    assert parts == whole


def run(event: Event, values: list[float | None]) -> tuple[list[Any], Batch]:
    registry = Registry.of([event], {"reading": [SCHEMAS["reading"]]})
    rows = [
        record(as_json("reading", {"device": "a", "time": START + at * HOUR, "value": v}), at)
        for at, v in enumerate(values)
    ]
    batch = process(rows, registry, ShardState({"reading": event}, 3), MAX_BYTES).passed["reading"]
    return rows, batch


def test_a_flagged_row_is_an_anomaly_and_is_not_given_to_the_model() -> None:
    _, whole = run(CHECKED, [1.0, 2.0, 70.0, 3.0, 4.0])
    _, without = run(READING, [1.0, 2.0, 3.0, 4.0])
    assert whole["flag"].tolist() == [None, None, "value is outside -50 to 60", None, None]
    assert whole["anomaly"].tolist() == [False, False, True, False, False]
    assert np.isnan(whole["score"][2])
    assert np.delete(whole["score"], 2).tobytes() == without["score"].tobytes()


def test_a_model_gets_matching_keys_and_key_numbers_with_flagged_rows() -> None:
    met = []

    class Meeting(Drift):
        def process_many(self, keys: Any, X: Any, times: Any = None) -> Any:
            met.append((list(keys), keys.numbers.tolist(), keys.of))
            return super().process_many(keys, X, times)

    event = dataclasses.replace(CHECKED, detector=Meeting)
    registry = Registry.of([event], {"reading": [SCHEMAS["reading"]]})
    state = ShardState({"reading": event}, 3)
    for hour, values in enumerate([(1.0, 2.0, 3.0), (1.0, 70.0, 3.0)]):
        rows = [
            record(as_json("reading", {"device": name, "time": START + hour * HOUR, "value": value}), at)
            for at, (name, value) in enumerate(zip("abc", values, strict=True))
        ]
        process(rows, registry, state, MAX_BYTES)
    devices = state["reading"].devices
    assert met == [(["a", "b", "c"], [0, 1, 2], devices), (["a", "c"], [0, 2], devices)]


def test_an_event_without_checks_has_no_flags_and_no_check_state() -> None:
    _, batch = run(READING, [1.0, 99.0])
    assert "flag" not in batch
    assert ShardState({"reading": READING}, 3)["reading"].dump()["checks"] is None


def test_a_snapshot_without_check_state_is_read() -> None:
    state = ShardState({"reading": CHECKED}, 3)
    state.restore(ShardState({"reading": READING}, 3).snapshot())
    changed = dataclasses.replace(CHECKED, checks=(Rate("value", 99.0), CHECKS[0]))
    ShardState({"reading": changed}, 3).restore(state.snapshot())


def test_checks_without_a_detector_make_anomalies_too() -> None:
    _, batch = run(dataclasses.replace(CHECKED, detector=None, features=()), [1.0, 70.0])
    assert batch["anomaly"].tolist() == [False, True]
    assert "score" not in batch


@pytest.mark.parametrize("with_model", [True, False])
def test_the_alert_names_the_check(with_model: bool) -> None:
    event = CHECKED if with_model else dataclasses.replace(CHECKED, detector=None, features=())
    rows, batch = run(event, [1.0, 70.0])
    alert = details("air", "shard", rows, batch.take(batch["anomaly"]), event, "Drift")[0]
    assert (alert["detector"], alert["score"], alert["flag"]) == (
        "checks",
        None,
        "value is outside -50 to 60",
    )
    assert alert["id"].endswith("/checks")


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (Range("nothing", 0, 1), "checks names 'nothing'"),
        (Range("note", 0, 1), "checks names 'note', which is not a number"),
        (Rate("value", 1, time="level"), "time names 'level'"),
        (Range("value", 2, 1), "invalid limits"),
        (Rate("value", -1), "invalid limits"),
        (Rate("value", 1, timedelta(0)), "invalid limits"),
        (Stuck("value", 1), "invalid limits"),
    ],
)
def test_an_invalid_check_is_rejected_at_start(check: Check, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Registry.of([dataclasses.replace(READING, checks=(check,))], {"reading": [SCHEMAS["reading"]]})
