"""Builds columns from rows of Python values by the kinds of the schema's fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from anomaly.detector import AnyArray
from stream_app.model.record import EXACT, IntVector, Mask
from stream_app.pipeline.readers import unpack_kernel as kernel
from stream_app.pipeline.values import time_kernel
from stream_app.pipeline.values.schema import (
    BOOLEAN,
    FLOAT,
    IDENTITY,
    INTEGER,
    SINGLE,
    TICKS_PER_SECOND,
    TIME_MS,
    TIME_US,
    Field,
)

_pack = msgspec.msgpack.Encoder().encode
_READ_AS = {
    FLOAT: kernel.FLOAT,
    SINGLE: kernel.FLOAT,
    INTEGER: kernel.INTEGER,
    BOOLEAN: kernel.INTEGER,
    TIME_MS: kernel.TICKS,
    TIME_US: kernel.TICKS,
}


class Built(NamedTuple):
    """Columns in the order of the schema, and a mask of the rows with a time that the exact reader must read.

    The times of these rows are not valid in the columns.
    """

    columns: dict[str, AnyArray]
    undecided: Mask


def build(
    rows: Sequence[Sequence[object]], fields: Sequence[Field], required: Sequence[str]
) -> dict[str, AnyArray]:
    """Build an array for each field, in the order of the schema; `rows` hold the fields' values in that order.

    Values are as `json_reader` and `avro_reader` return them. Integers and booleans that may be missing become
    float64, NaN where missing; a column `exact.<field>` beside them holds their exact values.
    """
    getters = [itemgetter(at) for at in range(len(fields))]
    return _built(rows, getters, 0, fields, required, None).columns


def build_from(
    structs: Sequence[msgspec.Struct],
    fields: Sequence[Field],
    required: Sequence[str],
    arrived: IntVector | None,
) -> Built:
    """Build columns from Structs whose first members are the fields, in order and by name; they may be tagged.

    Times are numbers or text. `arrived` (milliseconds since 1970) is for detecting numbers in a coarser unit; None
    disables this.
    """
    tagged = bool(structs) and structs[0].__struct_config__.tag is not None
    return _built(
        structs, [attrgetter(field.name) for field in fields], int(tagged), fields, required, arrived
    )


def _built(
    rows: Sequence[Any],
    getters: Sequence[Callable[[Any], object]],
    lead: int,
    fields: Sequence[Field],
    required: Sequence[str],
    arrived: IntVector | None,
) -> Built:
    """Build the columns; `lead` is the number of packed values before those of the fields in each row."""
    count = len(rows)
    kinds = np.array([_read_as(field, required) for field in fields], dtype=np.int64)
    per_second = np.array([TICKS_PER_SECOND.get(field.kind, 0) for field in fields], dtype=np.int64)
    floats = np.empty((len(fields), count))
    bits = floats.view(np.int64)
    missing = np.zeros((len(fields) if (kinds == kernel.NULLABLE).any() else 0, count), dtype=np.bool_)
    undecided = np.zeros(count, dtype=np.bool_)
    if arrived is None:
        arrived = np.full(count, time_kernel.NO_ARRIVAL, dtype=np.int64)
    data = np.frombuffer(_pack(rows), np.uint8)
    kernel.fill_columns(data, kinds, per_second, lead, arrived, floats, bits, missing, undecided)
    columns: dict[str, AnyArray] = {}
    for at, field in enumerate(fields):
        if kinds[at] == kernel.SKIP:
            columns[field.name] = _objects(map(getters[at], rows), count, field)
        elif kinds[at] == kernel.NULLABLE:
            columns[field.name] = np.where(missing[at], np.nan, bits[at])
            columns[EXACT + field.name] = bits[at] != 0 if field.kind == BOOLEAN else bits[at]
        else:
            columns[field.name] = _numbers(floats[at], bits[at], field.kind)
    return Built(columns, undecided)


def _read_as(field: Field, required: Sequence[str]) -> int:
    if field.nullable and field.name not in required and field.kind in (INTEGER, BOOLEAN):
        return kernel.NULLABLE
    return _READ_AS.get(field.kind, kernel.SKIP)


def _numbers(floats: NDArray[np.float64], bits: NDArray[np.int64], kind: str) -> AnyArray:
    if kind == FLOAT:
        return floats
    if kind == SINGLE:  # JSON numbers may have more digits than Avro's float
        return floats.astype(np.float32).astype(np.float64)
    if kind == INTEGER:
        return bits
    return bits != 0 if kind == BOOLEAN else bits.view(f"datetime64[{kind}]")


def _objects(values: Iterable[object], count: int, field: Field) -> AnyArray:
    if field.kind == IDENTITY:
        values = (str(value) if isinstance(value, UUID) else value for value in values)
    return np.fromiter(values, dtype=object, count=count)
