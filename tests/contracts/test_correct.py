"""A correction replaces one row of a stored segment, once, if recalculation reproduces the stored row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream_app.recovery.audit.proof import audit
from stream_app.recovery.correct.calculation.past import RowContext
from stream_app.recovery.correct.calculation.recalculate import UncorrectableError
from stream_app.recovery.correct.history import count_corrections
from stream_app.recovery.correct.history_entry import Correction
from stream_app.recovery.correct.request import NotReadyError, RequestResult, correct
from stream_app.sinks.parquet import rows_digest
from tests.contracts.correcting import APPLICATION, BUCKET, STREAM, TABLE, CorrectionCase, checked, reading
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
def dependencies(aws: Callable[[str], Any]) -> CorrectionCase:
    made = CorrectionCase(aws, checked())
    made.store(payloads(), (4, 5, 6))
    made.checkpoint()
    return made


def tables(dependencies: CorrectionCase) -> dict[str, pa.Table]:
    pages = dependencies.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="events/")
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    return {key: table(dependencies, key) for key in keys}


def table(dependencies: CorrectionCase, key: str, **version: str) -> pa.Table:
    body = dependencies.s3.get_object(Bucket=BUCKET, Key=key, **version)["Body"].read()
    return pq.read_table(pa.BufferReader(body))


def row(dependencies: CorrectionCase, at: int) -> dict[str, Any]:
    found = [
        one
        for t in tables(dependencies).values()
        for one in t.to_pylist()
        if one["sequence"] == dependencies.records[at].sequence_number
    ]
    assert len(found) == 1
    return dict(found[0])


def answer(
    dependencies: CorrectionCase, at: int, by: str = "checks", work: Any = None, **changes: Any
) -> RequestResult:
    told: list[Any] = []
    return correct(
        dependencies.request(at, by, **changes),
        dependencies.history,
        work or dependencies.corrector(),
        told.append,
    )


def done(dependencies: CorrectionCase, at: int) -> Correction:
    entry = dependencies.history.get(APPLICATION, dependencies.records[at].position(dependencies.shard))
    assert entry is not None
    assert entry.done is not None
    return entry.done


def test_only_the_flagged_row_changes(
    dependencies: CorrectionCase,
) -> None:
    assert row(dependencies, JUMP)["flag"] == "value changes by more than 10 in 1:00:00"
    before = tables(dependencies)
    assert answer(dependencies, JUMP) is RequestResult.CORRECTED
    after, note = tables(dependencies), done(dependencies, JUMP)
    assert before.keys() == after.keys()
    for key, old in before.items():
        new = after[key]
        assert (new.schema, new.schema.metadata) == (old.schema, old.schema.metadata)
        if key != note.key:
            assert rows_digest(new) == rows_digest(old)
            continue
        at = old["sequence"].to_pylist().index(dependencies.records[JUMP].sequence_number)
        for part in (slice(0, at), slice(at + 1, None)):
            rows = list(range(len(old)))[part]
            assert rows_digest(new.take(rows)) == rows_digest(old.take(rows))
    corrected = row(dependencies, JUMP)
    # The window's own value is missing now, and what is calculated from it follows.
    assert (corrected["value"], corrected["doubled"], corrected["sum"]) == (None, None, 5.0)
    assert (corrected["anomaly"], corrected["flag"]) == (True, "value changes by more than 10 in 1:00:00")


def test_history_records_requester_time_version_and_values(dependencies: CorrectionCase) -> None:
    answer(dependencies, JUMP)
    note = done(dependencies, JUMP)
    assert (note.before, note.after) == (
        {"value": 50.0, "doubled": 100.0, "sum": 55.0},
        {"value": None, "doubled": None, "sum": 5.0},
    )
    old = table(dependencies, note.key, VersionId=note.version_before).to_pylist()
    assert 50.0 in [one["value"] for one in old]
    now = dependencies.s3.head_object(Bucket=BUCKET, Key=note.key)
    assert now["VersionId"] == note.version
    assert now["Metadata"]["corrected"] == "1"
    # Later rows whose windows (three hours) held the value as it was: two of the same device.
    assert list(note.affected) == [dependencies.token(7), dependencies.token(9)]
    assert note.affects_until == "2016-12-01T06:00:00+00:00"
    entry = dependencies.history.get(APPLICATION, dependencies.records[JUMP].position(dependencies.shard))
    assert entry is not None
    assert (entry.request.by, entry.status, entry.done_at) == ("checks", "corrected", entry.at)


def test_a_repeated_request_changes_nothing_and_a_second_request_goes_to_manual_review_once(
    dependencies: CorrectionCase,
) -> None:
    assert answer(dependencies, JUMP) is RequestResult.CORRECTED
    version = done(dependencies, JUMP).version
    assert [answer(dependencies, JUMP) for _ in range(3)] == [RequestResult.REPEATED] * 3
    asked = [
        answer(dependencies, JUMP, "monitor"),
        answer(dependencies, JUMP, "monitor"),
        answer(dependencies, JUMP, "person"),
    ]
    assert asked == [RequestResult.MANUAL, RequestResult.REPEATED, RequestResult.REPEATED]
    assert (
        dependencies.s3.head_object(Bucket=BUCKET, Key=done(dependencies, JUMP).key)["VersionId"] == version
    )
    assert count_corrections(dependencies.dynamodb, TABLE, APPLICATION) == {"corrected": 1, "manual": 1}


def test_the_audit_balances_and_a_stale_worker_does_not_revert_the_correction(
    dependencies: CorrectionCase,
) -> None:
    answer(dependencies, JUMP)
    corrected = tables(dependencies)
    for segment in dependencies.segments:
        dependencies.write(segment)
    assert {key: rows_digest(t) for key, t in tables(dependencies).items()} == {
        key: rows_digest(t) for key, t in corrected.items()
    }
    found = audit(
        kinesis=dependencies.kinesis,
        s3=dependencies.s3,
        stream=STREAM,
        bucket=BUCKET,
        consumer=APPLICATION,
        checkpoints={dependencies.shard: dependencies.records[-1].sequence_number},
    )
    assert found.balanced
    assert found.total.stored == len(dependencies.records)


@pytest.mark.parametrize("at", ["TRIM_HORIZON", "LATEST", 0, 8 - 1])
def test_a_segment_after_the_checkpoint_is_not_corrected(dependencies: CorrectionCase, at: int | str) -> None:
    dependencies.checkpoint(at)
    assert answer(dependencies, JUMP) is RequestResult.EARLY
    assert row(dependencies, JUMP)["value"] == 50.0
    dependencies.checkpoint(8)  # the last of the segment
    assert answer(dependencies, JUMP) is RequestResult.CORRECTED


def test_a_request_for_a_segment_not_yet_stored_is_too_early(dependencies: CorrectionCase) -> None:
    late = str(int(dependencies.records[-1].sequence_number) + 1)
    assert answer(dependencies, JUMP, sequence=late) is RequestResult.EARLY


def test_a_closed_shard_without_a_lease_can_be_corrected(dependencies: CorrectionCase) -> None:
    dependencies.dynamodb.delete_item(TableName=APPLICATION, Key={"leaseKey": {"S": dependencies.shard}})
    with pytest.raises(NotReadyError):
        dependencies.corrector()(dependencies.request(JUMP))
    dependencies.s3.put_object(
        Bucket=BUCKET, Key=f"state/{APPLICATION}/{dependencies.shard}/SHARD_END", Body=b""
    )
    assert answer(dependencies, JUMP) is RequestResult.CORRECTED


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


def test_concurrent_corrections_of_one_segment_are_both_kept(aws: Callable[[str], Any]) -> None:
    dependencies = CorrectionCase(aws, checked())
    rows = [reading(d, hour, v) for hour, v in enumerate([1.0, 2.0, 50.0, 3.0]) for d in "ab"]
    dependencies.store(rows, (8,))
    dependencies.checkpoint()
    others: list[RequestResult] = []
    s3 = Between(dependencies.s3, lambda: others.append(answer(dependencies, 5)))
    assert answer(dependencies, 4, work=dependencies.corrector(s3=s3)) is RequestResult.CORRECTED
    assert others == [RequestResult.CORRECTED]
    assert [row(dependencies, at)["value"] for at in (4, 5)] == [None, None]
    assert (
        dependencies.s3.head_object(Bucket=BUCKET, Key=done(dependencies, 4).key)["Metadata"]["corrected"]
        == "2"
    )
    assert done(dependencies, 4).version_before == done(dependencies, 5).version


def test_the_next_delivery_completes_a_correction_after_a_crash_between_overwrite_and_history(
    dependencies: CorrectionCase,
) -> None:
    made = dependencies.corrector()(dependencies.request(JUMP))
    assert answer(dependencies, JUMP) is RequestResult.CORRECTED
    assert done(dependencies, JUMP) == made
    assert len(dependencies.s3.list_object_versions(Bucket=BUCKET, Prefix=made.key)["Versions"]) == 2


def test_a_later_row_is_recalculated_with_the_corrected_value_in_its_window(
    dependencies: CorrectionCase,
) -> None:
    """Its own proof needs the value as it was, which only the history still has."""
    assert answer(dependencies, JUMP) is RequestResult.CORRECTED
    halved = checked(correct=lambda batch: {"value": batch["value"] / 2})
    dependencies.event = halved
    dependencies.registry = type(dependencies.registry).of([halved], {"reading": [SCHEMA]})
    assert row(dependencies, 7)["sum"] == 57.0
    assert answer(dependencies, 7) is RequestResult.CORRECTED
    assert row(dependencies, 7)["sum"] == 5.0  # 4 / 2, the missing one, 3


@pytest.mark.parametrize("event", ["step", "reading"])
@pytest.mark.parametrize("step", [1, -1])
def test_recalculation_reproduces_every_stored_row(aws: Callable[[str], Any], event: str, step: int) -> None:
    """Windows and previous values are put together from stored rows, across segments, corrected ones among them."""
    dependencies = CorrectionCase(
        aws, checked(event, correct=lambda batch: {"level": np.array([7], dtype=object)})
    )
    dependencies.store(payloads(event), (4, 5, 6))
    dependencies.checkpoint()
    for at in range(len(dependencies.records))[::step]:
        assert answer(dependencies, at) is RequestResult.CORRECTED
        assert dict(done(dependencies, at).after) == {"level": 7}
        assert dict(done(dependencies, at).before) == {"level": None}


def test_a_row_with_incomplete_history_goes_to_manual_review(
    dependencies: CorrectionCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowContext, "before", lambda _context, targets, **_options: [[] for _ in targets])
    with pytest.raises(
        UncorrectableError,
        match=r"cannot be reproduced from its payload and its device's past \(columns that differ: sum\)",
    ):
        dependencies.corrector()(dependencies.request(JUMP))
    assert row(dependencies, JUMP)["value"] == 50.0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"correct": None}, "declares no correction"),
        ({"correct": lambda _batch: {}}, "changes nothing"),
        ({"correct": lambda batch: {"value": batch["value"]}}, "changes nothing"),
        ({"correct": lambda _batch: 1 / 0}, "raises ZeroDivisionError"),
        ({"correct": lambda batch: {"device": batch["device"]}}, "that it may not: device"),
        ({"correct": lambda batch: {"doubled": batch["value"]}}, "that it may not: doubled"),
        ({"correct": lambda batch: {"value": batch["value"] * 9}}, "value is at most 100"),
    ],
)
def test_a_rejected_correction_states_its_reason_and_changes_nothing(
    dependencies: CorrectionCase, changes: dict[str, Any], says: str
) -> None:
    event = checked(**changes)
    dependencies.registry = type(dependencies.registry).of([event], {"reading": [SCHEMA]})
    before = {key: rows_digest(t) for key, t in tables(dependencies).items()}
    with pytest.raises(UncorrectableError, match=says):
        dependencies.corrector()(dependencies.request(JUMP))
    assert {key: rows_digest(t) for key, t in tables(dependencies).items()} == before


def test_a_failed_row_and_an_unknown_event_go_to_manual_review(aws: Callable[[str], Any]) -> None:
    dependencies = CorrectionCase(aws, checked())
    dependencies.store([reading("a", 0, 1.0), reading("a", 1, 500.0), reading("a", 0, 1.0)], (3,))
    dependencies.checkpoint()
    for at in (1, 2):
        with pytest.raises(UncorrectableError, match="does not hold its row"):
            dependencies.corrector()(dependencies.request(at))
    with pytest.raises(UncorrectableError, match="unknown event type 'other'"):
        dependencies.corrector()(dependencies.request(0, event="other"))
