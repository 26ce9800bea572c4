"""Latencies as counts in buckets 2 % wide: small, mergeable, good for percentiles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

_GROWTH = math.log(1.02)


class Histogram:
    """Counts of values in milliseconds. A percentile is exact to 2 %; values below 1 ms count as 1 ms."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self._counts: dict[int, int] = dict(counts or {})

    def add(self, values: Iterable[float]) -> None:
        """Count values in milliseconds."""
        for value in values:
            bucket = int(math.log(value) / _GROWTH) if value > 1 else 0
            self._counts[bucket] = self._counts.get(bucket, 0) + 1

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add another histogram's counts."""
        for bucket, count in counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count

    @property
    def counts(self) -> dict[int, int]:
        """Counts by bucket, to be merged elsewhere."""
        return dict(self._counts)

    def percentile(self, share: float) -> float | None:
        """The value in ms below which `share` (0 to 1) of all lie; None when empty."""
        total = sum(self._counts.values())
        if not total:
            return None
        wanted, reached = share * total, 0
        for bucket in sorted(self._counts):
            reached += self._counts[bucket]
            if reached >= wanted:
                break
        return math.exp((bucket + 0.5) * _GROWTH) if bucket else 1.0
