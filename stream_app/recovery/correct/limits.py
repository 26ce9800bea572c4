"""Rate limits for reading the stream, so that corrections never starve the consumer."""

from __future__ import annotations

import threading
from collections.abc import Callable


class TokenBucket:
    """A token bucket: `rate` tokens per second, at most `burst` saved.

    The clock is monotonic, in seconds. Threads may share a bucket; they wait one after the other.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError("a token bucket needs a rate above 0 and a burst of at least 1")
        self._rate, self._burst, self._clock, self._sleep = rate, burst, clock, sleep
        self._tokens, self._at = burst, clock()
        self._lock = threading.Lock()

    def acquire(self, timeout: float) -> bool:
        """Take a token, waiting at most `timeout` seconds.

        Returns False, without waiting, when it would take longer.
        """
        with self._lock:
            return self._acquire(timeout)

    def _acquire(self, timeout: float) -> bool:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        missing = max(0.0, 1.0 - self._tokens) / self._rate
        if missing > timeout:
            return False
        if missing:
            self._sleep(missing)
            # Exactly one token has accumulated; computing it from the clock would add rounding errors.
            self._tokens, self._at = 1.0, self._clock()
        self._tokens -= 1.0
        return True


class ReadLimiter:
    """Rate limits for the shards of a stream: one token bucket per shard.

    Shards do not wait for each other. The parameters are those of TokenBucket.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._rate, self._burst, self._clock, self._sleep = rate, burst, clock, sleep
        self._buckets: dict[str, TokenBucket] = {}
        self._lock = threading.Lock()

    def within(self, timeout: float) -> Callable[[str], bool]:
        """Return a function that takes a token for a shard and tells whether it may be read.

        All its calls together wait at most until `timeout` seconds from now; those that would wait longer return
        False.
        """
        deadline = self._clock() + timeout

        def may_read(shard: str) -> bool:
            return self._bucket(shard).acquire(max(0.0, deadline - self._clock()))

        return may_read

    def _bucket(self, shard: str) -> TokenBucket:
        with self._lock:
            if shard not in self._buckets:
                self._buckets[shard] = TokenBucket(self._rate, self._burst, self._clock, self._sleep)
            return self._buckets[shard]


def unlimited(_shard: str) -> bool:
    """Allow every read: for corrections that a person started, one at a time."""
    return True


def retry_delay_seconds(receives: int, minimum: int = 2, maximum: int = 900) -> int:
    """Return the exponential backoff of a message that was received `receives` times."""
    return min(maximum, minimum << min(max(0, receives - 1), 32))
