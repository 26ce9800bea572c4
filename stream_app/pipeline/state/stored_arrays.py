"""Arrays of devices in a snapshot: written as views, checked when read, before compiled code sees them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from anomaly.detector import StateError
from anomaly.keyed_state.container import Buffer, Pieces
from stream_app.model.record import IntVector

# So many devices are copied together: as much as a processor's cache holds.
DEVICES_PER_CHUNK = 128
# The first so many devices, or those of these numbers.
SlotSelection = int | IntVector


def selected_slots(chosen: SlotSelection) -> IntVector:
    """Return the devices' numbers."""
    return np.arange(chosen, dtype=np.int64) if isinstance(chosen, int) else chosen


def capacity_for(chosen: SlotSelection) -> int:
    """Return how many devices an array must reach to hold these."""
    return chosen if isinstance(chosen, int) else int(chosen.max(initial=-1)) + 1


def as_bytes(array: NDArray[Any]) -> memoryview:
    """An array's bytes, where they are: they change with it."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def rows_as_bytes(array: NDArray[Any], chosen: SlotSelection) -> memoryview | Pieces:
    """The bytes of some devices' rows, copied, if at all, while they are used."""
    if isinstance(chosen, int):
        return as_bytes(array[:chosen])
    return Pieces(array.itemsize * math.prod(array.shape[1:]) * len(chosen), _copied(array, chosen))


def _copied(array: NDArray[Any], chosen: IntVector) -> Iterator[memoryview]:
    for first in range(0, len(chosen), DEVICES_PER_CHUNK):
        yield as_bytes(array[chosen[first : first + DEVICES_PER_CHUNK]])


def stored_rows(
    raw: Buffer, kind: DTypeLike, shape: tuple[int, ...], of: IntVector, devices: int | None
) -> NDArray[Any]:
    """Return a stored array with a row of `shape` for each device, of which rows `of` will be used.

    Raises StateError when it has not one row for each of `devices` (None: however many), or lacks one of `of`.
    """
    width = np.dtype(kind).itemsize * math.prod(shape)
    count, rest = divmod(len(raw), width) if width else (devices or 0, len(raw))
    if rest or (devices is not None and count != devices):
        raise StateError(f"an array of {len(raw)} bytes has not {width} bytes for each of {devices} devices")
    if len(of) and width and not 0 <= int(of.min()) <= int(of.max()) < count:
        raise StateError(f"an array has no row for device {int(of.max())} of {count}")
    return np.frombuffer(raw, dtype=kind).reshape(count, *shape)


def require(held: bool, what: str) -> None:
    """Raise StateError when what a stored state must hold does not hold."""
    if not held:
        raise StateError(what)
