"""The basic types of the pipeline: Position, Record, Batch, Failure, Outcome."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from anomaly.detector import AnyArray

if TYPE_CHECKING:
    import pandas as pd

IntVector = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Position(NamedTuple):
    """The identity of a record: shard id, sequence number, sub-sequence number (of a KPL aggregate, from 0)."""

    shard: str
    sequence: str
    sub: int = 0

    @property
    def order(self) -> tuple[int, int]:
        """The sort key within a shard: sequence numbers are decimal strings and compare as integers."""
        return int(self.sequence), self.sub

    def __str__(self) -> str:
        return f"{self.shard}/{self.sequence}" + (f".{self.sub}" if self.sub else "")


class Record(msgspec.Struct, frozen=True, tag="record", tag_field="action", rename="camel", gc=False):
    """One user record of a shard, in the JSON form of the MultiLangDaemon (where `data` is base64).

    `approximate_arrival_timestamp` is the arrival at Kinesis in milliseconds since the epoch.
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
        """Return the record's identity; records do not contain their shard id."""
        return Position(shard, self.sequence_number, self.sub_sequence_number)


class Code(StrEnum):
    """The reason why a record went to the dead-letter queue (see docs/redrive.md)."""

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
    """A record that failed: the index of its source record, the stage, the code and the reason.

    `event` and `schema` (the fingerprint of the writer schema) are None if the record failed before they were known.
    A segment can have one failure for each record, so instances are cheap and not tracked by the garbage collector.
    """

    row: int
    stage: str
    code: Code
    reason: str
    event: str | None = None
    schema: str | None = None

    def moved(self, by: int) -> Failure:
        """Return the same failure with `by` added to its row."""
        return Failure(self.row + by, self.stage, self.code, self.reason, self.event, self.schema)


class _SlicedColumns(Mapping[str, AnyArray]):
    """A slice of columns; a column is sliced only when it is used, because most columns of a slice are not."""

    __slots__ = ("_rows", "_whole")

    def __init__(self, whole: Mapping[str, AnyArray], rows: slice) -> None:
        self._whole, self._rows = whole, rows

    def __getitem__(self, name: str) -> AnyArray:
        part: AnyArray = self._whole[name][self._rows]
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

    `rows[i]` is the index of the source record of row i, strictly increasing. A column has the shape (n,), or (n, w)
    for a window of w values. Missing numbers are NaN, missing times NaT, missing text None. Columns are read-only.

    Integers and booleans that may be missing (nullable and not required) are float64, with true as 1.0. Integers
    beyond 2^53 are rounded in such a column; `exact.<field>` (int64 or bool) has them as they were sent and are
    stored.

    Example: `batch["pm25"] > 35.4` is a mask of shape (n,), and `batch.take(mask)` has the rows where it is true.
    """

    event: str
    columns: Mapping[str, AnyArray]
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

    def __getitem__(self, name: str) -> AnyArray:
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def take(self, index: IntVector | Mask | slice) -> Batch:
        """Return the rows that `index` (integers, a mask or a slice) selects, in that order."""
        if isinstance(index, slice):  # views of read-only arrays are read-only
            return self._of(_SlicedColumns(self.columns, index), self.rows[index])
        columns = {name: column[index] for name, column in self.columns.items()}
        return Batch(self.event, columns, self.rows[index])

    def with_columns(self, columns: Mapping[str, AnyArray]) -> Batch:
        """Return the same rows with further columns; columns of the same name are replaced."""
        added = {**self.columns, **Batch(self.event, columns, self.rows).columns}
        for name in columns:  # `exact.<name>` of a replaced column is outdated
            if EXACT + name in self.columns and EXACT + name not in columns:
                del added[EXACT + name]
        return self._of(added, self.rows)

    def exact(self, name: str) -> AnyArray:
        """Return a column as it is stored.

        Integers and booleans that may be missing are an object array of Python values, with None for missing ones.
        """
        if EXACT + name not in self.columns:
            return self.columns[name]
        values = self.columns[EXACT + name].astype(object)
        values[np.isnan(self.columns[name])] = None
        return values

    def only(self, names: Iterable[str]) -> Batch:
        """Return the same rows with only these columns."""
        return self._of({name: self.columns[name] for name in names}, self.rows)

    def _of(self, columns: Mapping[str, AnyArray], rows: IntVector) -> Batch:
        """Create a batch of columns that are already checked and read-only, without checking them again."""
        batch = object.__new__(Batch)
        for name, value in (
            ("event", self.event),
            ("columns", MappingProxyType(columns)),
            ("rows", rows),
        ):
            object.__setattr__(batch, name, value)
        return batch

    def to_pandas(self) -> pd.DataFrame:
        """Convert to a pandas data frame, indexed by source row; windows become lists."""
        import pandas as pd

        flat = {n: c if c.ndim == 1 else list(c) for n, c in self.columns.items()}
        return pd.DataFrame(flat, index=pd.Index(self.rows, name="row"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a stage: each of its input rows is either in `passed` or in `failed`."""

    passed: Batch
    failed: Sequence[Failure] = field(default=())


def _read_only(column: AnyArray) -> AnyArray:
    if not column.flags.writeable:
        return column
    view = column.view()
    view.flags.writeable = False
    return view


# The prefix of the column with the exact values of integers or booleans that may be missing (0 or False if missing).
EXACT = "exact."

# Size from which NumPy requests huge pages; below it, one page fault per small page costs more than the copy.
_LARGE = 1 << 22


def concat(batches: Iterable[Batch], offsets: Sequence[int] | None = None) -> Batch | None:
    """Concatenate batches of the same event, in order; return None if there are none.

    A column that some batches lack (`calculate` may return it only for some) is None in their rows. `offsets`, one
    for each batch, are added to their source rows.
    """
    parts = list(batches)
    if not parts or (len(parts) == 1 and offsets is None):
        return parts[0] if parts else None
    rows = np.concatenate([part.rows for part in parts])
    if offsets is not None:
        rows = rows + np.repeat(np.array(offsets, dtype=np.int64), list(map(len, parts)))
    names = dict.fromkeys(name for part in parts for name in part.columns)
    joined = _in_one_block(parts, names, len(rows))
    columns = {
        name: joined[name] if name in joined else _joined([_column(part, name) for part in parts])
        for name in names
    }
    return Batch(parts[0].event, columns, rows)


def _in_one_block(parts: Sequence[Batch], names: Iterable[str], rows: int) -> dict[str, AnyArray]:
    """Concatenate the columns of 8 bytes per row that all parts have with the same dtype, in one block if large."""
    first = parts[0].columns
    alike = [name for name in names if name in first and _is_plain(first[name])]
    if 8 * rows * len(alike) < _LARGE:
        return {}
    block, columns = np.empty((len(alike), rows)), {}
    for name, place in zip(alike, block, strict=True):
        try:
            pieces, room = [part.columns[name] for part in parts], place.view(first[name].dtype)
            columns[name] = np.concatenate(pieces, out=room, casting="no")
        except (KeyError, TypeError, ValueError):  # a part lacks it, or has another dtype or shape
            continue
    return columns


def _is_plain(column: AnyArray) -> bool:
    return column.ndim == 1 and column.dtype.itemsize == 8 and not column.dtype.hasobject


def _column(batch: Batch, name: str) -> AnyArray:
    return batch[name] if name in batch else np.full(len(batch), None, dtype=object)


def _joined(columns: Sequence[AnyArray]) -> AnyArray:
    try:
        return np.concatenate(columns)
    except TypeError:  # dtypes without a common one, such as times and numbers
        return np.concatenate([column.astype(object) for column in columns])
