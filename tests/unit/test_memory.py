"""What is remembered of devices, against models that go row by row."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.detector import Keep, StateError
from stream_app.errors import FatalError
from stream_app.event import Event, Window
from stream_app.pipeline.memory import Previous, Seen, pack, unpack
from stream_app.pipeline.state import ShardState
from stream_app.pipeline.windows import Windows
from stream_app.record import Batch
from tests.samples import EVENTS, HOUR, READING, START, STEP, Drift, splits


def texts(values: Any) -> np.ndarray[Any, Any]:
    return np.array(list(values), dtype=object)


def batch(**columns: Any) -> Batch:
    arrays = {name.replace("__", "."): np.asarray(column) for name, column in columns.items()}
    return Batch("reading", arrays, np.arange(len(next(iter(arrays.values())))))


def times(hours: Any) -> np.ndarray[Any, Any]:
    return np.array([START + int(hour * HOUR) for hour in hours], dtype="datetime64[ms]")


def always(_key: str) -> bool:
    return True


# ---- Seen

_ids = st.one_of(st.none(), st.sampled_from("12345"))
_rows = st.lists(st.tuples(st.sampled_from("ab"), _ids, st.booleans()), max_size=40)


@given(_rows, st.integers(1, 4), st.data())
def test_an_id_is_known_for_as_many_events_of_its_device(
    rows: list[tuple[str, str | None, bool]], limit: int, data: st.DataObject
) -> None:
    seen = Seen(limit)
    history: dict[str, list[str | None]] = {"a": [], "b": []}
    for key, event_id, accepted in rows:
        keys, ids = texts([key]), texts([event_id])
        known = event_id is not None and event_id in history[key][-limit:]
        mask, numbers = seen.meet(keys, ids)
        assert mask.tolist() == [known]
        took = accepted and not known
        if took:
            seen.remember(keys, ids, numbers)
        history[key].append(event_id if took else None)
        if data.draw(st.booleans()):
            dumped = unpack(pack(seen.dump()))
            seen = Seen(limit)
            seen.load(dumped, always)


@pytest.mark.parametrize(
    "ids",
    [np.array([1, 2], dtype=np.int64), times([1, 2]), texts(["x", "y"]), texts([1, 2**60])],
    ids=["whole numbers", "times", "text", "numbers that may be missing"],
)
def test_ids_of_every_kind_survive_a_snapshot(ids: np.ndarray[Any, Any]) -> None:
    seen, other = Seen(9), Seen(9)
    keys = texts(["a", "a"])
    seen.remember(keys, ids, seen.meet(keys, ids)[1])
    other.load(unpack(pack(seen.dump())), always)
    assert other.meet(keys, ids)[0].tolist() == [True, True]


# ---- Previous


def test_previous_values_of_every_kind_survive_a_snapshot_as_they_were() -> None:
    row = batch(
        time=np.array([START, "NaT"], dtype="datetime64[ms]"),
        micro=np.array([5, 6], dtype="datetime64[us]"),
        number=np.array([0.1, np.nan]),
        count=np.array([2**60 + 1, 2], dtype=np.int64),
        flag=np.array([True, False]),
        text=texts(["é", None]),
        nested=texts([{"a": [1, None]}, None]),
    )
    keys = texts(["a", "b"])
    fields = tuple(row.columns)
    before, after = Previous(fields), Previous(fields)
    before.remember(keys, row)
    after.load(unpack(pack(before.dump())), always)
    for name, column in before.recall(keys, row).items():
        again = after.recall(keys, row)[name]
        assert column.dtype == again.dtype
        assert (
            repr(column.tolist())
            == repr(again.tolist())
            == repr(row[name.removeprefix("previous.")].tolist())
        )


def test_without_a_previous_value_there_is_nan_nat_or_none() -> None:
    row = batch(time=times([1]), number=[0.5], count=[1], text=texts(["x"]))
    found = Previous(tuple(row.columns)).recall(texts(["a"]), row)
    assert np.isnat(found["previous.time"][0])
    assert np.isnan(found["previous.number"][0])
    assert (found["previous.count"][0], found["previous.text"][0]) == (None, None)


def test_previous_fields_that_are_declared_anew_are_found_by_name() -> None:
    row = batch(number=[0.5], text=texts(["x"]), more=[1.0])
    old, new = Previous(("number", "text")), Previous(("text", "more", "number"))
    old.remember(texts(["a"]), row)
    new.load(unpack(pack(old.dump())), always)
    found = {name: column.tolist()[0] for name, column in new.recall(texts(["a"]), row).items()}
    assert (found["previous.text"], found["previous.number"]) == ("x", 0.5)
    assert np.isnan(found["previous.more"])


# ---- Windows


class _SlowWindows:
    """What a window is, said as simply as can be: the last value of each step, for twice the window's size."""

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
def test_windows_are_what_a_loop_over_the_rows_would_find(
    rows: list[tuple[str, int, int]], size: int, data: st.DataObject
) -> None:
    spec = Window(("value",), size)
    windows, slow = Windows(spec), _SlowWindows(size)
    for part in data.draw(splits(rows)):
        columns = batch(time=times(step for _, step, _ in part), value=[float(value) for *_, value in part])
        found = windows.recall(texts(key for key, *_ in part), columns)["window.value"]
        expected = [slow.row(key, step, float(value)) for key, step, value in part]
        np.testing.assert_array_equal(found, np.array(expected).reshape(len(part), size))
        if data.draw(st.booleans()):
            dumped = unpack(pack(windows.dump()))
            windows = Windows(spec)
            windows.load(dumped, always)


def test_a_window_holds_several_fields_and_any_times() -> None:
    windows = Windows(Window(("value", "level"), 2))
    hours = np.array([0, 2**50, 3, -(2**50)], dtype="datetime64[ms]")
    row = batch(time=hours, value=[1.0, 2.0, 3.0, 4.0], level=texts([None, 1, 2, 3]))
    found = windows.recall(texts("aaab"), row)
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
def test_a_window_that_is_declared_anew_begins_anew(spec: Window) -> None:
    old, new = Windows(Window(("value",), 3)), Windows(spec)
    row = batch(time=times([0]), value=[1.0], level=[5.0])
    old.recall(texts("a"), row)
    new.load(unpack(pack(old.dump())), always)
    later = batch(time=times([1]), value=[2.0], level=[6.0])
    name = f"window.{spec.fields[0]}"
    np.testing.assert_array_equal(
        new.recall(texts("a"), later)[name], Windows(spec).recall(texts("a"), later)[name]
    )


# ---- All of it


def test_what_an_event_no_longer_declares_is_passed_over() -> None:
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


def test_a_detector_that_is_empty_is_a_detector_all_the_same() -> None:
    event = Event(name="reading", key="device", features=("value",), detector=_SizedDrift)
    before, after = (ShardState({"reading": event}, 4) for _ in range(2))
    detector = before["reading"].detector
    assert detector is not None
    detector.process_many(["a"], np.array([[1.0]]))
    after.restore(before.snapshot())
    assert after.snapshot() == before.snapshot()


class _PickyDrift(Drift):
    def restore(self, state: bytes, keep: Keep = always) -> None:
        raise StateError("of another version")


def test_a_detectors_state_that_cannot_be_used_is_fatal_and_names_the_event() -> None:
    event = Event(name="reading", key="device", features=("value",), detector=_PickyDrift)
    state = ShardState({"reading": event}, 4)
    with pytest.raises(FatalError, match="event 'reading': of another version"):
        state.restore(state.snapshot())


@pytest.mark.parametrize("bytes_", [b"", b"\xc1", b"nonsense", pack([]), pack({"version": 2, "events": {}})])
def test_what_is_no_snapshot_of_this_version_is_fatal(bytes_: bytes) -> None:
    with pytest.raises(FatalError, match="snapshot"):
        ShardState(EVENTS, 4).restore(bytes_)
