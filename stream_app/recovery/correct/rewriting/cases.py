"""Recalculates the rows of one file that are to be corrected, together.

The result is the same as correcting them one by one in the order of their positions: a later row of a device is
calculated from the corrected values of an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from anomaly.detector import AnyArray
from stream_app.model.record import Batch, Position, Record
from stream_app.pipeline.registry import Codec
from stream_app.recovery.correct.calculation.differences import column_list, differing_columns
from stream_app.recovery.correct.calculation.past import (
    EarlierRow,
    TargetRow,
    Values,
    batch_of,
    with_previous_values,
)
from stream_app.recovery.correct.calculation.recalculate import (
    Past,
    Recalculated,
    UncorrectableError,
    changes_values,
    recalculate,
)
from stream_app.recovery.correct.request import NotReadyError
from stream_app.recovery.correct.rewriting.segment import cast_like, matching_rows
from stream_app.sinks.columns import column_types
from stream_app.sinks.parquet import IDENTITY, to_table

_NO_CHANGE = "the declared correction changes nothing"
_NOT_REPRODUCED = (
    "the stored row cannot be reproduced from its payload and its device's past (columns that differ: {})"
)
_NOT_STORABLE = "the corrected row does not fit the column types of its file"

# What an event's `correct` replaces in a row, as columns of one value; or why the row cannot be corrected.
Replaced = Mapping[str, AnyArray] | UncorrectableError


@dataclass(frozen=True, slots=True)
class Case:
    """One row to correct, its payload, its replacement and its device's earlier rows.

    `earlier` is in order. `record` has no data where the `fields` were `rebuilt` from the stored row.
    """

    target: TargetRow
    record: Record
    fields: Batch
    rebuilt: bool
    replaced: Replaced
    earlier: Sequence[EarlierRow] = ()

    @property
    def position(self) -> Position:
        """The position of the row."""
        return self.target.position

    @property
    def corrected(self) -> Batch:
        """The fields after the replacement."""
        return (
            self.fields
            if isinstance(self.replaced, UncorrectableError)
            else self.fields.with_columns(self.replaced)
        )

    @property
    def changes(self) -> bool:
        """Whether the replacement changes any value."""
        return not isinstance(self.replaced, UncorrectableError) and changes_values(
            self.fields, self.replaced
        )


class Corrected(NamedTuple):
    """A corrected row as a table of one row, and the changed columns before and after.

    `already_stored` tells that the file holds the corrected row already.
    """

    row: pa.Table
    before: Mapping[str, object]
    after: Mapping[str, object]
    already_stored: bool


CaseResult = Corrected | UncorrectableError | NotReadyError
Replacements = Mapping[Position, Mapping[str, object]]


class HistoryState(NamedTuple):
    """What is known of earlier corrections.

    `before` holds the values that they replaced, by position; `in_progress` the positions that are being corrected.
    """

    before: Replacements
    in_progress: frozenset[Position]


def correct_cases(
    table: pa.Table, codec: Codec, known: HistoryState, cases: Sequence[Case]
) -> dict[Position, CaseResult]:
    """Return the result of each case of a file, as if corrected one by one by position.

    All cases are calculated together on the assumption that each one that changes something can be corrected. For
    devices where that is not true, the cases are calculated again, one by one.
    """
    needed = {one.position for case in cases for one in case.earlier}
    assumed = {
        case.position: _values(case, codec) for case in cases if case.position in needed and case.changes
    }
    results = _Calculation(table, codec, known, assumed, cases).results()
    if len(cases) == 1:
        return results
    devices = {case.target.device for case in cases if _needs_own_calculation(results[case.position])}
    corrected, before, in_progress = (
        dict[Position, Mapping[str, object]](),
        dict(known.before),
        set(known.in_progress),
    )
    for case in (case for case in cases if case.target.device in devices):
        state = HistoryState(before, frozenset(in_progress))
        results |= _Calculation(table, codec, state, corrected, [case]).results()
        if isinstance(found := results[case.position], NotReadyError):
            in_progress.add(case.position)
        if isinstance(found, Corrected):
            corrected[case.position] = found.after
            if found.already_stored:  # by a process that crashed before recording it
                before[case.position] = found.before
    return results


def _needs_own_calculation(result: CaseResult) -> bool:
    """Return whether a row, and the later rows of its device, must be calculated one by one.

    The later rows were first calculated from the original values of a row that is already stored as corrected.
    """
    return result.already_stored if isinstance(result, Corrected) else str(result) != _NO_CHANGE


def _values(case: Case, codec: Codec) -> dict[str, object]:
    """Return the values that replace a case's fields, by stored column."""
    if isinstance(case.replaced, UncorrectableError):
        return {}
    part, types = case.corrected.only(case.replaced), column_types(codec.schema.fields)
    table, _ = to_table(part, [case.record], case.position.shard, types)
    return {
        name: table[name][0].as_py() for name in table.column_names if name not in IDENTITY and len(table)
    }


@dataclass(frozen=True, slots=True)
class _Calculation:
    """One calculation of several cases, assuming that some corrections of the file are made."""

    stored: pa.Table
    codec: Codec
    known: HistoryState
    assumed: Replacements
    cases: Sequence[Case]

    def results(self) -> dict[Position, CaseResult]:
        """Return the result of each case."""
        stored = self.stored.take(pa.array([case.target.row for case in self.cases], pa.int64()))
        before = self._calculate([case.fields for case in self.cases], self.known.before, stored)
        after = self._calculate([case.corrected for case in self.cases], self.assumed, stored)
        return {case.position: self._result(at, before, after) for at, case in enumerate(self.cases)}

    def _result(self, at: int, before: _Comparison, after: _Comparison) -> CaseResult:
        case = self.cases[at]
        if at in before.calculated.failed:
            return UncorrectableError(before.calculated.failed[at])
        if isinstance(case.replaced, UncorrectableError):
            return case.replaced
        if at in after.calculated.failed:
            return UncorrectableError(after.calculated.failed[at])
        if not case.changes:
            return UncorrectableError(_NO_CHANGE)
        already_stored = after.equal(at)
        if already_stored or not before.equal(at):
            # The original value of an earlier row is not known until its correction is recorded.
            if self._must_wait(case):
                return NotReadyError("an earlier row of the device is being corrected")
            if not already_stored:
                return UncorrectableError(_NOT_REPRODUCED.format(column_list(before.differing(at))))
        if not after.is_storable:
            return UncorrectableError(_NOT_STORABLE)
        old, new = before.row(at), after.row(at)
        names = [name for name in new if name not in IDENTITY and old.get(name) != new[name]]
        changed = ({name: old.get(name) for name in names}, {name: new[name] for name in names})
        return Corrected(after.table(at), *changed, already_stored)

    def _must_wait(self, case: Case) -> bool:
        oldest = case.earlier[0].position.order if case.earlier else case.position.order
        return any(oldest <= one.order < case.position.order for one in self.known.in_progress)

    def _calculate(self, fields: Sequence[Batch], changes: Replacements, stored: pa.Table) -> _Comparison:
        past = [self._with_changes(one, changes) for case in self.cases for one in case.earlier]
        owners = np.repeat(np.arange(len(self.cases)), [len(case.earlier) for case in self.cases])
        records, shard = [case.record for case in self.cases], self.cases[0].position.shard
        batch = _as_one_batch(fields, self.codec)
        calculated = recalculate(batch, records, shard, Past(batch_of(past, self.codec), owners), self.codec)
        return _Comparison(calculated, stored)

    def _with_changes(self, earlier: EarlierRow, changes: Replacements) -> Values:
        change = changes.get(earlier.position)
        return earlier.values if change is None else with_previous_values(earlier, change, self.codec)


class _Comparison:
    """Compares calculated rows with the stored ones; row i of `stored` belongs to case i.

    Several rows that were calculated together are compared only where their columns have the stored types, because
    a type inferred from several rows may differ from the type inferred from one.
    """

    def __init__(self, calculated: Recalculated, stored: pa.Table) -> None:
        self.calculated, self._stored = calculated, stored
        order = list(calculated.at)
        stored_rows = stored.take(pa.array(order, pa.int64()))
        usable = len(stored) == 1 or all(
            _has_stored_type(column, name, stored) for name, column in _columns(calculated.table)
        )
        self._cast = cast_like(calculated.table, stored) if order and usable else None
        self.is_storable = self._cast is not None
        found = None if self._cast is None else matching_rows(stored_rows, self._cast)
        self._equal: dict[int, bool] = {} if found is None else dict(zip(order, found.tolist(), strict=True))
        self._rows: list[dict[str, object]] = calculated.table.to_pylist()

    def equal(self, case: int) -> bool:
        """Return whether the stored row holds the calculated values, bit by bit."""
        return self._equal.get(case, False)

    def differing(self, case: int) -> list[str]:
        """Return the calculated columns that the stored row lacks or holds with other values."""
        return differing_columns(
            self._stored.slice(case, 1), self.calculated.table.slice(self.calculated.at[case], 1)
        )

    def row(self, case: int) -> dict[str, object]:
        """Return a calculated row as Python values."""
        return self._rows[self.calculated.at[case]]

    def table(self, case: int) -> pa.Table:
        """Return a calculated row as a table of one row, in the stored types."""
        if self._cast is None:
            raise ValueError(_NOT_STORABLE)
        return self._cast.slice(self.calculated.at[case], 1)


def _columns(table: pa.Table) -> list[tuple[str, pa.ChunkedArray]]:
    return list(zip(table.column_names, table.columns, strict=True))


def _has_stored_type(column: pa.ChunkedArray, name: str, stored: pa.Table) -> bool:
    if name not in stored.column_names:
        return False
    return bool(column.type == stored.schema.field(name).type or column.null_count == len(column))


def _as_one_batch(fields: Sequence[Batch], codec: Codec) -> Batch:
    """Concatenate batches of one row."""
    columns = {name: np.concatenate([one[name] for one in fields]) for name in fields[0].columns}
    return Batch(codec.event.name, columns, np.arange(len(fields)))
