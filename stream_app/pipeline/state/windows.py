"""Past values of each device on a grid of time, in arrays."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.model.event import Window
from stream_app.model.record import Batch, IntVector
from stream_app.pipeline.state import windows_kernel as kernel
from stream_app.pipeline.state.key_index import ensure_capacity
from stream_app.pipeline.state.stored_arrays import (
    DEVICES_PER_CHUNK,
    SlotSelection,
    capacity_for,
    require,
    rows_as_bytes,
    stored_rows,
)


class SavedWindows(NamedTuple):
    """What was known of some devices, to be put back."""

    devices: IntVector
    stamps: IntVector
    values: NDArray[np.float64]


class Windows:
    """A slot holds the last value seen for its step. A reading later than one window finds its slot taken."""

    def __init__(self, spec: Window) -> None:
        self._spec = spec
        # Twice the window, so that a reading that is late by up to one window still finds its neighbours.
        self._slots = 2 * spec.size
        self._stamps = np.zeros((0, self._slots), dtype=np.int64)
        self._values = np.zeros((0, self._slots, len(spec.fields)))

    def _reach(self, devices: int) -> None:
        self._stamps = ensure_capacity(self._stamps, devices, kernel.STALE)
        self._values = ensure_capacity(self._values, devices, np.nan)

    def recall(self, devices: IntVector, batch: Batch) -> dict[str, NDArray[np.float64]]:
        """Note each row's values, then give its window, row by row in order: (n, size) for each field.

        The arrays are C-contiguous: NumPy's reductions along a window then add its values in the same order
        however many rows there are.
        """
        spec = self._spec
        ticks = (batch[spec.time] - np.datetime64(0, "s")) // np.timedelta64(spec.step)
        given = np.stack([batch[name] for name in spec.fields]).astype(np.float64, copy=False)
        out = np.empty((len(spec.fields), len(batch), spec.size))
        self._reach(int(devices.max(initial=-1)) + 1)
        kernel.windows(devices, ticks.astype(np.int64), given, self._stamps, self._values, out)
        return {f"window.{name}": out[at] for at, name in enumerate(spec.fields)}

    def keep(self, devices: IntVector) -> SavedWindows:
        """What is known of these devices now."""
        self._reach(int(devices.max(initial=-1)) + 1)
        each = np.unique(devices)
        return SavedWindows(each, self._stamps[each], self._values[each])

    def put_back(self, kept: SavedWindows) -> None:
        """As it was when `keep` was called."""
        self._stamps[kept.devices], self._values[kept.devices] = kept.stamps, kept.values

    def dump(self, devices: SlotSelection) -> Any:
        """What is known of these devices, as `packing.compressed` takes it; to be read at once."""
        self._reach(capacity_for(devices))
        stamps, values = rows_as_bytes(self._stamps, devices), rows_as_bytes(self._values, devices)
        return {"grid": self._grid(), "stamps": stamps, "values": values}

    def _grid(self) -> list[Any]:
        return [list(self._spec.fields), self._spec.size, self._spec.step // timedelta(microseconds=1)]

    def load(self, dumped: Any, of: IntVector, to: IntVector, devices: int | None = None) -> None:
        """Add devices, numbers `of` in the dump, of so many `devices`, `to` here. Raises StateError.

        Nothing is added when the window was declared otherwise.
        """
        if list(dumped["grid"]) != self._grid():
            return
        self._reach(int(to.max(initial=-1)) + 1)
        stamps = stored_rows(dumped["stamps"], np.int64, self._stamps.shape[1:], of, devices)
        values = stored_rows(dumped["values"], np.float64, self._values.shape[1:], of, len(stamps))
        slots = np.arange(self._slots)
        for first in range(0, len(of), DEVICES_PER_CHUNK):
            some, places = (
                stamps[of[first : first + DEVICES_PER_CHUNK]],
                to[first : first + DEVICES_PER_CHUNK],
            )
            fits = (some == kernel.STALE) | (some % self._slots == slots)
            require(bool(fits.all()), "a window's slot holds the value of a step that belongs to another")
            self._stamps[places], self._values[places] = some, values[of[first : first + DEVICES_PER_CHUNK]]
