"""The vocabulary: Position, Record, Batch, Failure, Outcome."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

IntVector = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Position(NamedTuple):
    """The identity of a record: shard id, sequence number, sub-sequence number (KPL aggregates)."""

    shard: str
    sequence: str
    sub: int = 0

    @property
    def order(self) -> tuple[int, int]:
        """Where it stands in its shard; sequence numbers are decimal strings and compare as integers."""
        return int(self.sequence), self.sub

    def __str__(self) -> str:
        return f"{self.shard}/{self.sequence}" + (f".{self.sub}" if self.sub else "")


class Record(msgspec.Struct, frozen=True, tag="record", tag_field="action", rename="camel", gc=False):
    """One user record of a shard, in the form in which KCL's daemon sends it (`data` is base64 on the wire).

    `approximate_arrival_timestamp` is in milliseconds since the epoch.
    """

    data: bytes
    partition_key: str
    sequence_number: str
    approximate_arrival_timestamp: int
    sub_sequence_number: int = 0

    @property
    def arrived(self) -> int:
        """Arrival at Kinesis, milliseconds since the epoch."""
        return self.approximate_arrival_timestamp

    def position(self, shard: str) -> Position:
        """Its identity; the shard is known to who reads it."""
        return Position(shard, self.sequence_number, self.sub_sequence_number)


class Code(StrEnum):
    """Why a record was parked (DESIGN section 9)."""

    UNDECODABLE = "UNDECODABLE"
    UNKNOWN_SCHEMA = "UNKNOWN_SCHEMA"
    SCHEMA_VIOLATION = "SCHEMA_VIOLATION"
    FIELD_MISSING = "FIELD_MISSING"
    RULE_BROKEN = "RULE_BROKEN"
    CALCULATION_FAILED = "CALCULATION_FAILED"
    TOO_LARGE = "TOO_LARGE"
    SINK_REJECTED = "SINK_REJECTED"
    PROCESS_KILLED = "PROCESS_KILLED"
    TIMED_OUT = "TIMED_OUT"


class Failure(msgspec.Struct, frozen=True, gc=False):
    """One row that cannot go on: index of its source record, stage, code, reason, and what was known of it.

    There may be one for each record of a segment: made quickly, and nothing for the garbage collector to look into.
    """

    row: int
    stage: str
    code: Code
    reason: str
    event: str | None = None
    schema: str | None = None

    def moved(self, by: int) -> Failure:
        """The same among rows that are counted from so many before."""
        return Failure(self.row + by, self.stage, self.code, self.reason, self.event, self.schema)


class _SlicedColumns(Mapping[str, NDArray[Any]]):
    """A part of columns. Each is cut when it is asked for: there are many, and of a row few may matter."""

    __slots__ = ("_rows", "_whole")

    def __init__(self, whole: Mapping[str, NDArray[Any]], rows: slice) -> None:
        self._whole, self._rows = whole, rows

    def __getitem__(self, name: str) -> NDArray[Any]:
        part: NDArray[Any] = self._whole[name][self._rows]
        return part

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole)

    def __len__(self) -> int:
        return len(self._whole)

    def __contains__(self, name: object) -> bool:
        return name in self._whole


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one event type as named columns of equal length.

    `rows[i]` is the index of the source record of row i, strictly increasing. A column is an array of shape
    (n,), or (n, w) where it carries a window of w past values. Missing numbers are NaN, missing times NaT,
    missing text None. Whole numbers and booleans that may be missing (a nullable field that is not required) are
    float64: compare and calculate with them as with other numbers, true is 1.0. Whole numbers beyond 2^53 are
    rounded in such a column; `exact.<field>`, int64 or bool, holds them as they were sent, and as they are stored.
    Columns are read-only.
    """

    event: str
    columns: Mapping[str, NDArray[Any]]
    rows: IntVector

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if len(column) != len(self.rows):
                raise ValueError(f"column {name!r} has {len(column)} rows, the batch has {len(self.rows)}")
        frozen = {name: _read_only(column) for name, column in self.columns.items()}
        object.__setattr__(self, "columns", MappingProxyType(frozen))
        object.__setattr__(self, "rows", _read_only(self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def take(self, index: IntVector | Mask | slice) -> Batch:
        """The rows that `index` (integers, a mask, a slice) selects, in that order."""
        if isinstance(index, slice):  # views of what is read-only are so too
            return self._of(_SlicedColumns(self.columns, index), self.rows[index])
        columns = {name: column[index] for name, column in self.columns.items()}
        return Batch(self.event, columns, self.rows[index])

    def with_columns(self, columns: Mapping[str, NDArray[Any]]) -> Batch:
        """The same rows with further columns; a column of the same name is replaced."""
        added = {**self.columns, **Batch(self.event, columns, self.rows).columns}
        for name in columns:  # what stands beside a column that is replaced is not its own any more
            if EXACT + name in self.columns and EXACT + name not in columns:
                del added[EXACT + name]
        return self._of(added, self.rows)

    def exact(self, name: str) -> NDArray[Any]:
        """A column as it is stored.

        One of whole numbers or booleans that may be missing holds Python's own values, None where one is missing.
        """
        if EXACT + name not in self.columns:
            return self.columns[name]
        values = self.columns[EXACT + name].astype(object)
        values[np.isnan(self.columns[name])] = None
        return values

    def only(self, names: Iterable[str]) -> Batch:
        """The same rows with some of the columns."""
        return self._of({name: self.columns[name] for name in names}, self.rows)

    def _of(self, columns: Mapping[str, NDArray[Any]], rows: IntVector) -> Batch:
        """Rows with columns that were looked at already: there are many, and a batch is made often."""
        batch = object.__new__(Batch)
        for name, value in (
            ("event", self.event),
            ("columns", MappingProxyType(columns)),
            ("rows", rows),
        ):
            object.__setattr__(batch, name, value)
        return batch

    def to_pandas(self) -> pd.DataFrame:
        """A data frame indexed by source row; windows become lists."""
        import pandas as pd

        flat = {n: c if c.ndim == 1 else list(c) for n, c in self.columns.items()}
        return pd.DataFrame(flat, index=pd.Index(self.rows, name="row"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage returns: every row it was given is in exactly one of the two."""

    passed: Batch
    failed: Sequence[Failure] = field(default=())


def _read_only(column: NDArray[Any]) -> NDArray[Any]:
    if not column.flags.writeable:
        return column
    view = column.view()
    view.flags.writeable = False
    return view


# A column of whole numbers or booleans that may be missing is one of floating-point numbers; beside it stands one of
# this name in front of its own, which holds them exactly (0 or False where they are missing).
EXACT = "exact."

# Bytes of memory from which on NumPy asks for large pages: a fault for each small one costs more than its copy.
_LARGE = 1 << 22


def concat(batches: Iterable[Batch], offsets: Sequence[int] | None = None) -> Batch | None:
    """One batch out of several of the same event, in order; None when there is none.

    A column that some of them lack (a `calculate` may return one only at times) is None in their rows. `offsets`,
    one a batch, are added to their rows.
    """
    parts = list(batches)
    if not parts or (len(parts) == 1 and offsets is None):
        return parts[0] if parts else None
    rows = np.concatenate([part.rows for part in parts])
    if offsets is not None:
        rows = rows + np.repeat(np.array(offsets, dtype=np.int64), list(map(len, parts)))
    names = dict.fromkeys(name for part in parts for name in part.columns)
    together = _in_one_block(parts, names, len(rows))
    columns = {
        name: together[name] if name in together else _joined([_column(part, name) for part in parts])
        for name in names
    }
    return Batch(parts[0].event, columns, rows)


def _in_one_block(parts: Sequence[Batch], names: Iterable[str], rows: int) -> dict[str, NDArray[Any]]:
    """Those columns of 8 bytes a row that all parts have alike, next to each other where they are large."""
    first = parts[0].columns
    alike = [name for name in names if name in first and _is_plain(first[name])]
    if 8 * rows * len(alike) < _LARGE:
        return {}
    block, columns = np.empty((len(alike), rows)), {}
    for name, place in zip(alike, block, strict=True):
        try:
            pieces, room = [part.columns[name] for part in parts], place.view(first[name].dtype)
            columns[name] = np.concatenate(pieces, out=room, casting="no")
        except (KeyError, TypeError, ValueError):  # one lacks it, or has it of another kind or shape
            continue
    return columns


def _is_plain(column: NDArray[Any]) -> bool:
    return column.ndim == 1 and column.dtype.itemsize == 8 and not column.dtype.hasobject


def _column(batch: Batch, name: str) -> NDArray[Any]:
    return batch[name] if name in batch else np.full(len(batch), None, dtype=object)


def _joined(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    try:
        return np.concatenate(columns)
    except TypeError:  # kinds that have none in common, such as times and numbers
        return np.concatenate([column.astype(object) for column in columns])
