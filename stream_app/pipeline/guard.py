"""Calls into a user's functions: what raises is bisected down to the guilty rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.record import Batch, Code, Failure, concat

Columns = Mapping[str, NDArray[Any]]
UserFunction = Callable[[Batch], Columns]
_LONGEST = 200
_FEW = 8


def guarded(
    function: UserFunction, batch: Batch, stage: str, schema: str
) -> tuple[dict[str, NDArray[Any]], Batch, list[Failure]]:
    """The function's columns, the rows that they belong to, and a failure for each row on which it raises.

    Row-wise functions only: the neighbours of a guilty row are called again without it.
    """
    columns = _columns(function, batch)
    if isinstance(columns, Mapping):
        return dict(columns), batch, []
    reasons = _guilty(function, batch, columns)
    kept = batch.take(np.setdiff1d(np.arange(len(batch)), list(reasons)))
    columns = _columns(function, kept) if len(kept) else {}
    if not isinstance(columns, Mapping):
        columns, kept, reasons = _one_by_one(function, batch)
    failed = [
        Failure(int(batch.rows[at]), stage, Code.CALCULATION_FAILED, reasons[at], batch.event, schema)
        for at in sorted(reasons)
    ]
    return dict(columns), kept, failed


def short(text: str) -> str:
    """The beginning of a text that a sender or a user's code made: a reason travels in dead letters."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _guilty(function: UserFunction, batch: Batch, error: Exception) -> dict[int, str]:
    """The rows on which it raises, counted from the batch's first, and why; it raised `error` on all of them.

    Halves are called, and what raises is halved again. Where the first half does not, the second must, and is not
    called. Of a few rows where both halves do, each is called by itself: where many are guilty, halves are in vain.
    """
    found: dict[int, str] = {}
    left: list[tuple[int, int, Exception | None, bool]] = [(0, len(batch), error, False)]
    while left:
        start, stop, raised, alone = left.pop()
        if stop - start == 1 and raised is None:
            raised = _error(function, batch, start, stop)
        if stop - start == 1:
            if raised is not None:
                found[start] = _reason(raised)
            continue
        if alone and stop - start <= _FEW:
            left += [(at, at + 1, None, False) for at in range(start, stop)]
            continue
        middle = (start + stop) // 2
        first = _error(function, batch, start, middle)
        second = _error(function, batch, middle, stop) if first is not None else None
        both = first is not None and second is not None
        if first is not None:
            left.append((start, middle, first, both))
        if first is None or second is not None:
            left.append((middle, stop, second, both))
    return found


def _reason(error: Exception) -> str:
    return short(f"{type(error).__name__}: {error}")


def _error(function: UserFunction, batch: Batch, start: int, stop: int) -> Exception | None:
    columns = _columns(function, batch.take(slice(start, stop)))
    return None if isinstance(columns, Mapping) else columns


def _one_by_one(function: UserFunction, batch: Batch) -> tuple[Columns, Batch, dict[int, str]]:
    """For a function that raises on rows together of which it takes each by itself."""
    made, reasons = [], {}
    for at in range(len(batch)):
        row = batch.take(slice(at, at + 1))
        columns = _columns(function, row)
        if isinstance(columns, Mapping):
            made.append(Batch(batch.event, columns, row.rows))
        else:
            reasons[at] = _reason(columns)
    whole = concat(made)
    kept = batch.take(np.setdiff1d(np.arange(len(batch)), list(reasons)))
    return {} if whole is None else whole.columns, kept, reasons


def _columns(function: UserFunction, batch: Batch) -> Columns | Exception:
    try:
        return _checked(function(batch), len(batch))
    except Exception as error:  # whatever a user's code raises is a fact about the data
        return error


def _checked(columns: Columns, rows: int) -> Columns:
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    for name, column in arrays.items():
        if column.ndim != 1 or len(column) != rows:
            raise ValueError(f"column {name!r} has shape {column.shape}, expected ({rows},)")
    return arrays
