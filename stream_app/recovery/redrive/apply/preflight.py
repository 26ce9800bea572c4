"""Checks before a plan is applied: that its selection is unchanged, and which records are already sent."""

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

_AGAIN = "review the changes and create a new plan"


@dataclass(frozen=True, slots=True)
class Preflight:
    """The items still to send, in order; the number completed before, by state; items sent but not yet tagged."""

    waiting: tuple[Item, ...]
    ended: Mapping[State, int]
    elsewhere: int
    untagged: tuple[Item, ...]


def preflight(context: RedriveContext, plan: Plan, threads: Executor) -> Preflight:
    """Compare the plan with the failure store and the ledger, without changing anything.

    Raises ConfigError if the plan belongs to another application, has no decision on late records, or its selection
    has changed: the same query finds other failures, other contents, or statuses that this plan did not set. Raises
    boto3 errors.
    """
    _check_application(context, plan)
    # Read the store first: a concurrent applier writes to the ledger before it changes a status, so the ledger read
    # afterwards accounts for every changed status.
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
    return Preflight(tuple(waiting), ended, elsewhere, tuple(untagged))


def _check_application(context: RedriveContext, plan: Plan) -> None:
    problems = []
    here = (context.consumer, context.settings.stream, context.bucket)
    if (plan.consumer, plan.stream, plan.bucket) != here:
        what = f"the plan is for {plan.consumer} on {plan.stream} in {plan.bucket}, not for {' '.join(here)}"
        problems.append(Problem(what, "use the properties file of that application"))
    names = {"bus": context.settings.bus, "stream": context.settings.stream}
    to = plan.destination
    if names.get(to.kind, to.name) != to.name:
        what = f"the plan sends to the {to.kind} {to.name}, but {names[to.kind]} is configured"
        problems.append(Problem(what, "use the properties file with which the plan was created"))
    if plan.newer == "undecided":
        what = f"{plan.overtaken_count} records are older than the last processed record of their device"
        problems.append(Problem(what, "create a new plan with --newer skip, apply or replay"))
    if problems:
        raise ConfigError(problems)


def _check_selection(plan: Plan, found: list[Selected], known: Mapping[Lineage, Attempt]) -> None:
    wanted = set(plan.selected())
    # Once this plan has begun, it must be completed: then a status may have been changed by any plan, as long as the
    # ledger has the attempt.
    begun = any(attempt.plan == plan.id for attempt in known.values())
    accounted = {item.key for item in plan.items if begun and item.lineage in known}
    now = {
        (one.key, one.etag) for one in found if one.status in plan.selection.statuses or one.key in accounted
    }
    if plan.selection.limit is not None:
        # The plan has only the first failures of its selection; ignore all others.
        now &= {(one.key, one.etag) for one in found if one.key in {key for key, _ in wanted}}
    if digest(now) == plan.selection_digest:
        return
    keys, now_keys = {key for key, _ in wanted}, {key for key, _ in now}
    gone, new = len(keys - now_keys), len(now_keys - keys)
    changed = len(wanted - now) - gone
    what = f"the selection has changed: {new} new, {gone} gone or of another status, {changed} changed"
    raise ConfigError([Problem(what, _AGAIN)])
