"""Checks before a plan is applied: the selection is the one that was reviewed; what was applied already."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

from stream_app.errors import ConfigError, Problem
from stream_app.recovery.redrive.context import RedriveContext
from stream_app.recovery.redrive.ledger.items import Attempt, State
from stream_app.recovery.redrive.message import Lineage
from stream_app.recovery.redrive.plan.file import Item, Plan
from stream_app.recovery.redrive.select import Selected, digest, select
from stream_app.recovery.store import OPEN

_AGAIN = "review what changed, and plan again"


@dataclass(frozen=True, slots=True)
class Survey:
    """What is left to do, in order; what came to an end before, by state; what is sent but not yet tagged so."""

    waiting: tuple[Item, ...]
    ended: Mapping[State, int]
    elsewhere: int
    untagged: tuple[Item, ...]


def survey(context: RedriveContext, plan: Plan, threads: Executor) -> Survey:
    """Look at the store and the ledger; changes nothing.

    Raises ConfigError when the plan is of another application, undecided, or its selection has changed: the same
    query finds other failures, other contents, or statuses that are not this plan's doing. And what boto3 raises.
    """
    _check_place(context, plan)
    # The store first: whoever applies the same plan meanwhile writes to the ledger before it changes a status. So the
    # ledger accounts for every status that was seen changed.
    found = list(
        select(context.s3, context.bucket, context.consumer, plan.selection, threads, any_status=True)
    )
    known = context.ledger.known(item.lineage for item in plan.items)
    _check_selection(plan, found, known)
    statuses = {one.key: one.status for one in found}
    waiting: list[Item] = []
    ended: dict[State, int] = {}
    untagged: list[Item] = []
    elsewhere = 0
    for item in plan.items:
        attempt = known.get(item.lineage)
        if attempt is None or attempt.state is State.CLAIMED:
            waiting.append(item)
        elif attempt.plan != plan.id:
            elsewhere += 1
        else:
            ended[attempt.state] = ended.get(attempt.state, 0) + 1
            if attempt.state is State.SENT and statuses.get(item.key) == OPEN:
                untagged.append(item)
    return Survey(tuple(waiting), ended, elsewhere, tuple(untagged))


def _check_place(context: RedriveContext, plan: Plan) -> None:
    problems = []
    here = (context.consumer, context.settings.stream, context.bucket)
    if (plan.consumer, plan.stream, plan.bucket) != here:
        what = f"the plan is of {plan.consumer} on {plan.stream} in {plan.bucket}, this is {' '.join(here)}"
        problems.append(Problem(what, "name the properties file of that application"))
    names = {"bus": context.settings.bus, "stream": context.settings.stream}
    to = plan.destination
    if names.get(to.kind, to.name) != to.name:
        what = f"the plan sends to the {to.kind} {to.name}, here it is {names[to.kind]}"
        problems.append(Problem(what, "name the properties file with which it was made"))
    if plan.newer == "undecided":
        what = f"{plan.overtaken_count} records are older than what was processed of their device"
        problems.append(Problem(what, "plan again with --newer skip, apply or replay"))
    if problems:
        raise ConfigError(problems)


def _check_selection(plan: Plan, found: list[Selected], known: Mapping[Lineage, Attempt]) -> None:
    wanted = set(plan.selected())
    # What the ledger accounts for has left its status by a plan's doing: by this one's, and once it has begun, which
    # is not to be left half done, by any.
    begun = any(attempt.plan == plan.id for attempt in known.values())
    accounted = {item.key for item in plan.items if begun and item.lineage in known}
    now = {
        (one.key, one.etag) for one in found if one.status in plan.selection.statuses or one.key in accounted
    }
    if plan.selection.limit is not None:
        # The plan holds the first ones that there were; what else is there now is not its business.
        now &= {(one.key, one.etag) for one in found if one.key in {key for key, _ in wanted}}
    if digest(now) == plan.selection_digest:
        return
    keys, now_keys = {key for key, _ in wanted}, {key for key, _ in now}
    gone, new = len(keys - now_keys), len(now_keys - keys)
    changed = len(wanted - now) - gone
    what = f"the selection has changed: {new} new, {gone} gone or of another status, {changed} changed"
    raise ConfigError([Problem(what, _AGAIN)])
