"""Compiled readers of MessagePack rows: numbers and times into arrays, and hash values.

MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md) turns Python values into bytes that compiled code
can read: every value begins with a tag for its type and length.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled
from stream_app.pipeline.values import time_kernel

# How a field is read: skipped, as a floating-point number, as an integer or boolean, as ticks since the epoch, or as
# an integer or boolean that may be missing.
SKIP, FLOAT, INTEGER, TICKS, NULLABLE = range(5)
_NAN = int(np.array([np.nan]).view(np.int64)[0])
_NONE = np.iinfo(np.int64).min

Bytes = NDArray[np.uint8]


@compiled
def read_unsigned(data: Bytes, at: int, size: int) -> int:
    """Read the big-endian integer of `size` bytes at `at`, modulo 2^64."""
    value = 0
    for i in range(at, at + size):
        value = (value << 8) | data[i]
    return value


@compiled
def read_signed(data: Bytes, at: int, size: int) -> int:
    """Read the big-endian integer of `size` bytes at `at` in two's complement."""
    spare = 64 - 8 * size
    return (read_unsigned(data, at, size) << spare) >> spare


@compiled
def read_header(data: Bytes, at: int) -> tuple[int, int, int]:
    """Return the begin and the size in bytes of the content of the value at `at`, and its number of nested values."""
    tag = data[at]
    if tag <= 0x7F or tag >= 0xE0 or 0xC0 <= tag <= 0xC3:
        return at + 1, 0, 0
    if tag <= 0x8F:
        return at + 1, 0, 2 * (tag & 0x0F)
    if tag <= 0x9F:
        return at + 1, 0, int(tag & 0x0F)
    if tag <= 0xBF:
        return at + 1, int(tag & 0x1F), 0
    if tag <= 0xC6:  # bytes
        wide = 1 << (tag - 0xC4)
        return at + 1 + wide, read_unsigned(data, at + 1, wide), 0
    if tag <= 0xC9:  # extension: length, type, content
        wide = 1 << (tag - 0xC7)
        return at + 2 + wide, read_unsigned(data, at + 1, wide), 0
    if tag <= 0xCB:
        return at + 1, 4 << (tag - 0xCA), 0
    if tag <= 0xD3:
        return at + 1, 1 << ((tag - 0xCC) & 3), 0
    if tag <= 0xD8:  # extension of fixed length
        return at + 2, 1 << (tag - 0xD4), 0
    if tag <= 0xDB:
        wide = 1 << (tag - 0xD9)
        return at + 1 + wide, read_unsigned(data, at + 1, wide), 0
    wide = 2 << (tag & 1)
    times = 1 if tag <= 0xDD else 2
    return at + 1 + wide, 0, times * read_unsigned(data, at + 1, wide)


@compiled
def end_of_value(data: Bytes, at: int) -> int:
    """Return the position after the value at `at`, including all nested values."""
    left = 1
    while left:
        begin, size, inside = read_header(data, at)
        at, left = begin + size, left - 1 + inside
    return at


@compiled
def read_integer(data: Bytes, at: int) -> int:
    """Read the integer or boolean at `at`."""
    tag = data[at]
    if tag <= 0x7F:
        return int(tag)
    if tag >= 0xE0:
        return int(tag) - 256
    if tag == 0xC2 or tag == 0xC3:
        return int(tag) - 0xC2
    begin, size, _ = read_header(data, at)
    return read_unsigned(data, begin, size) if tag <= 0xCF else read_signed(data, begin, size)


@compiled
def fill_columns(
    data: Bytes,
    kinds: NDArray[np.int64],
    per_second: NDArray[np.int64],
    lead: int,
    arrived: NDArray[np.int64],
    floats: NDArray[np.float64],
    bits: NDArray[np.int64],
    missing: NDArray[np.bool_],
    undecided: NDArray[np.bool_],
) -> None:
    """Read a list of rows into arrays.

    A row is a list of values, or a map whose keys are skipped; its first `lead` values are skipped. `floats` and
    `bits` are two views of the same memory, shape (fields, rows): floating-point numbers are written through the one,
    the rest through the other. A missing number is NaN, a missing time the minimum integer. Sets `missing`
    (fields, rows) for missing values of the kind NULLABLE, and `undecided` (rows) for rows with a time that
    `time_kernel` cannot decide, given the arrivals of the rows.
    """
    at, _, rows = read_header(data, 0)
    for row in range(rows):
        keyed = 0x80 <= data[at] <= 0x8F or data[at] >= 0xDE
        begin, _, values = read_header(data, at)
        at = begin
        for place in range(values // 2 if keyed else values):
            if keyed:
                at = end_of_value(data, at)
            field = place - lead
            kind = kinds[field] if 0 <= field < len(kinds) else SKIP
            if kind == SKIP:
                at = end_of_value(data, at)
                continue
            tag = data[at]
            if tag == 0xC0:
                bits[field, row] = _NAN if kind == FLOAT else 0 if kind == NULLABLE else _NONE
                if kind == NULLABLE:
                    missing[field, row] = True
                at += 1
            elif kind == FLOAT and tag == 0xCB:
                bits[field, row] = read_unsigned(data, at + 1, 8)
                at += 9
            elif kind == FLOAT:
                floats[field, row] = float(read_integer(data, at))
                at = end_of_value(data, at)
            elif kind == TICKS:
                begin, size, _ = read_header(data, at)
                value = read_ticks(data, at, begin, size, per_second[field], arrived[row])
                if value == time_kernel.UNDECIDED:
                    undecided[row] = True
                bits[field, row] = value
                at = begin + size
            else:
                bits[field, row] = read_integer(data, at)
                at = end_of_value(data, at)


@compiled
def read_ticks(data: Bytes, at: int, begin: int, size: int, per_second: int, arrived: int) -> int:
    """Read the time at `at` (text of `size` bytes at `begin`, or an integer) in ticks since the epoch."""
    tag = data[at]
    if 0xA0 <= tag <= 0xBF or 0xD9 <= tag <= 0xDB:
        return time_kernel.parse_instant(data, begin, size, per_second)
    value = read_integer(data, at)
    if (
        value > 0
        and arrived != time_kernel.NO_ARRIVAL
        and time_kernel.is_coarser_unit(value, per_second, arrived)
    ):
        return time_kernel.UNDECIDED
    return value


@compiled
def hash_values(data: Bytes, hashes: NDArray[np.int64]) -> None:
    """Write a hash of each value of a list to `hashes`; 0 for None and empty text.

    Text is hashed with MurmurHash64A (Austin Appleby, public domain), an integer with the same mixing steps.
    """
    at, _, rows = read_header(data, 0)
    for row in range(rows):
        begin, size, _ = read_header(data, at)
        tag = data[at]
        if tag == 0xC0:
            hashes[row] = 0
        elif 0xA0 <= tag <= 0xBF or 0xD9 <= tag <= 0xDB:
            hashes[row] = hash_text(data, begin, size) if size else 0
        else:
            hashes[row] = hash_integer(read_integer(data, at))
        at = begin + size


_MIX = -4132994306676758123  # 0xc6a4a7935bd1e995


@compiled
def xor_shift(value: int) -> int:
    """Return the value XORed with itself logically shifted right by 47 bits."""
    return value ^ ((value >> 47) & 0x1FFFF)


@compiled
def hash_integer(value: int) -> int:
    """Return the hash of an integer; never 0."""
    value_hash = xor_shift((0x5BF03635 ^ (value * _MIX)) * _MIX)
    value_hash = xor_shift(value_hash * _MIX)
    return value_hash if value_hash != 0 else 1


@compiled
def hash_text(data: Bytes, begin: int, size: int) -> int:
    """Return the MurmurHash64A of `size` bytes at `begin`; never 0."""
    value_hash = size * _MIX
    end = begin + size // 8 * 8
    for at in range(begin, end, 8):
        value_hash = (value_hash ^ (xor_shift(read_unsigned(data, at, 8) * _MIX) * _MIX)) * _MIX
    if size % 8:
        value_hash = (value_hash ^ read_unsigned(data, end, size % 8)) * _MIX
    value_hash = xor_shift(xor_shift(value_hash) * _MIX)
    return value_hash if value_hash != 0 else 1
