"""Converts columns of a batch to Arrow arrays, whose types do not depend on the segment's content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stream_app.model.event import PAYLOAD
from stream_app.model.record import EXACT, Batch, IntVector, Mask
from stream_app.pipeline.values.schema import BOOLEAN, INTEGER, Field

ArrowArray: TypeAlias = "pa.Array"
AnyArray = NDArray[Any]
"""An array of any dtype: the columns of users have many."""
Values = Sequence[Any]
"""Python objects of any type, as a user's `calculate` returns them."""
Types = Mapping[str, pa.DataType]
_HELPERS = ("window.", "previous.", PAYLOAD)
_EXPLANATION = "explanation"
_LAST = ("score", "anomaly")
# Parquet has no time unit of seconds; coarser units become milliseconds too.
_FINE_UNITS = ("us", "ns")
# A lone surrogate, which Arrow rejects: it stands for a value that cannot be stored.
_NOT_UNICODE = "\ud800"
_TEXTS = frozenset({str, type(None)})
# Rows that are sampled for repeated objects, and the average bytes of a text above which joining texts is slower.
_SAMPLE, _SHORT = 1_000, 40


def stored_columns(batch: Batch) -> list[str]:
    """Return the names of stored columns in order: the event's, the calculated ones, then score and anomaly.

    Windows, previous values, explanations and `arrived`, which is stored with the record, are not among them.
    """
    names = [
        name
        for name, column in batch.columns.items()
        if column.ndim == 1
        and name not in (*_LAST, "arrived", _EXPLANATION)
        and not name.startswith((*_HELPERS, EXACT))
    ]
    return [*names, *(name for name in _LAST if name in batch)]


def without_helpers(batch: Batch) -> Batch:
    """Return the batch without the columns that only calculations and alerts need; windows are most of them."""
    return batch.only(
        name for name in batch.columns if name != _EXPLANATION and not name.startswith(_HELPERS)
    )


def column_types(fields: Iterable[Field]) -> dict[str, pa.DataType]:
    """Return the Arrow types of an event's fields whose columns hold Python objects.

    Without them the type is inferred from the values, which is not possible if all are null.
    """
    known: dict[str, pa.DataType] = {INTEGER: pa.int64(), BOOLEAN: pa.bool_()}
    typed = {field.name: known.get(field.kind, pa.string()) for field in fields}
    return {field.name: typed[field.name] for field in fields if field.nullable or field.kind not in known}


def stored_column(batch: Batch, name: str, declared: pa.DataType | None) -> tuple[ArrowArray, Mask | None]:
    """Convert a column of a batch like `to_arrow`, and keep the exact values of nullable numbers and booleans."""
    column = batch[name]
    if EXACT + name in batch:
        return pa.array(batch[EXACT + name], mask=np.isnan(column)), None
    if column.dtype.kind == "f" and declared in (pa.int64(), pa.bool_()):
        return _whole(column, declared)
    return to_arrow(column, declared)


def _whole(column: AnyArray, declared: pa.DataType | None) -> tuple[ArrowArray, Mask | None]:
    """Convert floats in place of whole numbers or booleans; the mask has the values that are neither."""
    kind: type[np.generic] = np.bool_ if declared == pa.bool_() else np.int64
    missing = np.isnan(column)
    with np.errstate(invalid="ignore"):
        values = np.where(missing, 0, column).astype(kind)
    bad: Mask = (values != column) & ~missing
    return pa.array(values, mask=missing | bad), bad if bad.any() else None


def to_arrow(column: AnyArray, declared: pa.DataType | None = None) -> tuple[ArrowArray, Mask | None]:
    """Convert a column of shape (n,); the mask, if not None, has the values that cannot be stored and are null.

    NaN, NaT and None become null. Numbers and booleans keep their type. Times are in UTC and in the column's unit, at
    least milliseconds. Objects become numbers, booleans, times or text if all of them are, else JSON text.
    """
    kind = column.dtype.kind
    if kind in "biu" or column.dtype in (np.float32, np.float64):
        return pa.array(column, from_pandas=True), None
    if kind == "f":
        return pa.array(column.astype(np.float64), from_pandas=True), None
    if kind == "M":
        return _times(column), None
    if kind != "O":
        return _values(column.tolist(), None)
    # A column of objects is an array of addresses. Reading them takes microseconds; `map(id, column)` took 8 ms for
    # 50,000 rows, as long as the whole conversion of distinct texts and ten times that of repeated ones.
    addresses: IntVector = np.frombuffer(np.ascontiguousarray(column), dtype=np.intp)
    distinct = _distinct_objects(column, addresses)
    if distinct is None:
        array = _nullable(column, addresses) if declared in (None, pa.string()) else None
        return _values(column.tolist(), declared) if array is None else (array, None)
    objects, at = distinct
    array, bad = _values(objects, declared)
    return array.take(at), None if bad is None else bad[at.to_numpy()]


def text(values: Sequence[str]) -> ArrowArray:
    """Convert text, replacing what is not Unicode, for names that must be stored although they are invalid."""
    try:
        return pa.array(values, pa.string())
    except UnicodeError:
        return pa.array([value.encode("utf-8", "replace").decode() for value in values], pa.string())


def _distinct_objects(column: AnyArray, addresses: IntVector) -> tuple[list[object], ArrowArray] | None:
    """Return the distinct objects of a column and the index of each row's object; None if they rarely repeat.

    Objects are compared by identity: values that `calculate` looks up in a table are few objects, each of which Arrow
    then converts once.
    """
    sample = addresses[:_SAMPLE]
    if len(addresses) <= _SAMPLE or 2 * len(pa.array(sample).unique()) > len(sample):
        return None
    coded = pa.array(addresses).dictionary_encode()
    row_of = np.zeros(len(coded.dictionary), dtype=np.intp)
    row_of[coded.indices.to_numpy()] = np.arange(len(column))
    return column[row_of].tolist(), coded.indices


def _values(values: Values, declared: pa.DataType | None) -> tuple[ArrowArray, Mask | None]:
    """Convert Python objects to the declared type, or to the simplest type that holds all of them."""
    if declared in (None, pa.string()) and set(map(type, values)) <= _TEXTS:
        return _objects(values, pa.string())
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    arrow_type = _type_of(values) if declared is None else declared
    if pa.types.is_string(arrow_type):
        values = [value if value is None or isinstance(value, str) else _json(value) for value in values]
    return _objects(values, arrow_type)


def _texts(values: Values) -> ArrowArray | None:
    """Convert texts by joining and splitting them, which takes half as long as one by one.

    Returns None if a value is not Unicode text, or if joining would not be faster.
    """
    if len(values) <= _SAMPLE:
        return None
    try:
        joined = "\0".join(values).encode()
    except (TypeError, UnicodeError):
        return None
    if len(joined) > _SHORT * len(values):
        return None
    stops = np.flatnonzero(np.frombuffer(joined, dtype=np.uint8) == 0)
    if len(stops) != len(values) - 1:  # a text contains the separator
        return None
    offsets = np.zeros(len(values) + 1, dtype=np.int32)
    offsets[1:-1], offsets[-1] = stops, len(joined)
    offsets[1:] -= np.arange(len(values), dtype=np.int32)
    data = "".join(values).encode()
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(data))


def _nullable(column: AnyArray, addresses: IntVector) -> ArrowArray | None:
    """Convert texts like `_texts`, some of which may be None."""
    known: Mask = addresses != id(None)
    if known.all():
        return _texts(column.tolist())
    texts = _texts(column[known].tolist())
    if texts is None:
        return None
    before = np.zeros(len(column) + 1, dtype=np.intp)
    np.cumsum(known, out=before[1:])
    _, offsets, data = texts.buffers()
    spread = np.frombuffer(offsets, dtype=np.int32)[before]
    valid = np.packbits(known, bitorder="little")
    return pa.StringArray.from_buffers(len(column), pa.py_buffer(spread), data, pa.py_buffer(valid))


def _times(column: AnyArray) -> ArrowArray:
    unit = np.datetime_data(column.dtype)[0]
    ticks = column if unit in _FINE_UNITS else column.astype("datetime64[ms]", copy=False)
    naive = pa.array(ticks)
    utc: ArrowArray = naive.cast(pa.timestamp(naive.type.unit, tz="UTC"))
    return utc


def _type_of(values: Values) -> pa.DataType:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pa.int64()
    # Numbers and times are objects if some batches of the segment lacked the column.
    if float in kinds and kinds <= {int, float} and all(_exact(value) for value in values):
        return pa.float64()
    if kinds == {datetime}:
        return pa.timestamp(
            "us" if any(v is not None and v.microsecond % 1000 for v in values) else "ms", "UTC"
        )
    return pa.string()


def _exact(value: object) -> bool:
    return not isinstance(value, int) or abs(value) <= 2**53


def _objects(values: Values, arrow_type: pa.DataType) -> tuple[ArrowArray, Mask | None]:
    try:
        return pa.array(values, arrow_type, from_pandas=True), None
    except (pa.ArrowException, UnicodeError, OverflowError, TypeError, ValueError):
        bad = np.array([not _fits(value, arrow_type) for value in values], dtype=np.bool_)
        kept = [None if refused else value for value, refused in zip(values, bad.tolist(), strict=True)]
        return pa.array(kept, arrow_type, from_pandas=True), bad


def _fits(value: object, arrow_type: pa.DataType) -> bool:
    try:
        pa.array([value], arrow_type, from_pandas=True)
    except (pa.ArrowException, UnicodeError, OverflowError, TypeError, ValueError):
        return False
    return True


def _json(value: object) -> str | None:
    if isinstance(value, float) and value != value:
        return None
    try:
        return msgspec.json.encode(value, enc_hook=str, order="deterministic").decode("utf-8", "replace")
    except Exception:  # not representable in JSON (tuples as keys, cycles), or an error in a user's __str__
        return _NOT_UNICODE
