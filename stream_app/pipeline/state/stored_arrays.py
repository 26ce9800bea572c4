"""Arrays by device in a snapshot: written as views, and checked when read, before compiled code uses them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anomaly.detector import AnyArray, StateError
from anomaly.keyed_state.container import Buffer, Pieces
from stream_app.model.record import IntVector

# A part of a decoded snapshot: one of the TypedDicts of `snapshot`, or the same as just dumped.
StoredPart = Any
# Devices copied at a time: their rows fit into a processor's cache.
DEVICES_PER_CHUNK = 128
# The first n devices, or the devices with these slots.
SlotSelection = int | IntVector


def selected_slots(selection: SlotSelection) -> IntVector:
    """Return the selected slots."""
    return np.arange(selection, dtype=np.int64) if isinstance(selection, int) else selection


def capacity_for(selection: SlotSelection) -> int:
    """Return the array length needed to hold the selected slots."""
    return selection if isinstance(selection, int) else int(selection.max(initial=-1)) + 1


def as_bytes(array: AnyArray) -> memoryview:
    """Return a view of an array's bytes, without a copy where the array is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def rows_as_bytes(array: AnyArray, selection: SlotSelection) -> memoryview | Pieces:
    """Return the bytes of the selected rows, copied, if at all, only while they are read."""
    if isinstance(selection, int):
        return as_bytes(array[:selection])
    return Pieces(array.itemsize * math.prod(array.shape[1:]) * len(selection), _copied(array, selection))


def _copied(array: AnyArray, selection: IntVector) -> Iterator[memoryview]:
    for first in range(0, len(selection), DEVICES_PER_CHUNK):
        yield as_bytes(array[selection[first : first + DEVICES_PER_CHUNK]])


def stored_rows(
    raw: Buffer, kind: DTypeLike, shape: tuple[int, ...], of: IntVector, devices: int | None
) -> AnyArray:
    """Return a stored array with one row of `shape` for each device; only the rows `of` will be used.

    Raises StateError if the number of rows is not `devices` (None: any number), or if a row of `of` is missing.
    """
    width = np.dtype(kind).itemsize * math.prod(shape)
    count, rest = divmod(len(raw), width) if width else (devices or 0, len(raw))
    if rest or (devices is not None and count != devices):
        raise StateError(f"an array has {len(raw)} bytes, expected {width} for each of {devices} devices")
    if len(of) and width and not 0 <= int(of.min()) <= int(of.max()) < count:
        raise StateError(f"an array has no row for device {int(of.max())} of {count}")
    return np.frombuffer(raw, dtype=kind).reshape(count, *shape)


def require(condition: bool, problem: str) -> None:
    """Raise StateError with `problem` unless the condition holds."""
    if not condition:
        raise StateError(problem)
