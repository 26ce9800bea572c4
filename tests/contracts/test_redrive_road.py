"""The whole road: a record fails, is repaired, sent again, and ends stored; and no loop runs for ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from stream_app.errors import ConfigError
from stream_app.recovery.redrive.apply.carry_out import apply
from stream_app.recovery.redrive.apply.run import Applied
from stream_app.recovery.redrive.discard import discard
from stream_app.recovery.redrive.follow import Followed, attempts_in, attempts_of, follow
from stream_app.recovery.redrive.ledger.items import State
from stream_app.recovery.redrive.lineage import story
from stream_app.recovery.redrive.plan.file import Plan
from stream_app.recovery.redrive.plan.make import Wish, make
from stream_app.recovery.redrive.road import open_target
from stream_app.recovery.redrive.select import Selection
from stream_app.recovery.redrive.targets.target import destination
from stream_app.recovery.repair.file import repair_of
from stream_app.recovery.store import parse_key, status
from stream_app.sinks.objects import keys
from stream_app.sinks.s3 import EVENTS
from stream_app.sinks.segment import instant
from tests import samples
from tests.contracts.redriving import BUCKET, BUS, STREAM, Endpoint, reading, statuses
from tests.contracts.redriving_pipeline import Pipeline

MEND = repair_of(
    {
        "when": [{"field": "value", "is": "above", "value": 100}],
        "steps": [{"do": "set", "field": "value", "value": 12.5}],
    }
)
USELESS = repair_of({"steps": [{"do": "set", "field": "value", "value": 700}]})


@pytest.fixture
def pipeline(aws: Callable[[str], Any], stream: str) -> Pipeline:
    assert stream == STREAM
    return Pipeline(aws)


def planned(pipeline: Pipeline, to: str, **wish: Any) -> Plan:
    road, where = pipeline.road, destination(to, bus=BUS, stream=STREAM)
    return make(road, Wish(wish.pop("selection", Selection()), where, **wish), open_target(road, where, None))


def applied(pipeline: Pipeline, plan: Plan) -> Applied:
    return apply(pipeline.road, plan, open_target(pipeline.road, plan.destination, {}))


def followed(pipeline: Pipeline, plan: Plan) -> Followed:
    return follow(pipeline.road, attempts_of(pipeline.road, plan))


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
    target = open_target(pipeline.road, plan.destination, {})

    class Twice:
        where, batch, parcel, close = target.where, target.batch, target.parcel, target.close

        def send(self, parcels: Any) -> Any:
            list(target.send(parcels))
            return target.send(parcels)

    assert apply(pipeline.road, plan, Twice()).complete
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
    assert (last.items, last.left_out) == ((), {"it was sent as often as it may be": 1})
    road = pipeline.road
    told = story(road.s3, BUCKET, pipeline.failures()[-1], road.ledger, road.registry)
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
    road = pipeline.road
    # Without a plan at hand: whatever is redriven.
    assert follow(road, attempts_in(road, Selection(statuses=("redriven",)))) == Followed(processed=1)
    assert statuses(pipeline.client("s3"), pipeline.failures()) == {"processed": 2}


def test_bytes_that_nobody_can_read_go_back_as_they_are_and_keep_their_line(pipeline: Pipeline) -> None:
    pipeline.put(b"\xff\xfe\x00", "A")
    pipeline.run()
    [first] = pipeline.failures()
    to_bus = planned(pipeline, "bus")
    assert (to_bus.items, to_bus.left_out) == ((), {"it has no form for the target": 1})
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
    hour = instant(parsed.arrived) - timedelta(hours=1)
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
    road, where, endpoint = pipeline.road, destination("https://example.com/", bus="", stream=""), Endpoint()
    endpoint_plan = make(road, Wish(Selection(), where), endpoint)
    assert apply(road, endpoint_plan, endpoint).complete
    assert followed(pipeline, endpoint_plan) == Followed(delivered=1)
    assert statuses(pipeline.client("s3"), pipeline.failures()) == {"redriven": 1}


@pytest.fixture
def late(pipeline: Pipeline) -> Pipeline:
    """Device A: hour 1 failed, hours 2 and 3 are stored. Device B: hour 5 failed, and is the newest."""
    for number, device, value in (
        (1, "A", 500.0),
        (2, "A", 2.0),
        (3, "A", 3.0),
        (4, "B", 4.0),
        (5, "B", 500.0),
    ):
        pipeline.publish("reading", device, reading(number, device, value=value))
    pipeline.run()
    return pipeline


def test_a_plan_warns_of_what_is_older_than_what_was_processed(late: Pipeline) -> None:
    plan = planned(late, "bus", repair=MEND)
    assert (plan.newer, plan.overtaken_count, plan.sent) == ("undecided", 1, 2)
    [one] = plan.overtaken
    assert (one.device, one.planned, one.processed, one.records) == (
        "reading#A",
        "2016-12-01T01:00:00.000Z",
        "2016-12-01T03:00:00.000Z",
        1,
    )
    with pytest.raises(ConfigError, match="older than what was processed"):
        applied(late, plan)


def test_what_is_late_can_be_skipped(late: Pipeline) -> None:
    plan = planned(late, "bus", repair=MEND, newer="skip")
    assert [item.device for item in plan.items] == ["B"]
    assert plan.left_out == {"a newer record of its device was processed": 1}
    assert applied(late, plan).complete
    assert statuses(late.client("s3"), late.failures()) == {"redriven": 1, "open": 1}


def test_what_is_late_can_be_applied_and_takes_its_own_place(late: Pipeline) -> None:
    plan = planned(late, "bus", repair=MEND, newer="apply")
    assert applied(late, plan).complete
    late.run()
    assert followed(late, plan) == Followed(processed=2)
    item = late.client("dynamodb").get_item(TableName="air-latest", Key={"device": {"S": "reading#A"}})[
        "Item"
    ]
    assert item["time"]["S"] == "2016-12-01T03:00:00.000Z"  # the newest stays the newest


def test_what_came_later_can_be_sent_behind_it_to_an_endpoint(late: Pipeline) -> None:
    """An endpoint that keeps what it was given last ends with the newest record."""
    road, endpoint = late.road, Endpoint()
    where = destination("https://example.com/", bus="", stream="")
    plan = make(road, Wish(Selection(), where, MEND, newer="replay"), endpoint)
    assert (plan.sent, plan.replayed) == (4, 2)
    assert apply(road, plan, endpoint).complete
    of_a = [json.loads(draft.data)["detail"]["id"] for draft in endpoint.calls if draft.key == "A"]
    assert of_a == ["A/1", "A/2", "A/3"]
    assert apply(road, plan, endpoint).sent_before == 4
    again = make(
        road, Wish(Selection(statuses=("redriven",)), where, MEND, newer="replay", max_redrives=1), endpoint
    )
    assert again.items == ()


@pytest.mark.parametrize("to", ["bus", "stream"])
def test_what_is_sent_behind_it_into_the_pipeline_is_a_repeat(late: Pipeline, to: str) -> None:
    plan = planned(late, to, repair=MEND, newer="replay")
    assert plan.replayed == 2
    assert applied(late, plan).complete
    late.run()
    assert followed(late, plan) == Followed(processed=4)
    found = late.audited()
    assert found.balanced
    assert (found.total.stored, found.total.repeated) == (5, 2)


def test_what_the_pipeline_would_not_know_as_a_repeat_is_not_sent_behind(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 8):
        pipeline.publish("reading", "A", reading(number, value=500.0 if number == 1 else 1.0))
    pipeline.run()
    monkeypatch.setattr("tests.contracts.redriving.settings", _forgetful)
    with pytest.raises(ConfigError, match="6 later records"):
        planned(pipeline, "bus", repair=MEND, newer="replay")


def _forgetful(application: str) -> Any:
    from stream_app.settings import Settings

    return Settings(application, STREAM, bucket=BUCKET, bus=BUS, latest_table="air-latest", seen_ids=10)


def test_what_was_discarded_is_not_planned(pipeline: Pipeline) -> None:
    send_six(pipeline, "bus")
    road = pipeline.road
    assert discard(road, Selection(), "a test", dry_run=True).count == 2
    assert statuses(road.s3, pipeline.failures()) == {"open": 2}
    assert discard(road, Selection(), "sensors replaced").count == 2
    assert planned(pipeline, "bus").count == 0
    for key in pipeline.failures():
        [one] = story(road.s3, BUCKET, key, road.ledger, road.registry)
        assert (one.state, one.why, one.by) == (State.DISCARDED, "sensors replaced", "ann")
    assert discard(road, Selection(statuses=("discarded",)), "again").count == 2
    assert all(len(road.ledger.attempts(key)) == 1 for key in pipeline.failures())


def test_a_discarded_record_can_be_taken_back(pipeline: Pipeline) -> None:
    send_six(pipeline, "bus")
    discard(pipeline.road, Selection(), "by mistake")
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
    assert {status(pipeline.road.s3, BUCKET, key) for key in pipeline.failures()} == {"processed"}
