"""The loop of an application: waves in order, paced, tried again, beside other appliers; and how far it is."""

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
    Again,
    Elsewhere,
    Ended,
    Halt,
    InDoubt,
    Result,
    Sender,
    Skipped,
    Waits,
)
from stream_app.recovery.redrive.ledger.items import State
from stream_app.recovery.redrive.plan.file import Item

_LOOK_MS = 1_000  # how long another applier's claim is left alone before it is looked at again
_SCANNED = 4  # waves' worth of records among which one of each device is looked for
_NAMED = 20


class Pace(NamedTuple):
    """How fast, how patiently: records a second (None: as they go), tries of a record, pauses between them."""

    rate: float | None = None
    policy: Policy = Policy(attempts=6, base_ms=500, cap_ms=30_000)
    in_doubt: InDoubt = "auto"


@dataclass(slots=True)
class Applied:
    """How far an application is. `sent` now, `sent_before` by an earlier one, `elsewhere` by another plan.

    `refused` by the target, `held` in doubt, `skipped` because they changed, `undelivered` after all tries: `named`
    has keys and reasons of some. `left` are still to do. `halted` says why the target takes nothing more.
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
        """Whether every record of the plan was delivered, or is another plan's business."""
        return self.sent + self.sent_before + self.elsewhere == self.planned

    def count(self, state: State, times: int = 1, *, before: bool = False) -> None:
        """Count attempts that came to an end, now or before."""
        if state is State.REFUSED:
            self.refused += times
        elif state is State.HELD:
            self.held += times
        elif before:
            self.sent_before += times
        else:
            self.sent += times

    def name(self, item: Item, why: str) -> None:
        """Keep the reason of one."""
        if len(self.named) < _NAMED:
            self.named.append((item.key, why))


Progress = Callable[[Applied], None]


@dataclass(frozen=True, slots=True)
class Clocks:
    """Clocks and chance. `clock` is in seconds and never goes back; `pause` waits, and ends when told to stop."""

    pause: Callable[[float], object]
    clock: Callable[[], float] = time.monotonic
    rng: random.Random = field(default_factory=random.Random)


@dataclass(slots=True)
class Run:
    """The loop's state: `queue` in order of sending, devices that another applier is at, tries of each record."""

    sender: Sender
    pace: Pace
    dependencies: Clocks
    stop: threading.Event
    progress: Progress
    done: Applied
    queue: deque[Item]
    blocked: dict[str, int] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    due: float = 0.0
    fruitless: int = 0

    def run(self) -> None:
        """Until the queue is empty, or it is told to stop, or the target takes nothing more."""
        while self.queue and not self.stop.is_set() and not self.done.halted:
            wave = self._wave()
            if not wave:
                self._wait_for_others()
                continue
            self._keep_pace(len(wave))
            if self.stop.is_set():
                self.queue.extendleft(reversed(wave))
                break
            self._take(wave, self.sender.wave(wave))
            self.done.left = len(self.queue)
            self.progress(self.done)
        self.done.stopped = bool(self.queue) and self.stop.is_set()

    def _wave(self) -> list[Item]:
        """The next records, one of each device at the most: a later one must not overtake."""
        now = self.sender.context.now_ms()
        self.blocked = {device: until for device, until in self.blocked.items() if until > now}
        rate = self.pace.rate
        most = self.sender.target.batch if rate is None else min(self.sender.target.batch, max(1, int(rate)))
        wave, passed, devices = list[Item](), list[Item](), set(self.blocked)
        while self.queue and len(wave) < most and (not wave or len(passed) < _SCANNED * most):
            item = self.queue.popleft()
            (passed if item.device in devices else wave).append(item)
            devices.add(item.device)
        self.queue.extendleft(reversed(passed))
        return wave

    def _wait_for_others(self) -> None:
        self.done.waiting = "another applier is at what is left"
        self.progress(self.done)
        wait_ms = min(self.blocked.values()) - self.sender.context.now_ms()
        self.dependencies.pause(max(0.05, wait_ms / 1000))
        self.done.waiting = ""

    def _keep_pace(self, count: int) -> None:
        if self.pace.rate is None:
            return
        now = self.dependencies.clock()
        self.due = max(self.due, now)
        if self.due > now:
            self.dependencies.pause(self.due - now)
        self.due += count / self.pace.rate

    def _take(self, wave: Sequence[Item], results: Iterable[Result]) -> None:
        back: list[Item] = []
        asked: list[Again] = []
        for item, result in zip(wave, results, strict=True):
            match result:
                case Waits():
                    self.blocked[item.device] = min(result.until, self.sender.context.now_ms() + _LOOK_MS)
                    back.append(item)
                case Again():
                    asked.append(result)
                    back += self._again(item, result)
                case Halt():
                    self.done.halted = result.why
                    back.append(item)
                case _:
                    self._ended(item, result)
        self.queue.extendleft(reversed(back))
        self._rest(wave, asked)

    def _ended(self, item: Item, result: Ended | Skipped | Elsewhere) -> None:
        if isinstance(result, Elsewhere):
            self.done.elsewhere += 1
        elif isinstance(result, Skipped):
            self.done.skipped += 1
            self.done.name(item, result.why)
        else:
            self.done.count(result.state, before=not result.ours)
            if result.why:
                self.done.name(item, result.why)

    def _again(self, item: Item, result: Again) -> list[Item]:
        """The record, unless its tries are spent."""
        self.tries[item.key] += 1
        self.done.again += 1
        if self.tries[item.key] < self.pace.policy.attempts:
            return [item]
        self.done.undelivered += 1
        self.done.name(item, result.why)
        return []

    def _rest(self, wave: Sequence[Item], asked: Sequence[Again]) -> None:
        """After a refusal, wait as the target asks or as the policy says; after nothing but refusals, give up."""
        if not asked:
            self.fruitless = 0
            return
        self.fruitless = self.fruitless + 1 if len(asked) == len(wave) else 0
        if self.fruitless >= self.pace.policy.attempts:
            self.done.halted = f"it took nothing in {self.fruitless} tries: {asked[-1].why}"
            return
        backoff = self.pace.policy.pause(max(self.fruitless - 1, 0), self.dependencies.rng)
        self.dependencies.pause(max([backoff, *(one.after for one in asked if one.after is not None)]))
