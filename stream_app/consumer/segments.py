"""Where a segment ends: a rule on the records alone, so that every reading of a shard cuts it alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from stream_app.model.record import IntVector

_UNLIMITED = 1 << 62


class Piece(NamedTuple):
    """A run of records of one segment: [start, stop) of those given; `closes` when the segment ends after it."""

    start: int
    stop: int
    closes: bool


class Segmenter:
    """Cuts a shard into segments.

    A segment ends before the first record whose arrival falls in a later bucket of `seconds` than the segment's
    first record, or with the record that brings it to `limit` records or to `limit_bytes` bytes.
    """

    def __init__(self, seconds: int, limit: int, limit_bytes: int = _UNLIMITED) -> None:
        self._width = seconds * 1_000
        self._limit, self._limit_bytes = limit, limit_bytes
        self._bucket: int | None = None
        self._count = self._bytes = 0

    @property
    def open(self) -> bool:
        """Whether a segment has begun and not ended."""
        return self._bucket is not None

    def cut(self, arrivals: Sequence[int] | IntVector, sizes: IntVector | None = None) -> list[Piece]:
        """Pieces of records with these arrival times (ms since the epoch), in order; they cover all of them.

        `sizes` are the records' bytes after decompression. A piece may be empty: the first record given ends the
        segment that was open.
        """
        pieces: list[Piece] = []
        times, start = np.asarray(arrivals, dtype=np.int64), 0
        ends = np.cumsum(np.zeros(len(times), np.int64) if sizes is None else sizes)
        while start < len(times):
            if self._bucket is None:
                self._bucket = int(times[start]) // self._width
            before = int(ends[start - 1]) if start else 0
            room = before + self._limit_bytes - self._bytes
            full = int(np.searchsorted(ends, room)) + 1  # with the record that brings it to the limit
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
        """Whether the open segment's bucket has passed on the clock, with a margin for clocks that differ.

        Asked only when the consumer has caught up: then no record of the bucket is to come.
        """
        return self._bucket is not None and now_ms >= (self._bucket + 1) * self._width + margin_ms

    def close(self) -> None:
        """The open segment has ended; the next record begins another."""
        self._bucket = None
        self._count = self._bytes = 0


def chunks(sizes: IntVector, start: int, stop: int, limit: int) -> Iterator[tuple[int, int]]:
    """Consecutive parts of [start, stop) of at most `limit` bytes each, or of one record that is larger."""
    ends = np.cumsum(sizes[start:stop])
    begin = 0
    while begin < stop - start:
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + limit, side="right")))
        yield start + begin, start + end
        begin = end
