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
    parts, failed = _bisect(function, batch, stage, schema)
    if not failed:
        return dict(parts[0][1]), batch, []
    kept = concat(part for part, _ in parts)
    made = concat(Batch(batch.event, columns, part.rows) for part, columns in parts)
    if kept is None or made is None:
        return {}, batch.take(slice(0, 0)), failed
    return dict(made.columns), kept, failed


def short(text: str) -> str:
    """The beginning of a text that a sender or a user's code made: a reason travels in dead letters."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _bisect(
    function: UserFunction, batch: Batch, stage: str, schema: str
) -> tuple[list[tuple[Batch, Columns]], list[Failure]]:
    try:
        return [(batch, _checked(function(batch), len(batch)))], []
    except Exception as error:  # whatever a user's code raises is a fact about the data
        if len(batch) == 1:
            reason = short(f"{type(error).__name__}: {error}")
            code = Code.CALCULATION_FAILED
            return [], [Failure(int(batch.rows[0]), stage, code, reason, batch.event, schema)]
    # Of a few rows each by itself: where many are guilty, further halves would raise too.
    size = 1 if len(batch) <= _FEW else (len(batch) + 1) // 2
    made: list[tuple[Batch, Columns]] = []
    failed: list[Failure] = []
    for begin in range(0, len(batch), size):
        part, guilty = _bisect(function, batch.take(slice(begin, begin + size)), stage, schema)
        made += part
        failed += guilty
    return made, failed


def _checked(columns: Columns, rows: int) -> Columns:
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    for name, column in arrays.items():
        if column.ndim != 1 or len(column) != rows:
            raise ValueError(f"column {name!r} has shape {column.shape}, expected ({rows},)")
    return arrays
