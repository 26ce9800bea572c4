"""An in-memory KCL for one shard, without the MultiLang protocol, and strategies for the steps of a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hypothesis import strategies as st

from stream_app.consumer.shard import ShardConsumer
from stream_app.consumer.snapshots import SHARD_END
from stream_app.model.record import Position, Record
from stream_app.model.segment import token
from stream_app.pipeline.registry import Registry
from tests.support import SHARD, Stores, dependencies


@dataclass
class Kcl:
    """KCL with the lease of one shard: delivers records, stores the checkpoint and starts consumers.

    `records` are all records of the shard, of which the first `available` have arrived.
    """

    stores: Stores
    registry: Registry
    records: Sequence[Record]
    values: dict[str, Any] = field(default_factory=dict)
    committed: list[tuple[str | None, int | None]] = field(default_factory=list)
    available: int = 0
    at: int = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start a new consumer at the last checkpoint; later records are delivered again."""
        sequence, sub = self.committed[-1] if self.committed else ("TRIM_HORIZON", 0)
        positions = [(item.sequence_number, item.sub_sequence_number) for item in self.records]
        self.at = positions.index((sequence or "", sub or 0)) + 1 if self.committed else 0
        self.consumer = ShardConsumer(dependencies(self.stores, self.registry, **self.values))
        self.consumer.initialize(SHARD, sequence, sub)

    def checkpoint(self, sequence: str | None, sub: int | None) -> None:
        """Store the checkpoint (protocol `multilang.Checkpointer`)."""
        self.stores.act(
            "checkpoint", SHARD_END if sequence is None else token(Position(SHARD, sequence, sub or 0))
        )
        self.committed.append((sequence, sub))

    def arrive(self, count: int) -> None:
        """Let the next records arrive at the shard, and advance the clock."""
        for item in self.records[self.available : self.available + count]:
            self.stores.now_ms = max(self.stores.now_ms, item.approximate_arrival_timestamp)
            self.available += 1

    def deliver(self, count: int) -> None:
        """Deliver up to `count` of the records that have arrived; an empty batch is a tick."""
        part = self.records[self.at : min(self.at + count, self.available)]
        self.at += len(part)
        self.consumer.process(part, 0 if self.at == self.available else 1_000, self)

    def tick(self, wait_ms: int) -> None:
        """Advance the clock and deliver an empty batch."""
        self.stores.now_ms += wait_ms
        self.deliver(0)

    def shut_down(self) -> None:
        """Deliver shutdownRequested."""
        self.consumer.shutdown_requested(self)

    def finish(self) -> None:
        """Deliver all remaining records, then the end of the shard."""
        self.arrive(len(self.records))
        while self.at < len(self.records):
            self.deliver(7)
        self.consumer.shard_ended(self)

    def act(self, step: Step) -> None:
        """Perform one of `steps`."""
        getattr(self, step.do)(*step.values)


class Step(NamedTuple):
    """A method of `Kcl` to call, and its arguments."""

    do: str
    values: tuple[int, ...] = ()


# Steps while a shard is read. Only some ticks are long enough for the clock to close a segment.
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.builds(lambda n: Step("arrive", (n,)), st.integers(1, 9)),
        st.builds(lambda n: Step("deliver", (n,)), st.integers(1, 9)),
        st.builds(lambda n: Step("deliver", (n,)), st.integers(1, 9)),
        st.builds(lambda ms: Step("tick", (ms,)), st.sampled_from([1, 200, 5_000])),
        st.just(Step("shut_down")),
    ),
    max_size=12,
)
