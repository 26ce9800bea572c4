"""The compiled part of `Devices`: a hash table of keys, each as the bytes that MessagePack makes of it.

Open addressing, at most half full. A slot is SLOT numbers: a key's mark, its number (-1: nothing is here), where its
bytes begin and end among the bytes of all keys. The bytes are compared, so no two keys are ever taken for one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomaly.compiled import compiled, inlined
from anomaly.prefetch import CACHED, ask, prefetch
from stream_app.pipeline.unpack_kernel import after, head, mark_of_text

SLOT = 4
MARK, NUMBER, BEGIN, END = range(SLOT)
# Of many keys a slot is asked for twice so many rows before it is needed, the bytes that it names once so many.
_AHEAD = 16

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@compiled
def begins_and_marks(data: Bytes, begins: Ints, marks: Ints) -> None:
    """Of a packed list: where each value begins (n + 1: the last one ends), and a number made of its bytes."""
    begins[0], _, _ = head(data, 0)
    for row in range(len(marks)):
        begins[row + 1] = after(data, begins[row])
        marks[row] = mark_of_text(data, begins[row], begins[row + 1] - begins[row])


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


@compiled
def add(
    data: Bytes, begins: Ints, marks: Ints, slots: Ints, names: Bytes, count: int, used: int, found: Ints
) -> int:
    """Give the keys that have no number the next ones, from `count` on; their bytes go behind the `used` ones.

    Returns how many bytes are used then. There is room for all.
    """
    for row in range(len(marks)):
        if found[row] >= 0:
            continue
        begin, end = begins[row], begins[row + 1]
        place = place_of(data, begin, end, marks[row], slots, names)
        if slots[place, NUMBER] < 0:
            names[used : used + end - begin] = data[begin:end]
            slots[place, MARK], slots[place, NUMBER] = marks[row], count
            slots[place, BEGIN], slots[place, END] = used, used + end - begin
            count, used = count + 1, used + end - begin
        found[row] = slots[place, NUMBER]
    return used


@compiled
def move(slots: Ints, larger: Ints) -> None:
    """Put what is in `slots` into larger ones, all empty."""
    for old in range(len(slots)):
        if slots[old, NUMBER] >= 0:
            place = slots[old, MARK] & (len(larger) - 1)
            while larger[place, NUMBER] >= 0:
                place = (place + 1) & (len(larger) - 1)
            larger[place] = slots[old]
