"""The values held by `NearestValue` for one lane: sorted, distinct, padded with +inf.

Loops that only read have no branches and always cover the whole capacity, so that they become vector instructions.
Only values that change are written, because with many devices each modified cache line is written back to memory. All
functions are inlined into nearest_value.py; Numba renews their cached code only when that file changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from anomaly.kernels.compiled import inlined
from anomaly.nearest_value.state import Singles

Whole = Any  # an integer of any type: Numba infers it, and mypy cannot express the mixed arithmetic


@inlined
def place_of(held: Singles, p: Whole, c: Whole, value: np.float32, size: int) -> Whole:
    """Return the number of held values below `value`; comparing all is faster than a binary search."""
    below = np.uint32(0)
    for i in range(size):
        below = np.uint32(below + np.uint32(held[p, c, i] < value))
    return np.int64(below)


@inlined
def nearest(held: Singles, p: Whole, c: Whole, at: Whole, value: np.float32, size: int) -> np.float32:
    """Return the held value nearest to `value`, whose insertion index is `at`; the lower one of two."""
    lower, upper = held[p, c, max(at - 1, 0)], held[p, c, min(at, size - 1)]
    close: np.float32 = lower if abs(value - lower) <= abs(upper - value) else upper
    return close


@inlined
def would_go(
    held: Singles, p: Whole, c: Whole, at: Whole, value: np.float32, closest: np.float32, size: int
) -> bool:
    """Return whether a new value would be dropped at once, which is by far the most frequent case.

    `closest` is a lower bound of the distance between the neighbours of any held value, except for the two values
    beside the new one. There are no branches, because they could not be predicted.
    """
    last = size - 1
    gap = held[p, c, min(at, last)] - held[p, c, max(at - 1, 0)]
    beside_left = (at < 2) | (gap < value - held[p, c, max(at - 2, 0)])
    beside_right = (at >= last) | (gap < held[p, c, min(at + 1, last)] - value)
    return bool((at > 0) & (at <= last) & (gap < closest) & beside_left & beside_right)


@inlined
def gap_around(held: Singles, p: Whole, c: Whole, i: int) -> Whole:
    """Return the distance between the neighbours of a value and its index as one integer that sorts like the pair.

    Distances are not negative, and such floats sort like their bits.
    """
    gap = np.float32(held[p, c, i + 1] - held[p, c, i - 1])
    return (np.int64(gap.view(np.int32)) << 32) | i


@inlined
def narrowest(held: Singles, p: Whole, c: Whole, size: int) -> tuple[np.float32, Whole]:
    """Return the least distance between the neighbours of a value, and the first index with it.

    Two halves are searched in one loop; they may overlap by one or two values.
    """
    least, half = gap_around(held, p, c, 1), size // 2
    for i in range(half):
        least = min(least, gap_around(held, p, c, i + 1), gap_around(held, p, c, i + size - 1 - half))
    return np.int32(least >> 32).view(np.float32), least & 0xFFFFFFFF


@inlined
def put(held: Singles, p: Whole, c: Whole, at: Whole, value: np.float32, gone: Whole) -> None:
    """Insert a value at `at` and remove the one at `gone`, shifting the values between them."""
    if gone >= at:
        for i in range(gone, at, -1):
            held[p, c, np.uintp(i)] = held[p, c, np.uintp(i - 1)]
        held[p, c, np.uintp(at)] = value
    else:
        for i in range(gone, at - 1):
            held[p, c, np.uintp(i)] = held[p, c, np.uintp(i + 1)]
        held[p, c, np.uintp(at - 1)] = value


@inlined
def exchange(held: Singles, p: Whole, c: Whole, at: Whole, value: np.float32, size: int) -> np.float32:
    """Add a value to full capacity and drop the value whose neighbours are closest; returns their distance.

    The lowest and the highest value are kept; of several candidates the lowest is dropped. Distances are computed
    between the old values; those beside the new value, which only become smaller, are computed separately.
    """
    last, far = size - 1, np.float32(np.inf)
    lower, upper = held[p, c, max(at - 1, 0)], held[p, c, min(at, last)]
    left = value - held[p, c, max(at - 2, 0)] if at >= 2 else far
    own = upper - lower if (at >= 1) & (at <= last) else far
    right = held[p, c, min(at + 1, last)] - value if at < last else far
    gap, place = narrowest(held, p, c, size)
    closest: np.float32 = min(min(gap, left), min(own, right))
    gone = np.int64(at) if right == closest else np.int64(place)
    gone = np.int64(-1) if own == closest else gone
    gone = np.int64(at - 1) if left == closest else gone
    gone = np.int64(place) if (gap == closest) & (place < at) else gone
    if gone >= 0:
        put(held, p, c, at, value, gone)
    return closest


@inlined
def hold(
    held: Singles,
    p: Whole,
    c: Whole,
    count: int,
    at: Whole,
    value: np.float32,
    closest: np.float32,
    size: int,
) -> np.float32:
    """Insert a new value at its index; returns the new value of `closest`."""
    if count == size:
        return exchange(held, p, c, at, value, size)
    put(held, p, c, at, value, count)
    return closest
