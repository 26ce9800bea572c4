"""Which ids were accepted: how a device's repeats are known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.container import Pieces
from stream_app.pipeline import seen_kernel as kernel
from stream_app.pipeline import unpack_kernel
from stream_app.pipeline.devices import reaching
from stream_app.pipeline.memory import pack, portable, shown
from stream_app.record import IntVector, Mask

# So many devices' marks are given together: as much as a processor's cache holds.
_TOGETHER = 128


class Met(NamedTuple):
    """Rows that came. `again`: the id was accepted before, in row `by` of them (-1: before them)."""

    devices: IntVector
    again: Mask
    by: IntVector
    number: IntVector
    before: IntVector


def marks_of(ids: NDArray[Any]) -> IntVector:
    """A 64-bit number for each id, shape (n,), 0 for None and for empty text: equal ids have equal ones.

    Two ids of one device have the same by chance once in 10^19 pairs.
    """
    found = np.zeros(len(ids), dtype=np.int64)
    unpack_kernel.marks(np.frombuffer(pack(portable(ids)), np.uint8), found)
    return found


class Seen:
    """Ids of accepted events among the last `limit` events of each device.

    The limit counts all of a device's events, whatever became of them: what is known to a row then does not
    depend on how the rows before it were split into calls.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        empty, free = np.zeros(0, dtype=np.int64), np.full(kernel.SIZES, -1, dtype=np.int64)
        tags, used = np.zeros(0, dtype=np.uint16), np.zeros(1, dtype=np.int64)
        self._rings = kernel.Rings(empty, empty, empty, empty, tags, used, free)

    def _reach(self, devices: int, places: int = 0) -> None:
        """Room for so many devices, and so many places in the pool."""
        count, start, room, pool, tags, used, free = self._rings
        count, start, room = (reaching(array, devices, 0) for array in (count, start, room))
        pool, tags = reaching(pool, places, 0), reaching(tags, places, 0)
        self._rings = kernel.Rings(count, start, room, pool, tags, used, free)

    def meet(self, devices: IntVector, marks: IntVector, accepted: Mask) -> Met:
        """Rows come, in order, and are remembered as far as `accepted` expects them to be.

        An event without an id (mark 0) is never a repeat. What was expected wrongly is to be put right: by `undo`
        and another call, or, where no row of them depends on it, by `drop`.
        """
        self._reach(int(devices.max(initial=-1)) + 1)
        rows = len(devices)
        met = Met(
            devices,
            np.zeros(rows, dtype=np.bool_),
            *(np.empty(rows, dtype=np.int64) for _ in range(3)),
        )
        done = 0
        while (
            done := kernel.meet(done, devices, marks, accepted, self._limit, self._rings, *met[1:])
        ) < rows:
            self._reach(0, len(self._rings.pool) + 2 * self._limit)
        return met

    def undo(self, met: Met) -> None:
        """As if the rows had not come; they are those that came last."""
        kernel.undo(met.devices, met.before, self._limit, self._rings)

    def drop(self, met: Met, rows: IntVector) -> None:
        """Some rows of those that came last were not accepted."""
        kernel.drop(rows, met.devices, met.number, self._limit, self._rings)

    def dump(self, devices: int) -> Any:
        """What is known of so many devices, as `packing.compressed` takes it; to be read at once."""
        self._reach(devices)
        count = self._rings.counts[:devices]
        lengths = np.minimum(count, self._limit)
        marks = Pieces(8 * int(lengths.sum()), self._marks(lengths))
        return {"counts": shown(count), "lengths": shown(lengths), "marks": marks}

    def _marks(self, lengths: IntVector) -> Iterator[memoryview]:
        """Some devices' at a time."""
        for first in range(0, len(lengths), _TOGETHER):
            some = lengths[first : first + _TOGETHER]
            marks = np.zeros(int(some.sum()), dtype=np.int64)
            kernel.held(self._limit, first, first + len(some), self._rings, marks)
            yield shown(marks)

    def load(self, dumped: Any, of: IntVector, to: IntVector) -> None:
        """Add devices: numbers `of` in the dump, `to` here."""
        counts, lengths, marks = (
            np.frombuffer(dumped[name], dtype=np.int64) for name in ("counts", "lengths", "marks")
        )
        begins = np.cumsum(lengths) - lengths
        # A ring is at most twice as large as what it holds.
        places = 2 * int(np.minimum(counts[of], self._limit).sum()) + kernel.SMALLEST * len(of)
        self._reach(int(to.max(initial=-1)) + 1, int(self._rings.used[0]) + places)
        kernel.put(to, counts[of], lengths[of], begins[of], marks, self._limit, self._rings)
