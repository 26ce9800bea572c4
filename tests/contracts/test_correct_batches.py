"""Batch corrections equal individual ones, with one read and one rewrite of each file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from stream_app.model.event import Event
from stream_app.model.record import Batch
from stream_app.pipeline.registry import Registry
from stream_app.recovery.correct.calculation import payload
from stream_app.recovery.correct.calculation.recalculate import UncorrectableError
from stream_app.recovery.correct.history_entry import Request
from stream_app.recovery.correct.request import NotReadyError, RequestResult
from stream_app.recovery.correct.rewriting import segment
from tests.contracts.correcting import APPLICATION, BUCKET, CorrectionCase, checked, reading
from tests.contracts.correcting_batches import (
    Counted,
    one_by_one,
    put_back,
    shuffled,
    state,
    stored,
    together,
)
from tests.contracts.test_correct import SCHEMA, tables
from tests.contracts.test_correct_after import LATEST, Trimmed, keep_latest, latest

HOURS, DEVICES = 8, "abc"
SIZES = (7, 3, 9, 5)


def halved(batch: Batch) -> Mapping[str, Any]:
    """A correction that changes every row that has a value, and breaks a rule where the value is -1."""
    value = batch["value"]
    return {"value": np.where(value == -1.0, 500.0, value / 2)}


def values(device: str, hour: int) -> float | None:
    if (device, hour) in (("a", 3), ("b", 4)):
        return None  # nothing to change
    return -1.0 if (device, hour) in (("a", 4), ("c", 1)) else 1.0 + hour + 10 * DEVICES.index(device)


def world_of(aws: Callable[[str], Any], event: Event) -> CorrectionCase:
    made = CorrectionCase(aws, event)
    rows = [reading(d, hour, values(d, hour), event.name) for hour in range(HOURS) for d in DEVICES]
    made.store(rows, SIZES)
    made.checkpoint()
    return made


@pytest.fixture(params=["reading", "step"])
def dependencies(aws: Callable[[str], Any], request: pytest.FixtureRequest) -> CorrectionCase:
    return world_of(aws, checked(request.param, correct=halved))


def all_of(dependencies: CorrectionCase) -> list[Request]:
    return [dependencies.request(at) for at in range(len(dependencies.records))]


@pytest.mark.parametrize("kinesis", ["there", "gone"])
def test_batches_of_any_size_equal_individual_corrections(dependencies: CorrectionCase, kinesis: str) -> None:
    clients = {} if kinesis == "there" else {"kinesis": Trimmed(dependencies.kinesis)}
    requests, before = all_of(dependencies), stored(dependencies)
    verdicts = (
        [one_by_one(dependencies, requests[at : at + 1]) for at in range(len(requests))]
        if kinesis == "there"
        else [together(dependencies, [r], 1, dependencies.corrector(**clients)) for r in requests]
    )
    expected, wanted = [one[0] for one in verdicts], state(dependencies, tables)
    assert expected.count(RequestResult.MANUAL) == 4  # two change nothing, two break a rule
    for size in (2, 5, len(requests)):
        put_back(dependencies, before)
        assert together(dependencies, requests, size, dependencies.corrector(**clients)) == expected
        assert state(dependencies, tables) == wanted
    put_back(dependencies, before)
    assert together(
        dependencies, shuffled(requests, 3), len(requests), dependencies.corrector(**clients)
    ).count(RequestResult.CORRECTED) == expected.count(RequestResult.CORRECTED)
    assert state(dependencies, tables) == wanted


def test_a_batch_reads_the_stream_once_and_each_file_once(dependencies: CorrectionCase) -> None:
    s3, kinesis = Counted(dependencies.s3), Counted(dependencies.kinesis)
    answers = together(
        dependencies, all_of(dependencies), 100, dependencies.corrector(s3=s3, kinesis=kinesis)
    )
    assert answers.count(RequestResult.CORRECTED) == len(answers) - 4
    files = len(stored(dependencies))
    assert files == len(SIZES)
    # Every file once, every manifest once; a neighbour's rows come from the version that was just read or written.
    assert s3.calls["get_object"] == 2 * files
    assert s3.calls["put_object"] == files
    assert kinesis.calls["get_records"] == files
    assert [metadata["corrected"] for _, metadata in stored(dependencies).values()] == [
        str(count) for count in corrected_in_files(dependencies)
    ]


def corrected_in_files(dependencies: CorrectionCase) -> list[int]:
    done = {e.request.sequence for e in dependencies.history.entries(APPLICATION) if e.done}
    return [len(done & set(table["sequence"].to_pylist())) for table in tables(dependencies).values()]


@pytest.mark.second
@pytest.mark.parametrize("event", ["reading", "step"])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_next_deliveries_complete_a_batch_after_a_crash_at_any_call(
    aws: Callable[[str], Any], event: str, size: int
) -> None:
    """The same rows and the same history as without it, whatever the process had done, in any later batches."""
    dependencies = world_of(aws, checked(event, correct=halved))
    requests, before = all_of(dependencies), stored(dependencies)
    expected = together(dependencies, requests, 100)
    wanted = state(dependencies, tables)
    calls = crashing(dependencies, before, requests, at=10**6)
    assert calls > 15
    for at in range(1, calls + 1, 2):
        put_back(dependencies, before)
        crashing(dependencies, before, requests, at)
        answers = together(dependencies, requests, size)
        for _ in range(3):
            if RequestResult.EARLY not in answers:
                break
            answers = together(dependencies, requests, size)
        assert RequestResult.EARLY not in answers
        assert not [one for one in answers if isinstance(one, Exception)]
        assert state(dependencies, tables) == wanted, at
    assert expected.count(RequestResult.CORRECTED) == len(requests) - 4


class DiedError(BaseException):
    """The simulated end of the process."""


def crashing(dependencies: CorrectionCase, before: Any, requests: Sequence[Request], at: int) -> int:
    """One batch that dies at its call number `at` that writes; how many it made."""
    put_back(dependencies, before)
    count = 0

    def die(name: str) -> None:
        nonlocal count
        if name.startswith(("put_", "update_", "transact_", "send_")) or name in ("get_records", "query"):
            count += 1
            if count >= at:
                raise DiedError

    history = dependencies.history
    s3, kinesis = Counted(dependencies.s3, die), Counted(dependencies.kinesis, die)
    dynamodb: Any = Counted(dependencies.dynamodb, die)
    try:
        dependencies.history = type(history)(dynamodb, "air-history", lambda: 0)
        together(dependencies, requests, 100, dependencies.corrector(s3=s3, kinesis=kinesis))
    except DiedError:
        pass
    finally:
        dependencies.history = history
    return count


def test_the_previous_version_of_every_row_is_known_after_a_crash(aws: Callable[[str], Any]) -> None:
    dependencies = world_of(aws, checked(correct=halved))
    made = dependencies.corrector().correct_all(all_of(dependencies))
    again = dependencies.corrector().correct_all(all_of(dependencies))
    assert [one for one in again if not isinstance(one, Exception)] == [
        one for one in made if not isinstance(one, Exception)
    ]
    assert {one.version_before for one in made if not isinstance(one, Exception)} != {""}


def test_rows_beyond_the_limit_of_one_rewrite_are_rewritten_in_several(
    aws: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dependencies = world_of(aws, checked(correct=halved))
    before = stored(dependencies)
    together(dependencies, all_of(dependencies), 100)
    wanted = state(dependencies, tables)
    put_back(dependencies, before)
    monkeypatch.setattr("stream_app.recovery.correct.corrector.MAX_ROWS", 2)
    together(
        dependencies, all_of(dependencies), 100, dependencies.corrector(kinesis=Trimmed(dependencies.kinesis))
    )
    found = state(dependencies, tables)
    assert found["rows"] == wanted["rows"]


def test_the_rows_of_a_rewrite_fit_into_object_metadata() -> None:
    """2 KB in all, with names; row numbers as far apart as they may be in a file of a million rows."""
    rows = [at * (1_000_000 // segment.MAX_ROWS) for at in range(segment.MAX_ROWS)]
    assert len(segment._encode_rows(rows)) < 1_500
    assert segment._decode_rows(segment._encode_rows(rows)) == set(rows)


def test_an_error_in_one_file_does_not_affect_other_files(aws: Callable[[str], Any]) -> None:
    """And waits with it where a device is the same: a later row is calculated from what an earlier one stored."""
    dependencies = world_of(aws, checked(correct=halved))
    [first, *_] = sorted(stored(dependencies))

    class Broken:
        def __getattr__(self, name: str) -> Any:
            return getattr(dependencies.s3, name)

        def put_object(self, **request: Any) -> Any:
            if request["Key"] == first:
                raise OSError("no network")
            return dependencies.s3.put_object(**request)

    requests = [
        dependencies.request(at) for at in (0, 15, 7)
    ]  # a in the first file and the third, b in the second
    found = dependencies.corrector(s3=Broken()).correct_all(requests)
    assert [type(one).__name__ for one in found] == ["OSError", "NotReadyError", "Correction"]
    assert together(dependencies, requests, 3) == [RequestResult.CORRECTED] * 3


def test_concurrent_batches_on_one_file_are_both_kept(aws: Callable[[str], Any]) -> None:
    dependencies = world_of(aws, checked(correct=halved))
    ours = [dependencies.request(at) for at in (0, 1)]
    theirs = [dependencies.request(at) for at in (2, 3)]
    others: list[Any] = []

    def between(name: str) -> None:
        if name == "put_object" and not others:
            others.append(None)
            others.append(together(dependencies, theirs, 10))

    s3 = Counted(dependencies.s3, between)
    assert together(dependencies, ours, 10, dependencies.corrector(s3=s3)) == [RequestResult.CORRECTED] * 2
    assert others[1] == [RequestResult.CORRECTED] * 2
    assert s3.calls["put_object"] == 2
    key = min(stored(dependencies))
    assert dependencies.s3.head_object(Bucket=BUCKET, Key=key)["Metadata"]["corrected"] == "4"


def test_later_windows_include_a_row_whose_time_was_corrected(
    aws: Callable[[str], Any],
) -> None:
    def moved(batch: Batch) -> Mapping[str, Any]:
        first = batch["value"] == 1.0  # of device a
        return {
            "time": np.where(first, batch["time"] - np.timedelta64(10, "h"), batch["time"]),
            "value": batch["value"] / 2,
        }

    dependencies = world_of(aws, checked(correct=moved))
    requests, before = [dependencies.request(at) for at in (0, 3, 6)], stored(dependencies)
    assert one_by_one(dependencies, requests) == [RequestResult.CORRECTED] * 3
    wanted = state(dependencies, tables)
    put_back(dependencies, before)
    assert together(dependencies, requests, 3) == [RequestResult.CORRECTED] * 3
    assert state(dependencies, tables) == wanted


def test_latest_values_of_a_batch_equal_individual_corrections(aws: Callable[[str], Any]) -> None:
    dependencies = world_of(aws, checked(correct=halved))
    keep_latest(dependencies)
    work = dependencies.corrector(latest_table=LATEST)
    found = together(dependencies, all_of(dependencies), 100, work)
    assert found[-3:] == [RequestResult.CORRECTED] * 3
    for device in DEVICES:
        assert (
            float(latest(dependencies, device)["values"]["value"]) == (values(device, HOURS - 1) or 0.0) / 2
        )
    notes = [entry.done for entry in dependencies.history.entries(APPLICATION)]
    assert [note.latest for note in notes if note] == [False] * (len(found) - 4 - 3) + [True] * 3


def test_distant_records_are_read_separately_and_trimmed_ones_are_detected_in_few_reads(
    aws: Callable[[str], Any],
) -> None:
    dependencies = world_of(aws, checked(correct=halved))
    kinesis: Any = Counted(dependencies.kinesis)
    fetch = payload.from_stream(kinesis, "corrected-stream", 2)
    wanted = [wanted_of(dependencies, at) for at in (0, 1, 2, 9, 10, 20)]
    found = fetch(wanted, lambda _shard: True)
    assert [record and record.sequence_number for record in found] == [
        one.position.sequence for one in wanted
    ]
    assert kinesis.calls["get_records"] == 3
    partly: Any = Partly(dependencies, 5)
    gone = payload.from_stream(partly, "corrected-stream")
    records = gone([wanted_of(dependencies, at) for at in range(16)], lambda _shard: True)
    assert [record is not None for record in records] == [at >= 5 for at in range(16)]


def wanted_of(dependencies: CorrectionCase, at: int) -> payload.PayloadRequest:
    record = dependencies.records[at]
    return payload.PayloadRequest(record.position(dependencies.shard), "p", record.arrived, at)


class Partly(Trimmed):
    """A stream that holds its records from a number on."""

    def __init__(self, dependencies: CorrectionCase, first: int) -> None:
        super().__init__(dependencies.kinesis)
        self._from = int(dependencies.records[first].sequence_number)

    def get_shard_iterator(self, **request: Any) -> Any:
        if int(request["StartingSequenceNumber"]) < self._from:
            return super().get_shard_iterator(**request)
        return self._kinesis.get_shard_iterator(**request)


class Unchecked(CorrectionCase):
    """Event types that a dry run would refuse."""

    def registry_of(self, event: Event) -> Registry:
        return Registry.of([event], {event.name: [SCHEMA]}, dry_run=False)


def test_a_reading_calculated_in_a_larger_batch_is_accepted(aws: Callable[[str], Any]) -> None:
    """A calculation that looks at its whole batch is wrong; alone it may still come out as it is stored."""
    event = checked(correct=halved)
    inner = event.calculate
    assert inner is not None

    def calculate(batch: Batch) -> Mapping[str, Any]:
        return {**inner(batch), "rows": np.full(len(batch), float(len(batch)))}

    dependencies = Unchecked(aws, dataclasses.replace(event, calculate=calculate))
    for hour in range(4):
        dependencies.store([reading("a", hour, 1.0 + hour)], (1,))
    dependencies.checkpoint()
    assert together(dependencies, all_of(dependencies), 10) == [RequestResult.CORRECTED] * 4


def test_throttled_reads_make_requests_too_early_and_reject_none(dependencies: CorrectionCase) -> None:
    found = dependencies.corrector().correct_all(all_of(dependencies), lambda _shard: False)
    assert {type(one).__mro__[1] for one in found} == {NotReadyError}
    assert not [one for one in found if isinstance(one, UncorrectableError)]


def test_a_lower_read_rate_means_larger_reads() -> None:
    assert [payload.max_row_gap(rate) for rate in (0.01, 1.0, 2.0, 5.0, 1_000.0)] == [500, 500, 250, 150, 150]
