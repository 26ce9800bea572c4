"""Predictions of a plan agree with the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.event_loading import schema_files
from stream_app.events import parcel
from stream_app.model.record import Record
from stream_app.pipeline.flow import process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.recovery.redrive.message import Lineage
from stream_app.recovery.redrive.plan.cases import draft_of
from stream_app.recovery.redrive.plan.newer import Latest
from stream_app.recovery.redrive.plan.predict import Predicted, predict
from stream_app.recovery.redrive.targets.target import Draft
from stream_app.recovery.repair.file import parse_repair
from stream_app.testing import record as raw_record
from tests import samples

REGISTRY = samples.registry()
NOW = samples.START + 13 * samples.HOUR


def drafts(records: Sequence[Record], registry: Registry = REGISTRY, repair: Any = None) -> list[Draft]:
    made = []
    for number, one in enumerate(records):
        draft = draft_of(one.data, one.partition_key, Lineage(f"k{number}", 1), repair, registry)
        assert isinstance(draft, Draft)
        made.append(draft)
    return made


@given(samples.shards())
def test_predictions_for_unchanged_records_agree_with_the_pipeline(records: list[Record]) -> None:
    told = predict(drafts(records), REGISTRY, {}, now_ms=NOW, max_bytes=samples.MAX_BYTES)
    state = ShardState(samples.EVENTS, 5_000)
    # Redrive gives each record an id, so that duplicates are detected; the pipeline alone does not.
    named = [one for one, draft in zip(records, drafts(records), strict=True) if _has_id(draft)]
    result = process(records, REGISTRY, state, samples.MAX_BYTES)
    failed = {failure.row: (failure.code.value, failure.reason) for failure in result.failed}
    stored = {row for batch in result.passed.values() for row in batch.rows.tolist()}
    for row, one in enumerate(told):
        if row in failed:
            assert (one.outcome, one.because) == failed[row]
        elif row in stored:
            assert one.outcome == "stored"
            assert one.device is not None
        else:
            assert one == Predicted("repeated")
            assert records[row] in named


def _has_id(draft: Draft) -> bool:
    return draft.message is not None and draft.message.detail.get("id") is not None


@given(st.floats(101, 1e6))
def test_a_repair_is_predicted_to_succeed(value: float) -> None:
    broken = samples.as_json("reading", {"id": "1", "device": "A", "time": samples.START, "value": value})
    record = raw_record(broken, key="A")
    assert [one.outcome for one in _predictions(drafts([record]))] == ["RULE_BROKEN"]
    repair = parse_repair({"steps": [{"do": "set", "field": "value", "value": 1.5}]})
    assert _predictions(drafts([record], repair=repair)) == [
        Predicted("stored", "", "reading#A", samples.START, "reading", "1")
    ]


def _predictions(some: list[Draft]) -> list[Predicted]:
    return predict(some, REGISTRY, {}, now_ms=NOW, max_bytes=samples.MAX_BYTES)


PARCELS = Registry.of(
    [parcel.EVENT],
    {"parcel": [msgspec.json.decode(path.read_bytes()) for path in schema_files("parcel")]},
)


def step(status: str, hour: int) -> Record:
    fields = {
        "id": f"{status}/{hour}",
        "parcel": "P",
        "status": status,
        "time": samples.START + hour * samples.HOUR,
    }
    return raw_record(samples.as_json("parcel", fields), hour, key="P")


@pytest.mark.parametrize(
    ("last", "outcomes"),
    [
        (None, ["RULE_BROKEN", "RULE_BROKEN"]),
        ("picked_up", ["stored", "stored"]),
        ("delivered", ["RULE_BROKEN", "RULE_BROKEN"]),
    ],
)
def test_rules_on_previous_values_use_the_devices_last_event(last: str | None, outcomes: list[str]) -> None:
    known = {}
    if last is not None:
        values = {"status": last, "time": "2016-12-01T00:00:00.000Z", "late": Decimal(0)}
        known["parcel#P"] = Latest("parcel", "P", samples.START, values)
    some = drafts([step("in_transit", 1), step("delivered", 2)], PARCELS)
    told = predict(some, PARCELS, known, now_ms=NOW, max_bytes=4_096)
    assert [one.outcome for one in told] == outcomes


def test_a_time_before_the_devices_last_one_is_detected() -> None:
    values = {"status": "picked_up", "time": "2016-12-01T05:00:00.000Z"}
    known = {"parcel#P": Latest("parcel", "P", samples.START + 5 * samples.HOUR, values)}
    told = predict(drafts([step("in_transit", 1)], PARCELS), PARCELS, known, now_ms=NOW, max_bytes=4_096)
    assert (told[0].outcome, told[0].because) == ("RULE_BROKEN", "time is not before the parcel's last one")
