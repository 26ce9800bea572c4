"""Columns out of rows of Python values, by the kind that the schema gives each field."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.pipeline.schema import (
    BOOLEAN,
    FLOAT,
    INTEGER,
    SINGLE,
    TEXT,
    TIME_MS,
    TIME_US,
    Field,
    plain,
)

Column = NDArray[Any]
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


def build(
    rows: Sequence[tuple[Any, ...]], fields: Sequence[Field], required: Sequence[str]
) -> dict[str, Column]:
    """One array a field, in the order of the schema; `rows` hold the fields' values in that order."""
    by_field = zip(*rows, strict=True) if rows else ((),) * len(fields)
    return {
        field.name: _column(values, field, field.nullable and field.name not in required)
        for field, values in zip(fields, by_field, strict=True)
    }


def _column(values: Sequence[Any], field: Field, nullable: bool) -> Column:
    if field.kind == FLOAT:
        return np.array(values, dtype=np.float64)  # None becomes NaN
    if field.kind == SINGLE:  # JSON's numbers are finer than Avro's float
        return np.array(values, dtype=np.float32).astype(np.float64)
    if field.kind in (TIME_MS, TIME_US):
        return _times(values, field.kind)
    if field.kind in (INTEGER, BOOLEAN) and not nullable:
        return np.array(values, dtype=np.int64 if field.kind == INTEGER else np.bool_)
    return _objects(values, plain if field.kind not in _AS_THEY_ARE else None)


_AS_THEY_ARE = (TEXT, INTEGER, BOOLEAN)


def _objects(values: Sequence[Any], convert: Callable[[Any], Any] | None) -> Column:
    plain_values = values if convert is None else [None if v is None else convert(v) for v in values]
    return np.fromiter(plain_values, dtype=object, count=len(values))


def _times(values: Sequence[Any], unit: str) -> Column:
    per_second = 1_000 if unit == TIME_MS else 1_000_000
    ticks = [_ticks(value, per_second) for value in values]
    return np.array([np.iinfo(np.int64).min if t is None else t for t in ticks], dtype=np.int64).view(
        f"datetime64[{unit}]"
    )


def _ticks(value: Any, per_second: int) -> int | None:
    """Whole ticks since the epoch; a finer time is cut down, never rounded up into the future."""
    if value is None or isinstance(value, int):
        return value
    return (value - _EPOCH) // _MICROSECOND * per_second // 1_000_000  # type: ignore[no-any-return]
