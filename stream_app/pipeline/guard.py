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
    if not isinstance(columns, str):
        return dict(columns), batch, []
    reasons = _guilty(function, batch, columns)
    kept = batch.take(np.setdiff1d(np.arange(len(batch)), list(reasons)))
    columns = _columns(function, kept) if len(kept) else {}
    if isinstance(columns, str):
        columns, kept, reasons = _one_by_one(function, batch)
    failed = [
        Failure(int(batch.rows[at]), stage, Code.CALCULATION_FAILED, reasons[at], batch.event, schema)
        for at in sorted(reasons)
    ]
    return dict(columns), kept, failed


def short(text: str) -> str:
    """The beginning of a text that a sender or a user's code made: a reason travels in dead letters."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _guilty(function: UserFunction, batch: Batch, reason: str) -> dict[int, str]:
    """The rows on which it raises, counted from the batch's first, and why; it raised on all of them for `reason`.

    Halves are called, and what raises is halved again. Where the first half does not, the second must, and is not
    called. Of a few rows in halves that both raised each is called by itself: where many are guilty, further halves
    would raise too.
    """
    found: dict[int, str] = {}
    left: list[tuple[int, int, str | None, bool]] = [(0, len(batch), reason, False)]
    while left:
        start, stop, known, both = left.pop()
        if stop - start == 1:
            why = known or _reason(function, batch, start, stop)
            if why:
                found[start] = why
        elif both and stop - start <= _FEW:
            left += [(at, at + 1, None, False) for at in range(start, stop)]
        else:
            left += _halves(function, batch, start, stop)
    return found


def _halves(
    function: UserFunction, batch: Batch, start: int, stop: int
) -> list[tuple[int, int, str | None, bool]]:
    """Of rows on which it raises, the halves on which it does; why, where it was called; and whether on both."""
    middle = (start + stop) // 2
    first = _reason(function, batch, start, middle)
    if not first:
        return [(middle, stop, None, False)]
    second = _reason(function, batch, middle, stop)
    halves = [(start, middle, first, bool(second)), (middle, stop, second, True)]
    return [half for half in halves if half[2]]


def _reason(function: UserFunction, batch: Batch, start: int, stop: int) -> str | None:
    """Why it raises on these rows, None where it does not."""
    columns = _columns(function, batch.take(slice(start, stop)))
    return columns if isinstance(columns, str) else None


def _one_by_one(function: UserFunction, batch: Batch) -> tuple[Columns, Batch, dict[int, str]]:
    """For a function that raises on rows together of which it takes each by itself."""
    made, reasons = [], {}
    for at in range(len(batch)):
        row = batch.take(slice(at, at + 1))
        columns = _columns(function, row)
        if isinstance(columns, str):
            reasons[at] = columns
        else:
            made.append(Batch(batch.event, columns, row.rows))
    whole = concat(made)
    kept = batch.take(np.setdiff1d(np.arange(len(batch)), list(reasons)))
    return {} if whole is None else whole.columns, kept, reasons


def _columns(function: UserFunction, batch: Batch) -> Columns | str:
    """The function's columns, or why there are none: words, for an error would keep alive all that it has seen."""
    try:
        return _checked(function(batch), len(batch))
    except Exception as error:  # whatever a user's code raises is a fact about the data
        return _told(error)


def _told(error: Exception) -> str:
    try:
        return short(f"{type(error).__name__}: {error}")
    except Exception:  # its own words are a user's code, too
        return type(error).__name__


def _checked(columns: Columns, rows: int) -> Columns:
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    for name, column in arrays.items():
        if column.ndim != 1 or len(column) != rows:
            raise ValueError(f"column {name!r} has shape {column.shape}, expected ({rows},)")
    return arrays
