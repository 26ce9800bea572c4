"""A histogram of latencies with buckets of 2 %: small and mergeable."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

_GROWTH = math.log(1.02)
# The lower bounds of all buckets but the first, up to far more than any latency.
_EDGES = np.exp(np.arange(1, 2_500) * _GROWTH)


class Histogram:
    """Counts of values in milliseconds; percentiles are accurate to 2 %, values below 1 ms count as 1 ms."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self._counts: dict[int, int] = dict(counts or {})

    def add(self, values: Iterable[float]) -> None:
        """Count values in milliseconds."""
        given = values if isinstance(values, np.ndarray) else np.fromiter(values, np.float64)
        buckets = np.searchsorted(_EDGES, given[given > 1], side="right")
        counts = np.bincount(buckets, minlength=1)
        counts[0] += len(given) - len(buckets)
        found = np.flatnonzero(counts)
        self.merge(dict(zip(found.tolist(), counts[found].tolist(), strict=True)))

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add the counts of another histogram."""
        for bucket, count in counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count

    @property
    def counts(self) -> dict[int, int]:
        """Counts by bucket."""
        return dict(self._counts)

    def percentile(self, share: float) -> float | None:
        """Return the value in ms below which `share` (0 to 1) of all values are; None if empty."""
        total = sum(self._counts.values())
        if not total:
            return None
        wanted, reached = share * total, 0
        for bucket in sorted(self._counts):
            reached += self._counts[bucket]
            if reached >= wanted:
                break
        return math.exp((bucket + 0.5) * _GROWTH) if bucket else 1.0
