"""Calls a user's function once: returns its columns or the reason of the failure, and restores global state."""

from __future__ import annotations

import re
import signal
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from anomaly.detector import AnyArray
from stream_app.model.record import Batch
from stream_app.source_lines import defined_at, raised_at, with_line

Columns = Mapping[str, AnyArray]
UserFunction = Callable[[Batch], Columns]
Accept = Callable[[str, AnyArray], AnyArray]
"""Validates a returned column and returns the column to use. Raises ResultError for an invalid column."""

_LONGEST = 200
# The address in the default `repr` of an object, which differs between processes.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class ResultError(Exception):
    """The result of a user's function is invalid. The message is for the author of the function."""


class CallFailure(NamedTuple):
    """Why a call returned no columns.

    `reason` is at most 200 characters long and ends with the line of the user's code (`events/meter.py:12`).
    `malformed` is true if the result does not have one value of each column for each row. `error` is the exception,
    if it was requested.
    """

    reason: str
    malformed: bool = False
    error: BaseException | None = None


def accept_any(_name: str, column: AnyArray) -> AnyArray:
    """Accept every column."""
    return column


def call(
    function: UserFunction, batch: Batch, accept: Accept = accept_any, *, keep_error: bool = False
) -> Columns | CallFailure:
    """Call a user's function with a batch.

    Every exception is a failure of the rows, including SystemExit. NumPy's error state and the warning filters are
    restored. `keep_error` returns the exception itself, which keeps the frames of its traceback alive.
    """
    filters, saved = warnings.filters, list(warnings.filters)
    try:
        with np.errstate():
            return _checked(function(batch), len(batch), accept)
    except ResultError as error:
        return CallFailure(_reason(str(error), defined_at(function)), isinstance(error, _MalformedError))
    except BaseException as error:
        if is_interrupt(error):
            raise
        line = raised_at(error) or defined_at(function)
        return CallFailure(_reason(_error_text(error), line), error=error if keep_error else None)
    finally:
        if warnings.filters is not filters or warnings.filters != saved:
            _restore_warning_filters(saved)


def is_interrupt(error: BaseException) -> bool:
    """Whether the exception is a Ctrl-C. In a process that ignores SIGINT, such as a consumer, it is not."""
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def truncated(text: str) -> str:
    """Shorten a text from a producer or user code to 200 characters, as reasons are stored in dead letters."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


class _MalformedError(ResultError):
    """The result does not have one value of each column for each row."""


def _restore_warning_filters(filters: Sequence[object]) -> None:
    warnings.resetwarnings()
    warnings.filters.extend(filters)  # type: ignore[attr-defined]


def _reason(text: str, line: str) -> str:
    """Return a reason of at most 200 characters that ends with the line and can be encoded in UTF-8."""
    return with_line(_ADDRESS.sub("", text), line, _LONGEST).encode("utf-8", "replace").decode()


def _error_text(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        text = str(error)
    except BaseException as other:  # `__str__` may be user code, too
        if is_interrupt(other):
            raise
        return kind
    return f"{kind}: {text[: 2 * _LONGEST]}"


def _checked(returned: object, rows: int, accept: Accept) -> Columns:
    """Return the columns as arrays of shape (rows,). Raises ResultError with every problem of the result."""
    items = getattr(returned, "items", None)
    if not callable(items):
        kind = "None" if returned is None else type(returned).__name__
        raise _MalformedError(f"returned {kind}, expected a mapping of names to columns")
    columns: dict[str, AnyArray] = {}
    malformed: list[str] = []
    rejected: list[str] = []
    for name, given in items():
        if not isinstance(name, str) or not name:
            malformed.append(f"returned a column whose name is {name!r:.40}, expected text")
            continue
        column = _array(given)
        if column.shape != (rows,):
            malformed.append(f"returned column {name!r} of shape {column.shape}, expected ({rows},)")
            continue
        try:
            columns[name] = accept(name, column)
        except ResultError as error:
            rejected.append(str(error))
    if malformed or rejected:
        raise (_MalformedError if malformed else ResultError)("; ".join([*malformed, *rejected]))
    return columns


def _array(given: object) -> AnyArray:
    """Convert a column to an array. Masked values become missing: NaN, NaT, or None in other types."""
    if type(given) is np.ndarray:
        return given
    if not isinstance(given, np.ma.MaskedArray):
        return np.asarray(given)
    missing = {"f": np.nan, "M": np.datetime64("NaT"), "m": np.timedelta64("NaT")}
    mask, column = np.ma.getmaskarray(given), np.array(given.data)
    if not mask.any():
        return column
    if column.dtype.kind not in missing:
        column = column.astype(object)
    column[mask] = missing.get(column.dtype.kind)
    return column
