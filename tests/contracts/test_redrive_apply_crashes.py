"""Laws of applying a plan whose applier dies: nothing is lost, nothing is sent twice but what was in flight."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from stream_app.errors import ConfigError
from stream_app.recovery.redrive.apply.run import Pace
from stream_app.recovery.redrive.ledger.items import State
from stream_app.recovery.redrive.select import Selection
from tests import samples
from tests.contracts import redriving as on
from tests.contracts.redriving import CrashError, Mortal, context, park, plan_of
from tests.contracts.redriving_case import QUICK, Case, case


def crashed(
    client: Any, name: str, at: int, *, after: bool, pace: Pace, count: int = 4
) -> tuple[Case, Mortal]:
    here, process = case(client, name, count), Mortal(client, at, after=after)
    with suppress(CrashError):
        here.apply(process, process.target(here.endpoint), pace)
    return here, process


@pytest.mark.second
@pytest.mark.parametrize("in_doubt", ["auto", "hold"])
def test_a_crash_at_any_effect_loses_nothing_and_doubles_nothing(client: Any, in_doubt: Any) -> None:
    """Told by a receiver that collapses keys; with `hold` no key is ever sent twice."""
    pace = QUICK._replace(in_doubt=in_doubt)
    _, whole = crashed(client, "whole", -1, after=False, pace=pace, count=3)
    assert Counter(whole.effects) == {"put_item": 3, "send": 3, "update_item": 3, "put_object_tagging": 3}
    for at in range(len(whole.effects)):
        for after in (False, True):
            here, process = crashed(client, f"{in_doubt}-{at}-{after}", at, after=after, pace=pace, count=3)
            assert process.dead
            here.clock.ms += on.LEASE_MS
            done = here.apply(pace=pace)
            assert done.left == 0
            if in_doubt == "auto":
                assert done.complete
                assert sorted(here.endpoint.roots()) == here.keys
                assert on.statuses(client("s3"), here.keys) == {"redriven": 3}
            else:
                assert here.states().keys() <= {State.SENT, State.HELD}
                assert max(here.endpoint.counts.values()) == 1
                assert (
                    done.held == here.states()[State.HELD] <= len(here.endpoint.batches) * here.endpoint.batch
                )
            assert len(here.endpoint.effects) == len({draft.lineage.root for draft in here.endpoint.calls})
            tries = len(here.endpoint.calls)
            here.apply(pace=pace)
            assert len(here.endpoint.calls) == tries


def test_only_what_was_in_flight_is_ever_sent_twice(client: Any) -> None:
    here, process = crashed(client, "air", 3, after=True, pace=QUICK)
    assert process.effects == ["put_item", "put_item", "send", "send"]  # one of each device, and no mark yet
    here.clock.ms += on.LEASE_MS
    here.apply()
    assert sorted(here.endpoint.counts.values()) == [1, 1, 2, 2]


def test_a_claim_is_left_alone_until_its_end(client: Any) -> None:
    here, _ = crashed(client, "air", 2, after=True, pace=QUICK)
    begun = here.clock.ms
    done = here.apply()
    assert done.complete
    assert here.clock.ms - begun >= on.LEASE_MS
    assert sum(here.clock.paused) * 1000 >= on.LEASE_MS


def test_what_cannot_be_told_apart_is_held_and_the_rest_goes_on(client: Any) -> None:
    here, process = crashed(client, "air", 3, after=False, pace=QUICK)
    here.endpoint.deduplicated = False
    here.clock.ms += on.LEASE_MS
    done = here.apply()
    assert done.held == process.effects.count("put_item") == here.states()[State.HELD]
    assert done.held + done.sent == 4
    assert not done.complete
    assert max(here.endpoint.counts.values()) == 1
    # A person decides: what was held is still open, and may be planned again.
    again = plan_of(context(client, here.clock), here.endpoint)
    assert {item.attempt for item in again.items} == {2}
    assert len(again.items) == done.held


def test_of_two_plans_for_the_same_records_one_sends_each(client: Any) -> None:
    here = case(client)
    selection = Selection(codes=("RULE_BROKEN",))
    other = plan_of(context(client, here.clock), here.endpoint, selection=selection)
    assert other.id != here.plan.id
    process = Mortal(client, 4, after=True)
    with suppress(CrashError):
        here.apply(process, process.target(here.endpoint))
    theirs = Case(client, here.clock, "air", here.endpoint, other)
    done = theirs.apply()
    assert done.sent == 2
    assert done.elsewhere == 2
    here.clock.ms += on.LEASE_MS
    # The first plan is not left half done because another did a part of it.
    first = here.apply()
    assert (first.elsewhere, first.complete) == (2, True)
    assert sorted(here.endpoint.roots()) == here.keys
    assert len(here.endpoint.effects) == 4


@pytest.mark.parametrize("at", [1, 3, 4])
def test_what_somebody_died_over_goes_on_by_a_new_plan_under_its_key(client: Any, at: int) -> None:
    here, _ = crashed(client, "air", at, after=True, pace=QUICK)
    park(client("s3"), samples.as_json("reading", on.reading(9)), 9)  # so that the first plan is refused
    with pytest.raises(ConfigError, match="1 new"):
        here.apply()
    early = plan_of(context(client, here.clock), here.endpoint)
    assert early.left_out.get("another plan is sending it", 0) >= 1
    here.clock.ms += on.LEASE_MS
    plan = plan_of(context(client, here.clock), here.endpoint, max_redrives=1)
    assert {item.attempt for item in plan.items} == {1}
    assert Case(client, here.clock, "air", here.endpoint, plan).apply().complete
    assert sorted(here.endpoint.roots()) == here.keys
    assert len(here.endpoint.effects) == 5
