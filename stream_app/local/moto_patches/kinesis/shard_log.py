"""The records of one shard, in order: appended, read, searched and trimmed in O(log n + batch)."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import NamedTuple


class Slice(NamedTuple):
    """What one read found.

    `bodies` are the records as JSON objects; `last` is the ordinal of the last of them (the one asked from when
    there is none); `behind` is the arrival time in ms of the last one given when more follow it, else None.
    """

    bodies: list[bytes]
    last: int
    behind: int | None


class ShardLog:
    """An append-only log. Ordinals rise strictly, arrival times never fall. Not thread-safe: lock around it.

    A record is kept as the JSON object that GetRecords answers with: reading a batch is then one join, where
    building 10,000 objects a call would hold moto to 30,000 records/s.
    """

    __slots__ = ("_arrivals", "_bodies", "_ends", "_freed", "_ordinals")

    def __init__(self) -> None:
        self._ordinals = array("q")
        self._arrivals = array("q")
        self._ends = array("q")
        self._bodies: list[bytes] = []
        self._freed = 0

    def __len__(self) -> int:
        return len(self._bodies)

    @property
    def latest_arrival(self) -> int:
        """Arrival time of the newest record in ms, 0 when there is none."""
        return self._arrivals[-1] if self._arrivals else 0

    @property
    def last(self) -> int:
        """Ordinal of the newest record, -1 when there is none."""
        return self._ordinals[-1] if self._ordinals else -1

    def append(self, ordinal: int, arrival: int, size: int, body: bytes) -> None:
        """Add one record of `size` bytes (data and partition key)."""
        self._ordinals.append(ordinal)
        self._arrivals.append(arrival)
        self._ends.append((self._ends[-1] if self._ends else self._freed) + size)
        self._bodies.append(body)

    def read(self, after: int, limit: int, max_bytes: int) -> Slice:
        """Up to `limit` records beyond the ordinal `after`, `max_bytes` in all, but at least one if there is one."""
        start = bisect_right(self._ordinals, after)
        if start == len(self._bodies):
            return Slice([], after, None)
        used = self._ends[start - 1] if start else self._freed
        fitting = bisect_right(self._ends, used + max_bytes, start)
        stop = min(max(fitting, start + 1), start + limit, len(self._bodies))
        behind = self._arrivals[stop - 1] if stop < len(self._bodies) else None
        return Slice(self._bodies[start:stop], self._ordinals[stop - 1], behind)

    def before(self, arrival: int) -> int | None:
        """The ordinal just before the first record that arrived at or after `arrival` ms; None if none did."""
        found = bisect_left(self._arrivals, arrival)
        return self._ordinals[found] - 1 if found < len(self._ordinals) else None

    def trim(self, *, arrived_before: int | None = None, ordinal_below: int | None = None) -> int:
        """Forget the oldest records, by time or by ordinal; how many were forgotten."""
        count = bisect_left(self._arrivals, arrived_before) if arrived_before is not None else 0
        if ordinal_below is not None:
            count = max(count, bisect_left(self._ordinals, ordinal_below))
        if count:
            self._freed = self._ends[count - 1]
            del self._ordinals[:count], self._arrivals[:count], self._ends[:count], self._bodies[:count]
        return count
