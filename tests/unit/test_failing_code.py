"""If all records of an event type fail at one line, this is reported once and can stop the consumer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.consumer.failing_code import NOTICEABLE, Failing, FailingCode
from stream_app.errors import ConfigError
from stream_app.model.record import Batch, Record
from stream_app.pipeline.flow import Processed, process
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.state.shard_state import ShardState
from stream_app.testing import record
from tests.kcl import Kcl
from tests.samples import MAX_BYTES, READING, SCHEMAS, START, STEP, as_json
from tests.support import Stores


def calculate(batch: Batch) -> dict[str, Any]:
    note = batch["note"]
    if "first" in note:
        raise ValueError("one line")
    if "second" in note:
        raise ValueError("another line")
    return {"twice": 2 * batch["value"]}


def verify(batch: Batch) -> dict[str, Any]:
    if "rule" in batch["note"]:
        raise ValueError("a rule's line")
    return {"not broken": batch["note"] != "broken"}


EVENTS = {
    "reading": replace(READING, calculate=calculate, verify=verify, window=None, detector=None, features=()),
    "step": replace(STEP, verify=None, calculate=None, window=None, previous=(), checks=()),
}
REGISTRY = Registry.of(EVENTS.values(), {name: [SCHEMAS[name]] for name in EVENTS})
LINES = {
    "first": f"unit/test_failing_code.py:{calculate.__code__.co_firstlineno + 3}",
    "second": f"unit/test_failing_code.py:{calculate.__code__.co_firstlineno + 5}",
    "rule": f"unit/test_failing_code.py:{verify.__code__.co_firstlineno + 2}",
}


def reading(at: int, note: str | None, event: str = "reading") -> Record:
    if note == "garbage":
        return record(b"{", at, arrived=START)
    ident = "same" if note == "repeated" else str(at)
    fields = {"device": "a", "id": ident, "time": START, "value": 1.0, "note": note}
    return record(as_json(event, fields), at, key="a", arrived=START)


def results(*splits: Sequence[str]) -> list[Processed]:
    state, at, found = ShardState(EVENTS, 9), 0, []
    for notes in splits:
        records = [reading(at + number, note) for number, note in enumerate(notes)]
        found.append(process(records, REGISTRY, state, MAX_BYTES))
        at += len(notes)
    return found


def test_a_failing_line_is_reported_once() -> None:
    code = FailingCode(0)
    few, enough, more = results(["first"] * (NOTICEABLE - 1), ["first"], ["first"] * 5)
    assert code.take(few) == []
    assert code.records() == {}
    assert code.take(enough) == [Failing("reading", "calculate", LINES["first"], "ValueError", NOTICEABLE)]
    assert code.take(more) == []
    assert code.records() == {"reading": NOTICEABLE + 5}


def test_another_failing_line_is_reported_again() -> None:
    code = FailingCode(0)
    notes = [
        ["first"] * NOTICEABLE,
        ["second"] * NOTICEABLE,
        ["rule"] * NOTICEABLE,
        ["fine", *["rule"] * NOTICEABLE],
    ]
    reported = [code.take(result) for result in results(*notes)]
    assert [[one.line for one in lines] for lines in reported] == [
        [LINES["first"]],
        [LINES["second"]],
        [LINES["rule"]],
        [],
    ]


@pytest.mark.parametrize("other", ["garbage", "repeated", "broken"])
def test_records_that_do_not_reach_the_line_neither_count_nor_reset(other: str) -> None:
    code = FailingCode(NOTICEABLE)
    half = ["first"] * (NOTICEABLE // 2)
    begun = ["repeated"] if other == "repeated" else []
    for result in results(begun, half, [other]):
        code.take(result)
    with pytest.raises(ConfigError, match=f"{NOTICEABLE} records in succession failed at {LINES['first']}"):
        code.take(results(half)[0])


@pytest.mark.parametrize("other", ["fine", "second"])
def test_a_record_that_is_stored_or_fails_elsewhere_resets_the_count(other: str) -> None:
    code = FailingCode(3)
    for result in results(["first", "first", other, "first", "first", other]):
        code.take(result)
    assert code.records() == {}


def test_a_broken_rule_resets_the_count() -> None:
    code = FailingCode(2)
    for result in results(["rule", "broken", "rule", "broken"]):
        code.take(result)


_notes = st.lists(
    st.sampled_from(["first"] * 4 + ["second", "rule", "fine", "broken", "garbage"]), max_size=40
)


@given(_notes, st.lists(st.integers(0, 40), max_size=6), st.integers(1, 6))
def test_the_count_does_not_depend_on_batches(notes: list[str], cuts: list[int], most: int) -> None:
    """Compares the record at which the consumer stops, and the counts until then."""

    def stopped(splits: list[list[str]]) -> tuple[int | None, dict[str, int]]:
        code, begun = FailingCode(most), 0
        for result in results(*splits):
            try:
                code.take(result)
            except ConfigError:
                return begun + _first(notes[begun:], most, notes[:begun]), {}
            begun += len(splits.pop(0))
        return None, code.records()

    whole = [list(notes)]
    ends = [0, *sorted(min(cut, len(notes)) for cut in cuts), len(notes)]
    parts = [notes[a:b] for a, b in itertools.pairwise(ends)]
    singles = [[note] for note in notes]
    assert stopped(whole) == stopped(parts) == stopped(singles)


def _first(notes: Sequence[str], most: int, before: Sequence[str]) -> int:
    """Return the index in `notes` of the record that reaches the limit, processing one record at a time."""
    code = FailingCode(most)
    for at, result in enumerate(results(*[[note] for note in (*before, *notes)])):
        try:
            code.take(result)
        except ConfigError:
            return at - len(before)
    raise AssertionError("processing one record at a time did not stop")


def test_event_types_are_counted_separately() -> None:
    code, state = FailingCode(0), ShardState(EVENTS, 9)
    mixed = [reading(at, "first", ("reading", "step")[at % 2]) for at in range(2 * NOTICEABLE)]
    reported = code.take(process(mixed, REGISTRY, state, MAX_BYTES))
    assert [(one.event, one.records) for one in reported] == [("reading", NOTICEABLE)]


def kcl(notes: Sequence[str], **values: Any) -> Kcl:
    records = [reading(at, note) for at, note in enumerate(notes)]
    return Kcl(Stores(now_ms=START), REGISTRY, records, {"segment_records": 4, **values})


def test_a_consumer_reports_failing_code_in_its_log_and_summaries() -> None:
    shard = kcl(["first"] * 30)
    shard.arrive(30)
    for _ in range(6):
        shard.deliver(5)
    reported = [fields for what, fields in shard.stores.notes if what == "every record fails at one line"]
    assert reported == [
        {
            "level": "warning",
            "event_type": "reading",
            "stage": "calculate",
            "line": LINES["first"],
            "error": "ValueError",
            "records": NOTICEABLE,
        }
    ]
    assert shard.stores.summaries[-1].to_json()["failing_at_one_line"] == {"reading": 30}


@pytest.mark.parametrize("size", [1, 3, 7, 30])
def test_with_the_setting_a_consumer_stops_before_the_segment_is_committed(size: int) -> None:
    shard = kcl(["fine"] * 5 + ["first"] * 25, stop_after_failures=10, checkpoint_seconds=1)
    shard.arrive(30)
    with pytest.raises(ConfigError, match="10 records in succession failed at unit/test_failing_code"):
        deliver_all(shard, size)
    assert sorted(shard.stores.stored) == sorted(kcl_segments(shard))


def deliver_all(shard: Kcl, size: int) -> None:
    while shard.at < len(shard.records):
        shard.stores.now_ms += 1_000
        shard.deliver(size)


def kcl_segments(shard: Kcl) -> list[str]:
    """Return the segments, of four records each, before the one that contains the fifteenth record."""
    undisturbed = kcl(["fine"] * 5 + ["first"] * 25)
    undisturbed.finish()
    return sorted(undisturbed.stores.stored)[:3]


def test_without_the_setting_everything_is_parked() -> None:
    shard = kcl(["first"] * 30)
    shard.finish()
    assert len(shard.stores.parked) == 30
