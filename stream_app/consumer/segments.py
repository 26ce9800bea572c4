"""Divides a shard into segments by its records alone, so that every run of a shard yields the same segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from stream_app.model.record import IntVector

_UNLIMITED = 1 << 62


class Piece(NamedTuple):
    """Consecutive records [start, stop) of one segment; `closes` if the segment ends after them."""

    start: int
    stop: int
    closes: bool


class Segmenter:
    """Finds the ends of segments.

    A segment ends before the first record whose arrival falls in a later bucket of `seconds` than the segment's
    first record, or with the record that fills it to `limit` records or to `limit_bytes` bytes.
    """

    def __init__(self, seconds: int, limit: int, limit_bytes: int = _UNLIMITED) -> None:
        self._width = seconds * 1_000
        self._limit, self._limit_bytes = limit, limit_bytes
        self._bucket: int | None = None
        self._count = self._bytes = 0

    @property
    def open(self) -> bool:
        """Whether a segment is open."""
        return self._bucket is not None

    def cut(self, arrivals: Sequence[int] | IntVector, sizes: IntVector | None = None) -> list[Piece]:
        """Divide records with these arrival times (ms since the epoch) into pieces, which cover them in order.

        `sizes` are the bytes of the records after decompression. A piece is empty if the first record ends the open
        segment.
        """
        pieces: list[Piece] = []
        times, start = np.asarray(arrivals, dtype=np.int64), 0
        ends = np.cumsum(np.zeros(len(times), np.int64) if sizes is None else sizes)
        while start < len(times):
            if self._bucket is None:
                self._bucket = int(times[start]) // self._width
            before = int(ends[start - 1]) if start else 0
            capacity = before + self._limit_bytes - self._bytes
            full = int(np.searchsorted(ends, capacity)) + 1  # including the record that reaches the limit
            part = times[start : min(full, start + self._limit - self._count)]
            later = part >= (self._bucket + 1) * self._width
            passed = bool(later.any())
            stop = start + (int(later.argmax()) if passed else len(part))
            self._count += stop - start
            self._bytes += int(ends[stop - 1]) - before if stop > start else 0
            reached = self._count == self._limit or self._bytes >= self._limit_bytes
            pieces.append(Piece(start, stop, passed or reached))
            if pieces[-1].closes:
                self.close()
            start = stop
        return pieces

    def overdue(self, now_ms: int, margin_ms: int) -> bool:
        """Whether the time of the open segment's bucket has passed, plus a margin for clock skew.

        The caller must have read the shard to its tip, so that no record of the bucket is outstanding.
        """
        return self._bucket is not None and now_ms >= (self._bucket + 1) * self._width + margin_ms

    def close(self) -> None:
        """End the open segment; the next record starts a new one."""
        self._bucket = None
        self._count = self._bytes = 0


def chunks(sizes: IntVector, start: int, stop: int, limit: int) -> Iterator[tuple[int, int]]:
    """Divide [start, stop) into parts of at most `limit` bytes; a larger record is a part of its own."""
    ends = np.cumsum(sizes[start:stop])
    begin = 0
    while begin < stop - start:
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + limit, side="right")))
        yield start + begin, start + end
        begin = end
