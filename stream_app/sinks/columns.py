"""Columns of a batch as Arrow arrays, of types that do not change with the segment's content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stream_app.pipeline.schema import BOOLEAN, INTEGER, Field
from stream_app.record import Batch, Mask

Types = Mapping[str, pa.DataType]
_HELPERS = ("window.", "previous.", "explanation")
_LAST = ("score", "anomaly")
# Parquet has no whole seconds; days and the like become milliseconds too.
_FINE_UNITS = ("us", "ns")
_TEXTS = frozenset({str, type(None)})


def stored_columns(batch: Batch) -> list[str]:
    """The columns that are stored, in order: the event's, the calculated ones, then score and anomaly.

    Windows, previous values, explanations and the batch's own `arrived` (every row has its record's) are not.
    """
    names = [
        name
        for name, column in batch.columns.items()
        if column.ndim == 1 and name not in (*_LAST, "arrived") and not name.startswith(_HELPERS)
    ]
    return [*names, *(name for name in _LAST if name in batch)]


def without_helpers(batch: Batch) -> Batch:
    """The batch without the columns that only its calculation and its alerts need; windows are most of it."""
    return batch.only(name for name in batch.columns if not name.startswith(_HELPERS))


def column_types(fields: Iterable[Field]) -> dict[str, pa.DataType]:
    """The Arrow types of an event's fields whose columns hold Python objects.

    Without them the type is read off the values, which a segment of nothing but nulls does not show.
    """
    known: dict[str, pa.DataType] = {INTEGER: pa.int64(), BOOLEAN: pa.bool_()}
    typed = {field.name: known.get(field.kind, pa.string()) for field in fields}
    return {field.name: typed[field.name] for field in fields if field.nullable or field.kind not in known}


def to_arrow(column: NDArray[Any], declared: pa.DataType | None = None) -> tuple[pa.Array[Any], Mask | None]:
    """One column of shape (n,), and a mask of the values that cannot be stored (they are null) if there are any.

    NaN, NaT and None are null. Numbers and booleans keep their type; times are UTC, in the column's unit, at
    least milliseconds; objects are numbers, booleans, times or text where all are, else their JSON as text.
    """
    kind = column.dtype.kind
    if kind in "biu" or column.dtype in (np.float32, np.float64):
        return pa.array(column, from_pandas=True), None
    if kind == "f":
        return pa.array(column.astype(np.float64), from_pandas=True), None
    if kind == "M":
        return _times(column), None
    values = column.tolist()
    kinds = set(map(type, values))
    if kind == "O" and kinds <= _TEXTS and declared in (None, pa.string()):
        return _objects(values, pa.string())
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    arrow_type = declared if kind == "O" and declared is not None else _type_of(values)
    if pa.types.is_string(arrow_type):
        values = [value if value is None or isinstance(value, str) else _json(value) for value in values]
    return _objects(values, arrow_type)


def text(values: Sequence[str]) -> pa.Array[Any]:
    """Text, with what is not Unicode replaced: for names that must be kept although they are broken."""
    try:
        return pa.array(values, pa.string())
    except UnicodeError:
        return pa.array([value.encode("utf-8", "replace").decode() for value in values], pa.string())


def _times(column: NDArray[Any]) -> pa.Array[Any]:
    unit = np.datetime_data(column.dtype)[0]
    ticks = column if unit in _FINE_UNITS else column.astype("datetime64[ms]")
    naive: Any = pa.array(ticks)
    utc: pa.Array[Any] = naive.cast(pa.timestamp(naive.type.unit, tz="UTC"))
    return utc


def _type_of(values: Sequence[Any]) -> pa.DataType:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pa.int64()
    # Numbers and times are objects where a part of the rows lacked the column.
    if float in kinds and kinds <= {int, float} and all(_exact(value) for value in values):
        return pa.float64()
    if kinds == {datetime}:
        return pa.timestamp(
            "us" if any(v is not None and v.microsecond % 1000 for v in values) else "ms", "UTC"
        )
    return pa.string()


def _exact(value: Any) -> bool:
    return not isinstance(value, int) or abs(value) <= 2**53


def _objects(values: Sequence[Any], arrow_type: pa.DataType) -> tuple[pa.Array[Any], Mask | None]:
    try:
        return pa.array(values, arrow_type, from_pandas=True), None
    except (pa.ArrowException, UnicodeError, OverflowError, TypeError, ValueError):
        bad = np.array([not _fits(value, arrow_type) for value in values], dtype=np.bool_)
        kept = [None if refused else value for value, refused in zip(values, bad.tolist(), strict=True)]
        return pa.array(kept, arrow_type, from_pandas=True), bad


def _fits(value: Any, arrow_type: pa.DataType) -> bool:
    try:
        pa.array([value], arrow_type, from_pandas=True)
    except (pa.ArrowException, UnicodeError, OverflowError, TypeError, ValueError):
        return False
    return True


def _json(value: Any) -> str | None:
    if isinstance(value, float) and value != value:
        return None
    return msgspec.json.encode(value, enc_hook=str, order="deterministic").decode("utf-8", "replace")
