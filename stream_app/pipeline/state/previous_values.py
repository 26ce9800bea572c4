"""The last values of each device, and how what is remembered travels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.model.record import Batch, IntVector, Mask
from stream_app.pipeline.state import windows_kernel as kernel
from stream_app.pipeline.state.key_index import ensure_capacity
from stream_app.pipeline.state.packing import read_container
from stream_app.pipeline.state.stored_arrays import SlotSelection, capacity_for, require, selected_slots

KeyFilter = Callable[[str], bool]
_STALE = np.iinfo(np.int64).min
_MOST = np.iinfo(np.int64).max
_NUMBERS = (float, int, bool)
_NUMERIC_KINDS = "iufb"


class PreviousValues:
    """The last accepted values of each device as columns `previous.<field>`: NaN, NaT or None where there is none."""

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = tuple(fields)
        self._last = np.zeros((0, len(self._fields)), dtype=object)
        self._latest = np.zeros(0, dtype=np.int64)

    def _reach(self, devices: int) -> None:
        self._last = ensure_capacity(self._last, devices, None)
        self._latest = ensure_capacity(self._latest, devices, -1)

    def recall(self, devices: IntVector, batch: Batch, accepted: Mask) -> dict[str, NDArray[Any]]:
        """Each row's columns: of its device's row before it among those `accepted`, or what is remembered."""
        self._reach(int(devices.max(initial=-1)) + 1)
        before = np.empty(len(devices), dtype=np.int64)
        kernel.before(devices, accepted, self._latest, before)
        here = before >= 0
        found: dict[str, NDArray[Any]] = {}
        for at, name in enumerate(self._fields):
            column = _like(batch[name], self._last[devices, at].tolist())
            column[here] = _own(batch[name])[before[here]]
            found[f"previous.{name}"] = column
        return found

    def remember(self, devices: IntVector, batch: Batch) -> None:
        """Take over the values of accepted rows; of several of a device the last stays."""
        self._reach(int(devices.max(initial=-1)) + 1)
        _, last = np.unique(devices[::-1], return_index=True)
        rows = len(devices) - 1 - last
        for at, name in enumerate(self._fields):
            self._last[devices[rows], at] = np.fromiter(
                to_builtin_values(batch[name][rows]), object, len(rows)
            )

    def dump(self, devices: SlotSelection) -> Any:
        """What is known of these devices, in built-in types."""
        self._reach(capacity_for(devices))
        return {"fields": self._fields, "last": self._last[selected_slots(devices)].tolist()}

    def load(self, dumped: Any, of: IntVector, to: IntVector, devices: int | None = None) -> None:
        """Add devices, numbers `of` in the dump, of so many `devices`, `to` here. Raises StateError.

        A field that was not kept then has no previous value.
        """
        fields, last = dumped["fields"], dumped["last"]
        require(len(last) == devices or devices is None, "there is not one previous row for each device")
        require(
            all(len(values) == len(fields) for values in last), "a previous row lacks fields, or has more"
        )
        require(int(of.max(initial=-1)) < len(last), "a device has no previous row")
        self._reach(int(to.max(initial=-1)) + 1)
        at = {name: number for number, name in enumerate(fields)}
        for source, device in zip(of.tolist(), to.tolist(), strict=True):
            for number, name in enumerate(self._fields):
                self._last[device, number] = last[source][at[name]] if name in at else None


def to_builtin_values(column: NDArray[Any]) -> list[Any]:
    """Values that survive a snapshot: times as whole ticks (NaT as None), the rest as Python's own."""
    if column.dtype.kind == "M":
        return [None if tick == _STALE else tick for tick in column.view(np.int64).tolist()]
    values: list[Any] = column.tolist()
    return values


def _like(column: NDArray[Any], values: list[Any]) -> NDArray[Any]:
    """Past values as a column of the kind of today's; where there is none: NaT, NaN or None.

    One that does not fit, because the field had another type when it was remembered, counts as none.
    """
    if column.dtype.kind == "M":
        ticks = [v if type(v) is int and abs(v) <= _MOST else _STALE for v in values]
        return np.array(ticks, dtype=np.int64).view(column.dtype)
    if column.dtype.kind in _NUMERIC_KINDS:  # as past values all are of floating point, which has NaN
        return np.array([v if type(v) in _NUMBERS else None for v in values], dtype=np.float64)
    return np.fromiter(values, dtype=object, count=len(values))


def _own(column: NDArray[Any]) -> NDArray[Any]:
    """A column as `_like` gives past values of it."""
    if column.dtype.kind in _NUMERIC_KINDS:
        return column.astype(np.float64, copy=False)
    return column if column.dtype.kind == "M" else np.fromiter(column.tolist(), object, len(column))


def pack(state: Any) -> bytes:
    """Built-in types to bytes."""
    return msgspec.msgpack.encode(state)


def unpack(data: bytes) -> Any:
    """Bytes of `pack`, or of `packing.compressed`, to built-in types. Raises ValueError when it is none."""
    return msgspec.msgpack.decode(read_container(data))
