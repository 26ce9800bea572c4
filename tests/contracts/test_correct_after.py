"""Corrections when the payload has left the stream, in the latest value, and again after a replay."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError

from stream_app.aws.objects import keys
from stream_app.model.record import Record
from stream_app.model.segment import Segment
from stream_app.pipeline.flow import process
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.recovery import store
from stream_app.recovery.correct.calculation.recalculate import UncorrectableError
from stream_app.recovery.correct.reapply import Reapplied, reapply_all
from stream_app.recovery.correct.request import RequestResult
from stream_app.sinks.dynamodb import LatestSink
from stream_app.sinks.parquet import encode
from tests.contracts.correcting import APPLICATION, BUCKET, LIMIT, STREAM, CorrectionCase, checked
from tests.contracts.test_correct import JUMP, SCHEMA, answer, dependencies, done, row, table
from tests.unit.test_recovery_store import dead_letter

__all__ = ["dependencies"]
LATEST = "air-latest"


class Trimmed:
    """A stream whose records have all expired."""

    def __init__(self, kinesis: Any) -> None:
        self._kinesis = kinesis

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kinesis, name)

    def get_shard_iterator(self, **_request: Any) -> Any:
        raise ClientError({"Error": {"Code": "InvalidArgumentException"}}, "GetShardIterator")


def test_an_expired_payload_is_read_from_the_failure_store(dependencies: CorrectionCase) -> None:
    keep_as_failure(dependencies, dependencies.records[JUMP])
    assert (
        answer(dependencies, JUMP, work=dependencies.corrector(kinesis=Trimmed(dependencies.kinesis)))
        is RequestResult.CORRECTED
    )
    assert not done(dependencies, JUMP).rebuilt


def test_stored_columns_replace_a_lost_payload(
    dependencies: CorrectionCase,
) -> None:
    """The same comes out, with the same proof; and the history tells the difference."""
    assert (
        answer(dependencies, JUMP, work=dependencies.corrector(kinesis=Trimmed(dependencies.kinesis)))
        is RequestResult.CORRECTED
    )
    rebuilt = done(dependencies, JUMP)
    assert rebuilt.rebuilt
    assert (rebuilt.before, rebuilt.after) == (
        {"value": 50.0, "doubled": 100.0, "sum": 55.0},
        {"value": None, "doubled": None, "sum": 5.0},
    )


def test_stored_columns_without_a_current_field_are_not_used_as_payload(dependencies: CorrectionCase) -> None:
    more = {
        **SCHEMA,
        "fields": [*SCHEMA["fields"], {"name": "new", "type": ["null", "double"], "default": None}],
    }
    dependencies.registry = type(dependencies.registry).of([dependencies.event], {"reading": [more]})
    with pytest.raises(UncorrectableError, match="neither in the stream nor in the failure store"):
        dependencies.corrector(kinesis=Trimmed(dependencies.kinesis))(dependencies.request(JUMP))


def test_a_row_with_an_unrecorded_correction_is_not_rebuilt_from_its_columns(
    dependencies: CorrectionCase,
) -> None:
    """A process that died between overwrite and history, and then the payload left: nobody halves it twice."""
    dependencies.event = checked(correct=lambda batch: {"value": batch["value"] / 2})
    dependencies.registry = dependencies.registry_of(dependencies.event)
    dependencies.corrector()(dependencies.request(4))
    halved = row(dependencies, 4)["value"]
    gone = dependencies.corrector(kinesis=Trimmed(dependencies.kinesis))
    for at in (4, 5):  # the row itself, and one of the same file
        assert answer(dependencies, at, work=gone) is RequestResult.EARLY
    assert row(dependencies, 4)["value"] == halved
    assert answer(dependencies, 4) is RequestResult.CORRECTED, "while the payload is there it is finished"
    assert answer(dependencies, 5, work=gone) is RequestResult.CORRECTED
    assert row(dependencies, 4)["value"] == halved


def keep_as_failure(dependencies: CorrectionCase, record: Record) -> None:
    parked = dead_letter(record.position(dependencies.shard), record.partition_key)
    parked = msgspec.structs.replace(parked, consumer=APPLICATION, arrived=record.arrived)
    store.put(dependencies.s3, BUCKET, store.failure(parked, record.data))


def latest(dependencies: CorrectionCase, device: str) -> dict[str, Any]:
    key = {"device": {"S": f"reading#{device}"}}
    item = dependencies.dynamodb.get_item(TableName=LATEST, Key=key)["Item"]
    return {name: TypeDeserializer().deserialize(value) for name, value in item.items()}


def keep_latest(dependencies: CorrectionCase) -> None:
    dependencies.dynamodb.create_table(
        TableName=LATEST,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "device", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "device", "KeyType": "HASH"}],
    )
    sink = LatestSink(dependencies.dynamodb, LATEST, {"reading": dependencies.event})
    for segment in dependencies.segments:
        assert not sink.write(segment)
    sink.close()


def test_the_latest_value_is_corrected_only_if_it_comes_from_this_row(
    dependencies: CorrectionCase,
) -> None:
    dependencies.event = checked(
        correct=lambda batch: {"value": np.full(1, np.nan), "level": np.array([7], dtype=object)}
    )
    dependencies.registry = dependencies.registry_of(dependencies.event)
    keep_latest(dependencies)
    before = latest(dependencies, "a"), latest(dependencies, "b")
    work = dependencies.corrector(latest_table=LATEST)
    assert answer(dependencies, JUMP, work=work) is RequestResult.CORRECTED
    assert not done(dependencies, JUMP).latest
    assert (latest(dependencies, "a"), latest(dependencies, "b")) == before
    last_of_a = len(dependencies.records) - 2
    assert answer(dependencies, last_of_a, work=work) is RequestResult.CORRECTED
    assert done(dependencies, last_of_a).latest
    assert latest(dependencies, "b") == before[1]
    stored, values = row(dependencies, last_of_a), latest(dependencies, "a")["values"]
    assert {**latest(dependencies, "a"), "values": None} == {**before[0], "values": None}
    # Like the sink, the corrected item omits missing values.
    assert values == {
        "level": 7,
        "sum": Decimal(repr(stored["sum"])),
        **{n: v for n, v in before[0]["values"].items() if n not in ("value", "doubled", "sum", "level")},
    }
    again = dependencies.corrector(latest_table=LATEST)
    assert answer(dependencies, last_of_a, work=again) is RequestResult.REPEATED


@pytest.mark.parametrize("sizes", [(4, 5, 6), (15,), (1, 13, 1)])
def test_recorded_corrections_are_reapplied_after_a_replay(
    dependencies: CorrectionCase, sizes: tuple[int, ...]
) -> None:
    """Also where the replay cuts its segments in another way, and after the payloads have left the stream."""
    assert [answer(dependencies, at) for at in (JUMP, 0)] == [RequestResult.CORRECTED, RequestResult.MANUAL]
    dependencies.event = checked(correct=lambda batch: {"value": batch["value"] / 2})
    dependencies.registry = dependencies.registry_of(dependencies.event)
    assert answer(dependencies, 7) is RequestResult.CORRECTED
    wanted = [row(dependencies, at) for at in range(len(dependencies.records))]
    replayed(dependencies, sizes)
    assert row(dependencies, JUMP)["value"] == 50.0
    again = dependencies.corrector(kinesis=Trimmed(dependencies.kinesis)).reapply
    assert reapply_all(dependencies.history.entries(APPLICATION), again) == Reapplied(applied=2)
    assert [row(dependencies, at) for at in range(len(dependencies.records))] == wanted
    assert reapply_all(dependencies.history.entries(APPLICATION), again) == Reapplied(there=2)


def replayed(dependencies: CorrectionCase, sizes: tuple[int, ...]) -> None:
    """Store all records again without corrections."""
    for prefix in ("events/", "segments/"):
        for key in list(keys(dependencies.s3, BUCKET, prefix)):
            dependencies.s3.delete_object(Bucket=BUCKET, Key=key)
    records, start = dependencies.records, 0
    state = ShardState({"reading": checked()}, 16)
    for size in sizes:
        part = records[start : start + size]
        start += size
        result = process(part, dependencies.registry, state, LIMIT)
        dependencies.write(
            Segment(
                APPLICATION, STREAM, dependencies.shard, part, result.passed, result.failed, result.repeated
            )
        )


def test_corrections_that_cannot_be_reapplied_are_reported(dependencies: CorrectionCase) -> None:
    assert answer(dependencies, JUMP) is RequestResult.CORRECTED
    place = dependencies.records[JUMP].position(dependencies.shard)
    replayed(dependencies, (15,))
    dependencies.checkpoint(0)
    again = dependencies.corrector().reapply
    assert reapply_all(dependencies.history.entries(APPLICATION), again) == Reapplied(early=1)
    dependencies.checkpoint()
    [key] = keys(dependencies.s3, BUCKET, "events/")
    other = replace_value(table(dependencies, key), JUMP, 49.0)
    dependencies.s3.put_object(Bucket=BUCKET, Key=key, Body=encode(other, {}))
    found = reapply_all(dependencies.history.entries(APPLICATION), again)
    assert [name for name, _ in found.impossible] == [f"{place.shard}/{dependencies.token(JUMP)}"]
    assert "neither the recorded original nor the recorded corrected values" in found.impossible[0][1]
    assert not found.complete


def replace_value(rows: pa.Table, at: int, value: float) -> pa.Table:
    values = rows["value"].to_pylist()
    values[at] = value
    return rows.set_column(rows.column_names.index("value"), "value", pa.array(values, pa.float64()))
