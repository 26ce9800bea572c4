"""Long columns of objects are stored like short ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_app.sinks.columns import text, to_arrow

# Longer than the threshold at which a column's repeated values and shared text buffer are used.
LONG = 1_200
ANY_TEXT = st.text(max_size=6) | st.sampled_from(["", "\0", "a\0b", "Dōngsì", "\ud800", "x" * 90])
VALUES = st.lists(ANY_TEXT | st.none(), min_size=1, max_size=5)
OTHERS = st.lists(
    ANY_TEXT | st.none() | st.integers() | st.just(float("nan")) | st.binary(max_size=3), min_size=1
)


def objects(values: Sequence[Any]) -> NDArray[Any]:
    return np.fromiter(values, dtype=object, count=len(values))


def anew(value: Any) -> Any:
    """An equal value, another object where it is text of two or more."""
    return (value + "-")[:-1] if isinstance(value, str) else value


def tiled(values: Sequence[Any], *, same: bool) -> NDArray[Any]:
    rows = [values[at % len(values)] for at in range(LONG)]
    return objects(rows if same else list(map(anew, rows)))


def one_by_one(column: NDArray[Any]) -> tuple[list[Any], list[bool]]:
    """What is stored of each row alone, and whether it is refused."""
    cells = {value: to_arrow(objects([value]), pa.string()) for value in column.tolist()}
    stored = [cells[value][0][0].as_py() for value in column.tolist()]
    return stored, [cells[value][1] is not None for value in column.tolist()]


@given(VALUES | OTHERS, st.booleans())
@settings(max_examples=40)
def test_a_long_column_stores_the_same_values_as_single_rows(values: list[Any], same: bool) -> None:
    column = tiled(values, same=same)
    array, bad = to_arrow(column, pa.string())
    array.validate(full=True)
    stored, refused = one_by_one(column)
    assert array.type == pa.string()
    assert array.to_pylist() == stored
    assert (bad.tolist() if bad is not None else [False] * LONG) == refused


@given(VALUES, st.integers(0, LONG - 1))
@settings(max_examples=25)
def test_a_column_of_few_distinct_objects_and_one_late_exception(values: list[Any], at: int) -> None:
    column = tiled(values, same=True)
    column[at] = "a stranger"
    assert to_arrow(column, pa.string())[0].to_pylist() == one_by_one(column)[0]


def test_a_view_with_gaps_is_stored_as_its_rows() -> None:
    column = tiled(["a", None, "bc"], same=True)
    assert to_arrow(column[::-2])[0].to_pylist() == column[::-2].tolist()


@pytest.mark.parametrize("values", [[1, None, 2**40], [True, None], [1.5, None, 2], [None]])
def test_long_columns_of_other_objects_keep_their_type(values: list[Any]) -> None:
    long, short = to_arrow(tiled(values, same=True))[0], to_arrow(objects(values))[0]
    assert long.type == short.type
    assert long.to_pylist() == (short.to_pylist() * LONG)[:LONG]


def test_one_invalid_text_does_not_change_the_others() -> None:
    names = [f"d{at % 7}" for at in range(LONG)]
    assert text(names).to_pylist() == names
    assert text([*names, "a\ud800"]).to_pylist() == [*names, "a?"]


def test_an_object_without_a_json_form_is_refused_and_other_rows_are_stored() -> None:
    class Mute:
        def __str__(self) -> str:
            raise ValueError("no words")

    cycle: list[Any] = []
    cycle.append(cycle)
    column = np.empty(4, dtype=object)
    column[:] = [{(1, 2): 3}, {"a": 1}, cycle, Mute()]
    array, refused = to_arrow(column)
    assert array.to_pylist() == [None, '{"a":1}', None, None]
    assert refused is not None
    assert refused.tolist() == [True, False, True, True]
