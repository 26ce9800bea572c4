"""Dry run of a user's functions on generated rows, which finds programming errors before any record is read."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from stream_app.errors import Problem
from stream_app.model.record import EXACT, Batch
from stream_app.pipeline import calculate, verify
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.sensor_checks import FLAG
from stream_app.pipeline.user_code import column_checks
from stream_app.pipeline.user_code.generated_rows import GeneratedRows, generate_rows, with_windows
from stream_app.pipeline.user_code.user_calls import (
    Accept,
    CallFailure,
    Columns,
    UserFunction,
    accept_any,
    call,
    is_interrupt,
)
from stream_app.processes import standard_output
from stream_app.source_lines import defined_at, is_defined_in, raised_at, with_line

T = TypeVar("T")
_Found = Iterator[tuple[str, str]]
_SIZES = (2, 3, 5)
# Exceptions that only a programming error raises. KeyError is one if a column does not exist.
_CERTAIN_ERRORS = (NameError, ImportError, SystemExit, NotImplementedError)
# Exceptions that may be due to the values: programming errors only if every row raises one.
_LIKELY_ERRORS = (AttributeError, TypeError, RecursionError)
_READ_ONLY = re.compile(r"read-only|output array is read")
_RESULT_HINT = "return {'name': array, …} with one value for each row of the batch"
_ROWS_HINT = "calculate each row only from its own columns (including windows and previous values)"


class _Trial(NamedTuple):
    """One function with the rows that it is called with; the first `ordinary` rows have ordinary values."""

    name: str
    function: UserFunction
    batch: Batch
    ordinary: int
    accept: Accept


def problems(codec: Codec) -> list[Problem]:
    """Return the problems of an event type's functions, with file and line; each is called about fifty times.

    An exception on some rows is normal, as on bad data: only errors that do not depend on the data are reported.
    Output to stdout is discarded.
    """
    event = codec.event
    if not (event.verify or event.calculate or event.correct or event.detector):
        return []
    with warnings.catch_warnings(), standard_output.discarded():
        warnings.simplefilter("ignore")  # extreme values overflow
        rows = generate_rows(codec)
        found = [] if rows is None else [*_functions(codec, rows)]
        found += _detector(codec)
    return [Problem(f"event {event.name!r}: {what}", hint) for what, hint in found]


def _functions(codec: Codec, rows: GeneratedRows) -> _Found:
    event, verified = codec.event, rows
    if event.verify is not None:
        found = list(_row_wise(_Trial("verify", event.verify, *rows, verify.as_mask)))
        yield from found
        verified = rows if found else _verified(codec, rows)
    if event.calculate is not None:
        batch = with_windows(codec, verified.batch)
        trial = _Trial("calculate", event.calculate, batch, verified.ordinary, calculate.accepted(codec))
        yield from _row_wise(trial)
    if event.correct is not None:
        flags = [None, *(check.name for check in event.checks)]
        column = np.array([flags[at % len(flags)] for at in range(len(rows.batch))], dtype=object)
        flagged = rows.batch.with_columns({FLAG: column})
        # A correction is of one row. Which fields it may replace is checked when it is made.
        yield from _call_each_row(_Trial("correct", event.correct, flagged, rows.ordinary, accept_any))[1]


def _verified(codec: Codec, rows: GeneratedRows) -> GeneratedRows:
    """Return the rows that pass `verify`, as `calculate` receives them; all rows if no ordinary one passes."""
    passed = verify.verify(rows.batch, codec).passed
    ordinary = int((passed.rows <= rows.batch.rows[rows.ordinary - 1]).sum())
    return GeneratedRows(passed, ordinary) if ordinary else rows


def _row_wise(trial: _Trial) -> _Found:
    """Check a row-wise function: first with each row alone, then with several together."""
    results, found = _call_each_row(trial)
    if found or not results:
        yield from found
        return
    good = trial.batch.take(np.array([row for row, _ in results]))
    alone = [columns for _, columns in results]
    for size in sorted({size for size in (0, *_SIZES) if size < len(good)} | {len(good)}):
        problem = _compare_together(trial, good.take(slice(0, size)), alone[:size])
        if problem is not None:
            yield problem
            return
    place = defined_at(trial.function)
    for name, kinds in column_checks.inconsistent_types(alone).items():
        what = f"column {name!r} is {' or '.join(kinds)}, depending on the rows"
        yield f"{trial.name} ({place}): {what}", "give it one type, such as np.array(…, dtype=np.float64)"
    for name, kind in column_checks.unstorable_columns(alone).items():
        what = f"column {name!r} holds {kind}, which Parquet cannot hold"
        hint = "return numbers, booleans, times or text, or lists and dicts of them"
        yield f"{trial.name} ({place}): {what}", hint


def _compare_together(trial: _Trial, part: Batch, alone: Sequence[Columns]) -> tuple[str, str] | None:
    """Return the problem of the columns of several rows, if any; `alone` has the columns of each row alone."""
    columns = call(trial.function, part, trial.accept)
    if isinstance(columns, CallFailure):
        if (
            not len(part) and not columns.malformed
        ):  # it may raise on an empty batch, with which it is never called
            return None
        hint = _RESULT_HINT if columns.malformed else "write it for columns of any length: np.where, not if"
        what = f"fails on {len(part)} rows together, and on none of them alone: {columns.reason}"
        return f"{trial.name} {what}", hint
    differing = column_checks.differing_columns(columns, alone) if alone else []
    if not differing:
        return None
    what = f"column {', '.join(differing)} of {len(part)} rows differs from that of each row alone"
    return f"{trial.name} ({defined_at(trial.function)}): {what}", _ROWS_HINT


def _call_each_row(trial: _Trial) -> tuple[list[tuple[int, Columns]], list[tuple[str, str]]]:
    """Call the function with each row alone; return the columns of the passing rows, and the problems."""
    place = defined_at(trial.function)
    results: list[tuple[int, Columns]] = []
    failures: list[tuple[int, CallFailure]] = []

    def called(part: Batch) -> Columns | CallFailure:
        return call(trial.function, part, trial.accept, keep_error=True)

    for at in range(len(trial.batch)):
        row = trial.batch.take(slice(at, at + 1))
        columns, changed = column_checks.call_on_copy(row, called)
        if changed:
            what = f"{trial.name} ({place}) changes column {', '.join(changed)} of its batch"
            return [], [(what, "work on a copy: batch[name].copy()")]
        if isinstance(columns, CallFailure):
            failures.append((at, columns))
            continue
        again = called(row)
        if isinstance(again, CallFailure) or column_checks.differing_columns(again, [columns]):
            what = f"{trial.name} ({place}) gives different columns for the same row"
            return [], [(what, "use no clock, no random numbers and no variable that it changes")]
        results.append((at, columns))
    return results, _programming_errors(trial, failures)


def _programming_errors(trial: _Trial, failures: Sequence[tuple[int, CallFailure]]) -> list[tuple[str, str]]:
    """Return a malformed result of any row, else an exception of all rows that does not depend on the data."""
    for _, failure in failures:
        if failure.error is None:
            hint = "return a boolean array for each rule" if trial.name == "verify" else _RESULT_HINT
            return [(f"{trial.name} {failure.reason}", hint)]
    ordinary = [failure for at, failure in failures if at < trial.ordinary]
    certain = len(ordinary) == trial.ordinary and all(
        _is_programming_error(failure.error) for failure in ordinary
    )
    likely = len(failures) == len(trial.batch) and all(
        _is_programming_error(failure.error, likely=True) for _, failure in failures
    )
    if not certain and not likely:
        return []
    hint = f"try it with stream_app.testing.run(EVENT, rows); the batch has the columns {_column_names(trial.batch)}"
    return [(f"{trial.name} fails on every row: {failures[0][1].reason}", hint)]


def _column_names(batch: Batch) -> str:
    names = [name for name in batch.columns if not name.startswith(EXACT)]
    return ", ".join(names[:12]) + (" …" if len(names) > 12 else "")


def _is_programming_error(error: BaseException | None, *, likely: bool = False) -> bool:
    if isinstance(error, _CERTAIN_ERRORS):
        return not isinstance(error, UnboundLocalError) or likely
    if isinstance(error, KeyError):
        return is_defined_in(error, Batch.__module__)
    if isinstance(error, ValueError) and _READ_ONLY.search(str(error)):
        return True
    if not likely or not isinstance(error, _LIKELY_ERRORS):
        return False
    # A lookup by a generated value may have returned None, which is not a mistake.
    return "NoneType" not in str(error)


def _detector(codec: Codec) -> list[tuple[str, str]]:
    factory, features = codec.event.detector, codec.event.features
    if factory is None or not features:
        return []
    what = f"detector {defined_at(factory)}"
    hint = "give a function of the features that returns a Detector (anomaly.detector)"
    detector = _create(lambda: factory(features))
    if isinstance(detector, CallFailure):
        return [(f"{what} cannot be created: {detector.reason}", hint)]
    members = ("threshold", "process_many", "snapshot", "restore")
    missing = [member for member in members if not hasattr(detector, member)]
    if missing:
        return [(f"{what} returns a {type(detector).__name__} without {', '.join(missing)}", hint)]
    threshold: object = detector.threshold
    if not isinstance(threshold, int | float | np.number):
        return [(f"{what} returns a detector whose threshold is not a number", hint)]
    return []


def _create(make: Callable[[], T]) -> T | CallFailure:
    """Call a factory of the user; return its result, or the failure."""
    try:
        return make()
    except BaseException as error:
        if is_interrupt(error):
            raise
        line = raised_at(error)
        text = f"{type(error).__name__}: {error}"[:200]
        return CallFailure(with_line(text, line, 200) if line else text, error=error)
