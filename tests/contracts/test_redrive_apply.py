"""Laws of applying a plan: everything once, in order, whatever happens on the way, and beside another applier."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_app.errors import ConfigError
from stream_app.recovery.apply import apply
from stream_app.recovery.apply_run import Pace
from stream_app.recovery.ledger_items import State
from stream_app.recovery.redrive_discard import discard
from stream_app.recovery.select import Selection
from stream_app.recovery.store import failure_keys
from stream_app.recovery.targets import Answer, Barred, Later, Parcel, Refused
from stream_app.sinks.retry import Policy
from tests import samples
from tests.contracts import redriving as on
from tests.contracts.redriving import BUCKET, Clock, CrashError, Endpoint, Mortal, park, park_readings, plan_of, road

QUICK = Pace(policy=Policy(attempts=3, base_ms=1, cap_ms=1))


@pytest.fixture
def client(aws: Callable[[str], Any]) -> Callable[[str], Any]:
    on.make_tables(aws)
    return aws


@pytest.fixture
def s3(client: Callable[[str], Any]) -> Any:
    return client("s3")


def test_every_record_is_sent_once_in_the_order_of_its_device(client: Any, s3: Any) -> None:
    keys, clock, endpoint = park_readings(s3, 10, "ABC"), Clock(), Endpoint()
    plan = plan_of(road(client, clock), endpoint)
    done = apply(road(client, clock), plan, endpoint, world=clock.world())
    assert (done.sent, done.left, done.complete) == (10, 0, True)
    assert sorted(endpoint.keys()) == sorted(keys)
    for device in "ABC":
        arrivals = [draft.message.detail["time"] for draft in endpoint.calls if draft.message and draft.key == device]
        assert arrivals == sorted(arrivals)
    assert on.statuses(s3, keys) == {"redriven": 10}
    again = apply(road(client, clock), plan, endpoint, world=clock.world())
    assert (again.sent, again.sent_before, again.complete) == (0, 10, True)
    assert set(endpoint.counts.values()) == {1}


def test_a_dry_run_does_nothing(client: Any, s3: Any) -> None:
    keys, clock = park_readings(s3, 4), Clock()
    endpoint = Endpoint()
    plan = plan_of(road(client, clock), endpoint)
    watched = Mortal(client)
    done = apply(road(watched, clock), plan, endpoint, world=clock.world(), dry_run=True)
    assert (done.left, done.sent, watched.effects, endpoint.calls) == (4, 0, [], [])
    assert on.statuses(s3, keys) == {"open": 4}


@pytest.mark.parametrize("in_doubt", ["auto", "hold"])
def test_a_crash_at_any_effect_loses_nothing_and_doubles_nothing(client: Any, s3: Any, in_doubt: Any) -> None:
    """Counted at a receiver that collapses keys (auto), and at one that looks at none (hold)."""
    clock = Clock()
    whole, endpoint = _crashed(client, clock, "whole", -1, after=False, in_doubt=in_doubt)
    assert len(endpoint.effects) == 4
    for at in range(len(whole.effects)):
        for after in (False, True):
            application = f"crash-{at}-{after}"
            process, endpoint = _crashed(client, clock, application, at, after=after, in_doubt=in_doubt)
            assert process.dead
            _recovered(client, clock, application, endpoint, in_doubt)


def _crashed(
    client: Any, clock: Clock, application: str, at: int, *, after: bool, in_doubt: Any
) -> tuple[Mortal, Endpoint]:
    park_readings(client("s3"), 4, consumer=application)
    process, endpoint = Mortal(client, at, after=after), Endpoint()
    plan = plan_of(road(client, clock, application), endpoint)
    pace = QUICK._replace(in_doubt=in_doubt)
    try:
        apply(road(process, clock, application), plan, process.target(endpoint), pace, world=clock.world())
    except CrashError:
        pass
    return process, endpoint


def _recovered(client: Any, clock: Clock, application: str, endpoint: Endpoint, in_doubt: Any) -> None:
    s3, here = client("s3"), road(client, clock, application)
    every = list(failure_keys(s3, BUCKET, application))
    # The same selection as before the crash; the plan's file is what people still have.
    plan = _plans[application] if application in _plans else plan_of(here, endpoint)
    done = apply(here, plan, endpoint, QUICK._replace(in_doubt=in_doubt), world=clock.world())
    assert done.left == 0
    counts = endpoint.counts
    if in_doubt == "auto":
        assert done.complete
        assert sorted(endpoint.keys()) == sorted(every)
        assert len(endpoint.effects) == len(every)
        assert on.statuses(s3, every) == {"redriven": len(every)}
    else:
        assert set(counts.values()) <= {1}
        sent = {state for state in _states(here, plan).values()}
        assert sent <= {State.SENT, State.HELD}
    before = len(endpoint.calls)
    apply(here, plan, endpoint, QUICK, world=clock.world())
    assert len(endpoint.calls) == before
