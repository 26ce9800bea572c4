"""The redrive of a run: repairs one class of the injected failures and waits until the records are stored."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from stream_app.errors import FatalError
from stream_app.event_loading import load_registry
from stream_app.local.embedded import Embedded
from stream_app.model.record import Code
from stream_app.recovery.redrive.apply.execute import apply
from stream_app.recovery.redrive.context import RedriveContext, open_target
from stream_app.recovery.redrive.follow import attempts_of, follow
from stream_app.recovery.redrive.plan.build import PlanRequest, build_plan
from stream_app.recovery.redrive.select import Selection
from stream_app.recovery.redrive.targets.target import destination
from stream_app.recovery.repair.file import Repair, parse_repair
from stream_app.settings import Settings

# The invalid wind direction of `ingest.faults` makes `calculate` raise an error; without it the reading is valid.
REPAIRED_CODE = Code.CALCULATION_FAILED
_REPAIR = {
    "name": "unknown compass point",
    "when": [{"is": "equals", "field": "wind_direction", "value": "XYZ"}],
    "steps": [{"do": "set", "field": "wind_direction", "value": None}],
}
# Stored with every redrive attempt. The value must not change.
_REQUESTED_BY = "second act"
_POLL_SECONDS = 0.5
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RedriveResult:
    """The numbers of records that were planned, redriven and finally stored."""

    planned: int = 0
    redriven: int = 0
    processed: int = 0


def repair() -> Repair:
    """Return the repair in the form that `failures plan --repair` reads."""
    return parse_repair(_REPAIR)


def redrive_repaired(aws: Embedded, settings: Settings, stop: threading.Event) -> RedriveResult:
    """Plan and apply a redrive, and wait until every redriven record is stored and marked as processed.

    Raises FatalError if one of them is not stored within a minute.
    """
    context = RedriveContext(
        settings=settings,
        client=aws.client,
        registry=load_registry(dry_run=False),
        history=aws.outputs["HistoryTableName"],
        now_ms=lambda: time.time_ns() // 1_000_000,
        by=_REQUESTED_BY,
    )
    to = destination("bus", bus=settings.bus, stream=settings.stream)
    target = open_target(context, to, None)
    try:
        wish = PlanRequest(Selection(codes=(REPAIRED_CODE.value,)), to, repair(), newer="apply")
        plan = build_plan(context, wish, target)
        if not plan.items:
            return RedriveResult()
        done = apply(context, plan, target, stop=stop)
    finally:
        target.close()
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        found = follow(context, attempts_of(context, plan))
        if not found.waiting or stop.wait(_POLL_SECONDS):
            return RedriveResult(len(plan.items), done.sent, found.processed)
        if time.monotonic() > deadline:
            raise FatalError(
                f"{found.waiting} of {done.sent} redriven records were not stored: see the daemon's log"
            )
