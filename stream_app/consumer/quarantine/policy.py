"""Quarantine policy: prevents a record from ending a shard's process again and again.

Each start counts as an attempt at its checkpoint. From the third attempt on, records are first processed in
disposable forks (`inspection`). A record that ends a fork is excluded by a decision, which is stored under its
position before anything else happens, and which every later run applies.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from stream_app.aws.retry import Attempt
from stream_app.consumer.quarantine.inspection import Finding, Trial, inspect
from stream_app.model.record import Failure
from stream_app.model.records import Records
from stream_app.model.segment import Segment, position_from_token
from stream_app.processes import disposable_fork
from stream_app.processes.disposable_fork import ForkResult, Limit, Work
from stream_app.settings import INSPECTED_ROWS, Settings
from stream_app.sinks.quarantine import Attempts, Decision, QuarantineStore

CAREFUL_FROM = 3
"""The first attempt at a checkpoint in which records are processed in forks first."""
UNLIMITED_SECONDS = 30.0
"""The time limit of a step of a fork if the settings give none."""
WALL_CLOCK_FACTOR = 4
"""The limit of wall-clock time as a multiple of the limit of processor time, because a busy machine delays a batch.

It also limits the processor time of the first batch, in which a user's function may import or compile, and of a
snapshot.
"""
# Careful processing ends after this many checkpoint intervals or seconds, whichever is longer: the record that ended
# the process was within one interval of ordinary processing, which is faster.
_MAX_INTERVALS, _MAX_SECONDS = 20, 600
# The maximum of bytes of records that are held back until a later action.
_MAX_HELD = 64_000_000
# The share of KCL's time limit for an action after which no further inspection starts.
_SHARE = 0.25

Fork = Callable[[Work, Callable[[str], Limit]], ForkResult]


@dataclass(frozen=True, slots=True)
class Isolation:
    """The dependencies of quarantine: its store, and the sinks' work before their requests (`build`).

    `fork` runs a function in a disposable fork; tests that need no process replace it.
    """

    store: QuarantineStore
    build: Callable[[Segment], object]
    fork: Fork = disposable_fork.run


@dataclass(slots=True)
class _Careful:
    """A period of careful processing, until the arrival time `until`; `began` is the clock (both in ms)."""

    until: int
    began: int
    records: int = 0
    quarantined: int = 0


class Quarantine:
    """The policy of one shard's consumer. Without a `store`, attempts are not counted and no record is excluded."""

    def __init__(
        self,
        store: QuarantineStore | None,
        settings: Settings,
        *,
        attempt: Attempt,
        note: Callable[..., None],
        now_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._settings = store, settings
        self._attempt, self._note, self._now_ms, self._clock = attempt, note, now_ms, clock
        self._shard = ""
        self._attempts = Attempts(checkpoint="", attempts=0)
        self._begun = False
        self._careful: _Careful | None = None
        self._orders: list[tuple[int, int]] = []
        self._decisions: list[Decision] = []
        self._held: list[Records] = []
        self.warm = False
        """Whether this process, or the one that it was forked from, has processed a batch."""

    @property
    def holding(self) -> bool:
        """Whether records are held back until the next action."""
        return bool(self._held)

    @property
    def limit(self) -> Limit:
        """The time limit of a step of an inspection."""
        seconds = self._settings.batch_limit or UNLIMITED_SECONDS
        return Limit(seconds if self.warm else WALL_CLOCK_FACTOR * seconds, WALL_CLOCK_FACTOR * seconds)

    def load(self, shard: str, checkpoint: str) -> None:
        """Load the attempts that were made at the checkpoint, and the decisions of the shard."""
        self._shard, store = shard, self._store
        if store is None:
            return
        before = self._attempt("attempts", lambda: store.attempts(shard))
        found = self._attempt("quarantine decisions", lambda: store.decisions(shard))
        here = before.attempts if before is not None and before.checkpoint == checkpoint else 0
        until = 0 if before is None else before.careful_until
        self._attempts = Attempts(checkpoint=checkpoint, attempts=here + 1, careful_until=until)
        self._set(found)
        self._log_excluded(checkpoint)

    def _log_excluded(self, checkpoint: str) -> None:
        """Log each decision about a record that will be read again.

        A process may have ended between storing a decision and logging it.
        """
        begin = position_from_token(self._shard, checkpoint).order if checkpoint[:1].isdigit() else (-1, 0)
        for decision in self._decisions[bisect_right(self._orders, begin) :]:
            self._note("record_excluded", **_log_fields(decision))

    def _set(self, decisions: list[Decision]) -> None:
        self._decisions = sorted(decisions, key=lambda decision: decision.position.order)
        self._orders = [decision.position.order for decision in self._decisions]

    def excluded(self, records: Records) -> Mapping[int, Failure]:
        """Return the rows of consecutive records that a decision excludes, with their failures."""
        if not self._orders or not len(records):
            return {}
        first, last = records[0].position("").order, records[len(records) - 1].position("").order
        start, stop = bisect_left(self._orders, first), bisect_right(self._orders, last)
        if start == stop:
            return {}
        by_position = {decision.position[1:]: decision for decision in self._decisions[start:stop]}
        found = {}
        for row in range(len(records)):
            decision = by_position.get((records.sequences.text(row), int(records.subs[row])))
            if decision is not None:
                found[row] = decision.failure(row)
        return found

    def parts(
        self, records: Records, trial: Callable[[Records], Trial], *, all_of: bool
    ) -> Iterator[Records]:
        """Yield the parts of held back and new records that may be processed now, in order.

        In ordinary processing these are all records. In careful processing they are parts that passed in forks, and
        single records that a decision excludes; the rest may be held back unless `all_of` is set.
        """
        if len(records):
            self._begin(records)
        if self._careful is None and not self._held:
            yield records
            return
        self._held += [records] if len(records) else []
        until = self._clock() + self._seconds()
        while self._held:
            part = self._next()
            if self._careful is None:
                yield part
            else:
                yield from self._inspected(part, trial, self._careful)
            if not all_of and self._clock() >= until and self._held_bytes() < _MAX_HELD:
                return

    def _seconds(self) -> float:
        return self._settings.timeout_seconds * _SHARE or float("inf")

    def _held_bytes(self) -> int:
        return sum(part.payloads.size for part in self._held)

    def _next(self) -> Records:
        """Return the next held records, at most as many as one inspection takes."""
        first, *others = self._held
        count = min(INSPECTED_ROWS, len(first))
        rest = first.part(count, len(first))
        self._held = [rest, *others] if len(rest) else others
        return first.part(0, count)

    def _inspected(
        self, records: Records, trial: Callable[[Records], Trial], careful: _Careful
    ) -> Iterator[Records]:
        found = inspect(len(records), trial(records), self.limit)
        count = found.passed
        if found.termination is not None:
            self._decide(records, found)
            careful.quarantined += 1
            count += 1
        careful.records += count
        if count < len(records):
            self._held.insert(0, records.part(count, len(records)))
        begins, ends = [0, *found.cuts], [*found.cuts, count]
        for start, stop in zip(begins, ends, strict=True):
            if start < stop:
                yield records.part(start, stop)
                self.warm = True

    def _decide(self, records: Records, found: Finding) -> None:
        store, termination = self._store, found.termination
        if store is None or termination is None:
            return
        record = records[found.passed]
        decision = Decision(
            consumer=self._settings.application,
            shard=self._shard,
            sequence=record.sequence_number,
            sub=record.sub_sequence_number,
            arrived=record.arrived,
            decided=self._now_ms(),
            code=termination.code.value,
            stage=termination.stage,
            reason=termination.reason,
            event=termination.event,
            schema=termination.schema,
            attempts=self._attempts.attempts,
        )
        kept = self._attempt("quarantine decision", lambda: store.decide(decision))
        self._set([*self._decisions, kept])
        self._note("record_quarantined", level="warning", **_log_fields(kept))

    def _begin(self, records: Records) -> None:
        """Count and store the attempt before the first records are processed."""
        if self._begun or self._store is None:
            return
        self._begun, store, now = True, self._store, self._now_ms()
        attempts = self._attempts
        if attempts.attempts >= CAREFUL_FROM:
            until = max(attempts.careful_until, now + self._settings.clock_margin_ms)
            attempts = self._attempts = msgspec.structs.replace(attempts, careful_until=until)
        self._attempt("attempts", lambda: store.save_attempts(self._shard, attempts))
        known = {"attempt": attempts.attempts, "checkpoint": attempts.checkpoint}
        # The launcher reads this event (`crash_report`), so repeated attempts must be logged at every usual level.
        self._note("attempt", level="warning" if attempts.attempts > 1 else "info", **known)
        if attempts.attempts >= CAREFUL_FROM or int(records.arrived[0]) <= attempts.careful_until:
            self._careful = _Careful(attempts.careful_until, now)
            self._note("quarantine_started", level="warning", **known)

    def committed(self, arrived: int) -> None:
        """End careful processing if a checkpoint, at a record with this arrival time in ms, allows it."""
        careful = self._careful
        if careful is None:
            return
        longest = 1_000 * max(_MAX_INTERVALS * self._settings.checkpoint_seconds, _MAX_SECONDS)
        if arrived > careful.until or self._now_ms() - careful.began > longest:
            self._careful = None
            self._note("quarantine_ended", records=careful.records, quarantined=careful.quarantined)

    def drop(self) -> None:
        """Discard held records: the lease is lost, and another worker reads them."""
        self._held = []


def _log_fields(decision: Decision) -> dict[str, str | None]:
    position = str(decision.position)
    return {"position": position, "code": decision.code, "stage": decision.stage, "type": decision.event}
