"""The compiled part of `NearestValue` that minds the values held of one lane: sorted, distinct, then +inf.

Loops that only read have no branches and as many rounds as there is room, whatever is held: so they become vector
instructions. What is written is only what changes: of many devices each line that was written to goes back to memory.
All of it is compiled into nearest_kernel.py, whose stored code is renewed when that file is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from anomaly.kernels.compiled import inlined
from anomaly.keyed_state.nearest_state import Singles

Whole = Any  # whole numbers, signed or not


@inlined
def place_of(held: Singles, p: Whole, c: Whole, value: np.float32, size: int) -> Whole:
    """How many of the values held are below `value`. All are compared, which takes less than a search."""
    below = np.uint32(0)
    for i in range(size):
        below = np.uint32(below + np.uint32(held[p, c, i] < value))
    return np.int64(below)


@inlined
def nearest(held: Singles, p: Whole, c: Whole, at: Whole, value: np.float32, size: int) -> np.float32:
    """The value held that is nearest to `value`, whose place among them is `at`; the lower of two."""
    lower, upper = held[p, c, max(at - 1, 0)], held[p, c, min(at, size - 1)]
    close: np.float32 = lower if abs(value - lower) <= abs(upper - value) else upper
    return close


@inlined
def would_go(
    held: Singles, p: Whole, c: Whole, at: Whole, value: np.float32, closest: np.float32, size: int
) -> bool:
    """Whether a new value would be the first to be dropped: the commonest case by far, and known at once.

    The neighbours of no value held lie closer than `closest`, but for the two beside the new one. No branches:
    which way it goes is anyone's guess.
    """
    last = size - 1
    gap = held[p, c, min(at, last)] - held[p, c, max(at - 1, 0)]
    beside_left = (at < 2) | (gap < value - held[p, c, max(at - 2, 0)])
    beside_right = (at >= last) | (gap < held[p, c, min(at + 1, last)] - value)
    return bool((at > 0) & (at <= last) & (gap < closest) & beside_left & beside_right)


@inlined
def gap_around(held: Singles, p: Whole, c: Whole, i: int) -> Whole:
    """The distance between the neighbours of a value, and its place: one whole number, that orders as they do.

    No distance here is negative: such floats are in the same order as their bits.
    """
    gap = np.float32(held[p, c, i + 1] - held[p, c, i - 1])
    return (np.int64(gap.view(np.int32)) << 32) | i


@inlined
def narrowest(held: Singles, p: Whole, c: Whole, size: int) -> Any:
    """The least of the distances between two values that have one between them, and the first place that has it.

    The two halves may overlap by one or two.
    """
    least, half = gap_around(held, p, c, 1), size // 2
    for i in range(half):
        least = min(least, gap_around(held, p, c, i + 1), gap_around(held, p, c, i + size - 1 - half))
    return np.int32(least >> 32).view(np.float32), least & 0xFFFFFFFF


@inlined
def put(held: Singles, p: Whole, c: Whole, at: Whole, value: np.float32, gone: Whole) -> None:
    """Put a new value in its place, over the one that lies at `gone`: those between move by one."""
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
    """Take a value into full ones, drop the one whose neighbours lie closest together, and tell how close.

    The lowest and the highest stay; of several the lowest goes. Gaps are taken between the old ones: those beside
    the new value are only narrower with it, and are looked at by themselves.
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
    """Take a new value into the sorted ones at its place; returns what `closest` is after that."""
    if count == size:
        return exchange(held, p, c, at, value, size)
    put(held, p, c, at, value, count)
    return closest
