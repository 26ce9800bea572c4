"""Retries calls and sinks with exponential backoff and full jitter."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from stream_app.errors import FatalError, is_transient
from stream_app.model.record import Failure
from stream_app.model.segment import Segment, Sink

T = TypeVar("T")
Sleep = Callable[[float], None]


class Attempt(Protocol):
    """Calls an action again while it fails with a transient error, and raises FatalError in the end."""

    def __call__(self, what: str, action: Callable[[], T], /) -> T:
        """Return the action's result. `what` names the action in errors and logs."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """How often to retry and how long to wait: pause n is uniform in [0, min(cap, base x 2^n)] ms (full jitter).

    See "Exponential Backoff And Jitter" on the AWS Architecture Blog.
    """

    attempts: int = 8
    base_ms: int = 100
    cap_ms: int = 10_000

    def pause(self, attempt: int, rng: random.Random) -> float:
        """Return the seconds to wait after attempt number `attempt`, counted from 0."""
        # The exponent is limited because 2^attempt overflows a float after many attempts.
        ceiling = min(self.cap_ms, self.base_ms * 2 ** min(attempt, 32))
        return rng.uniform(0, ceiling) / 1000


def call(action: Callable[[], T], policy: Policy, *, sleep: Sleep, rng: random.Random, what: str) -> T:
    """Return the result of `action`, which is repeated while it raises a transient error.

    Raises FatalError, caused by the last error, after the last attempt. Any other error is raised at once. `what`
    names the action in the error.
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
    raise ValueError(f"a policy of {policy.attempts} attempts makes no attempt")


def retrying(sink: Sink, policy: Policy, *, sleep: Sleep, rng: random.Random) -> Sink:
    """Return a sink that retries the writes of `sink`. It raises FatalError after the last attempt."""
    return _RetryingSink(sink, policy, sleep, rng)


@dataclass(frozen=True, slots=True)
class _RetryingSink:
    sink: Sink
    policy: Policy
    sleep: Sleep
    rng: random.Random

    def write(self, segment: Segment) -> Sequence[Failure]:
        what = f"{type(self.sink).__name__} of segment {segment.name}"
        return call(lambda: self.sink.write(segment), self.policy, sleep=self.sleep, rng=self.rng, what=what)

    def close(self) -> None:
        self.sink.close()
