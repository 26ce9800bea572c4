"""The whole road: a record fails, is repaired, sent again, and ends stored; and no loop runs for ever."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from stream_app.aws.objects import keys
from stream_app.model.segment import utc_datetime
from stream_app.recovery.redrive.apply.execute import apply
from stream_app.recovery.redrive.context import open_target
from stream_app.recovery.redrive.discard import discard
from stream_app.recovery.redrive.follow import Followed, attempts_in, follow
from stream_app.recovery.redrive.ledger.items import State
from stream_app.recovery.redrive.lineage import story
from stream_app.recovery.redrive.plan.build import PlanRequest, build_plan
from stream_app.recovery.redrive.select import Selection
from stream_app.recovery.redrive.targets.target import destination
from stream_app.recovery.store import parse_key, status
from stream_app.sinks.s3 import EVENTS
from tests import samples
from tests.contracts.redriving import BUCKET, Endpoint, reading, statuses
from tests.contracts.redriving_pipeline import MEND, USELESS, Pipeline, applied, followed, planned


def send_six(pipeline: Pipeline, through: str) -> None:
    """Two devices; one value in three breaks a rule."""
    for number in range(6):
        detail = reading(number, "AB"[number % 2], value=500.0 if number % 3 == 0 else 20.0)
        if through == "bus":
            pipeline.publish("reading", detail["device"], detail)
        else:
            form = samples.FORMS[number % len(samples.FORMS)]
            pipeline.put(
                samples.encoded("reading", {**detail, "level": None, "note": None, "sent_at": None}, form),
                detail["device"],
            )
    pipeline.run()
    assert len(pipeline.failures()) == 2


@pytest.mark.parametrize("came", ["bus", "stream"])
@pytest.mark.parametrize("to", ["bus", "stream"])
def test_a_repaired_record_ends_stored_and_processed(pipeline: Pipeline, came: str, to: str) -> None:
    send_six(pipeline, came)
    plan = planned(pipeline, to, repair=MEND, newer="apply")
    assert (plan.expected, plan.sent, plan.codes) == ({"stored": 2}, 2, {"RULE_BROKEN": 2})
    assert applied(pipeline, plan).complete
    keys = pipeline.failures()
    assert statuses(pipeline.client("s3"), keys) == {"redriven": 2}
    assert followed(pipeline, plan) == Followed(waiting=2)
    pipeline.run()
    assert followed(pipeline, plan) == Followed(processed=2)
    assert statuses(pipeline.client("s3"), keys) == {"processed": 2}
    assert followed(pipeline, plan) == Followed(processed=2)
    found = pipeline.audited()
    assert found.balanced
    assert (found.total.stored, found.total.repeated, sum(found.total.parked.values())) == (6, 0, 2)


@pytest.mark.parametrize("to", ["bus", "stream"])
def test_a_copy_too_many_is_a_repeat_and_nothing_is_stored_twice(pipeline: Pipeline, to: str) -> None:
    """An applier that died before its mark: the record goes out a second time."""
    send_six(pipeline, to)
    plan = planned(pipeline, to, repair=MEND, newer="apply")
    target = open_target(pipeline.context, plan.destination, {})

    class Twice:
        where, batch, encode, close = target.where, target.batch, target.encode, target.close

        def send(self, parcels: Any) -> Any:
            list(target.send(parcels))
            return target.send(parcels)

    assert apply(pipeline.context, plan, Twice()).complete
    pipeline.run()
    assert followed(pipeline, plan) == Followed(processed=2)
    found = pipeline.audited()
    assert found.balanced
    assert (found.total.stored, found.total.repeated) == (6, 2)


@pytest.mark.parametrize("to", ["bus", "stream"])
def test_what_fails_again_is_the_same_record_and_comes_to_an_end(pipeline: Pipeline, to: str) -> None:
    pipeline.publish("reading", "A", reading(1))
    pipeline.run()
    [first] = pipeline.failures()
    for attempt in (1, 2):
        plan = planned(pipeline, to, repair=USELESS, max_redrives=2)
        assert plan.expected == {"RULE_BROKEN": 1}
        assert [(item.attempt, item.lineage.root) for item in plan.items] == [(attempt, first)]
        assert applied(pipeline, plan).complete
        pipeline.run()
        assert followed(pipeline, plan) == Followed(failed=1)
    last = planned(pipeline, to, max_redrives=2)
    assert (last.items, last.left_out) == ((), {"it reached the maximum number of redrives": 1})
    context = pipeline.context
    told = story(context.s3, BUCKET, pipeline.failures()[-1], context.ledger, context.registry)
    assert [(one.attempt, one.state) for one in told] == [(1, State.FAILED), (2, State.FAILED)]
    assert all(one.why.startswith("RULE_BROKEN") for one in told)


def test_when_the_last_of_a_line_is_stored_the_whole_line_is_processed(pipeline: Pipeline) -> None:
    pipeline.publish("reading", "A", reading(1))
    pipeline.run()
    applied(pipeline, planned(pipeline, "bus", repair=USELESS))
    pipeline.run()
    assert statuses(pipeline.client("s3"), pipeline.failures()) == {"redriven": 1, "open": 1}
    applied(pipeline, planned(pipeline, "bus", repair=MEND))
    pipeline.run()
    context = pipeline.context
    # Without a plan at hand: whatever is redriven.
    assert follow(context, attempts_in(context, Selection(statuses=("redriven",)))) == Followed(processed=1)
    assert statuses(pipeline.client("s3"), pipeline.failures()) == {"processed": 2}


def test_bytes_that_nobody_can_read_go_back_as_they_are_and_keep_their_line(pipeline: Pipeline) -> None:
    pipeline.put(b"\xff\xfe\x00", "A")
    pipeline.run()
    [first] = pipeline.failures()
    to_bus = planned(pipeline, "bus")
    assert (to_bus.items, to_bus.left_out) == ((), {"it cannot be encoded for the target": 1})
    for attempt in (1, 2):
        plan = planned(pipeline, "stream", max_redrives=2)
        assert [(item.attempt, item.lineage.root) for item in plan.items] == [(attempt, first)]
        assert plan.expected == {"UNDECODABLE": 1}
        applied(pipeline, plan)
        pipeline.run()
        assert followed(pipeline, plan) == Followed(failed=1)
    assert planned(pipeline, "stream", max_redrives=2).items == ()


def test_what_the_device_sent_again_itself_is_processed_too(pipeline: Pipeline) -> None:
    pipeline.publish("reading", "A", reading(1))
    pipeline.run()
    pipeline.publish("reading", "A", reading(1, value=20.0))
    pipeline.run()
    _move_back(pipeline)
    plan = planned(pipeline, "bus", repair=MEND)
    applied(pipeline, plan)
    pipeline.run()
    assert followed(pipeline, plan) == Followed(processed=1)
    assert statuses(pipeline.client("s3"), pipeline.failures()) == {"processed": 1}


def _move_back(pipeline: Pipeline) -> None:
    """The stored file into the hour before the failure, so that it lies well before the sending."""
    s3, [failure], [key] = (
        pipeline.client("s3"),
        pipeline.failures(),
        list(keys(pipeline.client("s3"), BUCKET, EVENTS)),
    )
    parsed = parse_key(failure)
    assert parsed is not None
    hour = utc_datetime(parsed.arrived) - timedelta(hours=1)
    to = f"{EVENTS}reading/date={hour:%Y-%m-%d}/hour={hour:%H}/{key.rpartition('/')[2]}"
    s3.copy_object(Bucket=BUCKET, Key=to, CopySource={"Bucket": BUCKET, "Key": key})
    s3.delete_object(Bucket=BUCKET, Key=key)


def test_an_event_without_an_id_of_its_own_is_given_one_that_tells_copies(pipeline: Pipeline) -> None:
    pipeline.put(samples.as_json("reading", {**reading(1), "id": None}), "A")
    pipeline.run()
    plan = planned(pipeline, "bus", repair=MEND)
    [item] = plan.items
    assert item.id == item.token
    applied(pipeline, plan)
    pipeline.run()
    assert followed(pipeline, plan) == Followed(processed=1)


def test_what_went_to_an_endpoint_stays_redriven(pipeline: Pipeline) -> None:
    pipeline.publish("reading", "A", reading(1))
    pipeline.run()
    context, where, endpoint = (
        pipeline.context,
        destination("https://example.com/", bus="", stream=""),
        Endpoint(),
    )
    endpoint_plan = build_plan(context, PlanRequest(Selection(), where), endpoint)
    assert apply(context, endpoint_plan, endpoint).complete
    assert followed(pipeline, endpoint_plan) == Followed(delivered=1)
    assert statuses(pipeline.client("s3"), pipeline.failures()) == {"redriven": 1}


def test_what_was_discarded_is_not_planned(pipeline: Pipeline) -> None:
    send_six(pipeline, "bus")
    context = pipeline.context
    assert discard(context, Selection(), "a test", dry_run=True).count == 2
    assert statuses(context.s3, pipeline.failures()) == {"open": 2}
    assert discard(context, Selection(), "sensors replaced").count == 2
    assert planned(pipeline, "bus").count == 0
    for key in pipeline.failures():
        [one] = story(context.s3, BUCKET, key, context.ledger, context.registry)
        assert (one.state, one.why, one.by) == (State.DISCARDED, "sensors replaced", "ann")
    assert discard(context, Selection(statuses=("discarded",)), "again").count == 2
    assert all(len(context.ledger.attempts(key)) == 1 for key in pipeline.failures())


def test_a_discarded_record_can_be_taken_back(pipeline: Pipeline) -> None:
    send_six(pipeline, "bus")
    discard(pipeline.context, Selection(), "by mistake")
    plan = planned(
        pipeline,
        "bus",
        repair=MEND,
        newer="apply",
        selection=Selection(statuses=("discarded",)),
        max_redrives=1,
    )
    assert {item.attempt for item in plan.items} == {2}
    assert applied(pipeline, plan).complete
    pipeline.run()
    assert followed(pipeline, plan) == Followed(processed=2)
    assert {status(pipeline.context.s3, BUCKET, key) for key in pipeline.failures()} == {"processed"}
