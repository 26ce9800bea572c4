"""A record that crashes its process is quarantined alone, once, and for every later read."""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.consumer.quarantine.policy import CAREFUL_FROM, Isolation
from stream_app.consumer.snapshots import SHARD_END
from stream_app.model.record import Position, Record
from stream_app.model.segment import token
from stream_app.processes.disposable_fork import ForkResult, Limit, Work
from stream_app.sinks.quarantine import Attempts
from stream_app.testing import record
from tests.contracts import poison
from tests.kcl import Kcl, Step, steps
from tests.samples import START, as_json, registry, shards
from tests.support import SHARD, CrashError, MemoryQuarantine, Stores, entries_of

REGISTRY = poison.registry()
# The time limit of a batch is a 25th of KCL's.
QUICK = {"timeout_seconds": 25, "segment_records": 99}


def readings(*notes: str | None, arrived: int = START) -> list[Record]:
    fields: Mapping[str, Any] = {"time": START, "value": 1.5}
    return [
        record(
            as_json("reading", {**fields, "device": f"d{at % 3}", "id": str(at), "note": note}),
            at,
            key=f"d{at % 3}",
            arrived=arrived + at,
        )
        for at, note in enumerate(notes)
    ]


def third_attempt(checkpoint: str = "TRIM_HORIZON") -> MemoryQuarantine:
    """As two processes left it that were ended before a first checkpoint."""
    before = Attempts(checkpoint=checkpoint, attempts=CAREFUL_FROM - 1)
    return MemoryQuarantine({SHARD: before})


def consumer(records: Sequence[Record], store: MemoryQuarantine, **values: Any) -> Kcl:
    isolation = Isolation(store, poison.build)
    kcl = Kcl(Stores(now_ms=START), REGISTRY, records, {"isolation": isolation, **QUICK, **values})
    kcl.consumer.limit_batches(nullcontext(), warm=True)
    return kcl


def without(records: Sequence[Record], rows: set[int]) -> Stores:
    """What a consumer stores that never got these records."""
    kcl = Kcl(
        Stores(now_ms=START), REGISTRY, [r for at, r in enumerate(records) if at not in rows], {**QUICK}
    )
    kcl.finish()
    return kcl.stores


def alike(kcl: Kcl, records: Sequence[Record], rows: set[int]) -> None:
    """The records of these rows are parked, and all others stored as if they had never been."""
    expected, found = without(records, rows), kcl.stores.by_position()
    names = {token(records[row].position(SHARD)) for row in rows}
    assert {name: fate for name, fate in found.items() if name not in names} == expected.by_position()
    assert {name for name in found if name in names} == names
    assert {found[name][0] for name in names} <= {"failed"}
    assert entries_of(kcl.stores.snapshots[SHARD, SHARD_END]) == entries_of(
        expected.snapshots[SHARD, SHARD_END]
    )


KILLED = {
    "leave": "the process ended with exit code 0",
    "leave_with_a_code": "the process ended with exit code 7",
    "keyboard_interrupt": "processing ended the process: KeyboardInterrupt: ",
    "segmentation_fault": "the process was killed by SIGSEGV, in segmentation_fault (poison.py:",
    "killed": "the process was killed by SIGKILL",
    "aborted": "the process was killed by SIGABRT, in aborted (poison.py:",
}


@pytest.mark.parametrize("note", KILLED)
def test_only_the_record_that_ends_its_process_is_quarantined(note: str) -> None:
    records = readings(*[None] * 70, note, *[None] * 40)
    store = third_attempt()
    kcl = consumer(records, store)
    kcl.finish()
    alike(kcl, records, {70})
    (decision,) = store.decided.values()
    assert decision.position == Position(SHARD, records[70].sequence_number, 0)
    assert (decision.code, decision.event, decision.attempts) == ("PROCESS_KILLED", "reading", CAREFUL_FROM)
    assert decision.reason.startswith(KILLED[note])
    assert decision.stage in ("process", "calculate")
    assert kcl.stores.parked == {token(decision.position): "PROCESS_KILLED"}


@pytest.mark.parametrize("note", ["loop", "loop_in_c"])
def test_a_record_that_never_returns_is_quarantined_with_its_location(note: str) -> None:
    records = readings(None, None, note, None)
    store = third_attempt()
    kcl = consumer(records, store)
    kcl.finish()
    alike(kcl, records, {2})
    (decision,) = store.decided.values()
    assert (decision.code, decision.stage, decision.event) == ("TIMED_OUT", "calculate", "reading")
    assert f", in {note} (poison.py:" in decision.reason


def test_the_first_batch_without_warm_up_has_a_longer_time_limit() -> None:
    store = third_attempt()
    kcl = consumer(readings("loop"), store, timeout_seconds=8)
    kcl.consumer.limit_batches(nullcontext(), warm=False)
    kcl.finish()
    (decision,) = store.decided.values()
    assert " 1.28 s" in decision.reason


def test_a_record_that_crashes_a_sink_encoder_is_quarantined() -> None:
    records = readings(None, poison.AT_SINKS, None)
    store = third_attempt()
    kcl = consumer(records, store)
    kcl.finish()
    alike(kcl, records, {1})
    (decision,) = store.decided.values()
    assert (decision.stage, decision.reason) == ("sink", "the process ended with exit code 9")


def test_a_record_that_crashes_the_snapshot_is_quarantined(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that cannot be saved: nothing before the snapshot sees it."""
    from stream_app.pipeline.state.shard_state import ShardState

    snapshot = ShardState.snapshot

    def fragile(state: ShardState) -> bytes:
        if "d1" in state["reading"].devices.keys:
            os._exit(4)
        return snapshot(state)

    monkeypatch.setattr(ShardState, "snapshot", fragile)
    records = [item for item in readings(*[None] * 140) if item.partition_key != "d1"]
    records[80:80] = [readings(None, None)[1]]
    records = [record(item.data, at, arrived=START + at) for at, item in enumerate(records)]
    store = third_attempt()
    kcl = consumer(records, store)
    kcl.finish()
    alike(kcl, records, {80})
    (decision,) = store.decided.values()
    assert (decision.stage, decision.reason) == ("snapshot", "the process ended with exit code 4")


def test_several_poison_records_in_one_batch_are_all_quarantined() -> None:
    notes = [None, "leave", "killed", None, None, "segmentation_fault", *[None] * 80, "aborted", None]
    records = readings(*notes)
    kcl = consumer(records, third_attempt())
    kcl.finish()
    alike(kcl, records, {1, 2, 5, 86})


def test_poison_records_are_found_first_last_and_alone() -> None:
    for notes, rows in ((("leave", None), {0}), ((None, "leave"), {1}), (("leave",), {0})):
        records = readings(*notes)
        kcl = consumer(records, third_attempt())
        kcl.finish()
        alike(kcl, records, rows)


def test_a_quarantine_decision_is_stored_first_and_survives_a_crash() -> None:
    records = readings(None, "leave", None, "killed", None)
    store = third_attempt()

    def inject_fault(effect: Any) -> None:
        raise CrashError(effect)

    kcl = consumer(records, store, segment_records=1)
    kcl.stores.inject_fault = inject_fault
    with pytest.raises(CrashError):
        kcl.finish()
    assert store.log == ["attempts", "decision"]
    kcl.stores.inject_fault = lambda _effect: None
    kcl.start()
    kcl.finish()
    assert store.log == ["attempts", "decision", "attempts", "decision"]
    alike(kcl, records, {1, 3})


def test_a_decision_not_yet_logged_is_logged_by_the_next_process() -> None:
    records = readings(None, "leave", None, "killed", None)
    store = third_attempt()

    class Ending(list[Any]):
        def append(self, noted: Any) -> None:
            if noted[0] == "record_quarantined":
                raise CrashError(noted)

    kcl = consumer(records, store, segment_records=1)
    kcl.stores.notes = Ending()
    with pytest.raises(CrashError):
        kcl.finish()
    again = consumer(records, store)
    again.finish()
    told = [(event, fields.get("position")) for event, fields in again.stores.notes]
    blamed = [str(records[row].position(SHARD)) for row in (1, 3)]
    assert [place for event, place in told if event == "record_excluded"] == blamed[:1]
    assert [place for event, place in told if event == "record_quarantined"] == blamed[1:]


def test_later_reads_apply_the_decision_without_forking() -> None:
    """The whole shard once more, from its beginning: the record ends nobody, for nobody processes it."""
    records = readings(None, "leave", None, "segmentation_fault")
    first = consumer(records, store := third_attempt())
    first.finish()
    store.saved.clear()

    def no_fork(_work: Work, _limit: Callable[[str], Limit]) -> ForkResult:
        raise AssertionError("nothing is tried where nothing failed")

    isolation = Isolation(store, poison.build, no_fork)
    again = Kcl(Stores(now_ms=START), REGISTRY, records, {"isolation": isolation, **QUICK})
    again.finish()
    assert again.stores.stored == first.stores.stored
    assert again.stores.parked == first.stores.parked


# ---- Attempts


def attempts(store: MemoryQuarantine) -> int:
    return store.saved[SHARD].attempts


def test_each_start_from_a_checkpoint_is_counted_once_before_its_first_records() -> None:
    store = MemoryQuarantine()
    kcl = consumer(readings(*[None] * 4), store)
    kcl.tick(0)
    assert not store.saved, "a shard without records attempts nothing"
    kcl.arrive(4)
    kcl.deliver(1)
    kcl.deliver(1)
    assert (attempts(store), store.log) == (1, ["attempts"])
    kcl.start()
    kcl.deliver(1)
    assert attempts(store) == 2
    assert noted(kcl, "quarantine_started") == []
    kcl.start()
    kcl.deliver(1)
    assert attempts(store) == 3
    assert noted(kcl, "quarantine_started") == [3]


def test_a_later_checkpoint_resets_the_attempt_count() -> None:
    store = MemoryQuarantine()
    kcl = consumer(readings(*[None] * 4), store, segment_records=2)
    kcl.arrive(4)
    for _ in range(2):
        kcl.start()
        kcl.deliver(1)
    kcl.stores.now_ms += 10_000
    kcl.deliver(2)
    assert kcl.committed
    kcl.start()
    kcl.deliver(1)
    assert attempts(store) == 1


def noted(kcl: Kcl, what: str) -> list[Any]:
    return [values.get("attempt") for event, values in kcl.stores.notes if event == what]


def test_isolation_lasts_across_checkpoints_and_restarts_until_the_suspect_range_is_passed() -> None:
    """The record that ended two processes had arrived before the third began."""
    store = third_attempt()
    records = [*readings(None, None, "leave"), *readings(*[None] * 6, arrived=START + 50_000)[3:]]
    kcl = consumer(records, store, segment_records=1)
    kcl.arrive(3)
    kcl.deliver(1)
    kcl.stores.now_ms += 2_000
    kcl.deliver(1)
    assert len(kcl.committed) == 1
    kcl.start()
    kcl.deliver(1)
    assert (attempts(store), noted(kcl, "quarantine_started")) == (1, [3, 1])
    assert len(store.decided) == 1
    assert noted(kcl, "quarantine_ended") == []
    kcl.arrive(3)
    kcl.deliver(3)
    kcl.stores.now_ms += 2_000
    kcl.tick(0)
    assert len(noted(kcl, "quarantine_ended")) == 1


def test_records_are_deferred_when_the_time_limit_of_an_action_is_reached() -> None:
    records = readings(*["leave"] * 8, None)
    kcl = consumer(records, store := third_attempt())
    seconds = itertools.count(
        step=3
    )  # so that a quarter of KCL's time is used up after a few looks at the clock
    kcl.consumer._quarantine._clock = lambda: float(next(seconds))
    kcl.arrive(9)
    kcl.deliver(9)
    assert 0 < len(store.decided) < 4
    kcl.stores.now_ms += 60_000
    kcl.tick(0)
    assert kcl.stores.stored == {}, "no time limit closes a segment while its records are deferred"
    kcl.finish()
    alike(kcl, records, set(range(8)))


# ---- Properties for arbitrary records, deliveries and crashes


@settings(max_examples=20, deadline=None)
@given(shards(most=12), st.sets(st.integers(0, 11), max_size=3), st.lists(steps, max_size=3))
def test_poison_records_do_not_change_the_result_of_the_others(
    records: list[Record], rows: set[int], lives: list[list[Step]]
) -> None:
    rows = {row for row in rows if row < len(records)}
    fatal = {records[row].data for row in rows}
    rows = {at for at, item in enumerate(records) if item.data in fatal}
    plain = registry()

    module: Any = importlib.import_module("stream_app.consumer.quarantine.trial")
    real = module.process_without

    def ended(given: Any, *rest: Any) -> Any:
        excluded = rest[-1]
        if any(given[row].data in fatal for row in range(len(given)) if row not in excluded):
            os._exit(0)
        return real(given, *rest)

    store = third_attempt()
    isolation = Isolation(store, lambda _segment: None)
    module.process_without = ended
    try:
        kcl = Kcl(Stores(now_ms=START), plain, records, {"isolation": isolation, "timeout_seconds": 600})
        for what in lives:
            for step in what:
                kcl.act(step)
            store.saved[SHARD] = Attempts(checkpoint=checkpoint(kcl), attempts=9)
            kcl.start()
        kcl.finish()
    finally:
        module.process_without = real
    calm = Kcl(Stores(now_ms=START), plain, [r for at, r in enumerate(records) if at not in rows], {})
    calm.finish()
    found = kcl.stores.by_position()
    names = {token(records[row].position(SHARD)) for row in rows}
    assert {name: fate for name, fate in found.items() if name not in names} == calm.stores.by_position()
    assert {found[name][2].value for name in names} <= {"PROCESS_KILLED"}


def checkpoint(kcl: Kcl) -> str:
    if not kcl.committed:
        return "TRIM_HORIZON"
    sequence, sub = kcl.committed[-1]
    return token(Position(SHARD, sequence or "", sub or 0))
