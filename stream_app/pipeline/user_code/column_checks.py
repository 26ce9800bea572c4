"""Laws of the columns that a user's function returns: the same for a row whatever is beside it, and storable."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.model.record import Batch, concat

T = TypeVar("T")
Columns = Mapping[str, NDArray[Any]]
_KINDS = {
    "b": "boolean",
    "i": "a whole number",
    "u": "a whole number",
    "f": "a floating-point number",
    "M": "a time",
    "m": "a duration",
    "U": "text",
    "S": "bytes",
}
_SCALARS = (bool, int, float, str, bytes, date, time, timedelta, Decimal, UUID)
_UNSTORABLE = {"c": "complex numbers", "V": "structures"}

# How objects compare whose class does not say it.
_BY_IDENTITY: Any = object.__eq__


def differing_columns(together: Columns, alone: Sequence[Columns]) -> list[str]:
    """Names of columns whose values are not, bit for bit, those of each row alone. One NaN is as good as another."""
    rows = np.arange(1)
    joined = concat([Batch("", columns, rows + at) for at, columns in enumerate(alone)])
    single: Columns = {} if joined is None else joined.columns
    names = [*dict.fromkeys([*together, *single])]
    return [name for name in names if not _same(together.get(name), single.get(name))]


def inconsistent_types(alone: Sequence[Columns]) -> dict[str, list[str]]:
    """Columns that have one type for some rows and another for others, with these types. Objects may be of any."""
    found: dict[str, dict[str, None]] = {}
    for columns in alone:
        for name, column in columns.items():
            if column.dtype.kind in _KINDS:
                found.setdefault(name, {})[_KINDS[column.dtype.kind]] = None
    return {name: list(kinds) for name, kinds in found.items() if len(kinds) > 1}


def unstorable_columns(alone: Sequence[Columns]) -> dict[str, str]:
    """Columns that cannot be stored, with what they hold."""
    found: dict[str, str] = {}
    for columns in alone:
        for name, column in columns.items():
            if column.dtype.kind in _UNSTORABLE:
                found[name] = _UNSTORABLE[column.dtype.kind]
            elif column.dtype == object and (kind := _foreign(column.tolist()[0])) is not None:
                found[name] = kind
    return found


def call_on_copy(batch: Batch, action: Callable[[Batch], T]) -> tuple[T, list[str]]:
    """What an action makes of a batch, and names of the columns that it changed. It gets copies of them."""
    columns = {name: _copied(column) for name, column in batch.columns.items()}
    done = action(Batch(batch.event, columns, batch.rows))
    return done, [name for name, column in columns.items() if not _same(column, batch[name])]


def _copied(column: NDArray[Any]) -> NDArray[Any]:
    return copy.deepcopy(column) if column.dtype == object else column.copy()


def _same(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    if one.dtype.kind == other.dtype.kind == "f" and one.dtype == other.dtype:
        missing = np.isnan(one)
        alike = (one == other) & (np.signbit(one) == np.signbit(other))
        return bool((alike | (missing & np.isnan(other))).all())
    if one.dtype.kind in "Mm" and one.dtype == other.dtype:
        return bool((one.view(np.int64) == other.view(np.int64)).all())
    if one.dtype == other.dtype and one.dtype.kind in "biuUS":
        return bool((one == other).all())
    return all(map(_alike, one.reshape(-1).tolist(), other.reshape(-1).tolist()))


def _alike(one: Any, other: Any) -> bool:
    if one is other or (type(one) is type(other) and type(one).__eq__ is _BY_IDENTITY):
        return True
    try:
        return bool(one == other) or bool(one != one and other != other) or repr(one) == repr(other)
    except Exception:  # objects that do not compare
        return True


def _foreign(value: Any) -> str | None:
    """The class of what is in a value and has no form in JSON, None where there is none."""
    if isinstance(value, np.generic):
        value = value.item()
    unknown: Counter[str] = Counter()

    def note(other: Any) -> Any:
        if isinstance(other, np.generic):
            return other.item()
        unknown[f"{type(other).__module__}.{type(other).__qualname__}"] += 1
        return None

    if value is None or isinstance(
        value, bool | int | float | str | bytes | date | time | timedelta | Decimal | UUID
    ):
        return None
    try:
        msgspec.json.encode(value, enc_hook=note)
    except (TypeError, ValueError, RecursionError) as error:
        return f"{type(value).__name__} ({error})"[:120]
    return next(iter(unknown), None)
