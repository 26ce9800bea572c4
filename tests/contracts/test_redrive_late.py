"""Records that are sent again late: their device is further already, and what came after them may go behind them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stream_app.errors import ConfigError
from stream_app.recovery.redrive.apply.execute import apply
from stream_app.recovery.redrive.follow import Followed
from stream_app.recovery.redrive.plan.build import PlanRequest, build_plan
from stream_app.recovery.redrive.select import Selection
from stream_app.recovery.redrive.targets.target import destination
from tests.contracts.redriving import BUCKET, BUS, STREAM, Endpoint, reading, statuses
from tests.contracts.redriving_pipeline import MEND, Pipeline, applied, followed, planned


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
    with pytest.raises(ConfigError, match="older than the last processed"):
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
    context, endpoint = late.context, Endpoint()
    where = destination("https://example.com/", bus="", stream="")
    plan = build_plan(context, PlanRequest(Selection(), where, MEND, newer="replay"), endpoint)
    assert (plan.sent, plan.replayed) == (4, 2)
    assert apply(context, plan, endpoint).complete
    of_a = [json.loads(draft.data)["detail"]["id"] for draft in endpoint.calls if draft.key == "A"]
    assert of_a == ["A/1", "A/2", "A/3"]
    assert apply(context, plan, endpoint).sent_before == 4
    again = build_plan(
        context,
        PlanRequest(Selection(statuses=("redriven",)), where, MEND, newer="replay", max_redrives=1),
        endpoint,
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
    with pytest.raises(ConfigError, match="6 newer records"):
        planned(pipeline, "bus", repair=MEND, newer="replay")


def _forgetful(application: str) -> Any:
    from stream_app.settings import Settings

    return Settings(application, STREAM, bucket=BUCKET, bus=BUS, latest_table="air-latest", seen_ids=10)
