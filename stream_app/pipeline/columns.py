"""Columns out of rows of Python values, by the kind that the schema gives each field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.pipeline import unpack_kernel as kernel
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
_pack = msgspec.msgpack.Encoder().encode
_READ_AS = {
    FLOAT: kernel.REAL,
    SINGLE: kernel.REAL,
    INTEGER: kernel.WHOLE,
    BOOLEAN: kernel.WHOLE,
    TIME_MS: kernel.TICKS,
    TIME_US: kernel.TICKS,
}
_PER_SECOND = {TIME_MS: 1_000, TIME_US: 1_000_000}
_AS_THEY_ARE = (TEXT, INTEGER, BOOLEAN)


def build(
    rows: Sequence[tuple[Any, ...]], fields: Sequence[Field], required: Sequence[str]
) -> dict[str, Column]:
    """One array a field, in the order of the schema; `rows` hold the fields' values in that order.

    A time that is finer than its column is cut down. Values in `rows` beyond the fields are passed over.
    """
    return _built(rows, [itemgetter(at) for at in range(len(fields))], 0, fields, required)


def build_from(
    structs: Sequence[msgspec.Struct], fields: Sequence[Field], required: Sequence[str]
) -> dict[str, Column]:
    """The same of Structs whose members begin with the fields, in order and under their names; they may be tagged."""
    tagged = bool(structs) and structs[0].__struct_config__.tag is not None
    return _built(structs, [attrgetter(field.name) for field in fields], int(tagged), fields, required)


def _built(
    rows: Sequence[Any],
    getters: Sequence[Callable[[Any], Any]],
    lead: int,
    fields: Sequence[Field],
    required: Sequence[str],
) -> dict[str, Column]:
    """`lead` is how many values come before those of the fields."""
    kinds = np.array([_read_as(field, required) for field in fields], dtype=np.int64)
    per_second = np.array([_PER_SECOND.get(field.kind, 0) for field in fields], dtype=np.int64)
    reals = np.empty((len(fields), len(rows)))
    bits = reals.view(np.int64)
    kernel.columns(np.frombuffer(_pack(rows), np.uint8), kinds, per_second, lead, reals, bits)
    return {
        field.name: _objects(map(getters[at], rows), len(rows), field)
        if kinds[at] == kernel.PASS
        else _numbers(reals[at], bits[at], field.kind)
        for at, field in enumerate(fields)
    }


def _read_as(field: Field, required: Sequence[str]) -> int:
    """Whole numbers and booleans that may be missing stay Python's own: an array of them knows no missing."""
    missing = field.nullable and field.name not in required and field.kind in (INTEGER, BOOLEAN)
    return kernel.PASS if missing else _READ_AS.get(field.kind, kernel.PASS)


def _numbers(reals: NDArray[np.float64], bits: NDArray[np.int64], kind: str) -> Column:
    if kind == FLOAT:
        return reals
    if kind == SINGLE:  # JSON's numbers are finer than Avro's float
        return reals.astype(np.float32).astype(np.float64)
    if kind == INTEGER:
        return bits
    return bits != 0 if kind == BOOLEAN else bits.view(f"datetime64[{kind}]")


def _objects(values: Iterable[Any], count: int, field: Field) -> Column:
    if field.kind not in _AS_THEY_ARE:
        values = _converted(values, plain)
    return np.fromiter(values, dtype=object, count=count)


def _converted(values: Iterable[Any], convert: Callable[[Any], Any]) -> Iterable[Any]:
    return (None if value is None else convert(value) for value in values)
