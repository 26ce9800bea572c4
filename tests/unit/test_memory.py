"""Per-device state, compared with models that process one row at a time."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.detector import Keep, StateError
from stream_app.errors import FatalError
from stream_app.model.event import Event, Window
from stream_app.model.record import Batch
from stream_app.pipeline.state.key_index import KeyIndex
from stream_app.pipeline.state.packing import compress_state, pack, unpack
from stream_app.pipeline.state.previous_values import PreviousValues
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.pipeline.state.windows import Windows
from tests.samples import EVENTS, READING, START, STEP, Drift, splits
from tests.unit.columns import batch, texts, times


def always(_key: str) -> bool:
    return True


# ---- Previous


def previous_of(row: Batch, devices: Any, before: PreviousValues) -> dict[str, np.ndarray[Any, Any]]:
    return before.columns(np.array(devices), row, np.zeros(len(row), dtype=bool))


def as_past(column: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Numbers of every kind are of floating point, so that there may be none."""
    return column.astype(np.float64) if column.dtype.kind in "iub" else column


def test_previous_values_of_every_type_survive_a_snapshot_unchanged() -> None:
    row = batch(
        time=np.array([START, "NaT"], dtype="datetime64[ms]"),
        micro=np.array([5, 6], dtype="datetime64[us]"),
        number=np.array([0.1, np.nan]),
        count=np.array([2**53, 2], dtype=np.int64),
        flag=np.array([True, False]),
        text=texts(["é", None]),
        nested=texts([{"a": [1, None]}, None]),
    )
    both = np.array([0, 1])
    fields = tuple(row.columns)
    before, after = PreviousValues(fields), PreviousValues(fields)
    before.update(both, row)
    after.load(unpack(compress_state(before.dump(2))), both, both)
    # The row before it in the same batch gives the same as what is remembered.
    twice = Batch(row.event, {n: np.concatenate([c, c]) for n, c in row.columns.items()}, np.arange(4))
    here = PreviousValues(fields).columns(np.array([0, 1, 0, 1]), twice, np.ones(4, dtype=bool))
    for name, column in previous_of(row, both, before).items():
        again = previous_of(row, both, after)[name]
        assert column.dtype == again.dtype == here[name].dtype
        assert (
            repr(column.tolist())
            == repr(again.tolist())
            == repr(here[name][2:].tolist())
            == repr(as_past(row[name.removeprefix("previous.")]).tolist())
        )


def test_a_missing_previous_value_is_nan_nat_or_none() -> None:
    row = batch(time=times([1]), number=[0.5], count=[1], text=texts(["x"]))
    found = previous_of(row, [0], PreviousValues(tuple(row.columns)))
    assert np.isnat(found["previous.time"][0])
    assert np.isnan(found["previous.number"][0])
    assert np.isnan(found["previous.count"][0])
    assert found["previous.text"][0] is None


def test_previous_fields_that_are_redeclared_are_restored_by_name() -> None:
    row = batch(number=[0.5], text=texts(["x"]), more=[1.0])
    old, new = PreviousValues(("number", "text")), PreviousValues(("text", "more", "number"))
    one = np.zeros(1, dtype=np.int64)
    old.update(one, row)
    new.load(unpack(compress_state(old.dump(1))), one, one)
    found = {name: column.tolist()[0] for name, column in previous_of(row, one, new).items()}
    assert (found["previous.text"], found["previous.number"]) == ("x", 0.5)
    assert np.isnan(found["previous.more"])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=20), st.data())
def test_the_previous_row_is_the_last_accepted_one(rows: list[tuple[str, bool]], data: st.DataObject) -> None:
    previous, devices, last, at = PreviousValues(("count",)), KeyIndex(), dict[str, int](), 0
    for part in data.draw(splits(rows)):
        expected = []
        for key, accepted in part:
            expected.append(last.get(key))
            last = {**last, key: at} if accepted else last
            at += 1
        mask = np.array([accepted for _, accepted in part], dtype=bool)
        numbers = devices.slots(key for key, _ in part)
        columns = batch(count=np.arange(at - len(part), at))
        found = previous.columns(numbers, columns, mask)["previous.count"].tolist()
        assert [None if np.isnan(count) else count for count in found] == expected
        previous.update(numbers[mask], columns.take(mask))


# ---- Windows


class _SlowWindows:
    """Reference model of a window: the last value of each step, kept for twice the window's size."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._slots: dict[tuple[str, int], tuple[int, float]] = {}

    def row(self, key: str, step: int, value: float) -> list[float]:
        at = key, step % (2 * self._size)
        if step >= self._slots.get(at, (step, 0.0))[0]:
            self._slots[at] = step, value
        past = [self._slots.get((key, (step - j) % (2 * self._size)), (None, 0.0)) for j in range(self._size)]
        found = [item[1] if item[0] == step - j else np.nan for j, item in enumerate(past)]
        return [value, *found[1:]]


_steps = st.one_of(st.integers(0, 7), st.integers(0, 7), st.sampled_from([-5, 12, 100, 2_000_000]))
_readings = st.lists(st.tuples(st.sampled_from("aab"), _steps, st.integers(0, 99)), max_size=30)


@settings(max_examples=400)
@given(_readings, st.integers(1, 3), st.data())
def test_windows_equal_those_of_a_loop_over_the_rows(
    rows: list[tuple[str, int, int]], size: int, data: st.DataObject
) -> None:
    spec = Window(("value",), size)
    windows, slow, devices = Windows(spec), _SlowWindows(size), KeyIndex()
    for part in data.draw(splits(rows)):
        columns = batch(time=times(step for _, step, _ in part), value=[float(value) for *_, value in part])
        numbers = devices.slots(key for key, *_ in part)
        if data.draw(st.booleans(), label="taken twice"):
            kept = windows.save(numbers)
            windows.add(numbers, columns)
            windows.restore(kept)
        found = windows.add(numbers, columns)["window.value"]
        expected = [slow.row(key, step, float(value)) for key, step, value in part]
        np.testing.assert_array_equal(found, np.array(expected).reshape(len(part), size))
        if data.draw(st.booleans()):
            dumped, every = unpack(compress_state(windows.dump(len(devices)))), np.arange(len(devices))
            windows = Windows(spec)
            windows.load(dumped, every, every)


def test_a_window_supports_several_fields_and_arbitrary_times() -> None:
    windows = Windows(Window(("value", "level"), 2))
    hours = np.array([0, 2**50, 3, -(2**50)], dtype="datetime64[ms]")
    row = batch(time=hours, value=[1.0, 2.0, 3.0, 4.0], level=texts([None, 1, 2, 3]))
    found = windows.add(np.array([0, 0, 0, 1]), row)
    assert found["window.value"][:, 0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert found["window.level"][1:, 0].tolist() == [1.0, 2.0, 3.0]
    assert np.isnan(found["window.level"][0, 0])


@pytest.mark.parametrize(
    "spec",
    [
        Window(("value", "level"), 3),
        Window(("level",), 3),
        Window(("value",), 4),
        Window(("value",), 3, dt.timedelta(1)),
    ],
)
def test_a_window_that_is_redeclared_starts_empty(spec: Window) -> None:
    old, new = Windows(Window(("value",), 3)), Windows(spec)
    row = batch(time=times([0]), value=[1.0], level=[5.0])
    one = np.zeros(1, dtype=np.int64)
    old.add(one, row)
    new.load(unpack(compress_state(old.dump(1))), one, one)
    later = batch(time=times([1]), value=[2.0], level=[6.0])
    name = f"window.{spec.fields[0]}"
    np.testing.assert_array_equal(new.add(one, later)[name], Windows(spec).add(one, later)[name])


# ---- All of it


def test_state_that_an_event_no_longer_declares_is_ignored() -> None:
    full = ShardState(EVENTS, 4)
    bare = {"step": Event(name="step", key="device"), "other": READING}
    ShardState(bare, 4).restore(full.snapshot())
    fuller = ShardState({"step": STEP}, 4)
    fuller.restore(ShardState(bare, 4).snapshot())
    assert fuller.snapshot() == ShardState({"step": STEP}, 4).snapshot()


class _SizedDrift(Drift):
    """A detector that has a length, as containers do."""

    def __len__(self) -> int:
        return len(self._known)


def test_a_detector_of_length_zero_is_still_used() -> None:
    event = Event(name="reading", key="device", features=("value",), detector=_SizedDrift)
    before, after = (ShardState({"reading": event}, 4) for _ in range(2))
    detector = before["reading"].detector
    assert detector is not None
    before["reading"].devices.slots(["a"])
    detector.process_many(["a"], np.array([[1.0]]))
    after.restore(before.snapshot())
    assert after.snapshot() == before.snapshot()


class _PickyDrift(Drift):
    def restore(self, state: bytes, keep: Keep = always) -> None:
        raise StateError("of another version")


def test_an_unusable_detector_state_is_fatal_and_names_the_event() -> None:
    event = Event(name="reading", key="device", features=("value",), detector=_PickyDrift)
    state = ShardState({"reading": event}, 4)
    with pytest.raises(FatalError, match="event 'reading': of another version"):
        state.restore(state.snapshot())


@pytest.mark.parametrize("bytes_", [b"", b"\xc1", b"nonsense", pack([]), pack({"version": 1, "events": {}})])
def test_a_snapshot_of_another_version_is_fatal(bytes_: bytes) -> None:
    with pytest.raises(FatalError, match="snapshot"):
        ShardState(EVENTS, 4).restore(bytes_)
