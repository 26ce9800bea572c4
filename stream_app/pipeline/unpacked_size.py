"""Bytes of each record after decompression, without decompressing it."""

from __future__ import annotations

import numpy as np

from stream_app.record import IntVector
from stream_app.records import Payloads

_GZIP_FIRST, _GZIP_SECOND = 0x1F, 0x8B
_TRAILER = 4  # ISIZE, the last field of a gzip member: its size modulo 2^32, little endian (RFC 1952)
_LEAST_GZIP = 18  # a header of 10 bytes and a trailer of 8


def unpacked_sizes(payloads: Payloads, max_bytes: int) -> IntVector:
    """Bytes of each record, shape (n,): its length, or for gzip the size in its trailer where that is larger.

    A function of each record alone. zlib compares the trailer with what it wrote, and `decode` takes a record of one
    gzip member only, so the size is exact for every record that can be decoded. What any other trailer claims counts
    for at most `max_bytes`, the limit of one record: what is decompressed of such a record is discarded at once.
    """
    sizes = payloads.lengths()
    begins = payloads.begins[:-1]
    if not len(sizes) or not (payloads.data[begins] == _GZIP_FIRST).any():
        return sizes
    candidates = np.flatnonzero((payloads.data[begins] == _GZIP_FIRST) & (sizes >= _LEAST_GZIP))
    packed = candidates[payloads.data[begins[candidates] + 1] == _GZIP_SECOND]
    at = (begins[packed] + sizes[packed] - _TRAILER)[:, None] + np.arange(_TRAILER)
    claimed = payloads.data[at].view("<u4").ravel().astype(np.int64)
    sizes[packed] = np.maximum(sizes[packed], np.minimum(claimed, max_bytes))
    return sizes
