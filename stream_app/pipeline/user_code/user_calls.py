"""One call of a user's function: its columns, or why there are none. Nothing that it changes stays changed."""

from __future__ import annotations

import re
import signal
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.model.record import Batch
from stream_app.source_lines import defined_at, raised_at, with_line

Columns = Mapping[str, NDArray[Any]]
UserFunction = Callable[[Batch], Columns]
Accept = Callable[[str, NDArray[Any]], NDArray[Any]]
"""Takes a returned column and gives it as it is used. Raises ResultError where it cannot be used."""

_LONGEST = 200
# The address of an object in a text differs from process to process.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class ResultError(Exception):
    """What a user's function returned cannot be used. The message is for the author of the function."""


class CallFailure(NamedTuple):
    """Why a call gave no columns.

    `reason` is bounded and ends with the line of the user's code (`events/meter.py:12`). `malformed` tells that what
    was returned has not one value of each column for each row. `error` is what was raised, where it was asked for.
    """

    reason: str
    malformed: bool = False
    error: BaseException | None = None


def accept_any(_name: str, column: NDArray[Any]) -> NDArray[Any]:
    """Accept every column."""
    return column


def call(
    function: UserFunction, batch: Batch, accept: Accept = accept_any, *, keep_error: bool = False
) -> Columns | CallFailure:
    """Call a user's function with a batch.

    Whatever it raises is a fact about the rows, `sys.exit` included. NumPy's error state and the filters of warnings
    are afterwards as they were. The error itself would keep alive all that it has seen: it is returned on request.
    """
    filters, before = warnings.filters, list(warnings.filters)
    try:
        with np.errstate():
            return _checked(function(batch), len(batch), accept)
    except ResultError as error:
        return CallFailure(_reason(str(error), defined_at(function)), isinstance(error, _MalformedError))
    except BaseException as error:
        if is_interrupt(error):
            raise
        line = raised_at(error) or defined_at(function)
        return CallFailure(_reason(_told(error), line), error=error if keep_error else None)
    finally:
        if warnings.filters is not filters or warnings.filters != before:
            _restore(before)


def is_interrupt(error: BaseException) -> bool:
    """Whether it is a person's Ctrl-C. A process that ignores SIGINT, as a consumer does, gets none."""
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def truncated(text: str) -> str:
    """The beginning of a text that a sender or a user's code made: a reason travels in dead letters."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


class _MalformedError(ResultError):
    """Not one value of each column for each row."""


def _restore(filters: list[Any]) -> None:
    warnings.resetwarnings()
    warnings.filters.extend(filters)  # type: ignore[attr-defined]


def _reason(text: str, line: str) -> str:
    """A text of at most 200 characters, Unicode, that ends with the line."""
    return with_line(_ADDRESS.sub("", text), line, _LONGEST).encode("utf-8", "replace").decode()


def _told(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        text = str(error)
    except BaseException as other:  # its own words are a user's code, too
        if is_interrupt(other):
            raise
        return kind
    return f"{kind}: {text[: 2 * _LONGEST]}"


def _checked(returned: Any, rows: int, accept: Accept) -> Columns:
    """The columns as arrays of shape (rows,). Raises ResultError with all that is wrong with them."""
    items = getattr(returned, "items", None)
    if not callable(items):
        kind = "None" if returned is None else type(returned).__name__
        raise _MalformedError(f"returned {kind}, expected a mapping of names to columns")
    columns: dict[str, NDArray[Any]] = {}
    malformed: list[str] = []
    refused: list[str] = []
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
            refused.append(str(error))
    if malformed or refused:
        raise (_MalformedError if malformed else ResultError)("; ".join([*malformed, *refused]))
    return columns


def _array(given: Any) -> NDArray[Any]:
    """A column as an array. What is masked is missing: NaN, NaT, or None among objects."""
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
