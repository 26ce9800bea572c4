"""A correction replaces one row of a stored segment and nothing else, once, and only when its past is proven."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream_app.recovery.audit.proof import audit
from stream_app.recovery.correct.calculation.past import Shelf
from stream_app.recovery.correct.calculation.recalculate import ImpossibleError
from stream_app.recovery.correct.history import Done, counts
from stream_app.recovery.correct.request import EarlyError, Verdict, correct
from stream_app.sinks.parquet import rows_digest
from tests.contracts.correcting import APPLICATION, BUCKET, STREAM, TABLE, World, checked, reading
from tests.samples import SCHEMAS

# Hours of device a, in three segments; at hour 3 it jumps. Device b is a neighbour.
VALUES = [1.0, 2.0, 3.0, 50.0, 4.0, 5.0, 6.0, 7.0]
JUMP = 6  # its record
LATEST = "air-latest"
SCHEMA = SCHEMAS["reading"]


def payloads(event: str = "reading") -> list[bytes]:
    return [
        reading(device, hour, value + (device == "b") * 5.0 * (value < 50), event)
        for hour, value in enumerate(VALUES)
        for device in "ab"
        if not (device == "b" and hour == 3)
    ]


@pytest.fixture
def world(aws: Callable[[str], Any]) -> World:
    made = World(aws, checked())
    made.store(payloads(), (4, 5, 6))
    made.checkpoint()
    return made


def tables(world: World) -> dict[str, pa.Table]:
    pages = world.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="events/")
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    return {key: table(world, key) for key in keys}


def table(world: World, key: str, **version: str) -> pa.Table:
    body = world.s3.get_object(Bucket=BUCKET, Key=key, **version)["Body"].read()
    return pq.read_table(pa.BufferReader(body))


def row(world: World, at: int) -> dict[str, Any]:
    found = [
        one
        for t in tables(world).values()
        for one in t.to_pylist()
        if one["sequence"] == world.records[at].sequence_number
    ]
    assert len(found) == 1
    return found[0]


def answer(world: World, at: int, by: str = "checks", work: Any = None, **changes: Any) -> Verdict:
    told: list[Any] = []
    return correct(world.request(at, by, **changes), world.history, work or world.corrector(), told.append)


def done(world: World, at: int) -> Done:
    entry = world.history.get(APPLICATION, world.records[at].position(world.shard))
    assert entry is not None
    assert entry.done is not None
    return entry.done


def test_the_flagged_row_is_replaced_and_every_other_is_the_same_to_the_bit(world: World) -> None:
    assert row(world, JUMP)["flag"] == "value changes by more than 10 in 1:00:00"
    before = tables(world)
    assert answer(world, JUMP) is Verdict.CORRECTED
    after, note = tables(world), done(world, JUMP)
    assert before.keys() == after.keys()
    for key, old in before.items():
        new = after[key]
        assert (new.schema, new.schema.metadata) == (old.schema, old.schema.metadata)
        if key != note.key:
            assert rows_digest(new) == rows_digest(old)
            continue
        at = old["sequence"].to_pylist().index(world.records[JUMP].sequence_number)
        for part in (slice(0, at), slice(at + 1, None)):
            rows = list(range(len(old)))[part]
            assert rows_digest(new.take(rows)) == rows_digest(old.take(rows))
    corrected = row(world, JUMP)
    # The window's own value is missing now, and what is calculated from it follows.
    assert (corrected["value"], corrected["doubled"], corrected["sum"]) == (None, None, 5.0)
    assert (corrected["anomaly"], corrected["flag"]) == (True, "value changes by more than 10 in 1:00:00")


def test_history_notes_who_when_which_version_and_what(world: World) -> None:
    answer(world, JUMP)
    note = done(world, JUMP)
    assert (note.before, note.after) == (
        {"value": 50.0, "doubled": 100.0, "sum": 55.0},
        {"value": None, "doubled": None, "sum": 5.0},
    )
    old = table(world, note.key, VersionId=note.version_before).to_pylist()
    assert 50.0 in [one["value"] for one in old]
    now = world.s3.head_object(Bucket=BUCKET, Key=note.key)
    assert now["VersionId"] == note.version
    assert now["Metadata"]["corrected"] == "1"
    # Later rows whose windows (three hours) held the value as it was: two of the same device.
    assert list(note.affected) == [world.token(7), world.token(9)]
    assert note.affects_until == "2016-12-01T06:00:00+00:00"
    entry = world.history.get(APPLICATION, world.records[JUMP].position(world.shard))
    assert entry is not None
    assert (entry.request.by, entry.status, entry.done_at) == ("checks", "corrected", entry.at)


def test_a_repeat_changes_nothing_and_another_request_goes_to_people_once(world: World) -> None:
    assert answer(world, JUMP) is Verdict.CORRECTED
    version = done(world, JUMP).version
    assert [answer(world, JUMP) for _ in range(3)] == [Verdict.REPEATED] * 3
    asked = [answer(world, JUMP, "monitor"), answer(world, JUMP, "monitor"), answer(world, JUMP, "person")]
    assert asked == [Verdict.MANUAL, Verdict.REPEATED, Verdict.REPEATED]
    assert world.s3.head_object(Bucket=BUCKET, Key=done(world, JUMP).key)["VersionId"] == version
    assert counts(world.dynamodb, TABLE, APPLICATION) == {"corrected": 1, "manual": 1}


def test_the_audit_balances_and_a_late_worker_undoes_nothing(world: World) -> None:
    answer(world, JUMP)
    corrected = tables(world)
    for segment in world.segments:
        world.write(segment)
    assert {key: rows_digest(t) for key, t in tables(world).items()} == {
        key: rows_digest(t) for key, t in corrected.items()
    }
    found = audit(
        kinesis=world.kinesis,
        s3=world.s3,
        stream=STREAM,
        bucket=BUCKET,
        consumer=APPLICATION,
        checkpoints={world.shard: world.records[-1].sequence_number},
    )
    assert found.balanced
    assert found.total.stored == len(world.records)


@pytest.mark.parametrize("at", ["TRIM_HORIZON", "LATEST", 0, 8 - 1])
def test_a_segment_that_is_not_behind_the_checkpoint_is_not_touched(world: World, at: int | str) -> None:
    world.checkpoint(at)
    assert answer(world, JUMP) is Verdict.EARLY
    assert row(world, JUMP)["value"] == 50.0
    world.checkpoint(8)  # the last of the segment
    assert answer(world, JUMP) is Verdict.CORRECTED


def test_a_segment_that_is_not_stored_yet_is_waited_for(world: World) -> None:
    late = str(int(world.records[-1].sequence_number) + 1)
    assert answer(world, JUMP, sequence=late) is Verdict.EARLY


def test_a_shard_whose_lease_went_with_its_end_can_be_corrected(world: World) -> None:
    world.dynamodb.delete_item(TableName=APPLICATION, Key={"leaseKey": {"S": world.shard}})
    with pytest.raises(EarlyError):
        world.corrector()(world.request(JUMP))
    world.s3.put_object(Bucket=BUCKET, Key=f"state/{APPLICATION}/{world.shard}/SHARD_END", Body=b"")
    assert answer(world, JUMP) is Verdict.CORRECTED


class Between:
    """An S3 client during whose first `times` overwrites another correction gets in between."""

    def __init__(self, s3: Any, act: Callable[[], Any], times: int = 1) -> None:
        self._s3, self._act, self._left = s3, act, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)

    def put_object(self, **request: Any) -> Any:
        if self._left:
            self._left -= 1
            self._act()
        return self._s3.put_object(**request)


def test_two_corrections_of_one_segment_both_stay(aws: Callable[[str], Any]) -> None:
    world = World(aws, checked())
    rows = [reading(d, hour, v) for hour, v in enumerate([1.0, 2.0, 50.0, 3.0]) for d in "ab"]
    world.store(rows, (8,))
    world.checkpoint()
    others: list[Verdict] = []
    s3 = Between(world.s3, lambda: others.append(answer(world, 5)))
    assert answer(world, 4, work=world.corrector(s3=s3)) is Verdict.CORRECTED
    assert others == [Verdict.CORRECTED]
    assert [row(world, at)["value"] for at in (4, 5)] == [None, None]
    assert world.s3.head_object(Bucket=BUCKET, Key=done(world, 4).key)["Metadata"]["corrected"] == "2"
    assert done(world, 4).version_before == done(world, 5).version


def test_a_crash_between_overwrite_and_history_is_finished_by_the_next_delivery(world: World) -> None:
    made = world.corrector()(world.request(JUMP))
    assert answer(world, JUMP) is Verdict.CORRECTED
    assert done(world, JUMP) == made
    assert len(world.s3.list_object_versions(Bucket=BUCKET, Prefix=made.key)["Versions"]) == 2


def test_a_later_row_is_recalculated_with_the_corrected_value_in_its_window(world: World) -> None:
    """Its own proof needs the value as it was, which only the history still has."""
    assert answer(world, JUMP) is Verdict.CORRECTED
    halved = checked(correct=lambda batch: {"value": batch["value"] / 2})
    world.event = halved
    world.registry = type(world.registry).of([halved], {"reading": [SCHEMA]})
    assert row(world, 7)["sum"] == 57.0
    assert answer(world, 7) is Verdict.CORRECTED
    assert row(world, 7)["sum"] == 5.0  # 4 / 2, the missing one, 3


@pytest.mark.parametrize("event", ["step", "reading"])
@pytest.mark.parametrize("step", [1, -1])
def test_every_row_of_every_segment_comes_out_as_it_was_stored(
    aws: Callable[[str], Any], event: str, step: int
) -> None:
    """Windows and previous values are put together from stored rows, across segments, corrected ones among them."""
    world = World(aws, checked(event, correct=lambda batch: {"level": np.array([7], dtype=object)}))
    world.store(payloads(event), (4, 5, 6))
    world.checkpoint()
    for at in range(len(world.records))[::step]:
        assert answer(world, at) is Verdict.CORRECTED
        assert dict(done(world, at).after) == {"level": 7}
        assert dict(done(world, at).before) == {"level": None}


def test_a_past_that_cannot_be_put_together_goes_to_people(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shelf, "before", lambda _shelf, owns, **_every: [[] for _ in owns])
    with pytest.raises(
        ImpossibleError, match=r"its past cannot be put together \(columns that differ: sum\)"
    ):
        world.corrector()(world.request(JUMP))
    assert row(world, JUMP)["value"] == 50.0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"correct": None}, "declares no correction"),
        ({"correct": lambda _batch: {}}, "changes nothing"),
        ({"correct": lambda batch: {"value": batch["value"]}}, "changes nothing"),
        ({"correct": lambda _batch: 1 / 0}, "raises ZeroDivisionError"),
        ({"correct": lambda batch: {"device": batch["device"]}}, "replaces device"),
        ({"correct": lambda batch: {"doubled": batch["value"]}}, "replaces doubled"),
        ({"correct": lambda batch: {"value": batch["value"] * 9}}, "value is at most 100"),
    ],
)
def test_what_cannot_be_corrected_says_why_and_is_left(
    world: World, changes: dict[str, Any], says: str
) -> None:
    event = checked(**changes)
    world.registry = type(world.registry).of([event], {"reading": [SCHEMA]})
    before = {key: rows_digest(t) for key, t in tables(world).items()}
    with pytest.raises(ImpossibleError, match=says):
        world.corrector()(world.request(JUMP))
    assert {key: rows_digest(t) for key, t in tables(world).items()} == before


def test_a_parked_row_and_an_unknown_event_go_to_people(aws: Callable[[str], Any]) -> None:
    world = World(aws, checked())
    world.store([reading("a", 0, 1.0), reading("a", 1, 500.0), reading("a", 0, 1.0)], (3,))
    world.checkpoint()
    for at in (1, 2):
        with pytest.raises(ImpossibleError, match="not among the stored rows"):
            world.corrector()(world.request(at))
    with pytest.raises(ImpossibleError, match="no event type 'other'"):
        world.corrector()(world.request(0, event="other"))
