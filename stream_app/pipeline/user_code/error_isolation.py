"""Isolates failures of user functions: bisects a batch down to the rows on which the function raises."""

from __future__ import annotations

import numpy as np

from anomaly.detector import AnyArray
from stream_app.model.record import Batch, Code, Failure, concat
from stream_app.pipeline.user_code.user_calls import (
    Accept,
    CallFailure,
    Columns,
    UserFunction,
    accept_any,
    call,
)

# Parts of at most this size are called row by row when both halves of their parent failed.
_SMALL_PART = 8


def call_isolated(
    function: UserFunction, batch: Batch, stage: str, schema: str, accept: Accept = accept_any
) -> tuple[dict[str, AnyArray], Batch, list[Failure]]:
    """Return the function's columns, the rows that they belong to, and a failure for each row on which it raises.

    Only for row-wise functions: the other rows of a failing batch are called again without the failing ones. The
    result or reason for a row is that of calling the function with this row alone.
    """
    columns = call(function, batch, accept)
    if not isinstance(columns, CallFailure):
        return dict(columns), batch, []
    columns, kept, failures = _isolate(_PartialCalls(function, batch, accept), columns)
    failed = [
        Failure(int(batch.rows[at]), stage, Code.CALCULATION_FAILED, failure.reason, batch.event, schema)
        for at, failure in sorted(failures.items())
    ]
    return dict(columns), kept, failed


class _PartialCalls:
    """Calls one function with parts of one batch; `malformed` is set once any result was malformed."""

    def __init__(self, function: UserFunction, batch: Batch, accept: Accept) -> None:
        self.function, self.batch, self.accept = function, batch, accept
        self.malformed = False

    def failure(self, start: int, stop: int) -> CallFailure | None:
        """Call the function with these rows; return the failure, or None."""
        columns = call(self.function, self.batch.take(slice(start, stop)), self.accept)
        return self.note(columns) if isinstance(columns, CallFailure) else None

    def note(self, failure: CallFailure) -> CallFailure:
        """Update `malformed` and return the same failure."""
        self.malformed |= failure.malformed
        return failure


def _isolate(calls: _PartialCalls, whole: CallFailure) -> tuple[Columns, Batch, dict[int, CallFailure]]:
    """Return the columns of the passing rows, these rows, and the failures of the other rows by index.

    `whole` is the failure of the whole batch. If a result is malformed, the batch is not bisected but called row by
    row: the length of a result may happen to fit one of the parts while its values belong to other rows.
    """
    calls.note(whole)
    batch = calls.batch
    failures = {} if calls.malformed else _failing_rows(calls, whole)
    if not calls.malformed:
        kept = batch.take(np.setdiff1d(np.arange(len(batch)), list(failures)))
        columns = call(calls.function, kept, calls.accept) if len(kept) else {}
        if not isinstance(columns, CallFailure):
            return columns, kept, failures
    if len(batch) == 1:
        return {}, batch.take(slice(0, 0)), {0: whole}
    return call_each_row(calls.function, batch, calls.accept)


def _failing_rows(calls: _PartialCalls, whole: CallFailure) -> dict[int, CallFailure]:
    """Bisect the batch and return the failures by row index; `whole` is the failure of the whole batch.

    If the first half of a failing part passes, the second must fail and need not be called. A small part is called
    row by row if both halves of its parent failed: where many rows fail, its halves would most likely fail too.
    """
    found: dict[int, CallFailure] = {}
    parts: list[tuple[int, int, CallFailure | None, bool]] = [(0, len(calls.batch), whole, False)]
    while parts and not calls.malformed:
        start, stop, known, both = parts.pop()
        if stop - start == 1:
            failure = known or calls.failure(start, stop)
            if failure:
                found[start] = failure
        elif both and stop - start <= _SMALL_PART:
            parts += [(at, at + 1, None, False) for at in range(start, stop)]
        else:
            parts += _failing_halves(calls, start, stop)
    return found


def _failing_halves(
    calls: _PartialCalls, start: int, stop: int
) -> list[tuple[int, int, CallFailure | None, bool]]:
    """Return the failing halves of a failing part as (start, stop, failure if called, whether both failed)."""
    middle = (start + stop) // 2
    first = calls.failure(start, middle)
    if not first:
        return [(middle, stop, None, False)]
    second = calls.failure(middle, stop)
    halves = [(start, middle, first, bool(second)), (middle, stop, second, True)]
    return [half for half in halves if half[2]]


def call_each_row(
    function: UserFunction, batch: Batch, accept: Accept = accept_any
) -> tuple[Columns, Batch, dict[int, CallFailure]]:
    """Call the function with each row alone; return the columns, the rows they belong to and the other failures."""
    passing: list[Batch] = []
    failures: dict[int, CallFailure] = {}
    for at in range(len(batch)):
        row = batch.take(slice(at, at + 1))
        columns = call(function, row, accept)
        if isinstance(columns, CallFailure):
            failures[at] = columns
        else:
            passing.append(Batch(batch.event, columns, row.rows))
    whole = concat(passing)
    kept = batch.take(np.setdiff1d(np.arange(len(batch)), list(failures)))
    return {} if whole is None else whole.columns, kept, failures
