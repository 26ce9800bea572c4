"""Sends one batch of a plan: each record is prepared, claimed and sent, then its outcome is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from stream_app.aws.objects import get_with_etag
from stream_app.recovery.redrive.context import RedriveContext
from stream_app.recovery.redrive.ledger.claims import Busy, Claimed, Ledger
from stream_app.recovery.redrive.ledger.items import Attempt, State
from stream_app.recovery.redrive.message import Lineage
from stream_app.recovery.redrive.plan.cases import draft_of
from stream_app.recovery.redrive.plan.file import Item, Plan
from stream_app.recovery.redrive.plan.late import fetch_item
from stream_app.recovery.redrive.targets.target import (
    Answer,
    Delivered,
    Draft,
    EncodedRecord,
    Refused,
    Retryable,
    SenderRejected,
    Target,
    Unsupported,
)
from stream_app.recovery.store import REDRIVEN, advance_status, load

# Handling of a record that may have been sent: `resend` sends it again, `hold` leaves it to a person, and `auto`
# sends it again only if the receiver can recognize a second copy.
InDoubt = Literal["auto", "resend", "hold"]
_IN_DOUBT = (
    "it may have been sent (the applier died or got no response), and a second copy would not be detected"
)


class Ended(NamedTuple):
    """The attempt is complete: sent, refused or held; not `ours` if another applier of the plan completed it."""

    state: State
    why: str = ""
    ours: bool = True


class Skipped(NamedTuple):
    """The record was not claimed because it has changed since it was planned."""

    why: str


class OtherPlan(NamedTuple):
    """Another plan has the attempt, or the record was discarded."""


class InProgress(NamedTuple):
    """Another applier of this plan holds the claim, which expires at `until` (ms since the epoch)."""

    until: int


class TryAgain(NamedTuple):
    """The target did not accept the record this time; `after` is the delay, in seconds, that it requests."""

    why: str
    after: float | None


class Halt(NamedTuple):
    """The target rejects all requests of this sender."""

    why: str


Result = Ended | Skipped | OtherPlan | InProgress | TryAgain | Halt


class Ready(NamedTuple):
    """A record encoded for its target, and the attempt to claim for it."""

    item: Item
    record: EncodedRecord
    attempt: Attempt


@dataclass(slots=True)
class Sender:
    """Sends the records of one plan in batches. No claims are held between two batches.

    `doubtful` has the records that may have been sent, by an earlier applier or by a try without a response; they
    stay in doubt until the target confirms delivery. All methods raise boto3 errors.
    """

    context: RedriveContext
    plan: Plan
    target: Target
    threads: Executor
    in_doubt: InDoubt = "auto"
    doubtful: set[Lineage] = field(default_factory=set)
    _open: dict[Lineage, Attempt] = field(default_factory=dict)

    def send_batch(self, items: Sequence[Item]) -> list[Result]:
        """Try to send each item once, and return the results in order."""
        try:
            prepared = list(self.threads.map(self.prepare, items))
            claimed = list(self.threads.map(self._claim, prepared))
            ready = [one for one in claimed if isinstance(one, Ready)]
            ends = iter(self._send(ready) if ready else ())
            return [next(ends) if isinstance(one, Ready) else one for one in claimed]
        finally:
            self._release_claims()

    def _send(self, ready: Sequence[Ready]) -> list[Result]:
        # From here until the responses arrive, all records are in doubt.
        before = set(self.doubtful)
        self.doubtful |= {one.item.lineage for one in ready}
        ends = []
        # Record each outcome as soon as its response arrives, so that a crash leaves few records in doubt.
        for one, answer in zip(ready, self.target.send([one.record for one in ready]), strict=True):
            unknown = isinstance(answer, Retryable) and answer.doubt
            if isinstance(answer, Delivered) or not (unknown or one.item.lineage in before):
                self.doubtful.discard(one.item.lineage)
            ends.append(self.threads.submit(self._end, one, answer))
        return [end.result() for end in ends]

    def prepare(self, item: Item) -> Ready | Skipped:
        """Load, repair and encode a record, without claiming it."""
        found = self._load(item)
        if isinstance(found, Skipped):
            return found
        repair = self.plan.repair if item.place is None else None
        draft = draft_of(*found, item.lineage, repair, self.context.registry)
        if not isinstance(draft, Draft):
            return Skipped("the repair no longer applies to it")
        record = self.target.encode(draft)
        if isinstance(record, Unsupported):
            return Skipped(record.why)
        return Ready(item, record, self._attempt(item))

    def _load(self, item: Item) -> tuple[bytes, str] | Skipped:
        if item.place is not None:
            return fetch_item(self.context, item) or Skipped("it has expired from the stream")
        body, etag = get_with_etag(self.context.s3, self.context.bucket, item.key)
        if body is None or etag != item.etag:
            return Skipped("its object has changed" if body is not None else "its object is gone")
        stored = load(body)
        data = stored.data
        return Skipped("its payload is gone") if data is None else (data, stored.partition_key)

    def _attempt(self, item: Item) -> Attempt:
        return Attempt(
            root=item.lineage.root,
            attempt=item.attempt,
            failure=item.key,
            plan=self.plan.id,
            target=self.target.where,
            token=item.token,
            state=State.CLAIMED,
            by=self.context.by,
            event=item.event,
            device=item.device,
            id=item.id,
        )

    def _claim(self, prepared: Ready | Skipped) -> Ready | Result:
        if isinstance(prepared, Skipped):
            return prepared
        claim = self._ledger.claim(prepared.attempt)
        if isinstance(claim, Busy):
            return InProgress(claim.until)
        if not isinstance(claim, Claimed):
            mine = claim.by.plan == self.plan.id
            return Ended(claim.by.state, claim.by.why, ours=False) if mine else OtherPlan()
        lineage = prepared.item.lineage
        self._open[lineage] = prepared.attempt
        if claim.doubt:
            self.doubtful.add(lineage)
        if lineage in self.doubtful and self._holds(prepared.record):
            return self._record_outcome(prepared, State.HELD, _IN_DOUBT)
        return prepared

    def _holds(self, record: EncodedRecord) -> bool:
        return self.in_doubt == "hold" or (self.in_doubt == "auto" and not record.deduplicated)

    def _end(self, ready: Ready, answer: Answer) -> Result:
        match answer:
            case Delivered():
                return self._delivered(ready, answer)
            case Refused():
                return self._record_outcome(ready, State.REFUSED, answer.why)
            case Retryable():
                self._release(ready.item.lineage)
                return TryAgain(answer.why, answer.after)
            case SenderRejected():
                self._release(ready.item.lineage)
                return Halt(answer.why)

    def _delivered(self, ready: Ready, answer: Delivered) -> Ended:
        if not ready.record.has_lineage and "shard" in answer.receipt:
            # Store the position before the outcome: a completed attempt is never processed again.
            stream = self.plan.destination.name
            self._ledger.remember_place(stream, answer.receipt, ready.item.lineage)
        self._ledger.complete(ready.attempt, State.SENT, receipt=answer.receipt)
        self._open.pop(ready.item.lineage, None)
        self.tag(ready.item)
        return Ended(State.SENT)

    def tag(self, item: Item) -> None:
        """Set the status of a sent failure to `redriven`. Idempotent."""
        if item.place is None:
            advance_status(self.context.s3, self.context.bucket, item.key, REDRIVEN)

    def _record_outcome(self, ready: Ready, state: State, why: str) -> Ended:
        self._ledger.complete(ready.attempt, state, why)
        self._open.pop(ready.item.lineage, None)
        return Ended(state, why)

    def _release(self, lineage: Lineage) -> None:
        attempt = self._open[lineage]
        self._ledger.release(attempt, doubt=lineage in self.doubtful)
        self._open.pop(lineage, None)

    def _release_claims(self) -> None:
        """Release all claims after an error, so that the next applier need not wait until they expire."""
        for lineage in list(self._open):
            # The claims expire anyway, and the error to report is the one that led here.
            with suppress(Exception):
                self._release(lineage)

    @property
    def _ledger(self) -> Ledger:
        return self.context.ledger
