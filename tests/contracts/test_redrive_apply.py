"""Laws of applying a plan: everything once, in order, whatever happens on the way, and beside another applier."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_app.aws.retry import Policy
from stream_app.errors import ConfigError
from stream_app.recovery.redrive.apply.execute import apply
from stream_app.recovery.redrive.apply.run import Pace
from stream_app.recovery.redrive.discard import discard
from stream_app.recovery.redrive.ledger.claims import Ledger
from stream_app.recovery.redrive.ledger.items import Attempt, State
from stream_app.recovery.redrive.message import Lineage
from stream_app.recovery.redrive.select import Selection
from stream_app.recovery.redrive.targets.target import Answer, Refused, Retryable, SenderRejected
from stream_app.recovery.store import failure_keys
from tests import samples
from tests.contracts import redriving as on
from tests.contracts.redriving import BUCKET, Clock, Endpoint, Mortal, context, park, park_readings, plan_of
from tests.contracts.redriving_case import QUICK, Case, case


@pytest.fixture
def s3(client: Callable[[str], Any]) -> Any:
    return client("s3")


def test_every_record_is_sent_once_in_the_order_of_its_device(client: Any, s3: Any) -> None:
    keys, clock, endpoint = park_readings(s3, 10, "ABC"), Clock(), Endpoint()
    plan = plan_of(context(client, clock), endpoint)
    done = apply(context(client, clock), plan, endpoint, timing=clock.timing())
    assert (done.sent, done.left, done.complete) == (10, 0, True)
    assert sorted(endpoint.roots()) == sorted(keys)
    for device in "ABC":
        arrivals: list[Any] = [
            draft.message.detail["time"] for draft in endpoint.calls if draft.message and draft.key == device
        ]
        assert arrivals == sorted(arrivals)
    assert on.statuses(s3, keys) == {"redriven": 10}
    again = apply(context(client, clock), plan, endpoint, timing=clock.timing())
    assert (again.sent, again.sent_before, again.complete) == (0, 10, True)
    assert set(endpoint.counts.values()) == {1}


def test_a_dry_run_does_nothing(client: Any, s3: Any) -> None:
    keys, clock = park_readings(s3, 4), Clock()
    endpoint = Endpoint()
    plan = plan_of(context(client, clock), endpoint)
    watched = Mortal(client)
    done = apply(context(watched, clock), plan, endpoint, timing=clock.timing(), dry_run=True)
    assert (done.left, done.sent, watched.effects, endpoint.calls) == (4, 0, [], [])
    assert on.statuses(s3, keys) == {"open": 4}


def test_two_appliers_share_the_work(client: Any) -> None:
    here = case(client, count=40)
    roads = [replace(context(client, here.clock), lease_ms=10**9) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        work = [
            threads.submit(apply, one, here.plan, here.endpoint, QUICK, timing=here.clock.timing())
            for one in roads
        ]
        done = [one.result() for one in work]
    assert sum(one.sent for one in done) == 40
    assert all(one.complete for one in done)
    assert set(here.endpoint.counts.values()) == {1}
    assert sorted(here.endpoint.roots()) == here.keys
    for device in "AB":
        times: list[Any] = [
            d.message.detail["time"] for d in here.endpoint.calls if d.message and d.key == device
        ]
        assert times == sorted(times)


@pytest.mark.parametrize("before", [True, False])
def test_another_may_apply_all_of_it_while_the_ledger_is_looked_at(
    client: Any, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    here, looking = case(client, count=6), Ledger.known

    def known(ledger: Ledger, lineages: Iterable[Lineage]) -> Mapping[Lineage, Attempt]:
        monkeypatch.setattr(Ledger, "known", looking)
        wanted = list(lineages)
        found = {} if before else looking(ledger, wanted)
        assert here.apply().sent == 6
        return looking(ledger, wanted) if before else found

    monkeypatch.setattr(Ledger, "known", known)
    done = here.apply()
    assert (done.sent, done.complete) == (0, True)
    assert set(here.endpoint.counts.values()) == {1}
    assert sorted(here.endpoint.roots()) == here.keys


def test_what_was_discarded_cannot_be_sent_by_a_plan_that_has_begun(client: Any) -> None:
    here, stop = case(client, count=6), threading.Event()
    here.apply(stop=stop, progress=lambda _done: stop.set())
    last = here.plan.items[-1].key
    assert discard(context(client, here.clock), Selection(key=last), "no longer wanted").count == 1
    done = here.apply()
    assert done.elsewhere == 1
    assert last not in here.endpoint.roots()
    assert on.statuses(client("s3"), here.keys) == {"redriven": 5, "discarded": 1}


def _another(client: Any, here: Case) -> None:
    park(client("s3"), samples.as_json("reading", on.reading(50)), 50)


def _gone(client: Any, here: Case) -> None:
    client("s3").delete_object(Bucket=BUCKET, Key=here.keys[0])


def _other_content(client: Any, here: Case) -> None:
    body = client("s3").get_object(Bucket=BUCKET, Key=here.keys[0])["Body"].read()
    client("s3").put_object(Bucket=BUCKET, Key=here.keys[0], Body=body + b" ", Tagging="status=open")


def _discarded(client: Any, here: Case) -> None:
    discard(context(client, here.clock), Selection(key=here.keys[0]), "no longer wanted")


def _sent_by_another(client: Any, here: Case) -> None:
    plan = plan_of(context(client, here.clock), here.endpoint, selection=Selection(limit=1))
    assert Case(client, here.clock, "air", here.endpoint, plan).apply().sent == 1


@pytest.mark.parametrize("change", [_another, _gone, _other_content, _discarded, _sent_by_another])
def test_a_plan_whose_selection_has_changed_is_refused(
    client: Any, change: Callable[[Any, Case], None]
) -> None:
    here = case(client)
    change(client, here)
    tries = len(here.endpoint.calls)
    with pytest.raises(ConfigError, match="the selection has changed"):
        here.apply()
    assert len(here.endpoint.calls) == tries


def test_what_fails_after_the_plan_was_made_is_not_of_its_selection(client: Any) -> None:
    here = case(client)
    park(client("s3"), samples.as_json("reading", on.reading(9)), 60 * 24 + 1)
    assert here.apply().sent == 4


def test_a_plan_of_another_application_is_refused(client: Any) -> None:
    here = case(client)
    with pytest.raises(ConfigError, match="the plan is for air"):
        apply(context(client, here.clock, "water"), here.plan, here.endpoint, QUICK)


def test_it_stops_in_order_and_goes_on_later(client: Any) -> None:
    here, stop = case(client, count=9), threading.Event()
    done = here.apply(stop=stop, progress=lambda _done: stop.set())
    assert (done.stopped, done.sent + done.left) == (True, 9)
    assert 0 < done.sent < 9
    assert here.states() == {State.SENT: done.sent}  # no claim is left
    assert here.apply().complete
    assert set(here.endpoint.counts.values()) == {1}


def test_what_the_target_refuses_stays_open_and_is_sent_no_more_than_the_limit_allows(client: Any) -> None:
    here = case(client, count=2, script=lambda parcel, _: Refused("HTTP 422") if parcel.key == "A" else None)
    for attempt in (1, 2):
        plan = plan_of(context(client, here.clock), here.endpoint, max_redrives=2)
        assert {item.attempt for item in plan.items} == {attempt}
        done = Case(client, here.clock, "air", here.endpoint, plan).apply()
        assert (done.refused, done.complete) == (1, False)
        assert done.named == [(here.keys[0], "HTTP 422")]
    assert on.statuses(client("s3"), here.keys) == {"open": 1, "redriven": 1}
    last = plan_of(context(client, here.clock), here.endpoint, max_redrives=2)
    assert (last.items, last.left_out) == ((), {"it reached the maximum number of redrives": 1})


def test_it_waits_as_long_as_it_is_asked_to(client: Any) -> None:
    here = case(client, script=lambda _, number: None)
    asked = iter([Retryable("HTTP 429", doubt=False, after=7.0)])
    here.endpoint.script = lambda _parcel, _number: next(asked, None)
    done = here.apply()
    assert (done.complete, done.again) == (True, 1)
    assert max(here.clock.paused) >= 7.0
    assert set(here.endpoint.counts.values()) == {1}


@pytest.mark.parametrize("doubt", [False, True])
def test_a_target_that_takes_nothing_ends_it_and_leaves_no_claim_in_the_way(client: Any, doubt: bool) -> None:
    here = case(client, script=lambda _parcel, _number: Retryable("HTTP 500", doubt=doubt))
    done = here.apply()
    assert "HTTP 500" in done.halted
    assert done.left + done.undelivered == 4
    tokens = set(here.endpoint.counts)
    here.endpoint.script = lambda _parcel, _number: None
    begun = here.clock.ms
    assert here.apply().complete
    assert here.clock.ms == begun  # nothing to wait for
    assert tokens <= set(here.endpoint.counts)
    assert len(here.endpoint.effects) == 4


def test_a_target_that_bars_us_is_left_alone_at_once(client: Any) -> None:
    here = case(client, script=lambda _parcel, _number: SenderRejected("HTTP 401"))
    done = here.apply()
    assert (done.halted, done.left, sum(here.endpoint.batches)) == ("HTTP 401", 4, 2)
    assert here.states() == {}
    here.endpoint.script = lambda _parcel, _number: None
    assert here.apply().complete


def test_an_answer_that_is_lost_after_a_doubt_does_not_take_the_doubt_away(client: Any) -> None:
    answers = iter([Retryable("no answer", doubt=True), SenderRejected("HTTP 401")])
    here = case(client, count=1, script=lambda _parcel, _number: next(answers, None))
    assert here.apply().halted == "HTTP 401"
    held = here.apply(pace=QUICK._replace(in_doubt="hold"))
    assert (held.held, len(here.endpoint.calls)) == (1, 1)


@given(st.integers(1, 5), st.integers(1, 12))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_faster_than_it_is_told(client: Any, rate: int, count: int) -> None:
    name = f"rate-{rate}-{count}"
    if failure_keys_exist(client, name):
        return
    here = case(client, name, count)
    begun = here.clock.ms
    here.apply(pace=QUICK._replace(rate=float(rate)))
    took = (here.clock.ms - begun) / 1000
    # All but the last second's worth was waited for.
    assert took >= (count - rate) / rate - 0.01


def failure_keys_exist(client: Any, name: str) -> bool:
    return bool(list(failure_keys(client("s3"), BUCKET, name)))


ANSWERS = st.sampled_from(
    [
        None,
        None,
        None,
        Retryable("HTTP 503", doubt=False),
        Retryable("no answer", doubt=True),
        Retryable("HTTP 429", doubt=False, after=3.0),
    ]
)


@given(st.lists(ANSWERS, max_size=20), st.integers(1, 8))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_target_answers_each_record_takes_effect_once_and_in_order(
    client: Any, answers: list[Answer | None], count: int
) -> None:
    name = f"answers-{hash((tuple(answers), count))}"
    if failure_keys_exist(client, name):
        return
    scripted = iter(answers)
    here = case(client, name, count, script=lambda _parcel, _number: next(scripted, None))
    patient = Pace(policy=Policy(attempts=50, base_ms=1, cap_ms=1))
    done = here.apply(pace=patient)
    assert done.complete
    assert sorted(here.endpoint.roots()) == here.keys
    assert here.states() == {State.SENT: count}
    for device in "AB":
        first = [draft for draft in here.endpoint.effects.values() if draft.key == device]
        times: list[Any] = [draft.message.detail["time"] for draft in first if draft.message]
        assert times == sorted(times)
