"""The metadata of records: keys, sequence numbers and arrivals, without the payloads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa

from stream_app.model.record import IntVector, Record
from stream_app.model.records import Records, TextColumn


class _Part(NamedTuple):
    sequences: TextColumn
    keys: TextColumn
    arrived: IntVector
    subs: IntVector


class RecordMetadata(Sequence[Record]):
    """Processed records as columns, without their payloads (`data` is empty).

    This takes a sixth of the memory of whole records, and frees the payload buffer of a batch for the next batch.
    """

    def __init__(self, records: Sequence[Record] = ()) -> None:
        self._parts: list[_Part] = []
        self._count = 0
        if len(records):
            self.add(records)

    def add(self, records: Sequence[Record]) -> None:
        """Append records, at least one."""
        more = Records.of(records)
        self._parts.append(_Part(more.sequences, more.keys, more.arrived, more.subs))
        self._count += len(more)

    def _whole(self) -> _Part:
        """Return all columns; parts are joined once."""
        if len(self._parts) != 1:
            parts = self._parts or [_NOTHING]
            self._parts = [
                _Part(
                    TextColumn.joined([part.sequences for part in parts]),
                    TextColumn.joined([part.keys for part in parts]),
                    np.concatenate([part.arrived for part in parts]),
                    np.concatenate([part.subs for part in parts]),
                )
            ]
        return self._parts[0]

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> Record: ...

    @overload
    def __getitem__(self, at: slice) -> list[Record]: ...

    def __getitem__(self, at: int | slice) -> Record | list[Record]:
        if isinstance(at, slice):
            return self.take(range(*at.indices(self._count)))
        all_of, row = self._whole(), range(self._count)[at]
        sequence, key = all_of.sequences.text(row), all_of.keys.text(row)
        return Record(b"", key, sequence, int(all_of.arrived[row]), int(all_of.subs[row]))

    def take(self, rows: Sequence[int]) -> list[Record]:
        """Return the records of some rows (not negative), in the given order."""
        return [Record(b"", *values) for values in zip(*self.columns(rows), strict=True)]

    def columns(self, rows: Sequence[int]) -> tuple[list[str], list[str], list[int], list[int]]:
        """Return partition keys, sequence numbers, arrivals (ms) and sub-sequence numbers of some rows."""
        all_of, at = self._whole(), np.array(rows, dtype=np.int64)
        keys, sequences = (_taken(texts, at) for texts in (all_of.keys, all_of.sequences))
        return keys, sequences, all_of.arrived[at].tolist(), all_of.subs[at].tolist()

    def names(self, rows: Sequence[int]) -> tuple[list[str], list[int]]:
        """Return the sequence and sub-sequence numbers of some rows."""
        all_of, at = self._whole(), np.array(rows, dtype=np.int64)
        return _taken(all_of.sequences, at), all_of.subs[at].tolist()

    @property
    def sequences(self) -> pa.Array[Any]:
        """The sequence numbers, as text."""
        return _arrow(self._whole().sequences)

    @property
    def keys(self) -> pa.Array[Any]:
        """The partition keys, as text."""
        return _arrow(self._whole().keys)

    @property
    def arrived(self) -> IntVector:
        """The arrivals at Kinesis in milliseconds since the epoch."""
        return self._whole().arrived

    @property
    def subs(self) -> IntVector:
        """The sub-sequence numbers."""
        return self._whole().subs


_NOTHING = _Part(
    TextColumn.of([]), TextColumn.of([]), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
)


def record_metadata(records: Sequence[Record]) -> RecordMetadata:
    """Return the metadata of records."""
    return records if isinstance(records, RecordMetadata) else RecordMetadata(records)


def _taken(texts: TextColumn, rows: IntVector) -> list[str]:
    taken: Any = _arrow(texts).take(rows)
    values: list[str] = taken.to_pylist()
    return values


def _arrow(texts: TextColumn) -> pa.Array[Any]:
    begins = np.ascontiguousarray(texts.begins)
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(begins.data), pa.py_buffer(texts.data.data))
