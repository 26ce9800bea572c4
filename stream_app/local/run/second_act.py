"""The second act of a run: one class of the injected failures is repaired, sent again, and ends stored."""

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
from stream_app.recovery.redrive.plan.make import Wish, make
from stream_app.recovery.redrive.select import Selection
from stream_app.recovery.redrive.targets.target import destination
from stream_app.recovery.repair.file import Repair, repair_of
from stream_app.settings import Settings

# The compass point that no wind has (`ingest.faults`) makes `calculate` raise; without it the reading is sound.
CLASS = Code.CALCULATION_FAILED
_REPAIR = {
    "name": "unknown compass point",
    "when": [{"is": "equals", "field": "wind_direction", "value": "XYZ"}],
    "steps": [{"do": "set", "field": "wind_direction", "value": None}],
}
_LOOK = 0.5  # seconds between looks at what became of the records
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class SecondAct:
    """How many records were planned, sent again, and stored in the end."""

    planned: int = 0
    redriven: int = 0
    processed: int = 0


def repair() -> Repair:
    """The repair, as `failures plan --repair` would read it."""
    return repair_of(_REPAIR)


def second_act(aws: Embedded, settings: Settings, stop: threading.Event) -> SecondAct:
    """Plan, apply, and follow until every record sent again is stored and marked processed.

    Raises FatalError when one of them is not within a minute.
    """
    context = RedriveContext(
        settings=settings,
        client=aws.client,
        registry=load_registry(dry_run=False),
        history=aws.outputs["HistoryTableName"],
        now_ms=lambda: time.time_ns() // 1_000_000,
        by="second act",
    )
    to = destination("bus", bus=settings.bus, stream=settings.stream)
    target = open_target(context, to, None)
    try:
        wish = Wish(Selection(codes=(CLASS.value,)), to, repair(), newer="apply")
        plan = make(context, wish, target)
        if not plan.items:
            return SecondAct()
        done = apply(context, plan, target, stop=stop)
    finally:
        target.close()
    deadline = time.monotonic() + _PATIENCE
    while True:
        found = follow(context, attempts_of(context, plan))
        if not found.waiting or stop.wait(_LOOK):
            return SecondAct(len(plan.items), done.sent, found.processed)
        if time.monotonic() > deadline:
            raise FatalError(
                f"{found.waiting} of {done.sent} records sent again were not stored: see the daemon's log"
            )
