"""Columns of a batch as Arrow arrays, of types that do not change with the segment's content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stream_app.model.event import PAYLOAD
from stream_app.model.record import EXACT, Batch, IntVector, Mask
from stream_app.pipeline.values.schema import BOOLEAN, INTEGER, Field

Types = Mapping[str, pa.DataType]
_HELPERS = ("window.", "previous.", PAYLOAD)
_EXPLANATION = "explanation"
_LAST = ("score", "anomaly")
# Parquet has no whole seconds; days and the like become milliseconds too.
_FINE_UNITS = ("us", "ns")
# Half a surrogate pair, which no Arrow array holds: it stands for a value that cannot be stored.
_NOT_UNICODE = "\ud800"
_TEXTS = frozenset({str, type(None)})
# Rows by which it is judged whether objects repeat; and bytes of a text, on average, past which a join is no gain.
_LOOKED_AT, _SHORT = 1_000, 40


def stored_columns(batch: Batch) -> list[str]:
    """The columns that are stored, in order: the event's, the calculated ones, then score and anomaly.

    Windows, previous values, explanations and the batch's own `arrived` (every row has its record's) are not.
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
    """The batch without the columns that only its calculation and its alerts need; windows are most of it."""
    return batch.only(
        name for name in batch.columns if name != _EXPLANATION and not name.startswith(_HELPERS)
    )


def column_types(fields: Iterable[Field]) -> dict[str, pa.DataType]:
    """The Arrow types of an event's fields whose columns hold Python objects.

    Without them the type is read off the values, which a segment of nothing but nulls does not show.
    """
    known: dict[str, pa.DataType] = {INTEGER: pa.int64(), BOOLEAN: pa.bool_()}
    typed = {field.name: known.get(field.kind, pa.string()) for field in fields}
    return {field.name: typed[field.name] for field in fields if field.nullable or field.kind not in known}


def stored_column(batch: Batch, name: str, declared: pa.DataType | None) -> tuple[pa.Array[Any], Mask | None]:
    """A column of a batch as `to_arrow` gives it, whole numbers and booleans that may be missing as they are."""
    column = batch[name]
    if EXACT + name in batch:
        return pa.array(batch[EXACT + name], mask=np.isnan(column)), None
    if column.dtype.kind == "f" and declared in (pa.int64(), pa.bool_()):
        return _whole(column, declared)
    return to_arrow(column, declared)


def _whole(column: NDArray[Any], declared: pa.DataType | None) -> tuple[pa.Array[Any], Mask | None]:
    """Numbers that a user's function put in place of whole numbers or booleans; those that are not are refused."""
    kind: Any = np.bool_ if declared == pa.bool_() else np.int64
    missing = np.isnan(column)
    with np.errstate(invalid="ignore"):
        values = np.where(missing, 0, column).astype(kind)
    bad: Mask = (values != column) & ~missing
    return pa.array(values, mask=missing | bad), bad if bad.any() else None


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
    if kind != "O":
        return _values(column.tolist(), None)
    addresses: IntVector = np.frombuffer(np.ascontiguousarray(column), dtype=np.intp)
    few = _few(column, addresses)
    if few is None:
        array = _nullable(column, addresses) if declared in (None, pa.string()) else None
        return _values(column.tolist(), declared) if array is None else (array, None)
    objects, at = few
    array, bad = _values(objects, declared)
    return array.take(at), None if bad is None else bad[at.to_numpy()]


def text(values: Sequence[str]) -> pa.Array[Any]:
    """Text, with what is not Unicode replaced: for names that must be kept although they are broken."""
    try:
        return pa.array(values, pa.string())
    except UnicodeError:
        return pa.array([value.encode("utf-8", "replace").decode() for value in values], pa.string())


def _few(column: NDArray[Any], addresses: IntVector) -> tuple[list[Any], pa.Array[Any]] | None:
    """The objects of a column, each once, and which of them each row is; None where they hardly repeat.

    The same object, not an equal one: what a `calculate` looks up in a table is few objects, and Arrow need look
    into each but once.
    """
    some = addresses[:_LOOKED_AT]
    if len(addresses) <= _LOOKED_AT or 2 * len(pa.array(some).unique()) > len(some):
        return None
    coded: Any = pa.array(addresses).dictionary_encode()
    row_of = np.zeros(len(coded.dictionary), dtype=np.intp)
    row_of[coded.indices.to_numpy()] = np.arange(len(column))
    return column[row_of].tolist(), coded.indices


def _values(values: list[Any], declared: pa.DataType | None) -> tuple[pa.Array[Any], Mask | None]:
    """Python objects as an array of the declared type, or of the simplest that holds them all."""
    if declared in (None, pa.string()) and set(map(type, values)) <= _TEXTS:
        return _objects(values, pa.string())
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    arrow_type = _type_of(values) if declared is None else declared
    if pa.types.is_string(arrow_type):
        values = [value if value is None or isinstance(value, str) else _json(value) for value in values]
    return _objects(values, arrow_type)


def _texts(values: Sequence[Any]) -> pa.Array[Any] | None:
    """Text as an array, cut out of one long text, which takes half as long as one by one.

    None where it is not all text and Unicode, or better done one by one.
    """
    if len(values) <= _LOOKED_AT:
        return None
    try:
        joined = "\0".join(values).encode()
    except (TypeError, UnicodeError):
        return None
    if len(joined) > _SHORT * len(values):
        return None
    stops = np.flatnonzero(np.frombuffer(joined, dtype=np.uint8) == 0)
    if len(stops) != len(values) - 1:  # one has the separator in it
        return None
    offsets: Any = np.zeros(len(values) + 1, dtype=np.int32)
    offsets[1:-1], offsets[-1] = stops, len(joined)
    offsets[1:] -= np.arange(len(values), dtype=np.int32)
    data = "".join(values).encode()
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(data))


def _nullable(column: NDArray[Any], addresses: IntVector) -> pa.Array[Any] | None:
    """As `_texts`, where some may be None."""
    known: Mask = addresses != id(None)
    if known.all():
        return _texts(column.tolist())
    texts: Any = _texts(column[known].tolist())
    if texts is None:
        return None
    before = np.zeros(len(column) + 1, dtype=np.intp)
    np.cumsum(known, out=before[1:])
    _, offsets, data = texts.buffers()
    spread: Any = np.frombuffer(offsets, dtype=np.int32)[before]
    valid: Any = np.packbits(known, bitorder="little")
    return pa.StringArray.from_buffers(len(column), pa.py_buffer(spread), data, pa.py_buffer(valid))


def _times(column: NDArray[Any]) -> pa.Array[Any]:
    unit = np.datetime_data(column.dtype)[0]
    ticks = column if unit in _FINE_UNITS else column.astype("datetime64[ms]", copy=False)
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
    try:
        return msgspec.json.encode(value, enc_hook=str, order="deterministic").decode("utf-8", "replace")
    except Exception:  # what has no form in JSON (tuples as keys, cycles), and what a user's __str__ raises
        return _NOT_UNICODE
