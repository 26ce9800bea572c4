"""The windows of each device: its past values on a regular grid of time."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.model.event import Window
from stream_app.model.record import Batch, IntVector
from stream_app.pipeline.state import windows_kernel as kernel
from stream_app.pipeline.state.key_index import ensure_capacity
from stream_app.pipeline.state.stored_arrays import (
    DEVICES_PER_CHUNK,
    SlotSelection,
    StoredPart,
    capacity_for,
    require,
    rows_as_bytes,
    stored_rows,
)


class SavedWindows(NamedTuple):
    """A copy of the windows of some devices, for `Windows.restore`."""

    slots: IntVector
    steps: IntVector
    values: NDArray[np.float64]


class Windows:
    """A ring buffer for each device with one cell per time step; a cell holds the last value of its step."""

    def __init__(self, spec: Window) -> None:
        self._spec = spec
        # Twice the window, so that a reading that is late by up to one window still finds its neighbours.
        self._cells = 2 * spec.size
        self._steps = np.zeros((0, self._cells), dtype=np.int64)
        self._values = np.zeros((0, self._cells, len(spec.fields)))

    def _reserve(self, slots: int) -> None:
        self._steps = ensure_capacity(self._steps, slots, kernel.EMPTY)
        self._values = ensure_capacity(self._values, slots, np.nan)

    def add(self, slots: IntVector, batch: Batch) -> dict[str, NDArray[np.float64]]:
        """Add each row's values, in order, and return its windows: `window.<field>`, shape (n, size).

        The arrays are C-contiguous, so that NumPy's reductions along a window add its values in the same order for
        any number of rows.
        """
        spec = self._spec
        steps = (batch[spec.time] - np.datetime64(0, "s")) // np.timedelta64(spec.step)
        given = np.stack([batch[name] for name in spec.fields]).astype(np.float64, copy=False)
        out = np.empty((len(spec.fields), len(batch), spec.size))
        self._reserve(int(slots.max(initial=-1)) + 1)
        kernel.windows(slots, steps.astype(np.int64), given, self._steps, self._values, out)
        return {f"window.{name}": out[at] for at, name in enumerate(spec.fields)}

    def save(self, slots: IntVector) -> SavedWindows:
        """Copy the windows of these devices."""
        self._reserve(int(slots.max(initial=-1)) + 1)
        each = np.unique(slots)
        return SavedWindows(each, self._steps[each], self._values[each])

    def restore(self, saved: SavedWindows) -> None:
        """Restore the windows that `save` copied."""
        self._steps[saved.slots], self._values[saved.slots] = saved.steps, saved.values

    def dump(self, selection: SlotSelection) -> dict[str, object]:
        """Return the windows of the selected devices for `compress_state`; views, valid until the next update."""
        self._reserve(capacity_for(selection))
        steps, values = rows_as_bytes(self._steps, selection), rows_as_bytes(self._values, selection)
        return {"grid": self._grid(), "stamps": steps, "values": values}

    def _grid(self) -> list[list[str] | int]:
        return [list(self._spec.fields), self._spec.size, self._spec.step // timedelta(microseconds=1)]

    def load(self, dumped: StoredPart, of: IntVector, to: IntVector, devices: int | None = None) -> None:
        """Add devices: row `of[i]` of a dump of `devices` devices becomes slot `to[i]`. Raises StateError.

        Does nothing if the dump is of a window with another declaration.
        """
        if list(dumped["grid"]) != self._grid():
            return
        self._reserve(int(to.max(initial=-1)) + 1)
        steps = stored_rows(dumped["stamps"], np.int64, self._steps.shape[1:], of, devices)
        values = stored_rows(dumped["values"], np.float64, self._values.shape[1:], of, len(steps))
        cells = np.arange(self._cells)
        for first in range(0, len(of), DEVICES_PER_CHUNK):
            part, places = steps[of[first : first + DEVICES_PER_CHUNK]], to[first : first + DEVICES_PER_CHUNK]
            valid = (part == kernel.EMPTY) | (part % self._cells == cells)
            require(bool(valid.all()), "a cell of a window holds a step that belongs to another cell")
            self._steps[places], self._values[places] = part, values[of[first : first + DEVICES_PER_CHUNK]]
