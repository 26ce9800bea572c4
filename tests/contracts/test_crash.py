"""A consumer that crashes anywhere and restarts from its checkpoint gives the result of an uninterrupted run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.consumer.snapshots import SHARD_END, Lineage
from stream_app.errors import FatalError, LeaseLostError
from stream_app.model.record import Record
from stream_app.model.segment import token
from tests.kcl import Kcl, Step, steps
from tests.samples import registry, shards
from tests.support import SHARD, CrashError, Effect, Stores, entries_of

REGISTRY = registry()


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.md5(key.encode()).digest())


def _moved(item: Record) -> Record:
    """Return the record with a higher sequence number."""
    sequence = str(int(item.sequence_number) + 10_000)
    return msgspec.structs.replace(item, sequence_number=sequence)


def undisturbed(records: Sequence[Record]) -> Stores:
    kcl = Kcl(Stores(), REGISTRY, records)
    kcl.finish()
    return kcl.stores


def alike(stores: Stores, calm: Stores) -> None:
    """Assert that rows, scores, failures, repeats, alerts and the final state are equal to the bit."""
    assert stores.by_position() == calm.by_position()
    assert stores.parked == calm.parked
    assert set(stores.alerts) == set(calm.alerts)
    assert entries_of(stores.snapshots[SHARD, SHARD_END]) == entries_of(calm.snapshots[SHARD, SHARD_END])


class Fragile:
    """Fault: the process crashes at effects with these numbers, counted across restarts."""

    def __init__(self, at: set[int]) -> None:
        self.at, self.count = at, 0

    def __call__(self, effect: Effect) -> None:
        self.count += 1
        if self.count in self.at:
            raise CrashError(effect)


def _kcl(stores: Stores, records: list[Record]) -> Kcl:
    while True:
        try:
            return Kcl(stores, REGISTRY, records)
        except CrashError:
            continue


def live_on(kcl: Kcl, what: list[Step]) -> None:
    """Perform every step and restart after each crash."""
    todo = [*what, Step("finish")]
    while todo:
        try:
            kcl.act(todo[0])
            del todo[0]
        except CrashError:
            while True:
                try:
                    kcl.start()
                    break
                except CrashError:
                    continue


_crashes = st.sets(st.integers(1, 60), max_size=6)


@settings(max_examples=200)
@given(shards(), steps, _crashes)
def test_the_result_after_any_crash_equals_that_of_an_uninterrupted_run(
    records: list[Record], what: list[Step], crashes: set[int]
) -> None:
    stores = Stores(inject_fault=Fragile(crashes))
    live_on(_kcl(stores, records), what)
    alike(stores, undisturbed(records))


@given(shards(), st.lists(steps, max_size=4))
def test_replacing_a_consumer_between_actions_does_not_change_the_result(
    records: list[Record], lives: list[list[Step]]
) -> None:
    kcl = Kcl(Stores(), REGISTRY, records)
    for what in lives:
        for step in what:
            kcl.act(step)
        kcl.start()
    kcl.finish()
    alike(kcl.stores, undisturbed(records))


@given(shards(), steps)
def test_a_worker_unaware_of_its_lost_lease_overwrites_nothing(
    records: list[Record], what: list[Step]
) -> None:
    stores = Stores()
    late = Kcl(stores, REGISTRY, records, {"clock_margin_ms": 10**9})
    new = Kcl(stores, REGISTRY, records)
    for step in what:
        new.act(step)
    new.finish()
    for step in what:
        late.act(step)  # writes checkpoints to its own lease; KCL would reject them
    alike(stores, undisturbed(records))


class Lost:
    """Fault: KCL rejects every checkpoint because another worker holds the lease."""

    def __call__(self, effect: Effect) -> None:
        if effect.kind == "checkpoint":
            raise LeaseLostError(effect.name)


@settings(max_examples=200)
@given(shards(), steps, steps, steps)
def test_a_paused_worker_that_resumes_after_losing_its_lease_overwrites_nothing(
    records: list[Record], before: list[Step], others: list[Step], after: list[Step]
) -> None:
    stores = Stores()
    stalled = Kcl(stores, REGISTRY, records)
    for step in before:
        stalled.act(step)
    new = Kcl(stores, REGISTRY, records, committed=list(stalled.committed), available=stalled.available)
    for step in others:
        new.act(step)
    new.finish()
    stores.inject_fault = Lost()
    for step in after:
        stalled.act(step)
    alike(stores, undisturbed(records))


@given(shards(), st.integers(0, 40))
def test_a_replay_stores_the_same_result_again(records: list[Record], fatal_at: int) -> None:
    calm = undisturbed(records)
    stores = Stores(stored=dict(calm.stored), parked=dict(calm.parked), alerts=list(calm.alerts))

    def inject_fault(effect: Effect) -> None:
        if len(stores.log) == fatal_at:
            raise FatalError("storage failed")

    stores.inject_fault = inject_fault
    try:
        Kcl(stores, REGISTRY, records).finish()
    except FatalError:
        stores.inject_fault = lambda _effect: None
        Kcl(stores, REGISTRY, records).finish()
    alike(stores, calm)


@given(shards(), shards(), st.sampled_from("abc"), steps, _crashes)
def test_child_shards_score_like_an_unsplit_parent(
    before: list[Record], after: list[Record], cut: str, what: list[Step], crashes: set[int]
) -> None:
    """Two shards after a split, with crashes, against one shard that was never split."""
    later = [_moved(item) for item in after]
    whole = undisturbed([*before, *later]).by_position()
    parent = Kcl(Stores(), REGISTRY, before)
    parent.finish()
    edge = _hash(cut)
    for first, last in ((0, edge), (edge + 1, 2**128 - 1)):
        mine = [item for item in later if first <= _hash(item.partition_key) <= last]
        lineages = {SHARD: Lineage(("parent",), first, last)}
        state = {("parent", SHARD_END): parent.stores.snapshots[SHARD, SHARD_END]}
        stores = Stores(lineages=lineages, snapshots=state, inject_fault=Fragile(crashes))
        live_on(_kcl(stores, mine), what)
        expected = {token(item.position(SHARD)): whole[token(item.position(SHARD))] for item in mine}
        assert stores.by_position() == expected
