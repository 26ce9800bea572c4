"""Past values of each device on a grid of time, in arrays."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.event import Window
from stream_app.pipeline.memory import Keep
from stream_app.record import Batch, IntVector, Mask

_STALE = np.iinfo(np.int64).min
_FIRST_ROOM = 16
_WIDEST = 2**61
_Cube = NDArray[np.float64]


class Windows:
    """A slot holds the last value seen for its step. A reading later than one window finds its slot taken."""

    def __init__(self, spec: Window) -> None:
        self._spec = spec
        # Twice the window, so that a reading that is late by up to one window still finds its neighbours.
        self._slots = 2 * spec.size
        self._index: dict[str, int] = {}
        self._stamps = np.full((_FIRST_ROOM, self._slots), _STALE, dtype=np.int64)
        self._values = np.full((_FIRST_ROOM, self._slots, len(spec.fields)), np.nan)

    def recall(self, keys: NDArray[Any], batch: Batch) -> dict[str, NDArray[np.float64]]:
        """Note each row's values, then give its window, row by row in order: (n, size) for each field."""
        devices = np.fromiter((self._device(key) for key in keys), dtype=np.int64, count=len(keys))
        ticks = (batch[self._spec.time] - np.datetime64(0, "s")) // np.timedelta64(self._spec.step)
        steps = ticks.astype(np.int64)
        given = np.stack([batch[name] for name in self._spec.fields], axis=1).astype(np.float64)
        out = np.full((len(batch), self._spec.size, len(self._spec.fields)), np.nan)
        orderly = self._orderly(devices, steps)
        many = np.flatnonzero(orderly)
        if len(many):
            out[many] = self._recall_many(devices[many], steps[many], given[many])
        for at in np.flatnonzero(~orderly).tolist():
            out[at] = self._recall_one(int(devices[at]), int(steps[at]), given[at])
        return {f"window.{name}": out[:, :, at] for at, name in enumerate(self._spec.fields)}

    def _orderly(self, devices: IntVector, steps: IntVector) -> Mask:
        """Rows of devices whose steps only grow, in the batch and against what is known of them."""
        order = np.argsort(devices, kind="stable")
        device, step = devices[order], steps[order]
        newest = self._stamps[device].max(axis=1)
        same = device[1:] == device[:-1]
        grows = step > newest
        grows[1:] &= ~same | (step[1:] > step[:-1])
        unruly = np.unique(device[~grows])
        orderly = ~np.isin(devices, unruly)
        # Times ages apart do not fit into one number with the device; such rows go one by one.
        span = int(steps.max()) - int(steps.min()) if len(steps) else 0
        return orderly & (span < _WIDEST // (len(self._index) + 1))

    def _recall_many(self, devices: IntVector, steps: IntVector, given: _Cube) -> _Cube:
        """All rows at once: a step before a row's own is either an earlier row of the batch, or known already."""
        back = np.arange(self._spec.size)
        wanted = steps[:, None] - back
        slots = wanted % self._slots
        known = self._stamps[devices[:, None], slots] == wanted
        out = np.where(known[:, :, None], self._values[devices[:, None], slots], np.nan)
        order = np.argsort(devices, kind="stable")
        # One number for device and step; the gap between devices is wider than a window.
        span = int(steps.max() - steps.min()) + 2 * self._spec.size
        code = devices[order] * span + (steps[order] - steps.min() + self._spec.size)
        sought = (devices * span + (steps - steps.min() + self._spec.size))[:, None] - back
        at = np.minimum(np.searchsorted(code, sought), len(code) - 1)
        rows, columns = np.nonzero(code[at] == sought)
        out[rows, columns] = given[order][at[rows, columns]]
        # In order of rows, so that of two steps in one slot the later stays.
        self._stamps[devices, steps % self._slots] = steps
        self._values[devices, steps % self._slots] = given
        return out

    def _recall_one(self, device: int, step: int, given: NDArray[np.float64]) -> NDArray[np.float64]:
        stamps, values = self._stamps[device], self._values[device]
        slot = step % self._slots
        if step >= stamps[slot]:  # never let an ancient reading push out a newer one
            stamps[slot], values[slot] = step, given
        wanted = step - np.arange(self._spec.size)
        slots = wanted % self._slots
        out: NDArray[np.float64] = np.where((stamps[slots] == wanted)[:, None], values[slots], np.nan)
        out[0] = given
        return out

    def _device(self, key: str) -> int:
        found = self._index.get(key)
        if found is None:
            found = self._index[key] = len(self._index)
            if found == len(self._stamps):
                self._stamps = np.concatenate([self._stamps, np.full_like(self._stamps, _STALE)])
                self._values = np.concatenate([self._values, np.full_like(self._values, np.nan)])
        return found

    def dump(self) -> Any:
        """Built-in types only; arrays as bytes."""
        devices = {
            key: (self._stamps[at].tobytes(), self._values[at].tobytes()) for key, at in self._index.items()
        }
        return {"grid": self._grid(), "devices": devices}

    def _grid(self) -> list[Any]:
        return [list(self._spec.fields), self._spec.size, self._spec.step // timedelta(microseconds=1)]

    def load(self, dumped: Any, keep: Keep) -> None:
        """Add the devices for which `keep` holds; nothing when the window is declared otherwise than it was."""
        if dumped["grid"] != self._grid():
            return
        for key, (stamps, values) in dumped["devices"].items():
            if keep(key):
                at = self._device(key)
                self._stamps[at] = np.frombuffer(stamps, dtype=np.int64)
                self._values[at] = np.frombuffer(values, dtype=np.float64).reshape(self._slots, -1)
