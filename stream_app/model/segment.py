"""The unit of storage: what the consumer hands to every sink, and how sinks follow each other."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

import numpy as np

from stream_app.errors import FatalError
from stream_app.model.record import Batch, Failure, IntVector, Position, Record
from stream_app.model.record_metadata import record_metadata

_NAMED_ROWS = 10
# Kinesis numbers records with 56 digits; Python refuses to read more than 4,300.
TOKEN = re.compile(r"([0-9]{1,128})(?:\.([0-9]{1,18}))?")


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive records of one shard, and what became of each.

    `records` holds all source records in order, at least one, maybe without their payloads (`Origins`). Rows of
    the batches in `passed` (by event name), of the failures and of `repeated` are indexes into it. Every row is in
    exactly one of the three.
    `by_clock` tells that no record said where it ends: it was closed because none came any more.
    """

    consumer: str
    stream: str
    shard: str
    records: Sequence[Record]
    passed: Mapping[str, Batch]
    failed: Sequence[Failure]
    repeated: IntVector
    by_clock: bool = False

    @property
    def first(self) -> Position:
        """The position of its first record, which names it."""
        return self.records[0].position(self.shard)

    @property
    def last(self) -> Position:
        """The position of its last record, which a checkpoint may name."""
        return self.records[-1].position(self.shard)

    @property
    def name(self) -> str:
        """What its files are called: the same for the same records, however often they are processed."""
        return f"{self.shard}-{token(self.first)}"

    @property
    def arrival(self) -> datetime:
        """When its first record arrived at Kinesis, UTC, to the millisecond."""
        return utc_datetime(self.records[0].arrived)

    def record_metadata(self, rows: Iterable[int]) -> list[Record]:
        """The records of some of its rows, in the order given, without their payloads."""
        return record_metadata(self.records).take(list(rows))

    def positions(self, rows: Iterable[int]) -> list[Position]:
        """The positions of some of its rows, in the order given."""
        return [record.position(self.shard) for record in self.record_metadata(rows)]

    def tokens(self, rows: Iterable[int]) -> list[str]:
        """The same as text (`token`)."""
        return list(map(_text, *record_metadata(self.records).names(list(rows))))

    def check(self) -> None:
        """Raise FatalError, naming rows, unless each row is in exactly one of passed, failed and repeated."""
        count = len(self.records)
        parts = [batch.rows for batch in self.passed.values()]
        parts += [np.array([failure.row for failure in self.failed], dtype=np.int64), self.repeated]
        rows = np.concatenate(parts).astype(np.int64, copy=False)
        foreign = rows[(rows < 0) | (rows >= count)]
        if len(foreign):
            raise FatalError(f"segment {self.name}: rows {_few(foreign)} are outside its {count} records")
        times = np.bincount(rows, minlength=count)
        if (times != 1).any():
            lost, doubled = np.flatnonzero(times == 0), np.flatnonzero(times > 1)
            raise FatalError(
                f"segment {self.name}: of {count} rows {len(lost)} are in no part {_few(lost)} "
                f"and {len(doubled)} in more than one {_few(doubled)}"
            )

    def rejecting(self, failures: Sequence[Failure]) -> Segment:
        """The same segment with the rows of `failures` moved from passed to failed."""
        if not failures:
            return self
        rows = np.array([failure.row for failure in failures], dtype=np.int64)
        kept = {event: batch.take(~np.isin(batch.rows, rows)) for event, batch in self.passed.items()}
        failed = sorted([*self.failed, *failures], key=lambda failure: failure.row)
        passed = {event: batch for event, batch in kept.items() if len(batch)}
        return dataclasses.replace(self, passed=passed, failed=tuple(failed))


@runtime_checkable
class Sink(Protocol):
    """A place where segments go."""

    def write(self, segment: Segment) -> Sequence[Failure]:
        """Store the rows that passed; safe to repeat. Returns those that can never be stored (SINK_REJECTED).

        What is rejected depends on the segment alone, so that a second run parks the same rows.
        """
        ...

    def close(self) -> None:
        """Let go of threads and connections; nothing is written any more."""
        ...


@runtime_checkable
class PrebuildingSink(Protocol):
    """A sink whose work before its requests can be done by itself, for example in a disposable fork."""

    def build(self, segment: Segment) -> object:
        """All that `write` does without a request."""
        ...


def store(segment: Segment, sinks: Sequence[Sink]) -> Segment:
    """Hand the segment to each sink in turn; returns it with the rows that one rejected among `failed`.

    A row that one sink rejects is withheld from those after it: the sink that counts as *stored* (Parquet on
    S3) comes after the others, and the manifest, which names what was parked, last. So no row is both stored
    and parked. Raises FatalError when a row is unaccounted for, and what the sinks raise.
    """
    segment.check()
    for sink in sinks:
        segment = segment.rejecting(sink.write(segment))
    segment.check()
    return segment


def token(position: Position) -> str:
    """A position within its shard as text: `<sequence>`, or `<sequence>.<sub>` where sub is above 0."""
    return _text(position.sequence, position.sub)


def _text(sequence: str, sub: int) -> str:
    return f"{sequence}.{sub}" if sub else sequence


def position_from_token(shard: str, text: str) -> Position:
    """The position that `token` wrote. Raises ValueError when it is none."""
    found = TOKEN.fullmatch(text)
    if found is None:
        raise ValueError(f"not a position: {text!r}")
    return Position(shard, found[1], int(found[2] or 0))


def utc_datetime(milliseconds: int) -> datetime:
    """Milliseconds since the epoch as a UTC time, without the rounding that a float would bring."""
    return datetime.fromtimestamp(milliseconds // 1000, UTC).replace(microsecond=milliseconds % 1000 * 1000)


def _few(rows: IntVector) -> list[int]:
    return [int(row) for row in rows[:_NAMED_ROWS]]
