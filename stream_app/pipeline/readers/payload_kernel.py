"""Compiled passes over the bytes of payloads, for `payload_checks` and `unpacked_size`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomaly.kernels.compiled import compiled

Bytes = NDArray[np.uint8]
_LINE_BREAK, _QUOTE, _BACKSLASH, _OPEN_LIST, _CLOSE_LIST, _OPEN, _CLOSE = (ord(one) for one in '\n"\\[]{}')
# The counts of a block fit into a byte, so that the loop vectorizes over the widest possible registers.
_BLOCK = 224
_GZIP_FIRST, _GZIP_SECOND = 0x1F, 0x8B
_TRAILER = 4  # ISIZE, the last field of a gzip member: its size modulo 2^32, little endian (RFC 1952)
_LEAST_GZIP = 18  # a header of 10 bytes and a trailer of 8


@compiled
def scan(data: Bytes, begins: NDArray[np.int64], opening: NDArray[np.int64]) -> tuple[int, int]:
    """Count the opening brackets of each payload; return the number of line breaks and the bitwise OR of all bytes.

    Payload i is `data[begins[i]:begins[i + 1]]`, including its separator. "[" and "{" are the only bytes that equal
    "[" when bit 0x20 is cleared.
    """
    all_bits, breaks = np.uint8(0), 0
    for row in range(len(opening)):
        at, stop, total = begins[row], begins[row + 1], 0
        while at < stop:
            end = min(at + _BLOCK, stop)
            open_here, breaks_here = np.uint8(0), np.uint8(0)
            for byte in data[at:end]:
                all_bits = np.uint8(all_bits | byte)
                is_open = np.uint8(byte & np.uint8(0xDF)) == np.uint8(_OPEN_LIST)
                open_here = np.uint8(open_here + np.uint8(is_open))
                breaks_here = np.uint8(breaks_here + np.uint8(byte == np.uint8(_LINE_BREAK)))
            total += int(open_here)
            breaks += int(breaks_here)
            at = end
        opening[row] = total
    return breaks, int(all_bits)


@compiled
def write_unpacked_sizes(
    data: Bytes, begins: NDArray[np.int64], max_bytes: int, sizes: NDArray[np.int64]
) -> int:
    """Write the size of each payload as `unpacked_size.unpacked_sizes` defines it to `sizes`; return the sum."""
    total = 0
    for row in range(len(sizes)):
        begin, end = begins[row], begins[row + 1] - 1
        size = end - begin
        if size >= _LEAST_GZIP and data[begin] == _GZIP_FIRST and data[begin + 1] == _GZIP_SECOND:
            claimed = 0
            for at in range(1, _TRAILER + 1):
                claimed = claimed << 8 | int(data[end - at])
            size = max(size, min(claimed, max_bytes))
        sizes[row] = size
        total += size
    return total


@compiled
def depth(data: Bytes) -> int:
    """Return the nesting depth of the arrays and objects of a JSON text; ignores brackets in strings."""
    deepest, level, quoted, at = 0, 0, False, 0
    while at < len(data):
        byte = data[at]
        if quoted:
            if byte == _BACKSLASH:
                at += 1
            elif byte == _QUOTE:
                quoted = False
        elif byte == _QUOTE:
            quoted = True
        elif byte in (_OPEN, _OPEN_LIST):
            level += 1
            deepest = max(deepest, level)
        elif byte in (_CLOSE, _CLOSE_LIST):
            level -= 1
        at += 1
    return deepest
