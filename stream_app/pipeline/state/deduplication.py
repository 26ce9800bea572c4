"""Which ids were accepted: how a device's repeats are known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.siphash import new_seed
from anomaly.keyed_state.container import Buffer, Pieces
from stream_app.model.record import IntVector, Mask
from stream_app.pipeline.readers import unpack_kernel
from stream_app.pipeline.state import deduplication_kernel as kernel
from stream_app.pipeline.state.key_index import ensure_capacity
from stream_app.pipeline.state.previous_values import pack, to_builtin_values
from stream_app.pipeline.state.stored_arrays import (
    DEVICES_PER_CHUNK,
    SlotSelection,
    as_bytes,
    capacity_for,
    require,
    selected_slots,
    stored_rows,
)

# More events than a device can ever have; sums of so many cannot overflow.
MOST_EVENTS = 2**48


class Repeats(NamedTuple):
    """Rows that came. `again`: the id was accepted before, in row `by` of them (-1: before them)."""

    devices: IntVector
    again: Mask
    by: IntVector
    number: IntVector
    before: IntVector


def id_hashes(ids: NDArray[Any]) -> IntVector:
    """A 64-bit number for each id, shape (n,), 0 for None and for empty text: equal ids have equal ones.

    Two ids of one device have the same by chance once in 10^19 pairs.
    """
    found = np.zeros(len(ids), dtype=np.int64)
    unpack_kernel.hash_values(np.frombuffer(pack(to_builtin_values(ids)), np.uint8), found)
    return found


class RecentIds:
    """Ids of accepted events among the last `limit` events of each device.

    The limit counts all of a device's events, whatever became of them: what is known to a row then does not
    depend on how the rows before it were split into calls.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._seed = limit, new_seed(4)
        empty, free = np.zeros(0, dtype=np.int64), np.full(kernel.SIZES, -1, dtype=np.int64)
        tags, used = np.zeros(0, dtype=np.uint16), np.zeros(1, dtype=np.int64)
        self._rings = kernel.Rings(empty, empty, empty, empty, tags, used, free)

    def _reach(self, devices: int, places: int = 0) -> None:
        """Room for so many devices, and so many places in the pool."""
        count, start, room, pool, tags, used, free = self._rings
        count, start, room = (ensure_capacity(array, devices, 0) for array in (count, start, room))
        pool, tags = ensure_capacity(pool, places, 0), ensure_capacity(tags, places, 0)
        self._rings = kernel.Rings(count, start, room, pool, tags, used, free)

    def check_and_add(self, devices: IntVector, marks: IntVector, accepted: Mask) -> Repeats:
        """Rows come, in order, and are remembered as far as `accepted` expects them to be.

        An event without an id (mark 0) is never a repeat. What was expected wrongly is to be put right: by `undo`
        and another call, or, where no row of them depends on it, by `drop`.
        """
        self._reach(int(devices.max(initial=-1)) + 1)
        rows = len(devices)
        again, by = np.zeros(rows, dtype=np.bool_), np.full(rows, -1, dtype=np.int64)
        met = Repeats(devices, again, by, *(np.empty(rows, dtype=np.int64) for _ in range(2)))
        given, found = (devices, marks, accepted, self._limit), (again, met.number, met.before)
        done = 0
        while (done := kernel.check_and_add(done, *given, self._rings, *found)) < rows:
            self._reach(0, len(self._rings.pool) + 2 * self._limit)
        if met.again.any():
            self._find_givers(met, marks, accepted)
        return met

    def _find_givers(self, met: Repeats, marks: IntVector, accepted: Mask) -> int:
        """Fill in `met.by`; returns how many steps that took."""
        table = np.full(1 << (2 * len(marks) - 1).bit_length(), -1, dtype=np.int64)
        steps: int = kernel.givers(met.devices, marks, accepted, met.again, table, self._seed, met.by)
        return steps

    def undo(self, met: Repeats) -> None:
        """As if the rows had not come; they are those that came last."""
        kernel.undo(met.devices, met.before, self._limit, self._rings)

    def drop(self, met: Repeats, rows: IntVector) -> None:
        """Some rows of those that came last were not accepted."""
        kernel.drop(rows, met.devices, met.number, self._limit, self._rings)

    def dump(self, devices: SlotSelection) -> Any:
        """What is known of these devices, as `packing.compressed` takes it; to be read at once."""
        self._reach(capacity_for(devices))
        numbers = selected_slots(devices)
        counts = self._rings.counts[numbers]
        lengths = np.minimum(counts, self._limit)
        marks = Pieces(8 * int(lengths.sum()), self._marks(numbers, lengths))
        return {"counts": as_bytes(counts), "lengths": as_bytes(lengths), "marks": marks}

    def _marks(self, numbers: IntVector, lengths: IntVector) -> Iterator[memoryview]:
        """Some devices' at a time."""
        for first in range(0, len(lengths), DEVICES_PER_CHUNK):
            some = slice(first, first + DEVICES_PER_CHUNK)
            marks = np.zeros(int(lengths[some].sum()), dtype=np.int64)
            kernel.held(self._limit, numbers[some], self._rings, marks)
            yield as_bytes(marks)

    def load(self, dumped: Any, of: IntVector, to: IntVector, devices: int | None = None) -> None:
        """Add devices: numbers `of` in the dump, of so many `devices`, `to` here. Raises StateError."""
        counts, lengths = (
            stored_rows(dumped[name], np.int64, (), of, devices) for name in ("counts", "lengths")
        )
        self._check(counts, lengths, dumped["marks"])
        marks, begins = np.frombuffer(dumped["marks"], dtype=np.int64), np.cumsum(lengths) - lengths
        # A ring is at most twice as large as what it holds.
        places = 2 * int(np.minimum(counts[of], self._limit).sum()) + kernel.SMALLEST * len(of)
        self._reach(int(to.max(initial=-1)) + 1, int(self._rings.used[0]) + places)
        kernel.put(to, counts[of], lengths[of], begins[of], marks, self._limit, self._rings)

    @staticmethod
    def _check(counts: IntVector, lengths: IntVector, marks: Buffer) -> None:
        """Of each device as many marks are stored as it had events, up to the limit at that time."""
        require(len(counts) == len(lengths), "counts and lengths of ids are not of the same devices")
        limit, most = int(lengths.max(initial=0)), int(counts.max(initial=0))
        require(int(counts.min(initial=0)) >= 0 and most < MOST_EVENTS, "a count of events is out of range")
        require(bool((lengths == np.minimum(counts, limit)).all()), "counts and lengths of ids contradict")
        require(len(marks) == 8 * int(lengths.sum()), "there are not as many ids as their lengths say")
