"""Positions, records and batches."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.model.record import Batch, Position, Record, concat


def batch(**columns: Any) -> Batch:
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    return Batch("e", arrays, np.arange(len(next(iter(arrays.values()))), dtype=np.int64))


@given(st.lists(st.tuples(st.integers(0, 10**56), st.integers(0, 99)), min_size=2, max_size=9, unique=True))
def test_positions_are_ordered_numerically(numbers: list[tuple[int, int]]) -> None:
    positions = [Position("s", str(sequence), sub) for sequence, sub in numbers]
    ordered = sorted(positions, key=lambda position: position.order)
    assert [(int(p.sequence), p.sub) for p in ordered] == sorted(numbers)
    assert len({str(position) for position in positions}) == len(numbers)


def test_a_position_as_text() -> None:
    assert str(Position("s", "5")) == "s/5"
    assert str(Position("s", "5", 2)) == "s/5.2"


def test_a_record_of_kcl_is_parsed() -> None:
    line = (
        b'{"action":"record","data":"aGk=","partitionKey":"k","sequenceNumber":"7","subSequenceNumber":3,'
        b'"approximateArrivalTimestamp":1480550400000}'
    )
    item = msgspec.json.decode(line, type=Record)
    assert (item.data, item.arrived) == (b"hi", 1_480_550_400_000)
    assert item.position("s") == Position("s", "7", 3)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="'b' has 1 rows, the batch has 2"):
        batch(a=[1, 2], b=[1])


def test_a_batch_is_immutable() -> None:
    original = np.array([1, 2])
    made = batch(a=original)
    with pytest.raises(ValueError, match="read-only"):
        made["a"][0] = 5
    with pytest.raises(ValueError, match="read-only"):
        made.rows[0] = 5
    columns: Any = made.columns
    with pytest.raises(TypeError):
        columns["b"] = original
    original[0] = 9  # the caller's own array stays the caller's


def test_columns_can_be_read_replaced_and_filtered_with_their_rows() -> None:
    made = batch(a=[1, 2, 3], w=np.arange(6).reshape(3, 2)).with_columns({"a": np.array([7, 8, 9])})
    assert ("a" in made, "z" in made, len(made)) == (True, False, 3)
    for index in (np.array([2, 0]), np.array([True, False, True]), slice(1, None)):
        part = made.take(index)
        assert part["a"].tolist() == made["a"][index].tolist()
        assert part["w"].tolist() == made["w"][index].tolist()
        assert part.rows.tolist() == made.rows[index].tolist()


def test_a_batch_converts_to_a_data_frame() -> None:
    frame = batch(a=[1.5, 2.5], w=np.arange(4).reshape(2, 2)).take(np.array([1])).to_pandas()
    assert frame.index.tolist() == [1]
    assert frame["a"].tolist() == [2.5]
    assert [list(window) for window in frame["w"]] == [[2, 3]]


@given(st.lists(st.lists(st.floats(allow_nan=False), max_size=4), max_size=5))
def test_concatenated_batches_hold_their_rows_in_order(parts: list[list[float]]) -> None:
    whole = concat(batch(a=np.array(part), w=np.ones((len(part), 2))) for part in parts)
    if whole is None:
        assert not parts
    else:
        assert whole["a"].tolist() == [value for part in parts for value in part]
        assert whole["w"].shape == (len(whole), 2)


def test_a_column_that_some_batches_lack_is_none_in_their_rows() -> None:
    whole = concat([batch(a=[1]), batch(a=[2], b=["x"]), batch(b=["y"])])
    assert whole is not None
    assert whole["a"].tolist() == [1, 2, None]
    assert whole["b"].tolist() == [None, "x", "y"]
    mixed = concat([batch(a=[1.0]), batch(a=np.array([0], dtype="datetime64[ms]"))])
    assert mixed is not None
    assert mixed["a"].dtype == object


def test_large_parts_are_concatenated_like_small_ones_and_count_rows_from_an_offset() -> None:
    times = np.arange(70_000).astype("datetime64[ms]")
    columns = {
        "number": np.arange(70_000) / 3,
        "time": times,
        "whole": np.arange(70_000),
        "unit": times,
        "single": np.ones(70_000, dtype=np.float32),
        "lacking": np.ones(70_000),
        "wide": np.ones((70_000, 2)),
        "text": np.full(70_000, "a", dtype=object),
    }
    other = {**columns, "unit": times.astype("datetime64[us]"), "whole": np.arange(70_000)[::-1]}
    del other["lacking"]
    parts = [batch(**columns), batch(**other), batch(**columns).take(np.arange(3))]
    whole = concat(parts, [5, 100_000, 300_000])
    assert whole is not None
    assert list(whole.columns) == list(columns)
    assert whole.rows.tolist() == [*range(5, 70_005), *range(100_000, 170_000), 300_000, 300_001, 300_002]
    for name in columns.keys() - {"lacking"}:
        wanted = np.concatenate([part[name] for part in parts])
        assert whole[name].dtype == wanted.dtype
        assert (whole[name] == wanted).all()
        assert not whole[name].flags.writeable
    assert whole["lacking"].tolist() == [1.0] * 70_000 + [None] * 70_000 + [1.0] * 3
    alone = concat(parts[2:], [7])
    assert alone is not None
    assert alone.rows.tolist() == [7, 8, 9]
    assert concat([], []) is None
