"""Where a segment ends: a rule on the records alone, so that every reading of a shard cuts it alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stream_app.record import IntVector


class Piece(NamedTuple):
    """A run of records of one segment: [start, stop) of those given; `closes` when the segment ends after it."""

    start: int
    stop: int
    closes: bool


class Segmenter:
    """Cuts a shard into segments.

    A segment ends before the first record whose arrival falls in a later bucket of `seconds` than the segment's
    first record, or after `limit` records.
    """

    def __init__(self, seconds: int, limit: int) -> None:
        self._width = seconds * 1_000
        self._limit = limit
        self._bucket: int | None = None
        self._count = 0

    @property
    def open(self) -> bool:
        """Whether a segment has begun and not ended."""
        return self._bucket is not None

    def cut(self, arrivals: Sequence[int] | IntVector) -> list[Piece]:
        """Pieces of records with these arrival times (ms since the epoch), in order; they cover all of them.

        A piece may be empty: the first record given ends the segment that was open.
        """
        pieces: list[Piece] = []
        times, start = np.asarray(arrivals, dtype=np.int64), 0
        while start < len(times):
            if self._bucket is None:
                self._bucket = int(times[start]) // self._width
            part = times[start : start + self._limit - self._count]
            later = part >= (self._bucket + 1) * self._width
            ends = bool(later.any())
            stop = start + (int(later.argmax()) if ends else len(part))
            self._count += stop - start
            pieces.append(Piece(start, stop, ends or self._count == self._limit))
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
        self._count = 0
