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
from stream_app.recovery.correct.calculation.recalculate import ImpossibleError
from stream_app.recovery.correct.reapply import Reapplied, reapply_all
from stream_app.recovery.correct.request import Verdict
from stream_app.sinks.dynamodb import LatestSink
from stream_app.sinks.parquet import encode
from tests.contracts.correcting import APPLICATION, BUCKET, LIMIT, STREAM, World, checked
from tests.contracts.test_correct import JUMP, SCHEMA, answer, done, row, table, world
from tests.unit.test_recovery_store import letter

__all__ = ["world"]
LATEST = "air-latest"


class Trimmed:
    """A stream that holds nothing any more."""

    def __init__(self, kinesis: Any) -> None:
        self._kinesis = kinesis

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kinesis, name)

    def get_shard_iterator(self, **_request: Any) -> Any:
        raise ClientError({"Error": {"Code": "InvalidArgumentException"}}, "GetShardIterator")


def test_a_payload_that_left_the_stream_comes_from_the_failure_store(world: World) -> None:
    keep_as_failure(world, world.records[JUMP])
    assert answer(world, JUMP, work=world.corrector(kinesis=Trimmed(world.kinesis))) is Verdict.CORRECTED
    assert not done(world, JUMP).rebuilt


def test_where_the_payload_is_gone_its_stored_columns_take_its_place(
    world: World,
) -> None:
    """The same comes out, with the same proof; and the history tells the difference."""
    assert answer(world, JUMP, work=world.corrector(kinesis=Trimmed(world.kinesis))) is Verdict.CORRECTED
    rebuilt = done(world, JUMP)
    assert rebuilt.rebuilt
    assert (rebuilt.before, rebuilt.after) == (
        {"value": 50.0, "doubled": 100.0, "sum": 55.0},
        {"value": None, "doubled": None, "sum": 5.0},
    )


def test_columns_that_lack_a_field_of_today_are_no_payload(world: World) -> None:
    more = {
        **SCHEMA,
        "fields": [*SCHEMA["fields"], {"name": "new", "type": ["null", "double"], "default": None}],
    }
    world.registry = type(world.registry).of([world.event], {"reading": [more]})
    with pytest.raises(ImpossibleError, match="neither in the stream nor in the failure store"):
        world.corrector(kinesis=Trimmed(world.kinesis))(world.request(JUMP))


def test_a_row_whose_correction_was_not_noted_is_not_corrected_from_its_own_columns(world: World) -> None:
    """A process that died between overwrite and history, and then the payload left: nobody halves it twice."""
    world.event = checked(correct=lambda batch: {"value": batch["value"] / 2})
    world.registry = world.registry_of(world.event)
    world.corrector()(world.request(4))
    halved = row(world, 4)["value"]
    gone = world.corrector(kinesis=Trimmed(world.kinesis))
    for at in (4, 5):  # the row itself, and one of the same file
        assert answer(world, at, work=gone) is Verdict.EARLY
    assert row(world, 4)["value"] == halved
    assert answer(world, 4) is Verdict.CORRECTED, "while the payload is there it is finished"
    assert answer(world, 5, work=gone) is Verdict.CORRECTED
    assert row(world, 4)["value"] == halved


def keep_as_failure(world: World, record: Record) -> None:
    parked = letter(record.position(world.shard), record.partition_key)
    parked = msgspec.structs.replace(parked, consumer=APPLICATION, arrived=record.arrived)
    store.put(world.s3, BUCKET, store.failure(parked, record.data))


def latest(world: World, device: str) -> dict[str, Any]:
    key = {"device": {"S": f"reading#{device}"}}
    item = world.dynamodb.get_item(TableName=LATEST, Key=key)["Item"]
    return {name: TypeDeserializer().deserialize(value) for name, value in item.items()}


def keep_latest(world: World) -> None:
    world.dynamodb.create_table(
        TableName=LATEST,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "device", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "device", "KeyType": "HASH"}],
    )
    sink = LatestSink(world.dynamodb, LATEST, {"reading": world.event})
    for segment in world.segments:
        assert not sink.write(segment)
    sink.close()


def test_the_latest_value_is_corrected_while_it_is_of_this_row_and_else_left(world: World) -> None:
    world.event = checked(
        correct=lambda batch: {"value": np.full(1, np.nan), "level": np.array([7], dtype=object)}
    )
    world.registry = world.registry_of(world.event)
    keep_latest(world)
    before = latest(world, "a"), latest(world, "b")
    work = world.corrector(latest_table=LATEST)
    assert answer(world, JUMP, work=work) is Verdict.CORRECTED
    assert not done(world, JUMP).latest
    assert (latest(world, "a"), latest(world, "b")) == before
    last_of_a = len(world.records) - 2
    assert answer(world, last_of_a, work=work) is Verdict.CORRECTED
    assert done(world, last_of_a).latest
    assert latest(world, "b") == before[1]
    stored, values = row(world, last_of_a), latest(world, "a")["values"]
    assert {**latest(world, "a"), "values": None} == {**before[0], "values": None}
    # As the sink itself would have kept the corrected row: what is missing is left out.
    assert values == {
        "level": 7,
        "sum": Decimal(repr(stored["sum"])),
        **{n: v for n, v in before[0]["values"].items() if n not in ("value", "doubled", "sum", "level")},
    }
    again = world.corrector(latest_table=LATEST)
    assert answer(world, last_of_a, work=again) is Verdict.REPEATED


@pytest.mark.parametrize("sizes", [(4, 5, 6), (15,), (1, 13, 1)])
def test_recorded_corrections_are_put_back_after_a_replay(world: World, sizes: tuple[int, ...]) -> None:
    """Also where the replay cuts its segments in another way, and after the payloads have left the stream."""
    assert [answer(world, at) for at in (JUMP, 0)] == [Verdict.CORRECTED, Verdict.MANUAL]
    world.event = checked(correct=lambda batch: {"value": batch["value"] / 2})
    world.registry = world.registry_of(world.event)
    assert answer(world, 7) is Verdict.CORRECTED
    wanted = [row(world, at) for at in range(len(world.records))]
    replayed(world, sizes)
    assert row(world, JUMP)["value"] == 50.0
    again = world.corrector(kinesis=Trimmed(world.kinesis)).again
    assert reapply_all(world.history.entries(APPLICATION), again) == Reapplied(applied=2)
    assert [row(world, at) for at in range(len(world.records))] == wanted
    assert reapply_all(world.history.entries(APPLICATION), again) == Reapplied(there=2)


def replayed(world: World, sizes: tuple[int, ...]) -> None:
    """All is stored anew, as it came."""
    for prefix in ("events/", "segments/"):
        for key in list(keys(world.s3, BUCKET, prefix)):
            world.s3.delete_object(Bucket=BUCKET, Key=key)
    records, start = world.records, 0
    state = ShardState({"reading": checked()}, 16)
    for size in sizes:
        part = records[start : start + size]
        start += size
        result = process(part, world.registry, state, LIMIT)
        world.write(
            Segment(APPLICATION, STREAM, world.shard, part, result.passed, result.failed, result.repeated)
        )


def test_what_cannot_be_put_back_is_named(world: World) -> None:
    assert answer(world, JUMP) is Verdict.CORRECTED
    place = world.records[JUMP].position(world.shard)
    replayed(world, (15,))
    world.checkpoint(0)
    again = world.corrector().again
    assert reapply_all(world.history.entries(APPLICATION), again) == Reapplied(early=1)
    world.checkpoint()
    [key] = keys(world.s3, BUCKET, "events/")
    other = replace_value(table(world, key), JUMP, 49.0)
    world.s3.put_object(Bucket=BUCKET, Key=key, Body=encode(other, {}))
    found = reapply_all(world.history.entries(APPLICATION), again)
    assert [name for name, _ in found.impossible] == [f"{place.shard}/{world.token(JUMP)}"]
    assert "neither what was recorded before nor after" in found.impossible[0][1]
    assert not found.complete


def replace_value(rows: pa.Table, at: int, value: float) -> pa.Table:
    values = rows["value"].to_pylist()
    values[at] = value
    return rows.set_column(rows.column_names.index("value"), "value", pa.array(values, pa.float64()))
