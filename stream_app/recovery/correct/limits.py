"""How often corrections may read the stream: a backlog of them must never starve the consumer."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Bucket:
    """A token bucket: `rate` tokens a second, at most `burst` saved up. The clock is in seconds, monotonic.

    Threads that share it wait in line.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError("a bucket needs a rate above 0 and room for one token")
        self._rate, self._burst, self._clock, self._sleep = rate, burst, clock, sleep
        self._tokens, self._at = burst, clock()
        self._lock = threading.Lock()

    def take(self, patience: float) -> bool:
        """Take a token, waiting at most `patience` seconds for it; False when it would take longer."""
        with self._lock:
            return self._take(patience)

    def _take(self, patience: float) -> bool:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        missing = max(0.0, 1.0 - self._tokens) / self._rate
        if missing > patience:
            return False
        if missing:
            self._sleep(missing)
            # What came in while it slept is what it slept for, however the clock rounds.
            self._tokens, self._at = 1.0, self._clock()
        self._tokens -= 1.0
        return True


class Reads:
    """How often the shards of a stream may be read: a bucket of tokens each, so that no shard waits for another.

    `rate`, `burst`, `clock` and `sleep` are as those of Bucket.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._rate, self._burst, self._clock, self._sleep = rate, burst, clock, sleep
        self._buckets: dict[str, Bucket] = {}
        self._lock = threading.Lock()

    def within(self, patience: float) -> Callable[[str], bool]:
        """Whether a shard may be read once more: takes a token of its bucket.

        All the waiting ends `patience` seconds from now; False for what would have to wait longer.
        """
        until = self._clock() + patience

        def may_read(shard: str) -> bool:
            return self._bucket(shard).take(max(0.0, until - self._clock()))

        return may_read

    def _bucket(self, shard: str) -> Bucket:
        with self._lock:
            if shard not in self._buckets:
                self._buckets[shard] = Bucket(self._rate, self._burst, self._clock, self._sleep)
            return self._buckets[shard]


def unlimited(_shard: str) -> bool:
    """For a person's own try: one read."""
    return True


def delay_seconds(receives: int, shortest: int = 2, longest: int = 900) -> int:
    """How long a request that came too early waits in its queue, by how often it was received, this time included."""
    return min(longest, shortest << min(max(0, receives - 1), 32))
