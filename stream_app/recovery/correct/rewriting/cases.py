"""The rows of one file that are to be corrected, recalculated together.

The result is that of correcting them one by one in the order of their positions: a later row of a device sees the
values that an earlier one was corrected to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stream_app.model.record import Batch, Position, Record
from stream_app.pipeline.registry import Codec
from stream_app.recovery.correct.calculation.differences import differing, named
from stream_app.recovery.correct.calculation.past import Earlier, Own, Values, batch_of, restored
from stream_app.recovery.correct.calculation.recalculate import (
    Calculated,
    ImpossibleError,
    Past,
    calculated,
    differs,
)
from stream_app.recovery.correct.request import EarlyError
from stream_app.recovery.correct.rewriting.segment import alike, fitted
from stream_app.sinks.columns import column_types
from stream_app.sinks.parquet import IDENTITY, to_table

_NOTHING = "the declared correction changes nothing"
_UNPROVEN = (
    "the stored row is not what its payload gives: its past cannot be put together (columns that differ: {})"
)
_NO_FORM = "the corrected row has no form in its file"

# What an event's `correct` replaces of a row, columns of one value; or why it is not corrected.
Replaced = Mapping[str, NDArray[Any]] | ImpossibleError


@dataclass(frozen=True, slots=True)
class Case:
    """One row to correct: where it is, what came, what replaces it, and what its device sent before, in order.

    `record` has no bytes where its `fields` are `rebuilt` from the stored row.
    """

    own: Own
    record: Record
    fields: Batch
    rebuilt: bool
    replaced: Replaced
    earlier: Sequence[Earlier] = ()

    @property
    def position(self) -> Position:
        """Which row it is."""
        return self.own.position

    @property
    def corrected(self) -> Batch:
        """The fields with what replaces them."""
        return (
            self.fields
            if isinstance(self.replaced, ImpossibleError)
            else self.fields.with_columns(self.replaced)
        )

    @property
    def changes(self) -> bool:
        """Whether anything is replaced by something else."""
        return not isinstance(self.replaced, ImpossibleError) and differs(self.fields, self.replaced)


class Corrected(NamedTuple):
    """A row as it is to be stored, a table of one row; and the columns that change, before and after.

    `there` says that it is stored so already.
    """

    row: pa.Table
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    there: bool


Solved = Corrected | ImpossibleError | EarlyError
Replacements = Mapping[Position, Mapping[str, Any]]


class Known(NamedTuple):
    """What is known of earlier corrections: what they replaced, by position, and which are being made just now."""

    before: Replacements
    in_progress: frozenset[Position]


def solve(table: pa.Table, codec: Codec, known: Known, cases: Sequence[Case]) -> dict[Position, Solved]:
    """What becomes of each case of a file, as if they were corrected one by one, in the order of positions.

    They are calculated together, on the assumption that every one that changes something can be corrected. Where
    that is not so, it is done once more for the device, one by one.
    """
    needed = {one.position for case in cases for one in case.earlier}
    assumed = {
        case.position: _values(case, codec) for case in cases if case.position in needed and case.changes
    }
    solved = _Round(table, codec, known, assumed, cases).solve()
    if len(cases) == 1:
        return solved
    again = {case.own.device for case in cases if _is_doubtful(solved[case.position])}
    made, before, waiting = dict[Position, Mapping[str, Any]](), dict(known.before), set(known.in_progress)
    for case in (case for case in cases if case.own.device in again):
        alone = Known(before, frozenset(waiting))
        solved |= _Round(table, codec, alone, made, [case]).solve()
        if isinstance(found := solved[case.position], EarlyError):
            waiting.add(case.position)
        if isinstance(found, Corrected):
            made[case.position] = found.after
            if found.there:  # by a process that died before its note
                before[case.position] = found.before
    return solved


def _is_doubtful(solved: Solved) -> bool:
    """Whether a row must be looked at alone, and with it the later rows of its device.

    One that is stored as corrected already is not what the rows after it were first calculated from.
    """
    return solved.there if isinstance(solved, Corrected) else str(solved) != _NOTHING


def _values(case: Case, codec: Codec) -> dict[str, Any]:
    """What replaces a case's fields, in Python values, by stored column."""
    if isinstance(case.replaced, ImpossibleError):
        return {}
    part, types = case.corrected.only(case.replaced), column_types(codec.schema.fields)
    table, _ = to_table(part, [case.record], case.position.shard, types)
    return {
        name: table[name][0].as_py() for name in table.column_names if name not in IDENTITY and len(table)
    }


@dataclass(frozen=True, slots=True)
class _Round:
    """One calculation of some cases together, on the assumption that some corrections of the file are made."""

    stored: pa.Table
    codec: Codec
    known: Known
    assumed: Replacements
    cases: Sequence[Case]

    def solve(self) -> dict[Position, Solved]:
        """What becomes of each case."""
        stored = self.stored.take(pa.array([case.own.row for case in self.cases], pa.int64()))
        before = self._calculated([case.fields for case in self.cases], self.known.before, stored)
        after = self._calculated([case.corrected for case in self.cases], self.assumed, stored)
        return {case.position: self._solved(at, before, after) for at, case in enumerate(self.cases)}

    def _solved(self, at: int, before: _Compared, after: _Compared) -> Solved:
        case = self.cases[at]
        if at in before.made.failed:
            return ImpossibleError(before.made.failed[at])
        if isinstance(case.replaced, ImpossibleError):
            return case.replaced
        if at in after.made.failed:
            return ImpossibleError(after.made.failed[at])
        if not case.changes:
            return ImpossibleError(_NOTHING)
        there = after.equal(at)
        if there or not before.equal(at):
            # What an earlier row held before can be told only when its correction is noted.
            if self._must_wait(case):
                return EarlyError("an earlier row of the device is just being corrected")
            if not there:
                return ImpossibleError(_UNPROVEN.format(named(before.differing(at))))
        if not after.fits:
            return ImpossibleError(_NO_FORM)
        was, now = before.row(at), after.row(at)
        names = [name for name in now if name not in IDENTITY and was.get(name) != now[name]]
        changed = ({name: was.get(name) for name in names}, {name: now[name] for name in names})
        return Corrected(after.table(at), *changed, there)

    def _must_wait(self, case: Case) -> bool:
        oldest = case.earlier[0].position.order if case.earlier else case.position.order
        return any(oldest <= one.order < case.position.order for one in self.known.in_progress)

    def _calculated(self, fields: Sequence[Batch], changes: Replacements, stored: pa.Table) -> _Compared:
        past = [self._restored(one, changes) for case in self.cases for one in case.earlier]
        owners = np.repeat(np.arange(len(self.cases)), [len(case.earlier) for case in self.cases])
        records, shard = [case.record for case in self.cases], self.cases[0].position.shard
        together = _together(fields, self.codec)
        made = calculated(together, records, shard, Past(batch_of(past, self.codec), owners), self.codec)
        return _Compared(made, stored)

    def _restored(self, earlier: Earlier, changes: Replacements) -> Values:
        change = changes.get(earlier.position)
        return earlier.values if change is None else restored(earlier, change, self.codec)


class _Compared:
    """Calculated rows beside the stored ones; row i of `stored` is of case i.

    Rows that were calculated together are compared only where their columns have the stored types: a type that was
    read off several rows may differ from one that was read off one.
    """

    def __init__(self, made: Calculated, stored: pa.Table) -> None:
        self.made, self._stored = made, stored
        order = list(made.at)
        beside = stored.take(pa.array(order, pa.int64()))
        usable = len(stored) == 1 or all(
            _is_alike(column, name, stored) for name, column in _columns(made.table)
        )
        self._fitted = fitted(made.table, stored) if order and usable else None
        self.fits = self._fitted is not None
        found = None if self._fitted is None else alike(beside, self._fitted)
        self._equal: dict[int, bool] = {} if found is None else dict(zip(order, found.tolist(), strict=True))
        self._rows: list[dict[str, Any]] = made.table.to_pylist()

    def equal(self, case: int) -> bool:
        """Whether the stored row holds the calculated values, to the last bit."""
        return self._equal.get(case, False)

    def differing(self, case: int) -> list[str]:
        """The calculated columns that the stored row lacks, or holds with other values."""
        return differing(self._stored.slice(case, 1), self.made.table.slice(self.made.at[case], 1))

    def row(self, case: int) -> dict[str, Any]:
        """A calculated row in Python values."""
        return self._rows[self.made.at[case]]

    def table(self, case: int) -> pa.Table:
        """The same as a table of one row, in the stored types."""
        if self._fitted is None:
            raise ValueError(_NO_FORM)
        return self._fitted.slice(self.made.at[case], 1)


def _columns(table: pa.Table) -> list[tuple[str, Any]]:
    return list(zip(table.column_names, table.columns, strict=True))


def _is_alike(column: Any, name: str, stored: pa.Table) -> bool:
    if name not in stored.column_names:
        return False
    return bool(column.type == stored.schema.field(name).type or column.null_count == len(column))


def _together(fields: Sequence[Batch], codec: Codec) -> Batch:
    """Batches of one row as one batch."""
    columns = {name: np.concatenate([one[name] for one in fields]) for name in fields[0].columns}
    return Batch(codec.event.name, columns, np.arange(len(fields)))
