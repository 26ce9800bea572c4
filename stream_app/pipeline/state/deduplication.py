"""Deduplication: the recently accepted ids of each device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from anomaly.detector import AnyArray
from anomaly.kernels.siphash import new_seed
from anomaly.keyed_state.container import Buffer, Pieces
from stream_app.model.record import IntVector, Mask
from stream_app.pipeline.readers import unpack_kernel
from stream_app.pipeline.state import deduplication_kernel as kernel
from stream_app.pipeline.state.key_index import ensure_capacity
from stream_app.pipeline.state.packing import pack
from stream_app.pipeline.state.previous_values import to_builtin_values
from stream_app.pipeline.state.stored_arrays import (
    DEVICES_PER_CHUNK,
    SlotSelection,
    StoredPart,
    as_bytes,
    capacity_for,
    require,
    selected_slots,
    stored_rows,
)

# An upper bound for the events of a device, low enough that sums cannot overflow.
MAX_EVENTS = 2**48


class Repeats(NamedTuple):
    """The result of `RecentIds.check_and_add`, one entry for each row.

    `repeated`: the id was accepted before. `originals`: the last earlier row with that id, -1 if it was accepted
    before these rows. `event_numbers` counts the device's events from 1. `overwritten`: the hash that it replaced.
    """

    slots: IntVector
    repeated: Mask
    originals: IntVector
    event_numbers: IntVector
    overwritten: IntVector


def id_hashes(ids: AnyArray) -> IntVector:
    """Return a 64-bit hash of each id, shape (n,); 0 for None and empty text.

    Two different ids collide with a probability of about 1 in 10^19.
    """
    hashes = np.zeros(len(ids), dtype=np.int64)
    unpack_kernel.hash_values(np.frombuffer(pack(to_builtin_values(ids)), np.uint8), hashes)
    return hashes


class RecentIds:
    """The ids of accepted events among the last `limit` events of each device.

    The limit counts all events of a device, including failed ones and duplicates, so that the window of known ids
    does not depend on how the records are split into batches.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._seed = limit, new_seed(4)
        empty, free = np.zeros(0, dtype=np.int64), np.full(kernel.SIZE_CLASSES, -1, dtype=np.int64)
        tags, used = np.zeros(0, dtype=np.uint16), np.zeros(1, dtype=np.int64)
        self._rings = kernel.Rings(empty, empty, empty, empty, tags, used, free)

    def _reserve(self, slots: int, places: int = 0) -> None:
        """Reserve capacity for a number of device slots, and of places in the pool."""
        counts, start, capacity, pool, tags, used, free = self._rings
        counts, start, capacity = (ensure_capacity(array, slots, 0) for array in (counts, start, capacity))
        pool, tags = ensure_capacity(pool, places, 0), ensure_capacity(tags, places, 0)
        self._rings = kernel.Rings(counts, start, capacity, pool, tags, used, free)

    def check_and_add(self, slots: IntVector, hashes: IntVector, accepted: Mask) -> Repeats:
        """Find the duplicates among rows, in order, and add the ids of the rows assumed to be `accepted`.

        A row without an id (hash 0) is never a duplicate. If an assumption was wrong, call `undo` and try again, or
        `remove` if no other row depends on it.
        """
        self._reserve(int(slots.max(initial=-1)) + 1)
        rows = len(slots)
        repeated, originals = np.zeros(rows, dtype=np.bool_), np.full(rows, -1, dtype=np.int64)
        repeats = Repeats(slots, repeated, originals, *(np.empty(rows, dtype=np.int64) for _ in range(2)))
        given = slots, hashes, accepted, self._limit
        found = repeated, repeats.event_numbers, repeats.overwritten
        done = 0
        while (done := kernel.check_and_add(done, *given, self._rings, *found)) < rows:
            self._reserve(0, len(self._rings.pool) + 2 * self._limit)
        if repeated.any():
            self._find_originals(repeats, hashes, accepted)
        return repeats

    def _find_originals(self, repeats: Repeats, hashes: IntVector, accepted: Mask) -> int:
        """Fill in `repeats.originals`; return the number of table entries inspected."""
        table = np.full(1 << (2 * len(hashes) - 1).bit_length(), -1, dtype=np.int64)
        steps: int = kernel.find_originals(
            repeats.slots, hashes, accepted, repeats.repeated, table, self._seed, repeats.originals
        )
        return steps

    def undo(self, repeats: Repeats) -> None:
        """Undo the last call of `check_and_add`."""
        kernel.undo(repeats.slots, repeats.overwritten, self._limit, self._rings)

    def remove(self, repeats: Repeats, rows: IntVector) -> None:
        """Remove the ids of some rows of the last call of `check_and_add`, because they were not accepted."""
        kernel.remove(rows, repeats.slots, repeats.event_numbers, self._limit, self._rings)

    def dump(self, selection: SlotSelection) -> dict[str, Buffer | Pieces]:
        """Return the ids of the selected devices for `compress_state`; views, valid until the next update."""
        self._reserve(capacity_for(selection))
        slots = selected_slots(selection)
        counts = self._rings.counts[slots]
        lengths = np.minimum(counts, self._limit)
        hashes = Pieces(8 * int(lengths.sum()), self._hashes(slots, lengths))
        return {"counts": as_bytes(counts), "lengths": as_bytes(lengths), "marks": hashes}

    def _hashes(self, slots: IntVector, lengths: IntVector) -> Iterator[memoryview]:
        """Yield the hashes of DEVICES_PER_CHUNK devices at a time."""
        for first in range(0, len(lengths), DEVICES_PER_CHUNK):
            part = slice(first, first + DEVICES_PER_CHUNK)
            hashes = np.zeros(int(lengths[part].sum()), dtype=np.int64)
            kernel.read_hashes(self._limit, slots[part], self._rings, hashes)
            yield as_bytes(hashes)

    def load(self, dumped: StoredPart, of: IntVector, to: IntVector, devices: int | None = None) -> None:
        """Add devices: row `of[i]` of a dump of `devices` devices becomes slot `to[i]`. Raises StateError."""
        counts, lengths = (
            stored_rows(dumped[name], np.int64, (), of, devices) for name in ("counts", "lengths")
        )
        self._check(counts, lengths, dumped["marks"])
        hashes, begins = np.frombuffer(dumped["marks"], dtype=np.int64), np.cumsum(lengths) - lengths
        # The capacity of a ring is at most twice the number of its events.
        places = 2 * int(np.minimum(counts[of], self._limit).sum()) + kernel.MIN_CAPACITY * len(of)
        self._reserve(int(to.max(initial=-1)) + 1, int(self._rings.used[0]) + places)
        kernel.write_hashes(to, counts[of], lengths[of], begins[of], hashes, self._limit, self._rings)

    @staticmethod
    def _check(counts: IntVector, lengths: IntVector, hashes: Buffer) -> None:
        """Check that a device has min(events, limit) stored ids, with the limit at the time of the snapshot."""
        require(len(counts) == len(lengths), "the counts and the lengths of ids differ in number")
        limit, largest = int(lengths.max(initial=0)), int(counts.max(initial=0))
        require(int(counts.min(initial=0)) >= 0 and largest < MAX_EVENTS, "a count of events is out of range")
        require(
            bool((lengths == np.minimum(counts, limit)).all()), "the counts and the lengths of ids contradict"
        )
        require(len(hashes) == 8 * int(lengths.sum()), "the number of ids does not match their lengths")
