"""Where the rows of a segment come from: its records without their payloads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa

from stream_app.record import IntVector, Record
from stream_app.sinks.columns import text


class _Part(NamedTuple):
    sequences: pa.Array[Any]
    keys: list[str]
    arrived: IntVector
    subs: IntVector


class Origins(Sequence[Record]):
    """Records as columns; `data` of each is empty.

    What became of a record is known when it gets here. Without their payloads the records of a segment take a sixth
    of the memory, and a batch's memory is free for the next batch.
    """

    def __init__(self, records: Sequence[Record] = ()) -> None:
        self._parts: list[_Part] = []
        self._count = 0
        if len(records):
            self.add(records)

    def add(self, records: Sequence[Record]) -> None:
        """Append records, at least one."""
        arrived = [record.approximate_arrival_timestamp for record in records]
        subs = [record.sub_sequence_number for record in records]
        self._parts.append(
            _Part(
                text([record.sequence_number for record in records]),
                [record.partition_key for record in records],
                np.array(arrived, dtype=np.int64),
                np.array(subs, dtype=np.int64),
            )
        )
        self._count += len(records)

    def _whole(self) -> _Part:
        """All of it; joined once."""
        if len(self._parts) != 1:
            parts = self._parts or [_NOTHING]
            keys = [key for part in parts for key in part.keys]
            arrived, subs = (np.concatenate([part[at] for part in parts]) for at in (2, 3))
            self._parts = [_Part(pa.concat_arrays([part.sequences for part in parts]), keys, arrived, subs)]
        return self._parts[0]

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> Record: ...

    @overload
    def __getitem__(self, at: slice) -> list[Record]: ...

    def __getitem__(self, at: int | slice) -> Record | list[Record]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(self._count))]
        all_of, number = self._whole(), range(self._count)[at]
        sequence = all_of.sequences[number].as_py()
        return Record(
            b"", all_of.keys[number], sequence, int(all_of.arrived[number]), int(all_of.subs[number])
        )

    @property
    def sequences(self) -> pa.Array[Any]:
        """Sequence numbers, text."""
        return self._whole().sequences

    @property
    def keys(self) -> list[str]:
        """Partition keys."""
        return self._whole().keys

    @property
    def arrived(self) -> IntVector:
        """Arrival at Kinesis, milliseconds since the epoch."""
        return self._whole().arrived

    @property
    def subs(self) -> IntVector:
        """Sub-sequence numbers."""
        return self._whole().subs


_NOTHING = _Part(text([]), [], np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


def origins(records: Iterable[Record]) -> Origins:
    """The records as columns."""
    return records if isinstance(records, Origins) else Origins(list(records))
