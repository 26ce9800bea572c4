"""Compiled code of `RecentIds`: for each device a ring buffer with the hashes of its last events' ids.

Event n (from 1) of a device is at index (n - 1) % limit of its ring; 0 means that no id was accepted. A ring starts
small and doubles its capacity up to `limit`. All rings share one pool. The place of a ring that moved is added to
the free list of its size class: `free` has the first free place of each size class (-1: none), and each free place
holds the next.

`tags`, parallel to the pool, has the low 16 bits of each hash: a scan of a quarter of the memory is enough to tell
that an id is new. If a tag matches, the hashes themselves are compared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled, inlined
from anomaly.kernels.prefetch import CACHED, LINE, prefetch

MIN_CAPACITY = 8
SIZE_CLASSES = 40
# Rows between a prefetch and the use of the data, if the pool exceeds the cache.
AHEAD = 4
HALF, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
MIX = np.uint64(0xBF58476D1CE4E5B9)  # from the finalizer of SplitMix64

Ints = NDArray[np.int64]
Tags = NDArray[np.uint16]
Mask = NDArray[np.bool_]
Factors = NDArray[np.uint64]
Int = int | np.int64


class Rings(NamedTuple):
    """The state of all devices.

    `counts` (events), `start` and `capacity` (of the ring in the pool) are by slot. `pool` and `tags` have the same
    length, of which `used[0]` places are allocated. `free` is by size class.
    """

    counts: Ints
    start: Ints
    capacity: Ints
    pool: Ints
    tags: Tags
    used: Ints
    free: Ints


@compiled
def size_class(capacity: int) -> int:
    """Return the size class of a ring."""
    number, size = 0, MIN_CAPACITY
    while size < capacity:
        size *= 2
        number += 1
    return number


@compiled
def grow(slot: int, wanted: int, limit: int, rings: Rings) -> bool:
    """Grow a ring to at least `wanted` places; return False, without changes, if the pool is too small."""
    more = rings.capacity[slot]
    while more < wanted:
        more = min(max(MIN_CAPACITY, 2 * more), limit)
    size = size_class(more)
    begin = rings.free[size]
    if begin >= 0:
        rings.free[size] = rings.pool[begin]
    else:
        begin = rings.used[0]
        if begin + more > len(rings.pool):
            return False
        rings.used[0] += more
    old, had = rings.start[slot], rings.capacity[slot]
    for i in range(had):
        rings.pool[begin + i], rings.tags[begin + i] = rings.pool[old + i], rings.tags[old + i]
    for i in range(had, more):
        rings.pool[begin + i], rings.tags[begin + i] = 0, 0
    if had > 0:
        size = size_class(had)
        rings.pool[old] = rings.free[size]
        rings.free[size] = old
    rings.start[slot], rings.capacity[slot] = begin, more
    return True


@inlined
def tag_of(id_hash: Int) -> np.uint16:
    """Return the low 16 bits of a hash."""
    return np.uint16(id_hash & 0xFFFF)


@inlined
def write(rings: Rings, place: Int, id_hash: Int) -> None:
    """Write a hash and its tag."""
    rings.pool[place], rings.tags[place] = id_hash, tag_of(id_hash)


@inlined
def contains(rings: Rings, begin: Int, held: Int, id_hash: Int) -> bool:
    """Return whether a hash is among `held` ones from `begin` on. There is no early exit, so the loop vectorizes."""
    tags, pool, tag = rings.tags[begin : begin + held], rings.pool[begin : begin + held], tag_of(id_hash)
    likely, known = np.uint16(0), False
    for there in tags:
        likely = np.uint16(likely | np.uint16(there == tag))
    if likely:
        for other in pool:
            known |= other == id_hash
    return known


@inlined
def prefetch_ring(rings: Rings, slot: Int, limit: int) -> None:
    """Prefetch the part of a ring that `check_and_add` will read."""
    begin, count = rings.start[slot], rings.counts[slot]
    for place in range(begin, begin + min(count + 1, limit), LINE // 2):
        prefetch(rings.tags, place)
    prefetch(rings.pool, begin + count % limit)


@compiled
def check_and_add(
    first: int,
    slots: Ints,
    hashes: Ints,
    accepted: Mask,
    limit: int,
    rings: Rings,
    repeated: Mask,
    event_numbers: Ints,
    overwritten: Ints,
) -> int:
    """Implement `RecentIds.check_and_add` from row `first` on.

    Returns the row at which the pool was too small, or the number of rows when all are done. `repeated`,
    `event_numbers` and `overwritten` are outputs, described in `Repeats`.
    """
    beyond_cache, rows = rings.pool.nbytes > CACHED, len(slots)
    for row in range(first, rows):
        if beyond_cache and row + 2 * AHEAD < rows:
            later = slots[row + 2 * AHEAD]
            prefetch(rings.counts, later)
            prefetch(rings.start, later)
            prefetch(rings.capacity, later)
            prefetch_ring(rings, slots[row + AHEAD], limit)
        slot, id_hash = slots[row], hashes[row]
        held = min(rings.counts[slot], limit)
        if rings.capacity[slot] < min(held + 1, limit) and not grow(slot, held + 1, limit, rings):
            return row
        begin = rings.start[slot]
        known = id_hash != 0 and contains(rings, begin, held, id_hash)
        rings.counts[slot] += 1
        repeated[row], event_numbers[row] = known, rings.counts[slot]
        place = begin + (rings.counts[slot] - 1) % limit
        overwritten[row] = rings.pool[place]
        write(rings, place, id_hash if accepted[row] and not known else 0)
    return rows


@inlined
def place_of(
    slot: int, id_hash: int, rows: Ints, slots: Ints, hashes: Ints, seed: Factors
) -> tuple[Int, int]:
    """Return the place of an id in the table `rows`, or the empty place for it, and the number of places inspected.

    The table's hash is a multiply-shift scheme over the halves of the id's hash and the slot, with secret factors.
    """
    high, low = np.uint64(id_hash) >> HALF, np.uint64(id_hash) & LOW
    mixed = seed[0] + seed[1] * high + seed[2] * low + seed[3] * np.uint64(slot)
    mixed = (mixed ^ (mixed >> HALF)) * MIX  # without it, hashes in arithmetic progression form long runs
    last, steps = len(rows) - 1, 1
    place = np.int64(mixed >> HALF) & last
    while rows[place] >= 0 and not (hashes[rows[place]] == id_hash and slots[rows[place]] == slot):
        place, steps = (place + 1) & last, steps + 1
    return place, steps


@compiled
def find_originals(
    slots: Ints, hashes: Ints, accepted: Mask, repeated: Mask, rows: Ints, seed: Factors, originals: Ints
) -> int:
    """Find, for each duplicate, the last earlier row with its id, -1 if the id was accepted before these rows.

    `rows` is an empty (-1) hash table of row numbers, keyed by slot and hash, with open addressing. Its length is a
    power of two and at least twice the number of rows. Returns the number of places inspected.
    """
    total = 0
    for row in range(len(slots)):
        originals[row] = -1
        if repeated[row] or (accepted[row] and hashes[row] != 0):
            place, steps = place_of(slots[row], hashes[row], rows, slots, hashes, seed)
            total += steps
            if repeated[row]:
                originals[row] = rows[place]
            else:
                rows[place] = row
    return total


@compiled
def undo(slots: Ints, overwritten: Ints, limit: int, rings: Rings) -> None:
    """Undo the last call of `check_and_add`, whose rows these are."""
    for row in range(len(slots) - 1, -1, -1):
        slot = slots[row]
        write(rings, rings.start[slot] + (rings.counts[slot] - 1) % limit, overwritten[row])
        rings.counts[slot] -= 1


@compiled
def remove(rows: Ints, slots: Ints, event_numbers: Ints, limit: int, rings: Rings) -> None:
    """Remove the ids of some rows of the last call of `check_and_add`."""
    for row in rows:
        slot = slots[row]
        if rings.counts[slot] - event_numbers[row] < limit:  # otherwise a later event has overwritten it
            write(rings, rings.start[slot] + (event_numbers[row] - 1) % limit, 0)


@compiled
def read_hashes(limit: int, slots: Ints, rings: Rings, out: Ints) -> None:
    """Copy the hashes of devices to `out`, device by device, the oldest first."""
    at = 0
    for slot in slots:
        for number in range(max(rings.counts[slot] - limit, 0), rings.counts[slot]):
            out[at] = rings.pool[rings.start[slot] + number % limit]
            at += 1


@compiled
def write_hashes(
    slots: Ints,
    counts: Ints,
    lengths: Ints,
    begins: Ints,
    hashes: Ints,
    limit: int,
    rings: Rings,
) -> None:
    """Restore rings from the output of `read_hashes`, with `lengths` hashes each; the pool has room for them."""
    for i in range(len(slots)):
        slot = slots[i]
        rings.counts[slot] = counts[i]
        wanted = min(counts[i], limit)
        if rings.capacity[slot] < wanted:
            grow(slot, wanted, limit, rings)
        for place in range(rings.capacity[slot]):
            write(rings, rings.start[slot] + place, 0)
        known = min(lengths[i], wanted)
        for back in range(known):
            place = rings.start[slot] + (counts[i] - 1 - back) % limit
            write(rings, place, hashes[begins[i] + lengths[i] - 1 - back])
