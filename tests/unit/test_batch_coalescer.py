"""Batches are combined while a shard is far behind; no record is lost, duplicated or delayed for long."""

from __future__ import annotations

import gzip
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from stream_app.consumer.protocol import batch_coalescer
from stream_app.consumer.protocol.batch_coalescer import BatchCoalescer
from stream_app.consumer.protocol.multilang import Checkpointer
from stream_app.model.record import Record
from stream_app.testing import record

FAR, NEAR = batch_coalescer.FAR_MS, batch_coalescer.FAR_MS - 1


class Inner:
    """Logs its calls in order; each call of `process` takes `seconds` of its clock."""

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


class NoCheckpointer:
    def checkpoint(self, sequence: str | None, sub: int | None) -> None:
        """Do nothing: no handler in these tests checkpoints."""


def batch(count: int, size: int = 3, first: int = 0) -> list[Record]:
    return [record(b"x" * size, first + number) for number in range(count)]


def coalescing(seconds: float = 0.0) -> tuple[Inner, BatchCoalescer]:
    inner = Inner(seconds)
    return inner, BatchCoalescer(inner, inner.clock)


_steps = st.lists(
    st.tuples(st.integers(0, 2_000), st.sampled_from([0, NEAR, FAR, 10 * FAR, None])), max_size=12
)


@given(_steps, st.sampled_from(["shard_ended", "shutdown_requested"]), st.sampled_from([0.0, 1.0]))
def test_every_record_is_delivered_once_in_order(
    steps: list[tuple[int, int | None]], end: str, seconds: float
) -> None:
    inner, outer = coalescing(seconds)
    sent: list[Record] = []
    for count, behind_ms in steps:
        records = batch(count, first=len(sent))
        sent += records
        outer.process(records, behind_ms, NoCheckpointer())
        waiting = len(sent) - len(inner.records)
        assert waiting < batch_coalescer.ENOUGH
        if not records or behind_ms is None or behind_ms < FAR:
            assert waiting == 0
            assert inner.calls[-1][2] == behind_ms
    getattr(outer, end)(NoCheckpointer())
    assert inner.records == sent
    assert inner.calls[-1][0] == end.replace("_", " ")


def test_batches_are_combined_while_the_shard_is_far_behind() -> None:
    inner, outer = coalescing()
    for number in range(batch_coalescer.ENOUGH // 500):
        assert not inner.calls
        outer.process(batch(500, first=500 * number), FAR, NoCheckpointer())
    assert [(what, len(records)) for what, records, _ in inner.calls] == [("process", batch_coalescer.ENOUGH)]


def test_the_size_of_a_combined_batch_is_bounded() -> None:
    inner, outer = coalescing()
    for number in range(3):
        outer.process(batch(1, batch_coalescer.ENOUGH_BYTES // 2, number), FAR, NoCheckpointer())
    assert len(inner.records) == 2


def test_the_size_bound_applies_to_decompressed_records() -> None:
    inner, outer = coalescing()
    packed = gzip.compress(bytes(batch_coalescer.ENOUGH_BYTES // 10))
    for number in range(10):
        assert not inner.calls
        outer.process([record(packed, number)], FAR, NoCheckpointer())
    assert len(inner.records) == 10


def test_at_the_tip_records_are_delivered_at_once_with_the_buffered_ones() -> None:
    inner, outer = coalescing()
    outer.process(batch(2), FAR, NoCheckpointer())
    outer.process(batch(1, first=2), NEAR, NoCheckpointer())
    assert inner.calls == [("process", batch(3), NEAR)]


def test_an_empty_batch_flushes_the_buffer() -> None:
    inner, outer = coalescing()
    outer.process(batch(2), FAR, NoCheckpointer())
    outer.process([], FAR, NoCheckpointer())
    outer.process([], 0, NoCheckpointer())
    assert inner.calls == [("process", batch(2), FAR), ("process", [], 0)]


def test_batches_are_not_combined_if_processing_is_slow() -> None:
    inner, outer = coalescing(seconds=1.0)
    for number in range(3):
        outer.process(batch(1, first=number), NEAR if number == 0 else FAR, NoCheckpointer())
        assert len(inner.records) == number + 1


def test_a_lost_lease_discards_buffered_records() -> None:
    inner, outer = coalescing()
    outer.process(batch(2), FAR, NoCheckpointer())
    outer.lease_lost()
    outer.shutdown_requested(NoCheckpointer())
    assert inner.records == []
