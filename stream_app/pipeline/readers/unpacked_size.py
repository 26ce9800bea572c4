"""Computes the decompressed size of records without decompressing them."""

from __future__ import annotations

import numpy as np

from stream_app.model.record import IntVector
from stream_app.model.records import Payloads
from stream_app.pipeline.readers import payload_kernel as kernel


def unpacked_sizes(payloads: Payloads, max_bytes: int) -> IntVector:
    """Return the bytes of each record, shape (n,): its length, or for gzip the size in its trailer if that is larger.

    The size of a record depends only on that record. It is exact for every record that can be decoded, because zlib
    verifies the trailer and `decode` accepts only one gzip member. For any other record the size in the trailer
    counts up to `max_bytes`, the limit of one record: its decompressed data is discarded immediately.
    """
    return _unpacked(payloads, max_bytes)[0]


def unpacked_bytes(payloads: Payloads, max_bytes: int) -> int:
    """Return the sum of `unpacked_sizes`."""
    return _unpacked(payloads, max_bytes)[1]


def _unpacked(payloads: Payloads, max_bytes: int) -> tuple[IntVector, int]:
    sizes = np.empty(len(payloads), dtype=np.int64)
    return sizes, int(kernel.write_unpacked_sizes(payloads.read_only(), payloads.begins, max_bytes, sizes))
