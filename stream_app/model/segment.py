"""The unit of storage: a segment, the sinks that store it, and the order of sinks."""

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
# Sequence numbers of Kinesis have 56 digits; Python converts at most 4,300.
TOKEN = re.compile(r"([0-9]{1,128})(?:\.([0-9]{1,18}))?")


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive records of one shard with their results: the unit that sinks store.

    `records` has all source records in order, at least one, possibly without their payloads (`RecordMetadata`). The
    rows of the batches in `passed` (by event name), of `failed` and of `repeated` are indexes into it; every index is
    in exactly one of the three. `by_clock` is True if the segment was closed by a timeout and not by a record.
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
        """The position of the first record, which is part of the segment's name."""
        return self.records[0].position(self.shard)

    @property
    def last(self) -> Position:
        """The position of the last record, up to which a checkpoint may be written."""
        return self.records[-1].position(self.shard)

    @property
    def name(self) -> str:
        """The name of its files; reprocessing the same records gives the same name."""
        return f"{self.shard}-{token(self.first)}"

    @property
    def arrival(self) -> datetime:
        """The arrival of the first record at Kinesis, in UTC, with milliseconds."""
        return utc_datetime(self.records[0].arrived)

    def record_metadata(self, rows: Iterable[int]) -> list[Record]:
        """Return the records of some rows, in the given order, without their payloads."""
        return record_metadata(self.records).take(list(rows))

    def positions(self, rows: Iterable[int]) -> list[Position]:
        """Return the positions of some rows, in the given order."""
        return [record.position(self.shard) for record in self.record_metadata(rows)]

    def tokens(self, rows: Iterable[int]) -> list[str]:
        """Return the positions of some rows as text (see `token`)."""
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
            missing, duplicated = np.flatnonzero(times == 0), np.flatnonzero(times > 1)
            raise FatalError(
                f"segment {self.name}: of {count} rows {len(missing)} are in no part {_few(missing)} "
                f"and {len(duplicated)} in more than one {_few(duplicated)}"
            )

    def rejecting(self, failures: Sequence[Failure]) -> Segment:
        """Return the same segment with the rows of `failures` moved from passed to failed."""
        if not failures:
            return self
        rows = np.array([failure.row for failure in failures], dtype=np.int64)
        kept = {event: batch.take(~np.isin(batch.rows, rows)) for event, batch in self.passed.items()}
        failed = sorted([*self.failed, *failures], key=lambda failure: failure.row)
        passed = {event: batch for event, batch in kept.items() if len(batch)}
        return dataclasses.replace(self, passed=passed, failed=tuple(failed))


@runtime_checkable
class Sink(Protocol):
    """A destination that stores segments."""

    def write(self, segment: Segment) -> Sequence[Failure]:
        """Store the rows that passed; return a failure (SINK_REJECTED) for each row that can never be stored.

        Must be idempotent. Rejections must depend only on the segment, so that a retry rejects the same rows.
        """
        ...

    def close(self) -> None:
        """Release threads and connections; no write follows."""
        ...


@runtime_checkable
class PrebuildingSink(Protocol):
    """A sink that can do its work without sending requests, for example to try it in a disposable fork."""

    def build(self, segment: Segment) -> object:
        """Do all the work of `write` that precedes its requests."""
        ...


def store(segment: Segment, sinks: Sequence[Sink]) -> Segment:
    """Write a segment to each sink, in order; return it with the rejected rows moved to `failed`.

    A row that a sink rejects is not passed to later sinks. The authoritative sink (Parquet on S3) comes after the
    others, and the manifest, which lists the dead letters, comes last; so no row is both stored and a dead letter.
    Raises FatalError if a row is not accounted for, and the errors of the sinks.
    """
    segment.check()
    for sink in sinks:
        segment = segment.rejecting(sink.write(segment))
    segment.check()
    return segment


def token(position: Position) -> str:
    """Return a position within its shard as text: `<sequence>`, or `<sequence>.<sub>` if sub is above 0."""
    return _text(position.sequence, position.sub)


def _text(sequence: str, sub: int) -> str:
    return f"{sequence}.{sub}" if sub else sequence


def position_from_token(shard: str, text: str) -> Position:
    """Parse the output of `token`. Raises ValueError if it is malformed."""
    found = TOKEN.fullmatch(text)
    if found is None:
        raise ValueError(f"not a position: {text!r}")
    return Position(shard, found[1], int(found[2] or 0))


def utc_datetime(milliseconds: int) -> datetime:
    """Convert milliseconds since the epoch to a UTC datetime, without the rounding of a float."""
    return datetime.fromtimestamp(milliseconds // 1000, UTC).replace(microsecond=milliseconds % 1000 * 1000)


def _few(rows: IntVector) -> list[int]:
    return [int(row) for row in rows[:_NAMED_ROWS]]
