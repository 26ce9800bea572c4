"""Checks of the columns that a user's function returns: independence of other rows, stable types, storability."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

import msgspec
import numpy as np

from anomaly.detector import AnyArray
from stream_app.model.record import Batch, concat
from stream_app.pipeline.user_code.user_calls import Columns

T = TypeVar("T")
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

# Classes that do not define `__eq__` compare by identity.
_IDENTITY_EQ: object = object.__eq__


def differing_columns(together: Columns, alone: Sequence[Columns]) -> list[str]:
    """Return the names of columns that are not bit for bit those of each row alone. All NaN values are equal."""
    rows = np.arange(1)
    joined = concat([Batch("", columns, rows + at) for at, columns in enumerate(alone)])
    single: Columns = {} if joined is None else joined.columns
    names = [*dict.fromkeys([*together, *single])]
    return [name for name in names if not _equal(together.get(name), single.get(name))]


def inconsistent_types(alone: Sequence[Columns]) -> dict[str, list[str]]:
    """Return the columns whose type depends on the row, with these types. Columns of objects are exempt."""
    found: dict[str, dict[str, None]] = {}
    for columns in alone:
        for name, column in columns.items():
            if column.dtype.kind in _KINDS:
                found.setdefault(name, {})[_KINDS[column.dtype.kind]] = None
    return {name: list(kinds) for name, kinds in found.items() if len(kinds) > 1}


def unstorable_columns(alone: Sequence[Columns]) -> dict[str, str]:
    """Return the columns that cannot be stored, with the types that they hold."""
    found: dict[str, str] = {}
    for columns in alone:
        for name, column in columns.items():
            if column.dtype.kind in _UNSTORABLE:
                found[name] = _UNSTORABLE[column.dtype.kind]
            elif column.dtype == object and (kind := _unstorable_type(column.tolist()[0])) is not None:
                found[name] = kind
    return found


def call_on_copy(batch: Batch, action: Callable[[Batch], T]) -> tuple[T, list[str]]:
    """Call an action with a copy of a batch; return its result and the names of the columns that it modified."""
    columns = {name: _copy(column) for name, column in batch.columns.items()}
    result = action(Batch(batch.event, columns, batch.rows))
    return result, [name for name, column in columns.items() if not _equal(column, batch[name])]


def _copy(column: AnyArray) -> AnyArray:
    return copy.deepcopy(column) if column.dtype == object else column.copy()


def _equal(one: AnyArray | None, other: AnyArray | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    if one.dtype.kind == other.dtype.kind == "f" and one.dtype == other.dtype:
        missing = np.isnan(one)
        equal = (one == other) & (np.signbit(one) == np.signbit(other))
        return bool((equal | (missing & np.isnan(other))).all())
    if one.dtype.kind in "Mm" and one.dtype == other.dtype:
        return bool((one.view(np.int64) == other.view(np.int64)).all())
    if one.dtype == other.dtype and one.dtype.kind in "biuUS":
        return bool((one == other).all())
    return all(map(_equal_objects, one.reshape(-1).tolist(), other.reshape(-1).tolist()))


def _equal_objects(one: object, other: object) -> bool:
    if one is other or (type(one) is type(other) and type(one).__eq__ is _IDENTITY_EQ):
        return True
    try:
        return bool(one == other) or bool(one != one and other != other) or repr(one) == repr(other)
    except Exception:  # objects that do not support comparison
        return True


def _unstorable_type(value: object) -> str | None:
    """Return the class of a part of the value that cannot be encoded as JSON, or None."""
    if isinstance(value, np.generic):
        value = value.item()
    unknown: Counter[str] = Counter()

    def record_unknown(other: object) -> object:
        if isinstance(other, np.generic):
            return other.item()
        unknown[f"{type(other).__module__}.{type(other).__qualname__}"] += 1
        return None

    if value is None or isinstance(value, _SCALARS):
        return None
    try:
        msgspec.json.encode(value, enc_hook=record_unknown)
    except (TypeError, ValueError, RecursionError) as error:
        return f"{type(value).__name__} ({error})"[:120]
    return next(iter(unknown), None)
