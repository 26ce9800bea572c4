"""Discard failures: a person excludes them from every redrive, with a reason."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from stream_app.recovery.redrive.context import THREADS, RedriveContext
from stream_app.recovery.redrive.ledger.claims import Claimed
from stream_app.recovery.redrive.ledger.items import Attempt, State
from stream_app.recovery.redrive.lineage import lineage_of
from stream_app.recovery.redrive.message import Lineage
from stream_app.recovery.redrive.select import Selected, Selection, select
from stream_app.recovery.store import DISCARDED, advance_status

_NO_PLAN = "discard"


@dataclass(frozen=True, slots=True)
class Discarded:
    """The number of discarded failures, and the keys of those left as they are because they are being sent now."""

    count: int
    busy: tuple[str, ...] = ()


def discard(
    context: RedriveContext, selection: Selection, reason: str, *, dry_run: bool = False
) -> Discarded:
    """Discard every failure of a selection. Idempotent. Raises boto3 errors.

    The objects stay until the bucket's lifecycle rules remove them. The ledger records each discard, with reason and
    person, as the record's next attempt, so that plans made earlier can no longer send it.
    """
    with ThreadPoolExecutor(THREADS, "discard") as threads:
        selected = list(select(context.s3, context.bucket, context.consumer, selection, threads))
        if dry_run:
            return Discarded(len(selected))
        lineages = lineage_of(selected, context.ledger, context.registry)
        discarded = list(threads.map(lambda one: _discard(context, one, lineages[one.key], reason), selected))
    busy = tuple(one.key for one, success in zip(selected, discarded, strict=True) if not success)
    return Discarded(len(selected) - len(busy), busy)


def _discard(context: RedriveContext, selected: Selected, lineage: Lineage, reason: str) -> bool:
    ledger, history = context.ledger, context.ledger.attempts(lineage.root)
    last = history[-1] if history else None
    if last is None or last.state is not State.DISCARDED:
        # An attempt whose owner died is itself marked as discarded, so that no applier resumes it.
        abandoned = last is not None and last.state is State.CLAIMED
        number = max(last.attempt if last is not None else 0, lineage.attempt) + (not abandoned)
        mark = Attempt(
            root=lineage.root,
            attempt=number,
            failure=selected.key,
            plan=_NO_PLAN,
            target="",
            token="",
            state=State.CLAIMED,
            by=context.by,
        )
        if not isinstance(ledger.claim(mark), Claimed) or not ledger.complete(mark, State.DISCARDED, reason):
            return False
    advance_status(context.s3, context.bucket, selected.key, DISCARDED)
    return True
