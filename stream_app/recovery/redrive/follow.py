"""Track redriven records: `processed` if the pipeline stored them, `failed` if it parked them again.

Records sent to an HTTP endpoint cannot be tracked; their failures stay `redriven`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from stream_app.recovery.redrive.context import THREADS, RedriveContext
from stream_app.recovery.redrive.ledger.items import Attempt, State
from stream_app.recovery.redrive.lineage import traced
from stream_app.recovery.redrive.message import Lineage
from stream_app.recovery.redrive.outcomes import Outcome, outcomes
from stream_app.recovery.redrive.plan.file import Plan
from stream_app.recovery.redrive.select import Selection, select
from stream_app.recovery.store import FAILURES, PROCESSED, advance_status


@dataclass(frozen=True, slots=True)
class Followed:
    """Attempts by outcome: processed, failed again, outcome pending, delivered to an endpoint, any other state."""

    processed: int = 0
    failed: int = 0
    waiting: int = 0
    delivered: int = 0
    other: int = 0


def attempts_of(context: RedriveContext, plan: Plan) -> list[Attempt]:
    """Return the attempts that a plan has made so far. Raises boto3 errors."""
    known = context.ledger.known(item.lineage for item in plan.items)
    return [attempt for attempt in known.values() if attempt.plan == plan.id]


def attempts_in(context: RedriveContext, selection: Selection) -> list[Attempt]:
    """Return the last attempt at each record of a selection, usually the `redriven` ones. Raises boto3 errors."""
    ledger = context.ledger
    with ThreadPoolExecutor(THREADS, "follow") as threads:
        selected = list(select(context.s3, context.bucket, context.consumer, selection, threads))
        roots = dict.fromkeys(one.lineage.root for one in traced(selected, ledger, context.registry))
        return [history[-1] for history in threads.map(ledger.attempts, roots) if history]


def follow(context: RedriveContext, attempts: Iterable[Attempt], *, thorough: bool = True) -> Followed:
    """Look up the outcome of sent records and mark it in the ledger and on all failures of their lineage.

    Idempotent. `thorough` also searches files from before the redrive, where the device may have stored a valid copy
    of the event; this reads more files. Raises boto3 errors.
    """
    checked = list(attempts)
    with ThreadPoolExecutor(THREADS, "follow") as threads:
        found = outcomes(context, [one for one in checked if one.state is State.SENT], threads, thorough)
        list(threads.map(partial(_mark, context, found), checked))
    return _count(checked, found)


def _mark(context: RedriveContext, found: Mapping[Lineage, Outcome], attempt: Attempt) -> None:
    outcome = found.get(attempt.lineage)
    if outcome is not None:
        context.ledger.follow(attempt, outcome.state, outcome.why)
    # A process that marked the ledger before may have died before it set the tags.
    if State.PROCESSED in (attempt.state, outcome.state if outcome else None):
        for one in context.ledger.attempts(attempt.root):
            if one.failure.startswith(FAILURES):
                advance_status(context.s3, context.bucket, one.failure, PROCESSED)


def _count(attempts: Iterable[Attempt], found: Mapping[Lineage, Outcome]) -> Followed:
    counts = dict.fromkeys(Followed.__dataclass_fields__, 0)
    for one in attempts:
        state = found[one.lineage].state if one.lineage in found else one.state
        name = state.value if state in (State.PROCESSED, State.FAILED) else "other"
        if state is State.SENT:
            name = "delivered" if one.target.startswith(("http://", "https://")) else "waiting"
        counts[name] += 1
    return Followed(**counts)
