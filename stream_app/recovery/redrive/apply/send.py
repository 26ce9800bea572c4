"""One wave of a plan: each record is prepared, claimed, sent, and what became of it is marked, in this order."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from stream_app.aws.objects import get_with_etag
from stream_app.recovery.redrive.context import RedriveContext
from stream_app.recovery.redrive.ledger.claims import Busy, Ledger, Mine
from stream_app.recovery.redrive.ledger.items import Attempt, State
from stream_app.recovery.redrive.message import Lineage
from stream_app.recovery.redrive.plan.cases import draft_of
from stream_app.recovery.redrive.plan.file import Item, Plan
from stream_app.recovery.redrive.plan.late import fetch_item
from stream_app.recovery.redrive.targets.target import (
    Answer,
    Barred,
    Delivered,
    Draft,
    Later,
    Parcel,
    Refused,
    Target,
    Unfit,
)
from stream_app.recovery.store import REDRIVEN, advance_status, load

# What to do with a record that may have been sent: send it again where the receiver can tell a second copy and else
# hold it for a person (auto), or always the one or the other.
InDoubt = Literal["auto", "resend", "hold"]
_IN_DOUBT = "it may have been sent, by an applier that died or got no answer; a second copy could not be told"


class Ended(NamedTuple):
    """The attempt has come to an end: sent, refused or held; `ours` unless another applier of the plan did it."""

    state: State
    why: str = ""
    ours: bool = True


class Skipped(NamedTuple):
    """It was not claimed: it is no longer what was planned."""

    why: str


class Elsewhere(NamedTuple):
    """Another plan has the attempt, or somebody discarded the record."""


class Waits(NamedTuple):
    """Another applier of this plan is at it, until (ms since the epoch) at the latest."""

    until: int


class Again(NamedTuple):
    """The target did not take it this time; `after` is the wait, in s, that it asks for."""

    why: str
    after: float | None


class Halt(NamedTuple):
    """The target takes nothing from us."""

    why: str


Result = Ended | Skipped | Elsewhere | Waits | Again | Halt


class Ready(NamedTuple):
    """A record in its target's form, and the attempt that sending it will be."""

    item: Item
    parcel: Parcel
    attempt: Attempt


@dataclass(slots=True)
class Sender:
    """Sends waves of one plan's records. Between two waves nothing is claimed.

    `doubtful` are those that may have been sent: by an applier before us, or by a try of ours without an answer.
    They are so until the target says that it has them. Every method raises what boto3 raises.
    """

    context: RedriveContext
    plan: Plan
    target: Target
    threads: Executor
    in_doubt: InDoubt = "auto"
    doubtful: set[Lineage] = field(default_factory=set)
    _open: dict[Lineage, Attempt] = field(default_factory=dict)

    def wave(self, items: Sequence[Item]) -> list[Result]:
        """Try each item once; what became of it, in order."""
        try:
            prepared = list(self.threads.map(self.prepare, items))
            claimed = list(self.threads.map(self._claim, prepared))
            ready = [one for one in claimed if isinstance(one, Ready)]
            ends = iter(self._send(ready) if ready else ())
            return [next(ends) if isinstance(one, Ready) else one for one in claimed]
        finally:
            self._give_back()

    def _send(self, ready: Sequence[Ready]) -> list[Result]:
        # From here on nobody can know, until the answers are here.
        before = set(self.doubtful)
        self.doubtful |= {one.item.lineage for one in ready}
        ends = []
        # Each is marked as soon as its answer is here: the less is in flight, the less can ever be in doubt.
        for one, answer in zip(ready, self.target.send([one.parcel for one in ready]), strict=True):
            unknown = isinstance(answer, Later) and answer.doubt
            if isinstance(answer, Delivered) or not (unknown or one.item.lineage in before):
                self.doubtful.discard(one.item.lineage)
            ends.append(self.threads.submit(self._end, one, answer))
        return [end.result() for end in ends]

    def prepare(self, item: Item) -> Ready | Skipped:
        """The record as it would be sent; claims nothing."""
        found = self._load(item)
        if isinstance(found, Skipped):
            return found
        repair = self.plan.repair if item.place is None else None
        draft = draft_of(*found, item.lineage, repair, self.context.registry)
        if not isinstance(draft, Draft):
            return Skipped("the repair no longer fits it")
        parcel = self.target.parcel(draft)
        if isinstance(parcel, Unfit):
            return Skipped(parcel.why)
        return Ready(item, parcel, self._attempt(item))

    def _load(self, item: Item) -> tuple[bytes, str] | Skipped:
        if item.place is not None:
            return fetch_item(self.context, item) or Skipped("it has left the stream")
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
            return Waits(claim.until)
        if not isinstance(claim, Mine):
            mine = claim.by.plan == self.plan.id
            return Ended(claim.by.state, claim.by.why, ours=False) if mine else Elsewhere()
        lineage = prepared.item.lineage
        self._open[lineage] = prepared.attempt
        if claim.doubt:
            self.doubtful.add(lineage)
        if lineage in self.doubtful and self._holds(prepared.parcel):
            return self._record_outcome(prepared, State.HELD, _IN_DOUBT)
        return prepared

    def _holds(self, parcel: Parcel) -> bool:
        return self.in_doubt == "hold" or (self.in_doubt == "auto" and not parcel.collapses)

    def _end(self, ready: Ready, answer: Answer) -> Result:
        match answer:
            case Delivered():
                return self._delivered(ready, answer)
            case Refused():
                return self._record_outcome(ready, State.REFUSED, answer.why)
            case Later():
                self._release(ready.item.lineage)
                return Again(answer.why, answer.after)
            case Barred():
                self._release(ready.item.lineage)
                return Halt(answer.why)

    def _delivered(self, ready: Ready, answer: Delivered) -> Ended:
        if not ready.parcel.carries and "shard" in answer.receipt:
            # Before the mark: once it is marked, nobody comes back to note it.
            stream = self.plan.destination.name
            self._ledger.remember_place(stream, answer.receipt, ready.item.lineage)
        self._ledger.settle(ready.attempt, State.SENT, receipt=answer.receipt)
        self._open.pop(ready.item.lineage, None)
        self.tag(ready.item)
        return Ended(State.SENT)

    def tag(self, item: Item) -> None:
        """The failure of a sent record is `redriven`; safe to repeat."""
        if item.place is None:
            advance_status(self.context.s3, self.context.bucket, item.key, REDRIVEN)

    def _record_outcome(self, ready: Ready, state: State, why: str) -> Ended:
        self._ledger.settle(ready.attempt, state, why)
        self._open.pop(ready.item.lineage, None)
        return Ended(state, why)

    def _release(self, lineage: Lineage) -> None:
        attempt = self._open[lineage]
        self._ledger.release(attempt, doubt=lineage in self.doubtful)
        self._open.pop(lineage, None)

    def _give_back(self) -> None:
        """After an error in the middle of a wave: whoever comes next need not wait for the claims to end."""
        for lineage in list(self._open):
            with suppress(
                Exception
            ):  # the claims end by themselves, and the error that led here is the one to tell
                self._release(lineage)

    @property
    def _ledger(self) -> Ledger:
        return self.context.ledger
