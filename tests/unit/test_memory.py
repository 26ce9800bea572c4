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
from stream_app.pipeline.devices import Devices
from stream_app.pipeline.memory import Previous, pack, unpack
from stream_app.pipeline.packing import compressed
from stream_app.pipeline.seen import Seen, marks_of
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


class _SlowSeen:
    """What it is to be seen: the ids of accepted events among the last `limit` of a device."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._history: dict[str, list[str | None]] = {}

    def row(self, key: str, event_id: str | None, accepted: bool) -> bool:
        history = self._history.setdefault(key, [])
        known = event_id is not None and event_id in history[-self._limit :]
        history.append(event_id if accepted and not known else None)
        return known


def reloaded(seen: Seen, limit: int, devices: int) -> Seen:
    every = np.arange(devices)
    other = Seen(limit)
    other.load(unpack(compressed(seen.dump(devices))), every, every)
    return other


@given(_rows, st.integers(1, 40), st.data())
def test_an_id_is_known_for_as_many_events_of_its_device(
    rows: list[tuple[str, str | None, bool]], limit: int, data: st.DataObject
) -> None:
    seen, slow, devices = Seen(limit), _SlowSeen(limit), Devices()
    for part in data.draw(splits(rows)):
        numbers = devices.numbers(key for key, *_ in part)
        marks, accepted = marks_of(texts(i for _, i, _ in part)), np.array([a for *_, a in part], dtype=bool)
        for _ in range(data.draw(st.integers(0, 2), label="guessed wrongly")):
            guess = np.array(data.draw(st.lists(st.booleans(), min_size=len(part), max_size=len(part))), bool)
            seen.undo(seen.meet(numbers, marks, guess))
        met = seen.meet(numbers, marks, accepted)
        assert met.again.tolist() == [slow.row(*row) for row in part]
        if data.draw(st.booleans()):
            seen = reloaded(seen, limit, len(devices))


@given(_rows, st.integers(1, 9), st.data())
def test_rows_that_are_dropped_are_not_remembered(
    rows: list[tuple[str, str | None, bool]], limit: int, data: st.DataObject
) -> None:
    seen, slow, devices = Seen(limit), Seen(limit), Devices()
    for part in data.draw(splits(rows)):
        numbers, marks = devices.numbers(key for key, *_ in part), marks_of(texts(i for _, i, _ in part))
        met = seen.meet(numbers, marks, np.ones(len(part), dtype=bool))
        givers = set(met.by.tolist())
        wrong = [at for at, row in enumerate(part) if not row[2] and at not in givers and not met.again[at]]
        seen.drop(met, np.array(wrong, dtype=np.int64))
        slow.meet(numbers, marks, np.array([at not in wrong for at in range(len(part))], dtype=bool))
        assert compressed(seen.dump(len(devices))) == compressed(slow.dump(len(devices)))


@given(st.lists(st.sampled_from("abc"), max_size=80), st.integers(1, 20), st.integers(1, 20))
def test_what_is_kept_under_another_limit_is_as_much_of_it_as_both_allow(
    keys: list[str], limit: int, later: int
) -> None:
    seen, devices = Seen(limit), Devices()
    numbers = devices.numbers(keys)
    seen.meet(numbers, marks_of(texts(map(str, range(len(keys))))), np.ones(len(keys), dtype=bool))
    every, other = np.arange(len(devices)), Seen(later)
    other.load(unpack(compressed(seen.dump(len(devices)))), every, every)
    for key in set(keys):
        mine = [str(at) for at, other_key in enumerate(keys) if other_key == key]
        for back, event_id in enumerate(reversed(mine), start=1):
            met = other.meet(devices.numbers([key]), marks_of(texts([event_id])), np.ones(1, dtype=bool))
            assert met.again.tolist() == [back <= min(limit, later)]
            other.undo(met)


@pytest.mark.parametrize(
    "ids",
    [np.array([1, 2], dtype=np.int64), times([1, 2]), texts(["x", "y"]), texts([1, 2**60])],
    ids=["whole numbers", "times", "text", "numbers that may be missing"],
)
def test_ids_of_every_kind_survive_a_snapshot(ids: np.ndarray[Any, Any]) -> None:
    seen, one = Seen(9), np.zeros(2, dtype=np.int64)
    assert seen.meet(one, marks_of(ids), np.ones(2, dtype=bool)).again.tolist() == [False, False]
    assert reloaded(seen, 9, 1).meet(one, marks_of(ids), np.ones(2, dtype=bool)).again.tolist() == [
        True,
        True,
    ]


@given(st.lists(st.one_of(st.none(), st.text(max_size=40), st.integers(-(2**63), 2**63 - 1)), unique=True))
def test_ids_that_differ_have_marks_that_differ(ids: list[Any]) -> None:
    marks = marks_of(texts(ids)).tolist()
    assert len(set(marks)) == len(ids)
    assert [mark == 0 for mark in marks] == [name is None for name in ids]


# ---- Previous


def previous_of(row: Batch, devices: Any, before: Previous) -> dict[str, np.ndarray[Any, Any]]:
    return before.recall(np.array(devices), row, np.zeros(len(row), dtype=bool))


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
    both = np.array([0, 1])
    fields = tuple(row.columns)
    before, after = Previous(fields), Previous(fields)
    before.remember(both, row)
    after.load(unpack(compressed(before.dump(2))), both, both)
    # The row before it in the same batch gives the same as what is remembered.
    twice = Batch(row.event, {n: np.concatenate([c, c]) for n, c in row.columns.items()}, np.arange(4))
    here = Previous(fields).recall(np.array([0, 1, 0, 1]), twice, np.ones(4, dtype=bool))
    for name, column in previous_of(row, both, before).items():
        again = previous_of(row, both, after)[name]
        assert column.dtype == again.dtype == here[name].dtype
        assert (
            repr(column.tolist())
            == repr(again.tolist())
            == repr(here[name][2:].tolist())
            == repr(row[name.removeprefix("previous.")].tolist())
        )


def test_without_a_previous_value_there_is_nan_nat_or_none() -> None:
    row = batch(time=times([1]), number=[0.5], count=[1], text=texts(["x"]))
    found = previous_of(row, [0], Previous(tuple(row.columns)))
    assert np.isnat(found["previous.time"][0])
    assert np.isnan(found["previous.number"][0])
    assert (found["previous.count"][0], found["previous.text"][0]) == (None, None)


def test_previous_fields_that_are_declared_anew_are_found_by_name() -> None:
    row = batch(number=[0.5], text=texts(["x"]), more=[1.0])
    old, new = Previous(("number", "text")), Previous(("text", "more", "number"))
    one = np.zeros(1, dtype=np.int64)
    old.remember(one, row)
    new.load(unpack(compressed(old.dump(1))), one, one)
    found = {name: column.tolist()[0] for name, column in previous_of(row, one, new).items()}
    assert (found["previous.text"], found["previous.number"]) == ("x", 0.5)
    assert np.isnan(found["previous.more"])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=20), st.data())
def test_the_previous_row_is_the_last_accepted_one(rows: list[tuple[str, bool]], data: st.DataObject) -> None:
    previous, devices, last, at = Previous(("count",)), Devices(), dict[str, int](), 0
    for part in data.draw(splits(rows)):
        expected = []
        for key, accepted in part:
            expected.append(last.get(key))
            last = {**last, key: at} if accepted else last
            at += 1
        mask = np.array([accepted for _, accepted in part], dtype=bool)
        numbers = devices.numbers(key for key, _ in part)
        columns = batch(count=np.arange(at - len(part), at))
        found = previous.recall(numbers, columns, mask)["previous.count"].tolist()
        assert found == expected
        previous.remember(numbers[mask], columns.take(mask))


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
    windows, slow, devices = Windows(spec), _SlowWindows(size), Devices()
    for part in data.draw(splits(rows)):
        columns = batch(time=times(step for _, step, _ in part), value=[float(value) for *_, value in part])
        numbers = devices.numbers(key for key, *_ in part)
        if data.draw(st.booleans(), label="taken twice"):
            kept = windows.keep(numbers)
            windows.recall(numbers, columns)
            windows.put_back(kept)
        found = windows.recall(numbers, columns)["window.value"]
        expected = [slow.row(key, step, float(value)) for key, step, value in part]
        np.testing.assert_array_equal(found, np.array(expected).reshape(len(part), size))
        if data.draw(st.booleans()):
            dumped, every = unpack(compressed(windows.dump(len(devices)))), np.arange(len(devices))
            windows = Windows(spec)
            windows.load(dumped, every, every)


def test_a_window_holds_several_fields_and_any_times() -> None:
    windows = Windows(Window(("value", "level"), 2))
    hours = np.array([0, 2**50, 3, -(2**50)], dtype="datetime64[ms]")
    row = batch(time=hours, value=[1.0, 2.0, 3.0, 4.0], level=texts([None, 1, 2, 3]))
    found = windows.recall(np.array([0, 0, 0, 1]), row)
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
    one = np.zeros(1, dtype=np.int64)
    old.recall(one, row)
    new.load(unpack(compressed(old.dump(1))), one, one)
    later = batch(time=times([1]), value=[2.0], level=[6.0])
    name = f"window.{spec.fields[0]}"
    np.testing.assert_array_equal(new.recall(one, later)[name], Windows(spec).recall(one, later)[name])


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


@pytest.mark.parametrize("bytes_", [b"", b"\xc1", b"nonsense", pack([]), pack({"version": 1, "events": {}})])
def test_what_is_no_snapshot_of_this_version_is_fatal(bytes_: bytes) -> None:
    with pytest.raises(FatalError, match="snapshot"):
        ShardState(EVENTS, 4).restore(bytes_)
