"""What hydrate touches outside, and what it says of each dead letter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from stream_app.aws.retry import Policy, Sleep
from stream_app.recovery.hydrate.narrow import Judge, lenient
from stream_app.recovery.hydrate.results import State
from stream_app.recovery.hydrate.shapes import Letter
from stream_app.recovery.stream.retention import Retention
from stream_app.recovery.stream.runs import PAGE, patient

T = TypeVar("T")
R = TypeVar("R")

# Throttling is waited out for about six seconds a call, thirteen at the most; then the letter waits instead.
POLICY = Policy(attempts=8, base_ms=100, cap_ms=10_000)
# Less time than this is left for nothing new: a function that is cut off would do all of its batch again.
_MARGIN_SECONDS = 5.0
_LEAST_PAGE, _BETWEEN = 50, 10
_TOGETHER = 4  # handing a thread one small object at a time costs a twentieth of storing it


@dataclass(frozen=True, slots=True)
class HydrateDependencies:
    """Everything outside. Only `kinesis`, `s3` and `bucket` must be given.

    `parking` is the URL of the queue for malformed messages, which are read through `sqs`; without it they stay with
    the queue's own redrive policy. `judge` narrows ranges, `threads` store side by side, `emit` takes a line of
    metrics, `note` a line of the log. `seconds_left` is how long this invocation may go on.
    """

    kinesis: Any
    s3: Any
    bucket: str
    sqs: Any = None
    parking: str = ""
    application: str = "stream-app"
    judge: Callable[[], Judge] = field(default=lambda: lenient)
    threads: Executor | None = None
    now_ms: Callable[[], int] = field(default=lambda: time.time_ns() // 1_000_000)
    retention: Retention | None = None
    policy: Policy = POLICY
    sleep: Sleep = time.sleep
    rng: random.Random = field(default_factory=random.Random)
    page: int = PAGE
    seconds_left: Callable[[], float] = field(default=lambda: float("inf"))
    emit: Callable[[str], None] = field(default=lambda _line: None)
    note: Callable[..., None] = field(default=lambda _what, **_values: None)

    @property
    def stream_client(self) -> Any:
        """The Kinesis client, which waits out what passes."""
        return patient(self.kinesis, self.policy, sleep=self.sleep, rng=self.rng)

    @property
    def hurried(self) -> bool:
        """Whether there is no time left to begin anything."""
        return self.seconds_left() < _MARGIN_SECONDS

    def page_for(self, letters: int, size: int) -> int:
        """How many records to ask for at a time: failures often come together, and what lies between is for nothing.

        A shard gives five pages a second to all its readers, and two megabytes.
        """
        return min(self.page, max(_LEAST_PAGE, letters * _BETWEEN, size))

    def clock(self) -> Retention:
        """The clock of retention; the same one where it was given, which keeps what it asked for."""
        return self.retention or Retention(self.kinesis, self.now_ms)

    def each(self, action: Callable[[T], R], items: Sequence[T]) -> Iterable[R]:
        """The results of an action on each item, in order, side by side where there are threads."""
        if self.threads is None:
            return map(action, items)
        some = [items[start : start + _TOGETHER] for start in range(0, len(items), _TOGETHER)]
        return chain.from_iterable(self.threads.map(lambda part: [action(item) for item in part], some))


class Result(NamedTuple):
    """What became of one dead letter of message number `at`; `reason` says why, where it is not hydrated."""

    at: int
    letter: Letter
    state: State
    reason: str = ""
    written: Sequence[str] = ()
    kept: Sequence[str] = ()


@dataclass(slots=True)
class Hydrated:
    """What became of a batch: a result for each letter, and by message why it is malformed or must come again."""

    results: list[Result] = field(default_factory=list)
    malformed: dict[int, str] = field(default_factory=dict)
    unread: dict[int, str] = field(default_factory=dict)

    @property
    def failed(self) -> dict[int, str]:
        """The messages that must come again, and why."""
        waiting = {result.at: result.reason for result in self.results if result.state == State.WAITING}
        return {**waiting, **self.unread}

    @property
    def written(self) -> list[str]:
        """Keys of failures that are stored now."""
        return list(self._keys("written"))

    @property
    def kept(self) -> list[str]:
        """Keys of failures that were stored before."""
        return list(self._keys("kept"))

    @property
    def expired(self) -> list[Letter]:
        """The letters of which nothing was left in the stream."""
        return [result.letter for result in self.results if result.state == State.EXPIRED]

    def count(self, state: State) -> int:
        """How many letters ended like this."""
        return sum(result.state == state for result in self.results)

    def _keys(self, name: str) -> Iterator[str]:
        for result in self.results:
            yield from getattr(result, name)


def why(error: BaseException) -> str:
    """An error as a reason, in a line."""
    return f"{type(error).__name__}: {error}"
