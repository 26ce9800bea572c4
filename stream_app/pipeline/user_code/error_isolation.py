"""Calls into a user's functions: what raises is bisected down to the rows that make it raise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.model.record import Batch, Code, Failure, concat
from stream_app.pipeline.user_code.user_calls import (
    Accept,
    CallFailure,
    Columns,
    UserFunction,
    accept_any,
    call,
)

_FEW = 8


def call_isolated(
    function: UserFunction, batch: Batch, stage: str, schema: str, accept: Accept = accept_any
) -> tuple[dict[str, NDArray[Any]], Batch, list[Failure]]:
    """The function's columns, the rows that they belong to, and a failure for each row on which it raises.

    Row-wise functions only: the neighbours of a failing row are called again without it. What becomes of a row, and
    its reason, is what becomes of it when the function is called with this row alone.
    """
    columns = call(function, batch, accept)
    if not isinstance(columns, CallFailure):
        return dict(columns), batch, []
    columns, kept, refused = _isolated(_Calls(function, batch, accept), columns)
    failed = [
        Failure(int(batch.rows[at]), stage, Code.CALCULATION_FAILED, why.reason, batch.event, schema)
        for at, why in sorted(refused.items())
    ]
    return dict(columns), kept, failed


class _Calls:
    """Calls of one function with parts of one batch; `malformed` once one of them returned no column for each row."""

    def __init__(self, function: UserFunction, batch: Batch, accept: Accept) -> None:
        self.function, self.batch, self.accept = function, batch, accept
        self.malformed = False

    def refused(self, start: int, stop: int) -> CallFailure | None:
        """Why there are no columns for these rows, None where there are."""
        columns = call(self.function, self.batch.take(slice(start, stop)), self.accept)
        return self.noted(columns) if isinstance(columns, CallFailure) else None

    def noted(self, refused: CallFailure) -> CallFailure:
        """Remember what kind of refusal it was."""
        self.malformed |= refused.malformed
        return refused


def _isolated(calls: _Calls, why: CallFailure) -> tuple[Columns, Batch, dict[int, CallFailure]]:
    """The columns of the rows that the function takes, these rows, and why not for each of the others.

    Halves of a batch whose columns have a wrong length must not be tried: the length may be right for one of them,
    with values of other rows.
    """
    calls.noted(why)
    batch = calls.batch
    refused = {} if calls.malformed else _failing(calls, why)
    if not calls.malformed:
        kept = batch.take(np.setdiff1d(np.arange(len(batch)), list(refused)))
        columns = call(calls.function, kept, calls.accept) if len(kept) else {}
        if not isinstance(columns, CallFailure):
            return columns, kept, refused
    if len(batch) == 1:
        return {}, batch.take(slice(0, 0)), {0: why}
    return call_each_row(calls.function, batch, calls.accept)


def _failing(calls: _Calls, why: CallFailure) -> dict[int, CallFailure]:
    """The rows on which it raises, counted from the batch's first, and why; it raised on all of them together.

    Halves are called, and what raises is halved again. Where the first half does not, the second must, and is not
    called. Of a few rows in halves that both raised each is called by itself: where many fail, further halves
    would raise too.
    """
    found: dict[int, CallFailure] = {}
    left: list[tuple[int, int, CallFailure | None, bool]] = [(0, len(calls.batch), why, False)]
    while left and not calls.malformed:
        start, stop, known, both = left.pop()
        if stop - start == 1:
            refused = known or calls.refused(start, stop)
            if refused:
                found[start] = refused
        elif both and stop - start <= _FEW:
            left += [(at, at + 1, None, False) for at in range(start, stop)]
        else:
            left += _halves(calls, start, stop)
    return found


def _halves(calls: _Calls, start: int, stop: int) -> list[tuple[int, int, CallFailure | None, bool]]:
    """Of rows on which it raises, the halves on which it does; why, where it was called; and whether on both."""
    middle = (start + stop) // 2
    first = calls.refused(start, middle)
    if not first:
        return [(middle, stop, None, False)]
    second = calls.refused(middle, stop)
    halves = [(start, middle, first, bool(second)), (middle, stop, second, True)]
    return [half for half in halves if half[2]]


def call_each_row(
    function: UserFunction, batch: Batch, accept: Accept = accept_any
) -> tuple[Columns, Batch, dict[int, CallFailure]]:
    """Call the function with each row alone: columns, the rows that they belong to, why not for the others."""
    made: list[Batch] = []
    refused: dict[int, CallFailure] = {}
    for at in range(len(batch)):
        row = batch.take(slice(at, at + 1))
        columns = call(function, row, accept)
        if isinstance(columns, CallFailure):
            refused[at] = columns
        else:
            made.append(Batch(batch.event, columns, row.rows))
    whole = concat(made)
    kept = batch.take(np.setdiff1d(np.arange(len(batch)), list(refused)))
    return {} if whole is None else whole.columns, kept, refused
