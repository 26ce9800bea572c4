"""Records as columns: a batch of records without one object per record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import overload

import numpy as np
from numpy.typing import NDArray

from stream_app.model.record import IntVector, Record

_NONE: IntVector = np.zeros(0, dtype=np.int64)
_LINE_BREAK, _OPEN, _CLOSE = (ord(character) for character in "\n{}")


@dataclass(frozen=True, slots=True)
class TextColumn:
    """UTF-8 texts in one buffer: text i is `data[begins[i] : begins[i + 1]]`, as in Arrow's string arrays."""

    data: NDArray[np.uint8]
    begins: NDArray[np.int32]

    @classmethod
    def of(cls, texts: Sequence[str]) -> TextColumn:
        """Encode texts; lone surrogates are replaced."""
        joined = "".join(texts)
        if joined.isascii():
            return cls(_bytes(joined.encode()), _begins(map(len, texts)).astype(np.int32))
        encoded = [text.encode("utf-8", "replace") for text in texts]
        return cls(_bytes(b"".join(encoded)), _begins(map(len, encoded)).astype(np.int32))

    @classmethod
    def joined(cls, parts: Sequence[TextColumn]) -> TextColumn:
        """Concatenate columns, in order."""
        data = [part.data[part.begins[0] : part.begins[-1]] for part in parts]
        lengths = [np.diff(part.begins) for part in parts]
        begins = np.zeros(1 + sum(map(len, parts)), dtype=np.int32)
        if parts:
            np.cumsum(np.concatenate(lengths), out=begins[1:])
        return cls(np.concatenate(data) if parts else _bytes(b""), begins)

    def __len__(self) -> int:
        return len(self.begins) - 1

    def text(self, at: int) -> str:
        """Return the text at index `at` (not negative)."""
        return str(self.data[self.begins[at] : self.begins[at + 1]].data, "utf-8")

    def part(self, start: int, stop: int) -> TextColumn:
        """Return a view of the texts [start, stop)."""
        return TextColumn(self.data, self.begins[start : stop + 1])


@dataclass(frozen=True, slots=True)
class Payloads:
    """Payloads in one buffer, each followed by a line break; payload i begins at `begins[i]`."""

    data: NDArray[np.uint8]
    begins: IntVector

    @classmethod
    def of(cls, payloads: Sequence[bytes]) -> Payloads:
        """Copy payloads to a new buffer."""
        data = b"".join(part for payload in payloads for part in (payload, b"\n"))
        return cls(_bytes(data), _begins(len(payload) + 1 for payload in payloads))

    @classmethod
    def joined(cls, parts: Sequence[Payloads]) -> Payloads:
        """Concatenate payloads, in order."""
        begins = np.zeros(1 + sum(map(len, parts)), dtype=np.int64)
        if parts:
            np.cumsum(np.concatenate([np.diff(part.begins) for part in parts]), out=begins[1:])
        data = [part.data[part.begins[0] : part.begins[-1]] for part in parts]
        return cls(np.concatenate(data) if parts else _bytes(b""), begins)

    def __len__(self) -> int:
        return len(self.begins) - 1

    def read_only(self) -> NDArray[np.uint8]:
        """Return a read-only view of `data`, the only variant for which compiled code is specialized."""
        data = self.data.view()
        data.flags.writeable = False
        return data

    @property
    def size(self) -> int:
        """The size of all payloads in bytes, including line breaks."""
        return int(self.begins[-1] - self.begins[0])

    def payload(self, at: int) -> bytes:
        """Return the payload at index `at` (not negative)."""
        return self.data[self.begins[at] : self.begins[at + 1] - 1].tobytes()

    def each(self) -> list[bytes]:
        """Return all payloads."""
        first, *begins = self.begins.tolist()
        whole, found = self.data[first : begins[-1] if begins else first].tobytes(), []
        at = 0
        for begin in begins:
            found.append(whole[at : begin - first - 1])
            at = begin - first
        return found

    def part(self, start: int, stop: int) -> Payloads:
        """Return a view of the payloads [start, stop)."""
        return Payloads(self.data, self.begins[start : stop + 1])

    def lengths(self) -> IntVector:
        """Return the size of each payload in bytes, shape (n,)."""
        return np.diff(self.begins) - 1

    def lines(self, line_breaks: int | None = None) -> memoryview | None:
        """Return the buffer as JSON lines if every payload is one line from `{` to `}`, otherwise None.

        `line_breaks` is the number of line breaks, if the caller has already counted them.
        """
        whole = self.data[self.begins[0] : self.begins[-1]]
        last = self.data[self.begins[1:] - 2]
        if not ((self.data[self.begins[:-1]] == _OPEN).all() and (last == _CLOSE).all()):
            return None
        if line_breaks is None:
            line_breaks = int(np.count_nonzero(whole == _LINE_BREAK))
        return whole.data if line_breaks == len(self) else None


class Records(Sequence[Record]):
    """Consecutive records of one shard as columns; `arrived` is in milliseconds since the epoch."""

    def __init__(
        self, payloads: Payloads, keys: TextColumn, sequences: TextColumn, arrived: IntVector, subs: IntVector
    ) -> None:
        self.payloads, self.keys, self.sequences = payloads, keys, sequences
        self.arrived, self.subs = arrived, subs

    @classmethod
    def of(cls, records: Sequence[Record]) -> Records:
        """Convert records to columns."""
        if isinstance(records, Records):
            return records
        arrived = [record.approximate_arrival_timestamp for record in records]
        subs = [record.sub_sequence_number for record in records]
        return cls(
            Payloads.of([record.data for record in records]),
            TextColumn.of([record.partition_key for record in records]),
            TextColumn.of([record.sequence_number for record in records]),
            np.array(arrived, dtype=np.int64),
            np.array(subs, dtype=np.int64),
        )

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """Concatenate records, in order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            Payloads.joined([part.payloads for part in parts]),
            TextColumn.joined([part.keys for part in parts]),
            TextColumn.joined([part.sequences for part in parts]),
            np.concatenate([_NONE, *(part.arrived for part in parts)]),
            np.concatenate([_NONE, *(part.subs for part in parts)]),
        )

    def __len__(self) -> int:
        return len(self.arrived)

    @overload
    def __getitem__(self, at: int) -> Record: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Record]: ...

    def __getitem__(self, at: int | slice) -> Record | Sequence[Record]:
        if isinstance(at, slice):
            wanted = range(len(self))[at]
            return self.part(wanted.start, wanted.stop) if wanted.step == 1 else [self[row] for row in wanted]
        row = range(len(self))[at]
        return Record(
            self.payloads.payload(row),
            self.keys.text(row),
            self.sequences.text(row),
            int(self.arrived[row]),
            int(self.subs[row]),
        )

    def part(self, start: int, stop: int) -> Records:
        """Return a view of the records [start, stop)."""
        if (start, stop) == (0, len(self)):
            return self
        return Records(
            self.payloads.part(start, stop),
            self.keys.part(start, stop),
            self.sequences.part(start, stop),
            self.arrived[start:stop],
            self.subs[start:stop],
        )


def _bytes(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, dtype=np.uint8)


def _begins(lengths: Iterable[int]) -> IntVector:
    return np.array(list(accumulate(lengths, initial=0)), dtype=np.int64)
