"""Dependencies of hydration, and its result for each dead letter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from stream_app.aws.retry import Policy, Sleep
from stream_app.recovery.hydrate.results import State
from stream_app.recovery.hydrate.shapes import AnyDeadLetter
from stream_app.recovery.hydrate.trial import TrialFactory, pass_all
from stream_app.recovery.stream.retention import Retention
from stream_app.recovery.stream.runs import PAGE, with_retries

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

T = TypeVar("T")
R = TypeVar("R")

# Retries of a throttled call take about 6 s, at most 13 s; after that the dead letter is left waiting.
POLICY = Policy(attempts=8, base_ms=100, cap_ms=10_000)
# With less time left than this, no further dead letter is started: if Lambda times out, the batch is repeated.
_MARGIN_SECONDS = 5.0
_MIN_PAGE, _PAGE_FACTOR = 50, 10
_CHUNK = 4  # items per task: dispatching them one by one would cost 5 % of the time to store them


@dataclass(frozen=True, slots=True)
class HydrateDependencies:
    """Clients, clocks and settings of hydration. Only `kinesis`, `s3` and `bucket` are required.

    - `parking` is the URL of the queue for malformed messages, which are sent with `sqs`; without it the source
      queue's redrive policy applies to them.
    - `trial_factory` returns the factory of trials that find the failing records of a range.
    - `threads` stores failures concurrently, `page` is the maximum number of records of one GetRecords.
    - `emit` writes a line of metrics, `note` a log event.
    - `seconds_left` returns the time left for this invocation.
    """

    kinesis: KinesisClient
    s3: S3Client
    bucket: str
    sqs: SQSClient | None = None
    parking: str = ""
    application: str = "stream-app"
    trial_factory: Callable[[], TrialFactory] = field(default=lambda: pass_all)
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
    def stream_client(self) -> KinesisClient:
        """The Kinesis client, with retries of transient errors."""
        return with_retries(self.kinesis, self.policy, sleep=self.sleep, rng=self.rng)

    @property
    def hurried(self) -> bool:
        """Whether too little time is left to start another dead letter."""
        return self.seconds_left() < _MARGIN_SECONDS

    def page_for(self, dead_letters: int, size: int) -> int:
        """Return the page size for reading that many dead letters, the largest a range of `size` records.

        Failures are often close together, but records between them are read in vain. A shard serves 5 GetRecords
        calls and 2 MB per second to all its readers.
        """
        return min(self.page, max(_MIN_PAGE, dead_letters * _PAGE_FACTOR, size))

    def stream_retention(self) -> Retention:
        """The given `retention`, which caches retention periods, or a new one."""
        return self.retention or Retention(self.kinesis, self.now_ms)

    def each(self, action: Callable[[T], R], items: Sequence[T]) -> Iterable[R]:
        """Apply an action to each item, concurrently if there are threads, and return the results in order."""
        if self.threads is None:
            return map(action, items)
        chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
        return chain.from_iterable(self.threads.map(lambda part: [action(item) for item in part], chunks))


class Result(NamedTuple):
    """The result for one dead letter of message number `at`; `reason` explains why it is not hydrated."""

    at: int
    dead_letter: AnyDeadLetter
    state: State
    reason: str = ""
    written: Sequence[str] = ()
    kept: Sequence[str] = ()


@dataclass(slots=True)
class Hydrated:
    """The results of a batch, and by message number the reasons why it is malformed or could not be read."""

    results: list[Result] = field(default_factory=list)
    malformed: dict[int, str] = field(default_factory=dict)
    unread: dict[int, str] = field(default_factory=dict)

    @property
    def failed(self) -> dict[int, str]:
        """The messages that must be delivered again, with reasons."""
        waiting = {result.at: result.reason for result in self.results if result.state == State.WAITING}
        return {**waiting, **self.unread}

    @property
    def written(self) -> list[str]:
        """Keys of newly stored failures."""
        return list(self._keys("written"))

    @property
    def kept(self) -> list[str]:
        """Keys of failures that already existed."""
        return list(self._keys("kept"))

    @property
    def expired(self) -> list[AnyDeadLetter]:
        """The dead letters whose records have all expired from the stream."""
        return [result.dead_letter for result in self.results if result.state == State.EXPIRED]

    def count(self, state: State) -> int:
        """Return the number of dead letters in a state."""
        return sum(result.state == state for result in self.results)

    def _keys(self, name: str) -> Iterator[str]:
        for result in self.results:
            yield from getattr(result, name)


def why(error: BaseException) -> str:
    """Format an error as a reason."""
    return f"{type(error).__name__}: {error}"
