"""Bytes of each record after decompression, without decompressing it."""

from __future__ import annotations

import numpy as np

from stream_app.model.record import IntVector
from stream_app.model.records import Payloads
from stream_app.pipeline.readers import payload_kernel as kernel


def unpacked_sizes(payloads: Payloads, max_bytes: int) -> IntVector:
    """Bytes of each record, shape (n,): its length, or for gzip the size in its trailer where that is larger.

    A function of each record alone. zlib compares the trailer with what it wrote, and `decode` takes a record of one
    gzip member only, so the size is exact for every record that can be decoded. What any other trailer claims counts
    for at most `max_bytes`, the limit of one record: what is decompressed of such a record is discarded at once.
    """
    return _unpacked(payloads, max_bytes)[0]


def unpacked_bytes(payloads: Payloads, max_bytes: int) -> int:
    """The sum of `unpacked_sizes`."""
    return _unpacked(payloads, max_bytes)[1]


def _unpacked(payloads: Payloads, max_bytes: int) -> tuple[IntVector, int]:
    sizes = np.empty(len(payloads), dtype=np.int64)
    return sizes, int(kernel.write_unpacked_sizes(payloads.read_only(), payloads.begins, max_bytes, sizes))
