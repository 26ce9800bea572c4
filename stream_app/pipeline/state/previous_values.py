"""The last accepted values of each device, given to `verify` and `calculate` as `previous.<field>`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from anomaly.detector import AnyArray
from stream_app.model.record import Batch, IntVector, Mask
from stream_app.pipeline.state import windows_kernel as kernel
from stream_app.pipeline.state.key_index import ensure_capacity
from stream_app.pipeline.state.stored_arrays import (
    SlotSelection,
    StoredPart,
    capacity_for,
    require,
    selected_slots,
)

# A value of a column as a built-in type, such as a field's type allows: float, int, bool, str, list, None.
Value = Any

_NAT = np.iinfo(np.int64).min
_MAX_TICKS = np.iinfo(np.int64).max
_NUMBERS = (float, int, bool)
_NUMERIC_KINDS = "iufb"


class PreviousValues:
    """The last accepted value of each field by device; NaN, NaT or None for devices without one."""

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = tuple(fields)
        self._last = np.zeros((0, len(self._fields)), dtype=object)
        self._latest = np.zeros(0, dtype=np.int64)

    def _reserve(self, slots: int) -> None:
        self._last = ensure_capacity(self._last, slots, None)
        self._latest = ensure_capacity(self._latest, slots, -1)

    def columns(self, slots: IntVector, batch: Batch, accepted: Mask) -> dict[str, AnyArray]:
        """Return the columns `previous.<field>` for each row.

        A row's previous values are those of the last `accepted` row of its device before it in the batch, otherwise
        the stored ones.
        """
        self._reserve(int(slots.max(initial=-1)) + 1)
        before = np.empty(len(slots), dtype=np.int64)
        kernel.previous_rows(slots, accepted, self._latest, before)
        in_batch = before >= 0
        columns: dict[str, AnyArray] = {}
        for at, name in enumerate(self._fields):
            column = _column_like(batch[name], self._last[slots, at].tolist())
            column[in_batch] = _nullable(batch[name])[before[in_batch]]
            columns[f"previous.{name}"] = column
        return columns

    def update(self, slots: IntVector, batch: Batch) -> None:
        """Store the values of accepted rows; the last of several rows of a device wins."""
        self._reserve(int(slots.max(initial=-1)) + 1)
        _, last = np.unique(slots[::-1], return_index=True)
        rows = len(slots) - 1 - last
        for at, name in enumerate(self._fields):
            self._last[slots[rows], at] = np.fromiter(to_builtin_values(batch[name][rows]), object, len(rows))

    def dump(self, selection: SlotSelection) -> dict[str, object]:
        """Return the values of the selected devices as built-in types."""
        self._reserve(capacity_for(selection))
        return {"fields": self._fields, "last": self._last[selected_slots(selection)].tolist()}

    def load(self, dumped: StoredPart, of: IntVector, to: IntVector, devices: int | None = None) -> None:
        """Add devices: row `of[i]` of a dump of `devices` devices becomes slot `to[i]`. Raises StateError.

        Fields that the dump lacks get no previous value.
        """
        fields, last = dumped["fields"], dumped["last"]
        require(len(last) == devices or devices is None, "the number of previous rows is not that of devices")
        require(
            all(len(values) == len(fields) for values in last), "a previous row has missing or extra fields"
        )
        require(int(of.max(initial=-1)) < len(last), "a device has no previous row")
        self._reserve(int(to.max(initial=-1)) + 1)
        at = {name: number for number, name in enumerate(fields)}
        for source, slot in zip(of.tolist(), to.tolist(), strict=True):
            for number, name in enumerate(self._fields):
                self._last[slot, number] = last[source][at[name]] if name in at else None


def to_builtin_values(column: AnyArray) -> list[Value]:
    """Convert a column for a snapshot: times to ticks of their unit (NaT to None), other values to built-in types."""
    if column.dtype.kind == "M":
        return [None if tick == _NAT else tick for tick in column.view(np.int64).tolist()]
    values: list[Value] = column.tolist()
    return values


def _column_like(column: AnyArray, values: list[Value]) -> AnyArray:
    """Convert stored values to a column of the same kind as `column`; missing values become NaT, NaN or None.

    A value that does not fit, because the field's type has changed since it was stored, counts as missing.
    """
    if column.dtype.kind == "M":
        ticks = [v if type(v) is int and abs(v) <= _MAX_TICKS else _NAT for v in values]
        return np.array(ticks, dtype=np.int64).view(column.dtype)
    if column.dtype.kind in _NUMERIC_KINDS:  # float64, because integers have no NaN
        return np.array([v if type(v) in _NUMBERS else None for v in values], dtype=np.float64)
    return np.fromiter(values, dtype=object, count=len(values))


def _nullable(column: AnyArray) -> AnyArray:
    """Convert a column to the dtype that `_column_like` uses for it."""
    if column.dtype.kind in _NUMERIC_KINDS:
        return column.astype(np.float64, copy=False)
    return column if column.dtype.kind == "M" else np.fromiter(column.tolist(), object, len(column))
