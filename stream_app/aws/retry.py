"""Try again, in place: exponential backoff with full jitter around a call or around a sink."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stream_app.errors import FatalError, is_transient
from stream_app.model.record import Failure
from stream_app.model.segment import Segment, Sink

T = TypeVar("T")
Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Policy:
    """How often and how patiently: pause n is uniform in [0, min(cap, base x 2^n)] ms (full jitter)."""

    attempts: int = 8
    base_ms: int = 100
    cap_ms: int = 10_000

    def pause(self, attempt: int, rng: random.Random) -> float:
        """Seconds to wait after attempt number `attempt`, counted from 0."""
        # The exponent is bounded because 2^attempt of a patient policy would leave the floats.
        ceiling = min(self.cap_ms, self.base_ms * 2 ** min(attempt, 32))
        return rng.uniform(0, ceiling) / 1000


def call(action: Callable[[], T], policy: Policy, *, sleep: Sleep, rng: random.Random, what: str) -> T:
    """The result of `action`, tried again while its error is transient.

    Raises FatalError, caused by the last error, when the attempts are spent. Any other error goes through as
    it is, at once. `what` names the action in the error.
    """
    for attempt in range(policy.attempts):
        try:
            return action()
        except Exception as error:
            if not is_transient(error):
                raise
            if attempt + 1 >= policy.attempts:
                raise FatalError(f"{what}: gave up after {policy.attempts} attempts: {error}") from error
        sleep(policy.pause(attempt, rng))
    raise ValueError(f"a policy of {policy.attempts} attempts never tries")


def retrying(sink: Sink, policy: Policy, *, sleep: Sleep, rng: random.Random) -> Sink:
    """A sink that writes through `sink` by `call`. Raises FatalError when the attempts are spent."""
    return _Retrying(sink, policy, sleep, rng)


@dataclass(frozen=True, slots=True)
class _Retrying:
    sink: Sink
    policy: Policy
    sleep: Sleep
    rng: random.Random

    def write(self, segment: Segment) -> Sequence[Failure]:
        what = f"{type(self.sink).__name__} of segment {segment.name}"
        return call(lambda: self.sink.write(segment), self.policy, sleep=self.sleep, rng=self.rng, what=what)

    def close(self) -> None:
        self.sink.close()
