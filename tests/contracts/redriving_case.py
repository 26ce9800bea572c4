"""An application with failures, the plan to send them again, and the receiver that all its appliers send to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from stream_app.aws.retry import Policy
from stream_app.recovery.redrive.apply.execute import apply
from stream_app.recovery.redrive.apply.run import Applied, Pace
from stream_app.recovery.redrive.ledger.items import State
from stream_app.recovery.redrive.plan.file import Plan
from stream_app.recovery.store import failure_keys
from tests.contracts import redriving as on
from tests.contracts.redriving import BUCKET, Clock, Endpoint, context, park_readings, plan_of

QUICK = Pace(policy=Policy(attempts=3, base_ms=1, cap_ms=1))


@dataclass
class Case:
    """An application of its own, its plan, and the receiver that all its appliers send to."""

    client: Any
    clock: Clock
    name: str
    endpoint: Endpoint
    plan: Plan

    def apply(
        self, client: Any = None, target: Endpoint | None = None, pace: Pace = QUICK, **how: Any
    ) -> Applied:
        here = context(client or self.client, self.clock, self.name)
        return apply(here, self.plan, target or self.endpoint, pace, timing=self.clock.timing(), **how)

    def states(self) -> Counter[State]:
        known = context(self.client, self.clock, self.name).ledger.known(on.lineages(self.plan))
        return Counter(attempt.state for attempt in known.values())

    @property
    def keys(self) -> list[str]:
        return list(failure_keys(self.client("s3"), BUCKET, self.name))


def case(client: Any, name: str = "air", count: int = 4, **endpoint: Any) -> Case:
    park_readings(client("s3"), count, consumer=name)
    clock, made = Clock(), Endpoint(**endpoint)
    return Case(client, clock, name, made, plan_of(context(client, clock, name), made))
