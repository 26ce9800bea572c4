"""Giving failures up: by a person, for a reason, so that nobody sends them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from stream_app.recovery.redrive.context import THREADS, RedriveContext
from stream_app.recovery.redrive.ledger.claims import Mine
from stream_app.recovery.redrive.ledger.items import Attempt, State
from stream_app.recovery.redrive.lineage import lineage_of
from stream_app.recovery.redrive.message import Lineage
from stream_app.recovery.redrive.select import Selected, Selection, select
from stream_app.recovery.store import DISCARDED, advance_status

_NO_PLAN = "discard"


@dataclass(frozen=True, slots=True)
class Discarded:
    """How many were discarded, and the keys of those that are being sent at this moment, which were left."""

    count: int
    busy: tuple[str, ...] = ()


def discard(
    context: RedriveContext, selection: Selection, reason: str, *, dry_run: bool = False
) -> Discarded:
    """Discard every failure of a selection; its object stays until the bucket's rules remove it.

    Each takes the place of its record's next attempt in the ledger, with reason and person: a plan that was made
    before can no longer send it. Safe to repeat. Raises what boto3 raises.
    """
    with ThreadPoolExecutor(THREADS, "discard") as threads:
        selected = list(select(context.s3, context.bucket, context.consumer, selection, threads))
        if dry_run:
            return Discarded(len(selected))
        lineages = lineage_of(selected, context.ledger, context.registry)
        done = list(threads.map(lambda one: _discard(context, one, lineages[one.key], reason), selected))
    busy = tuple(one.key for one, gone in zip(selected, done, strict=True) if not gone)
    return Discarded(len(selected) - len(busy), busy)


def _discard(context: RedriveContext, one: Selected, lineage: Lineage, reason: str) -> bool:
    ledger, history = context.ledger, context.ledger.attempts(lineage.root)
    last = history[-1] if history else None
    if last is None or last.state is not State.DISCARDED:
        # One over which somebody died is discarded itself; nobody shall go on with it.
        dead = last is not None and last.state is State.CLAIMED
        number = max(last.attempt if last is not None else 0, lineage.attempt) + (not dead)
        mark = Attempt(
            root=lineage.root,
            attempt=number,
            failure=one.key,
            plan=_NO_PLAN,
            target="",
            token="",
            state=State.CLAIMED,
            by=context.by,
        )
        if not isinstance(ledger.claim(mark), Mine) or not ledger.settle(mark, State.DISCARDED, reason):
            return False
    advance_status(context.s3, context.bucket, one.key, DISCARDED)
    return True
