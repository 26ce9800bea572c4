"""The compiled part of `Seen`: of each device a ring with the marks of its last events' ids.

Event number n (from 1) of a device has the place (n - 1) % limit of its ring, 0 stands where no id was accepted. A
ring begins small and doubles up to `limit` places. All rings lie in one pool; one that grew leaves its old place to
the next of that size: `free` holds for each size where such a place is (-1: nowhere), and each place where the next.

Beside the pool lie `tags`, the low bits of each mark: a quarter of the memory has to be looked at to know that an id
is new. A tag that is there says nothing, then the marks themselves are compared.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled, inlined
from anomaly.kernels.prefetch import CACHED, LINE, prefetch

SMALLEST = 8
SIZES = 40
# What is known of many devices is asked for so many rows before it is needed.
AHEAD = 4
HALF, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)

Ints = NDArray[np.int64]
Tags = NDArray[np.uint16]
Mask = NDArray[np.bool_]


class Rings(NamedTuple):
    """The state of all devices: `counts`, `start` and `room` by device, `used` how much of the pool is taken.

    `tags` are as long as the pool.
    """

    counts: Ints
    start: Ints
    room: Ints
    pool: Ints
    tags: Tags
    used: Ints
    free: Ints


@compiled
def size_of(room: int) -> int:
    """Which size a ring of `room` places is."""
    number, size = 0, SMALLEST
    while size < room:
        size *= 2
        number += 1
    return number


@compiled
def grow(device: int, wanted: int, limit: int, rings: Any) -> bool:
    """Give the device's ring at least `wanted` places; False, and nothing changed, when the pool is too small."""
    more = rings.room[device]
    while more < wanted:
        more = min(max(SMALLEST, 2 * more), limit)
    size = size_of(more)
    begin = rings.free[size]
    if begin >= 0:
        rings.free[size] = rings.pool[begin]
    else:
        begin = rings.used[0]
        if begin + more > len(rings.pool):
            return False
        rings.used[0] += more
    old, had = rings.start[device], rings.room[device]
    for i in range(had):
        rings.pool[begin + i], rings.tags[begin + i] = rings.pool[old + i], rings.tags[old + i]
    for i in range(had, more):
        rings.pool[begin + i], rings.tags[begin + i] = 0, 0
    if had > 0:
        size = size_of(had)
        rings.pool[old] = rings.free[size]
        rings.free[size] = old
    rings.start[device], rings.room[device] = begin, more
    return True


@inlined
def tag_of(mark: Any) -> np.uint16:
    """The low bits of a mark."""
    return np.uint16(mark & 0xFFFF)


@inlined
def note(rings: Any, place: Any, mark: Any) -> None:
    """Put a mark into the pool."""
    rings.pool[place], rings.tags[place] = mark, tag_of(mark)


@inlined
def knows(rings: Any, begin: Any, held: Any, mark: Any) -> bool:
    """Whether the mark is among so many from `begin` on. To the end, so that several are compared at once."""
    tags, pool, tag = rings.tags[begin : begin + held], rings.pool[begin : begin + held], tag_of(mark)
    likely, known = np.uint16(0), False
    for there in tags:
        likely = np.uint16(likely | np.uint16(there == tag))
    if likely:
        for other in pool:
            known |= other == mark
    return known


@inlined
def ask_for(rings: Any, device: Any, limit: int) -> None:
    """Ask for what will be looked at of a device's ring."""
    begin, count = rings.start[device], rings.counts[device]
    for place in range(begin, begin + min(count + 1, limit), LINE // 2):
        prefetch(rings.tags, place)
    prefetch(rings.pool, begin + count % limit)


@compiled
def check_and_add(
    first: int,
    devices: Ints,
    marks: Ints,
    accepted: Mask,
    limit: int,
    rings: Any,
    again: Mask,
    number: Ints,
    before: Ints,
) -> int:
    """Rows from `first` on; returns the row at which the pool was too small, their number when all are done.

    `again` says whether the row's id was accepted before, `number` which of its device's events the row is, `before`
    what its place held.
    """
    many, rows = rings.pool.nbytes > CACHED, len(devices)
    for row in range(first, rows):
        if many and row + 2 * AHEAD < rows:
            later = devices[row + 2 * AHEAD]
            prefetch(rings.counts, later)
            prefetch(rings.start, later)
            prefetch(rings.room, later)
            ask_for(rings, devices[row + AHEAD], limit)
        device, mark = devices[row], marks[row]
        held = min(rings.counts[device], limit)
        if rings.room[device] < min(held + 1, limit) and not grow(device, held + 1, limit, rings):
            return row
        begin = rings.start[device]
        known = mark != 0 and knows(rings, begin, held, mark)
        rings.counts[device] += 1
        again[row], number[row] = known, rings.counts[device]
        place = begin + (rings.counts[device] - 1) % limit
        before[row] = rings.pool[place]
        note(rings, place, mark if accepted[row] and not known else 0)
    return rows


@inlined
def place_of(device: int, mark: int, rows: Ints, devices: Ints, marks: Ints, seed: Any) -> Any:
    """The place of an id among `rows`, or the empty one that it would have; and how many were looked at.

    The hash is a multiply-shift scheme over the halves of the mark and the device, with secret factors.
    """
    high, low = np.uint64(mark) >> HALF, np.uint64(mark) & LOW
    mixed = seed[0] + seed[1] * high + seed[2] * low + seed[3] * np.uint64(device)
    last, steps = len(rows) - 1, 1
    place = np.int64(mixed >> HALF) & last
    while rows[place] >= 0 and not (marks[rows[place]] == mark and devices[rows[place]] == device):
        place, steps = (place + 1) & last, steps + 1
    return place, steps


@compiled
def givers(devices: Ints, marks: Ints, accepted: Mask, again: Mask, rows: Ints, seed: Any, by: Ints) -> int:
    """For each repeat the last row before it that gave its device's id, -1 where the id was known before the rows.

    `rows` is a table of row numbers, -1 throughout: open addressing by device and mark, its length a power of two and
    at least twice the number of rows. Returns how many of its places were looked at.
    """
    total = 0
    for row in range(len(devices)):
        by[row] = -1
        if again[row] or (accepted[row] and marks[row] != 0):
            place, steps = place_of(devices[row], marks[row], rows, devices, marks, seed)
            total += steps
            if again[row]:
                by[row] = rows[place]
            else:
                rows[place] = row
    return total


@compiled
def undo(devices: Ints, before: Ints, limit: int, rings: Any) -> None:
    """As if these rows, which were the last to be met, had not come."""
    for row in range(len(devices) - 1, -1, -1):
        device = devices[row]
        note(rings, rings.start[device] + (rings.counts[device] - 1) % limit, before[row])
        rings.counts[device] -= 1


@compiled
def drop(rows: Ints, devices: Ints, number: Ints, limit: int, rings: Any) -> None:
    """Forget the ids of some of the rows that were met last."""
    for row in rows:
        device = devices[row]
        if rings.counts[device] - number[row] < limit:  # else its place is another's by now
            note(rings, rings.start[device] + (number[row] - 1) % limit, 0)


@compiled
def held(limit: int, devices: Ints, rings: Any, out: Ints) -> None:
    """The marks of each of these devices, one device after the other, the oldest first."""
    at = 0
    for device in devices:
        for number in range(max(rings.counts[device] - limit, 0), rings.counts[device]):
            out[at] = rings.pool[rings.start[device] + number % limit]
            at += 1


@compiled
def put(
    devices: Ints,
    counts: Ints,
    lengths: Ints,
    begins: Ints,
    marks: Ints,
    limit: int,
    rings: Any,
) -> None:
    """The opposite of `held` for devices of which `lengths` marks are known; the pool has room for them."""
    for i in range(len(devices)):
        device = devices[i]
        rings.counts[device] = counts[i]
        wanted = min(counts[i], limit)
        if rings.room[device] < wanted:
            grow(device, wanted, limit, rings)
        for place in range(rings.room[device]):
            note(rings, rings.start[device] + place, 0)
        known = min(lengths[i], wanted)
        for back in range(known):
            place = rings.start[device] + (counts[i] - 1 - back) % limit
            note(rings, place, marks[begins[i] + lengths[i] - 1 - back])
