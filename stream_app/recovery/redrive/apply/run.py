"""The loop of an application: ordered batches, rate limit, retries, concurrent appliers, progress."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from stream_app.aws.retry import Policy
from stream_app.recovery.redrive.apply.send import (
    Ended,
    Halt,
    InDoubt,
    InProgress,
    OtherPlan,
    Result,
    Sender,
    Skipped,
    TryAgain,
)
from stream_app.recovery.redrive.ledger.items import State
from stream_app.recovery.redrive.plan.file import Item

_RECHECK_MS = 1_000  # interval after which another applier's claim is checked again
_SCANNED_BATCHES = 4  # the queue is searched this many batches deep for records of distinct devices
_MAX_NAMED = 20


class Pace(NamedTuple):
    """Rate limit in records per second (None: no limit), retry policy, and handling of records in doubt."""

    rate: float | None = None
    policy: Policy = Policy(attempts=6, base_ms=500, cap_ms=30_000)
    in_doubt: InDoubt = "auto"


@dataclass(slots=True)
class Applied:
    """Progress of an application, in records.

    `sent` now, `sent_before` by an earlier application, `elsewhere` by another plan, `refused` by the target, `held`
    in doubt, `skipped` because they changed, `undelivered` after all tries, `left` to send. `named` has keys and
    reasons of some of them. `halted` is the reason why the target accepts no more records.
    """

    planned: int
    left: int = 0
    sent: int = 0
    sent_before: int = 0
    refused: int = 0
    held: int = 0
    skipped: int = 0
    elsewhere: int = 0
    undelivered: int = 0
    again: int = 0
    stopped: bool = False
    halted: str = ""
    waiting: str = ""
    named: list[tuple[str, str]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all records of the plan were delivered or belong to another plan."""
        return self.sent + self.sent_before + self.elsewhere == self.planned

    def count(self, state: State, times: int = 1, *, before: bool = False) -> None:
        """Count completed attempts of this application or, with `before`, of earlier ones."""
        if state is State.REFUSED:
            self.refused += times
        elif state is State.HELD:
            self.held += times
        elif before:
            self.sent_before += times
        else:
            self.sent += times

    def name(self, item: Item, why: str) -> None:
        """Keep the reason for one item."""
        if len(self.named) < _MAX_NAMED:
            self.named.append((item.key, why))


Progress = Callable[[Applied], None]


@dataclass(frozen=True, slots=True)
class Timing:
    """Clock and random numbers. `clock` is monotonic, in seconds; `pause` sleeps and returns early on a stop."""

    pause: Callable[[float], object]
    clock: Callable[[], float] = time.monotonic
    rng: random.Random = field(default_factory=random.Random)


@dataclass(slots=True)
class Run:
    """The state of the loop.

    `queue` is in sending order; `blocked` has the devices claimed by another applier with the time (ms) to check
    them again; `tries` counts the tries per key. `due` is the time (s) of the next batch under the rate limit, and
    `fruitless` the number of consecutive batches without a delivery.
    """

    sender: Sender
    pace: Pace
    timing: Timing
    stop: threading.Event
    progress: Progress
    done: Applied
    queue: deque[Item]
    blocked: dict[str, int] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    due: float = 0.0
    fruitless: int = 0

    def run(self) -> None:
        """Run until the queue is empty, a stop is requested, or the target accepts no more records."""
        while self.queue and not self.stop.is_set() and not self.done.halted:
            batch = self._next_batch()
            if not batch:
                self._wait_for_others()
                continue
            self._limit_rate(len(batch))
            if self.stop.is_set():
                self.queue.extendleft(reversed(batch))
                break
            self._handle(batch, self.sender.send_batch(batch))
            self.done.left = len(self.queue)
            self.progress(self.done)
        self.done.stopped = bool(self.queue) and self.stop.is_set()

    def _next_batch(self) -> list[Item]:
        """Take the next records from the queue, at most one per device, which keeps the order within a device."""
        now = self.sender.context.now_ms()
        self.blocked = {device: until for device, until in self.blocked.items() if until > now}
        rate = self.pace.rate
        size = self.sender.target.batch if rate is None else min(self.sender.target.batch, max(1, int(rate)))
        batch, passed, devices = list[Item](), list[Item](), set(self.blocked)
        while self.queue and len(batch) < size and (not batch or len(passed) < _SCANNED_BATCHES * size):
            item = self.queue.popleft()
            (passed if item.device in devices else batch).append(item)
            devices.add(item.device)
        self.queue.extendleft(reversed(passed))
        return batch

    def _wait_for_others(self) -> None:
        self.done.waiting = "another applier is sending the remaining records"
        self.progress(self.done)
        wait_ms = min(self.blocked.values()) - self.sender.context.now_ms()
        self.timing.pause(max(0.05, wait_ms / 1000))
        self.done.waiting = ""

    def _limit_rate(self, count: int) -> None:
        if self.pace.rate is None:
            return
        now = self.timing.clock()
        self.due = max(self.due, now)
        if self.due > now:
            self.timing.pause(self.due - now)
        self.due += count / self.pace.rate

    def _handle(self, batch: Sequence[Item], results: Iterable[Result]) -> None:
        requeued: list[Item] = []
        retries: list[TryAgain] = []
        for item, result in zip(batch, results, strict=True):
            match result:
                case InProgress():
                    self.blocked[item.device] = min(result.until, self.sender.context.now_ms() + _RECHECK_MS)
                    requeued.append(item)
                case TryAgain():
                    retries.append(result)
                    requeued += self._retry(item, result)
                case Halt():
                    self.done.halted = result.why
                    requeued.append(item)
                case _:
                    self._count_ended(item, result)
        self.queue.extendleft(reversed(requeued))
        self._back_off(len(batch), retries)

    def _count_ended(self, item: Item, result: Ended | Skipped | OtherPlan) -> None:
        if isinstance(result, OtherPlan):
            self.done.elsewhere += 1
        elif isinstance(result, Skipped):
            self.done.skipped += 1
            self.done.name(item, result.why)
        else:
            self.done.count(result.state, before=not result.ours)
            if result.why:
                self.done.name(item, result.why)

    def _retry(self, item: Item, result: TryAgain) -> list[Item]:
        """Return the record for another try, unless it has used all its tries."""
        self.tries[item.key] += 1
        self.done.again += 1
        if self.tries[item.key] < self.pace.policy.attempts:
            return [item]
        self.done.undelivered += 1
        self.done.name(item, result.why)
        return []

    def _back_off(self, size: int, retries: Sequence[TryAgain]) -> None:
        """Wait as long as the target or the policy requires; halt after too many batches without any delivery."""
        if not retries:
            self.fruitless = 0
            return
        self.fruitless = self.fruitless + 1 if len(retries) == size else 0
        if self.fruitless >= self.pace.policy.attempts:
            self.done.halted = f"nothing was accepted in {self.fruitless} tries: {retries[-1].why}"
            return
        backoff = self.pace.policy.pause(max(self.fruitless - 1, 0), self.timing.rng)
        self.timing.pause(max([backoff, *(one.after for one in retries if one.after is not None)]))
