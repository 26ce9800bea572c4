"""Compiled code of `KeyIndex`: a hash table of keys in their MessagePack encoding.

The table uses open addressing and is at most half full. An entry has ENTRY integers: the key's hash, its slot (-1:
empty entry), and where its bytes begin and end in the array of all names. Lookups compare the bytes, so two
keys are never confused. The hash is seeded, so that nobody can choose keys that collide. Slots follow the order of
the keys, so that no result depends on the seed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled, inlined
from anomaly.kernels.prefetch import CACHED, ask, prefetch
from anomaly.kernels.siphash import Seed, hash_of
from stream_app.pipeline.readers.unpack_kernel import end_of_value, read_header

ENTRY = 4
HASH, SLOT, BEGIN, END = range(ENTRY)
# If the table exceeds the cache, entries are prefetched 2 * _AHEAD rows ahead, and their names _AHEAD rows ahead.
_AHEAD = 16
# Last arrivals of devices for which it is unknown, and of forgotten devices. All other arrivals are at least 0.
UNKNOWN, FORGOTTEN = -1, -2

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@compiled
def begins_and_hashes(data: Bytes, begins: Ints, hashes: Ints, seed: Seed) -> None:
    """Find where each value of a MessagePack array begins (n + 1 offsets), and hash its bytes."""
    begins[0], _, _ = read_header(data, 0)
    for row in range(len(hashes)):
        begins[row + 1] = end_of_value(data, begins[row])
        hashes[row] = hash_of(data, begins[row], begins[row + 1] - begins[row], seed)


@inlined
def place_of(data: Bytes, begin: int, end: int, key_hash: int, table: Ints, names: Bytes) -> int:
    """Return the index of the key's table entry, or of the empty entry where it would be inserted."""
    place = key_hash & (len(table) - 1)
    while table[place, SLOT] >= 0:
        first = table[place, BEGIN]
        if table[place, HASH] == key_hash and table[place, END] - first == end - begin:
            same = True
            for i in range(end - begin):
                same &= names[first + i] == data[begin + i]
            if same:
                break
        place = (place + 1) & (len(table) - 1)
    return place


@compiled
def find(data: Bytes, begins: Ints, hashes: Ints, table: Ints, names: Bytes, found: Ints) -> int:
    """Find the slot of each key, -1 for unknown keys; return the number of unknown keys."""
    unknown, last, beyond_cache = 0, len(table) - 1, table.nbytes > CACHED
    for row in range(len(hashes)):
        if beyond_cache and row + 2 * _AHEAD < len(hashes):
            ask(table, hashes[row + 2 * _AHEAD] & last, ENTRY)
            prefetch(names, table[hashes[row + _AHEAD] & last, BEGIN])
        place = place_of(data, begins[row], begins[row + 1], hashes[row], table, names)
        found[row] = table[place, SLOT]
        unknown += found[row] < 0
    return unknown


@inlined
def is_forgotten(last: int, arrival: int, forget_after: int) -> bool:
    """Return whether a device whose last record arrived at `last` gets a new slot at `arrival`."""
    return last == FORGOTTEN or (forget_after > 0 and last != UNKNOWN and arrival - last > forget_after)


@compiled
def add(
    data: Bytes,
    begins: Ints,
    hashes: Ints,
    table: Ints,
    names: Bytes,
    last_arrivals: Ints,
    arrivals: Ints,
    forget_after: int,
    counts: Ints,
    found: Ints,
    renewed: Ints,
) -> int:
    """Find the slot of each key; new and forgotten keys get new slots, in the order of their rows.

    `last_arrivals` is by slot and is updated with `arrivals`, shape (n,). `counts` has the slots, the table entries
    and the bytes of names in use, for which the arrays have space, and the forgotten devices. Writes the rows where
    forgotten keys got new slots to `renewed`, and returns their number.
    """
    count = 0
    for row in range(len(hashes)):
        begin, end = begins[row], begins[row + 1]
        place = place_of(data, begin, end, hashes[row], table, names)
        slot = table[place, SLOT]
        if slot >= 0 and is_forgotten(last_arrivals[slot], arrivals[row], forget_after):
            counts[3] += last_arrivals[slot] != FORGOTTEN
            last_arrivals[slot] = FORGOTTEN
            renewed[count], slot, count = row, -1, count + 1
        elif slot < 0:
            table[place, HASH] = hashes[row]
            counts[1] += 1
        if slot < 0:
            slot, used = counts[0], counts[2]
            names[used : used + end - begin] = data[begin:end]
            table[place, SLOT] = slot
            table[place, BEGIN], table[place, END] = used, used + end - begin
            counts[0], counts[2] = slot + 1, used + end - begin
        last_arrivals[slot] = arrivals[row]
        found[row] = slot
    return count


@compiled
def move(table: Ints, larger: Ints) -> None:
    """Copy all entries of `table` to `larger`, which is empty."""
    for old in range(len(table)):
        if table[old, SLOT] >= 0:
            place = table[old, HASH] & (len(larger) - 1)
            while larger[place, SLOT] >= 0:
                place = (place + 1) & (len(larger) - 1)
            larger[place] = table[old]
