"""The compiled part of `Devices`: a hash table of keys, each as the bytes that MessagePack makes of it.

Open addressing, at most half full. A slot is SLOT numbers: a key's hash, its number (-1: nothing is here), where its
bytes begin and end among the bytes of all keys. The bytes are compared, so no two keys are ever taken for one. The
hash is seeded, so that nobody can choose keys that fall on the same slot; numbers are given in the order in which
keys come, so that nothing depends on the seed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled, inlined
from anomaly.kernels.prefetch import CACHED, ask, prefetch
from anomaly.kernels.siphash import Seed, hash_of
from stream_app.pipeline.readers.unpack_kernel import end_of_value, read_header

SLOT = 4
MARK, NUMBER, BEGIN, END = range(SLOT)
# Of many keys a slot is asked for twice so many rows before it is needed, the bytes that it names once so many.
_AHEAD = 16
# The arrival of a device of which it is not known, and of one that was forgotten. All others are from 0 on.
UNKNOWN, FORGOTTEN = -1, -2

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@compiled
def begins_and_marks(data: Bytes, begins: Ints, marks: Ints, seed: Seed) -> None:
    """Of a packed list: where each value begins (n + 1: the last one ends), and the hash of its bytes."""
    begins[0], _, _ = read_header(data, 0)
    for row in range(len(marks)):
        begins[row + 1] = end_of_value(data, begins[row])
        marks[row] = hash_of(data, begins[row], begins[row + 1] - begins[row], seed)


@inlined
def place_of(data: Bytes, begin: int, end: int, mark: int, slots: Ints, names: Bytes) -> int:
    """The slot of a key, or the empty one that it would have."""
    place = mark & (len(slots) - 1)
    while slots[place, NUMBER] >= 0:
        first = slots[place, BEGIN]
        if slots[place, MARK] == mark and slots[place, END] - first == end - begin:
            same = True
            for i in range(end - begin):
                same &= names[first + i] == data[begin + i]
            if same:
                break
        place = (place + 1) & (len(slots) - 1)
    return place


@compiled
def find(data: Bytes, begins: Ints, marks: Ints, slots: Ints, names: Bytes, found: Ints) -> int:
    """The number of each key, -1 where it has none; returns how many have none."""
    unknown, last, many = 0, len(slots) - 1, slots.nbytes > CACHED
    for row in range(len(marks)):
        if many and row + 2 * _AHEAD < len(marks):
            ask(slots, marks[row + 2 * _AHEAD] & last, SLOT)
            prefetch(names, slots[marks[row + _AHEAD] & last, BEGIN])
        place = place_of(data, begins[row], begins[row + 1], marks[row], slots, names)
        found[row] = slots[place, NUMBER]
        unknown += found[row] < 0
    return unknown


@inlined
def is_forgotten(last: int, moment: int, most: int) -> bool:
    """Whether a device whose last record arrived at `last` begins anew with one that arrives at `moment`."""
    return last == FORGOTTEN or (most > 0 and last != UNKNOWN and moment - last > most)


@compiled
def add(
    data: Bytes,
    begins: Ints,
    marks: Ints,
    slots: Ints,
    names: Bytes,
    arrived: Ints,
    moments: Ints,
    most: int,
    counts: Ints,
    found: Ints,
    renewed: Ints,
) -> int:
    """Give each key its number: new keys, and those forgotten, get the next ones, in the order of their rows.

    `arrived` holds by number when the last record arrived, and takes `moments` (n,) over. `counts` are how many
    numbers, slots and bytes of names are used, of which there is room for all, and how many devices were forgotten.
    The rows of keys that begin anew are put into `renewed`; returns how many they are.
    """
    again = 0
    for row in range(len(marks)):
        begin, end = begins[row], begins[row + 1]
        place = place_of(data, begin, end, marks[row], slots, names)
        number = slots[place, NUMBER]
        if number >= 0 and is_forgotten(arrived[number], moments[row], most):
            counts[3] += arrived[number] != FORGOTTEN
            arrived[number] = FORGOTTEN
            renewed[again], number, again = row, -1, again + 1
        elif number < 0:
            slots[place, MARK] = marks[row]
            counts[1] += 1
        if number < 0:
            number, used = counts[0], counts[2]
            names[used : used + end - begin] = data[begin:end]
            slots[place, NUMBER] = number
            slots[place, BEGIN], slots[place, END] = used, used + end - begin
            counts[0], counts[2] = number + 1, used + end - begin
        arrived[number] = moments[row]
        found[row] = number
    return again


@compiled
def move(slots: Ints, larger: Ints) -> None:
    """Put what is in `slots` into larger ones, all empty."""
    for old in range(len(slots)):
        if slots[old, NUMBER] >= 0:
            place = slots[old, MARK] & (len(larger) - 1)
            while larger[place, NUMBER] >= 0:
                place = (place + 1) & (len(larger) - 1)
            larger[place] = slots[old]
