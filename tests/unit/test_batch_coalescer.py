"""Batches are gathered while a shard is far behind; no record is lost, doubled or kept back for long."""

from __future__ import annotations

import gzip
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from stream_app.consumer.protocol import batch_coalescer as gather
from stream_app.consumer.protocol.batch_coalescer import BatchCoalescer
from stream_app.consumer.protocol.multilang import Checkpointer
from stream_app.model.record import Record
from stream_app.testing import record

FAR, NEAR = gather.FAR_MS, gather.FAR_MS - 1


class Inner:
    """Notes what it is given, in order; a call takes `seconds` on the clock."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.calls: list[tuple[str, list[Record], int | None]] = []
        self.now, self._seconds = 0.0, seconds

    def clock(self) -> float:
        return self.now

    def initialize(self, shard: str, sequence: str | None, sub: int | None) -> None:
        self.calls.append(("initialize", [], None))

    def process(self, records: Sequence[Record], behind_ms: int | None, checkpointer: Checkpointer) -> None:
        self.calls.append(("process", list(records), behind_ms))
        self.now += self._seconds

    def lease_lost(self) -> None:
        self.calls.append(("lease lost", [], None))

    def shard_ended(self, checkpointer: Checkpointer) -> None:
        self.calls.append(("shard ended", [], None))

    def shutdown_requested(self, checkpointer: Checkpointer) -> None:
        self.calls.append(("shutdown requested", [], None))

    @property
    def records(self) -> list[Record]:
        return [each for _, records, _ in self.calls for each in records]


class Nothing:
    def checkpoint(self, sequence: str | None, sub: int | None) -> None:
        """No handler here commits."""


def batch(count: int, size: int = 3, first: int = 0) -> list[Record]:
    return [record(b"x" * size, first + number) for number in range(count)]


def gathering(seconds: float = 0.0) -> tuple[Inner, BatchCoalescer]:
    inner = Inner(seconds)
    return inner, BatchCoalescer(inner, inner.clock)


_steps = st.lists(
    st.tuples(st.integers(0, 2_000), st.sampled_from([0, NEAR, FAR, 10 * FAR, None])), max_size=12
)


@given(_steps, st.sampled_from(["shard_ended", "shutdown_requested"]), st.sampled_from([0.0, 1.0]))
def test_every_record_is_passed_on_once_and_in_order(
    steps: list[tuple[int, int | None]], end: str, seconds: float
) -> None:
    inner, outer = gathering(seconds)
    sent: list[Record] = []
    for count, behind_ms in steps:
        records = batch(count, first=len(sent))
        sent += records
        outer.process(records, behind_ms, Nothing())
        waiting = len(sent) - len(inner.records)
        assert waiting < gather.ENOUGH
        if not records or behind_ms is None or behind_ms < FAR:
            assert waiting == 0
            assert inner.calls[-1][2] == behind_ms
    getattr(outer, end)(Nothing())
    assert inner.records == sent
    assert inner.calls[-1][0] == end.replace("_", " ")


def test_far_behind_batches_become_one() -> None:
    inner, outer = gathering()
    for number in range(gather.ENOUGH // 500):
        assert not inner.calls
        outer.process(batch(500, first=500 * number), FAR, Nothing())
    assert [(what, len(records)) for what, records, _ in inner.calls] == [("process", gather.ENOUGH)]


def test_large_records_are_not_gathered_without_bound() -> None:
    inner, outer = gathering()
    for number in range(3):
        outer.process(batch(1, gather.ENOUGH_BYTES // 2, number), FAR, Nothing())
    assert len(inner.records) == 2


def test_records_count_with_their_bytes_after_decompression() -> None:
    inner, outer = gathering()
    packed = gzip.compress(bytes(gather.ENOUGH_BYTES // 10))
    for number in range(10):
        assert not inner.calls
        outer.process([record(packed, number)], FAR, Nothing())
    assert len(inner.records) == 10


def test_at_the_tip_a_record_goes_on_at_once_with_what_came_before() -> None:
    inner, outer = gathering()
    outer.process(batch(2), FAR, Nothing())
    outer.process(batch(1, first=2), NEAR, Nothing())
    assert inner.calls == [("process", batch(3), NEAR)]


def test_a_tick_passes_on_what_is_kept_and_is_passed_on_itself() -> None:
    inner, outer = gathering()
    outer.process(batch(2), FAR, Nothing())
    outer.process([], FAR, Nothing())
    outer.process([], 0, Nothing())
    assert inner.calls == [("process", batch(2), FAR), ("process", [], 0)]


def test_where_batches_take_long_none_waits_for_another() -> None:
    inner, outer = gathering(seconds=1.0)
    for number in range(3):
        outer.process(batch(1, first=number), NEAR if number == 0 else FAR, Nothing())
        assert len(inner.records) == number + 1


def test_a_lost_lease_drops_what_was_gathered() -> None:
    inner, outer = gathering()
    outer.process(batch(2), FAR, Nothing())
    outer.lease_lost()
    outer.shutdown_requested(Nothing())
    assert inner.records == []
