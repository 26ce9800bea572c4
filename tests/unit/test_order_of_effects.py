"""Sinks → dead letters → unsent alerts → snapshot → checkpoint, and nothing else (rule 4), on one log of effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.consumer.protocol.multilang import serve
from stream_app.consumer.shard import ShardConsumer
from stream_app.consumer.snapshots import SHARD_END
from stream_app.errors import FatalError, LeaseLostError, TransientError
from stream_app.model.record import Record
from stream_app.model.segment import token
from stream_app.testing import Played, record
from tests.kcl import Kcl, Step, steps
from tests.samples import START, as_json, registry, shards
from tests.support import SHARD, SINKS, Effect, Stores, dependencies, failing, failing_first

REGISTRY = registry()


def positions(records: Sequence[Record]) -> list[str]:
    return [token(item.position(SHARD)) for item in records]


def check(log: Sequence[Effect], records: Sequence[Record]) -> list[str]:
    """Assert that the log is in order, up to where it ends; returns the checkpoints.

    A segment's name is that of its first record, so a segment is known to be followed by the next one's first, by
    the checkpoint of its last record, or by the end.
    """
    order = positions(records)
    committed: list[str] = []
    begun = {name: log.index(Effect(SINKS[0], name)) for kind, name in log if kind == SINKS[0]}
    for at, (kind, name) in enumerate(log):
        before = log[at - 1] if at else Effect("start", "")
        match kind:
            case "sink 1":
                assert before.kind in ("start", "sink 2", "park", "checkpoint", "forget")
                assert begun[name] == at, "one consumer writes a segment once"
            case "sink 2":
                assert before == Effect("sink 1", name)
            case "park":
                assert before == Effect("sink 2", name)
            case "alerts":
                assert before.kind in ("sink 2", "park", "checkpoint", "forget")
                assert log[at + 1 :] == [] or log[at + 1].kind == "state"
            case "state":
                assert before.kind in ("sink 2", "park", "alerts") or name == SHARD_END
            case "checkpoint":
                assert before == Effect("state", name)
                committed.append(name)
                # Every segment that begins at or before the position committed is complete; none begins after it.
                last = len(order) if name == SHARD_END else order.index(name) + 1
                first = [
                    order.index(segment.removeprefix(f"{SHARD}-")) for segment in begun if begun[segment] < at
                ]
                assert all(start < last for start in first)
            case "forget":
                assert before.kind in ("checkpoint", "forget")
                assert name not in committed[-2:]
            case _:
                raise AssertionError(f"an effect that is none: {kind}")
    assert committed == sorted(
        committed, key=lambda name: len(order) if name == SHARD_END else order.index(name)
    )
    return committed


def check_all_stored(stores: Stores, records: Sequence[Record], committed: Sequence[str]) -> None:
    """Everything up to the last checkpoint is stored or parked, with its reason, or known to be a repeat."""
    if committed:
        order = positions(records)
        upto = len(order) if committed[-1] == SHARD_END else order.index(committed[-1]) + 1
        stored = stores.by_position()
        assert stored.keys() >= set(order[:upto])
        failed = {position for position, fate in stored.items() if fate[0] == "failed"}
        assert {position for position in order[:upto] if position in failed} <= stores.parked.keys()


@given(shards(), steps)
def test_effects_are_in_order(records: list[Record], what: list[Step]) -> None:
    stores = Stores()
    kcl = Kcl(stores, REGISTRY, records)
    for step in what:
        kcl.act(step)
        check_all_stored(stores, records, check(stores.log, records))
    kcl.finish()
    committed = check(stores.log, records)
    assert committed[-1] == SHARD_END
    check_all_stored(stores, records, committed)
    assert stores.by_position().keys() == set(positions(records))


_troubles = st.dictionaries(st.integers(0, 40), st.sampled_from([TransientError, FatalError]), max_size=8)


@given(shards(), steps, _troubles)
def test_no_failure_causes_a_checkpoint_before_the_effects_it_covers(
    records: list[Record], what: list[Step], troubles: Mapping[int, type[BaseException]]
) -> None:
    stores = Stores(inject_fault=failing(troubles))
    try:
        kcl = Kcl(stores, REGISTRY, records)
        for step in what:
            kcl.act(step)
        kcl.finish()
    except FatalError:
        assert troubles
    check_all_stored(stores, records, check(stores.log, records))


@given(shards(), steps)
def test_transient_failures_are_retried_in_place(records: list[Record], what: list[Step]) -> None:
    smooth, rough = Stores(), Stores(inject_fault=failing_first(2))
    for stores in (smooth, rough):
        kcl = Kcl(stores, REGISTRY, records)
        for step in what:
            kcl.act(step)
        kcl.finish()
    # An alert that the bus does not accept in time is stored, where the undisturbed consumer has sent it.
    assert [effect for effect in rough.log if effect.kind != "alerts"] == smooth.log
    assert rough.stored == smooth.stored
    assert told(rough) == told(smooth) == set(smooth.alerts)


@pytest.mark.parametrize("kind", ["sink 1", "sink 2", "park", "state", "checkpoint"])
def test_exhausted_retries_end_the_consumer_without_a_commit(kind: str) -> None:
    def inject_fault(effect: Effect) -> None:
        if effect.kind == kind:
            raise TransientError("unavailable")

    stores = Stores(inject_fault=inject_fault)
    kcl = Kcl(stores, REGISTRY, many(12), {"segment_records": 4})
    with pytest.raises(FatalError, match="gave up after 3 attempts"):
        kcl.finish()
    assert check(stores.log, kcl.records) == []


def anomalies(records: Sequence[Record]) -> set[str]:
    """The positions of alerts when nothing goes wrong."""
    calm = Kcl(Stores(), REGISTRY, records)
    calm.finish()
    assert calm.stores.alerts
    return set(calm.stores.alerts)


def told(stores: Stores) -> set[str]:
    """The positions of alerts that were sent or are stored."""
    stored = [alert for alerts in stores.stored_alerts.values() for alert in alerts]
    return {*stores.alerts, *(f"{SHARD}/{alert['sequence']}" for alert in stored)}


@given(st.sets(st.integers(0, 60)), st.lists(st.integers(1, 9), max_size=8), st.data())
def test_alerts_are_sent_or_stored_before_the_checkpoint_that_passes_them(
    refused: set[int], deliveries: list[int], data: st.DataObject
) -> None:
    records, tries = many(40, gap_ms=400), iter(range(10**6))
    expected, order = anomalies(records), [str(item.position(SHARD)) for item in records]

    def inject_fault(effect: Effect) -> None:
        if effect.kind == "alert" and next(tries) in refused:
            raise TransientError("the bus is throttled")
        if effect.kind == "checkpoint":
            last = len(order) if effect.name == SHARD_END else order.index(f"{SHARD}/{effect.name}") + 1
            assert told(stores) >= expected & set(order[:last])

    stores = Stores(inject_fault=inject_fault)
    kcl = Kcl(stores, REGISTRY, records, {"segment_records": data.draw(st.integers(1, 9))})
    restarts = data.draw(st.booleans())
    for count in deliveries:
        kcl.arrive(count)
        kcl.deliver(count)
        if restarts and data.draw(st.booleans()):
            kcl.start()  # what was in memory is gone, and comes again with its records
    kcl.finish()
    if not restarts:
        check(stores.log, records)
    assert told(stores) == expected


def test_a_failing_bus_does_not_stop_a_shard_and_the_next_consumer_sends_stored_alerts() -> None:
    down = True

    def inject_fault(effect: Effect) -> None:
        if down and effect.kind == "alert":
            raise FatalError("refused")

    stores = Stores(inject_fault=inject_fault)
    kcl = Kcl(stores, REGISTRY, many(40, gap_ms=400), {"segment_records": 4})
    kcl.arrive(28)
    for _ in range(4):
        kcl.deliver(7)
    assert kcl.committed
    assert stores.alerts == []
    assert stores.stored_alerts
    kcl.start()
    down = False
    kcl.tick(0)
    assert stores.stored_alerts == {}
    kcl.finish()
    assert set(stores.alerts) == anomalies(kcl.records)
    assert kcl.committed[-1] == (None, None)


def many(count: int, gap_ms: int = 1) -> list[Record]:
    """Readings of one device: one in four cannot be decoded, one in four is an anomaly."""
    rows = []
    for at in range(count):
        fields = {"device": "a", "id": str(at), "time": START, "value": 90.0 if at % 4 == 3 else 1.0}
        data = b"broken" if at % 4 == 1 else as_json("reading", fields)
        rows.append(record(data, at * 5, arrived=START + at * gap_ms))
    return rows


def test_the_complete_log_of_a_shard() -> None:
    stores = Stores(now_ms=START)
    kcl = Kcl(stores, REGISTRY, many(6), {"segment_records": 2, "checkpoint_seconds": 9})
    kcl.arrive(6)
    kcl.deliver(5)
    kcl.stores.now_ms += 9_000
    kcl.deliver(1)
    kcl.consumer.shard_ended(kcl)
    names = [f"{SHARD}-{token(item.position(SHARD))}" for item in kcl.records]
    last = positions(kcl.records)[5]
    assert stores.log == [
        Effect("sink 1", names[0]),
        Effect("sink 2", names[0]),
        Effect("park", names[0]),
        Effect("sink 1", names[2]),
        Effect("sink 2", names[2]),
        Effect("sink 1", names[4]),
        Effect("sink 2", names[4]),
        Effect("park", names[4]),
        Effect("state", last),
        Effect("checkpoint", last),
        Effect("state", SHARD_END),
        Effect("checkpoint", SHARD_END),
    ]


# ---- KCL's answers to a checkpoint


def played(stores: Stores, count: int = 3) -> tuple[Played, list[Record]]:
    consumer = ShardConsumer(dependencies(stores, REGISTRY, segment_records=2, checkpoint_seconds=1))

    def loop(stdin: Any, stdout: IO[bytes]) -> None:
        serve(consumer, stdin, stdout)

    return Played(loop), many(count)


def test_a_throttled_checkpoint_is_retried() -> None:
    stores = Stores()
    session, records = played(stores)
    with session:
        session.player.initialize(SHARD)
        session.player.fail_checkpoints("ThrottlingException", "KinesisClientLibDependencyException")
        stores.now_ms = 2_000
        session.player.records(records)
        assert session.player.checkpoints == [(records[1].sequence_number, 0)]
        assert [error for _, error in session.player.refused] == [
            "ThrottlingException",
            "KinesisClientLibDependencyException",
        ]
    assert session.error is None


def test_a_lost_lease_is_not_an_error_and_has_no_further_effects() -> None:
    stores = Stores()
    session, records = played(stores)
    with session:
        session.player.initialize(SHARD)
        session.player.fail_checkpoints("ShutdownException")
        stores.now_ms = 2_000
        session.player.records(records[:2])
        log = list(stores.log)
        stores.now_ms = 9_000
        session.player.records(records[2:])
        session.player.tick()
        session.player.shutdown_requested()
        session.player.lease_lost()
        assert session.player.checkpoints == []
    assert session.error is None
    assert stores.log == log
    assert [what for what, _ in stores.notes].count("lease lost") == 1


@pytest.mark.parametrize("end", ["shutdown_requested", "shard_ended"])
def test_a_lease_lost_at_shard_end_is_not_an_error(end: str) -> None:
    stores = Stores()
    session, records = played(stores)
    with session:
        session.player.initialize(SHARD)
        session.player.records(records)
        session.player.fail_checkpoints("ShutdownException")
        getattr(session.player, end)()
        session.player.lease_lost()
        assert session.player.checkpoints == []
    assert session.error is None


def test_a_checkpoint_that_kcl_rejects_as_invalid_is_fatal() -> None:
    stores = Stores()
    session, records = played(stores)
    with session:
        session.player.initialize(SHARD)
        session.player.fail_checkpoints("InvalidStateException")
        stores.now_ms = 2_000
        with pytest.raises(AssertionError, match="ended without an answer"):
            session.player.records(records)
        with pytest.raises(AssertionError, match="ended"):
            session.player.tick()
        assert session.player.checkpoints == []
    assert isinstance(session.error, FatalError)


def test_a_segment_is_read_again_when_the_daemon_dies_during_its_checkpoint() -> None:
    class Gone(Kcl):
        def checkpoint(self, sequence: str | None, sub: int | None) -> None:
            raise LeaseLostError("the daemon has ended")

    stores = Stores()
    kcl = Gone(stores, REGISTRY, many(4), {"segment_records": 2})
    kcl.arrive(4)
    kcl.stores.now_ms += 5_000
    kcl.deliver(4)
    kcl.deliver(4)
    assert kcl.committed == []
    again = Kcl(stores, REGISTRY, many(4), {"segment_records": 2})
    again.finish()
    assert stores.by_position().keys() == set(positions(kcl.records))
