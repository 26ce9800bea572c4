"""Applies a repair to the fields of one record, without changing them in place."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import UnionType
from typing import Any, Final, NamedTuple

from stream_app.recovery.repair import units
from stream_app.recovery.repair.file import (
    Above,
    Absent,
    Below,
    Cast,
    Condition,
    Convert,
    Drop,
    Equals,
    In,
    Matches,
    Null,
    Present,
    Rename,
    Repair,
    Set,
    Step,
    Type,
)

# The decoded JSON fields of a record: values are any JSON values, on which the steps operate dynamically.
JsonValue = Any
Document = Mapping[str, JsonValue]
_ABSENT: Final = object()
_TRUE, _FALSE = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})


class Unrepaired(NamedTuple):
    """A step cannot be applied to the record.

    `why` names the step and the reason, without the payload.
    """

    why: str


def matches(document: Document, repair: Repair) -> bool:
    """Return whether a record's fields fulfil all conditions of the repair."""
    return all(_is_fulfilled(condition, _get(document, condition.field)) for condition in repair.when)


def repaired(document: Document, repair: Repair) -> dict[str, JsonValue] | Unrepaired:
    """Return a copy of the fields after every step, or why a step cannot be applied."""
    result = copy.deepcopy(dict(document))
    for number, step in enumerate(repair.steps, start=1):
        try:
            _apply_step(step, result)
        except RecursionError:
            return Unrepaired(f"step {number}, field {step.field}: it is nested too deeply")
        except (ValueError, OverflowError) as error:
            return Unrepaired(f"step {number}, field {step.field}: {error}")
    return result


def _is_fulfilled(condition: Condition, value: JsonValue) -> bool:
    match condition:
        case Absent():
            return value is _ABSENT
        case Present():
            return value is not _ABSENT
        case Null():
            return value is None
        case Equals():
            return _json_equal(value, condition.value)
        case In():
            return any(_json_equal(value, one) for one in condition.values)
        case Below():
            return _is_number(value) and value < condition.value
        case Above():
            return _is_number(value) and value > condition.value
        case Matches():
            return isinstance(value, str) and re.fullmatch(condition.pattern, value) is not None
        case Type():
            return _type(value) == condition.type


def _json_equal(one: JsonValue, other: JsonValue) -> bool:
    """Compare JSON values: in JSON, true is not equal to 1, unlike in Python."""
    return _type(one) == _type(other) and one == other


def _type(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds: tuple[tuple[type | UnionType, str], ...] = (
        (str, "text"),
        (int | float, "number"),
        (list, "list"),
        (dict, "object"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "null" if value is None else "")


def _is_number(value: JsonValue) -> bool:
    return _type(value) == "number"


def _apply_step(step: Step, document: dict[str, JsonValue]) -> None:
    value = _get(document, step.field)
    if isinstance(step, Set):
        _put(document, step.field, copy.deepcopy(step.value))
    elif value is _ABSENT:
        return
    elif isinstance(step, Drop):
        _remove(document, step.field)
    elif isinstance(step, Rename):
        _remove(document, step.field)
        _put(document, step.to, value)
    elif value is not None:
        _put(
            document, step.field, _converted(value, step) if isinstance(step, Convert) else _cast(value, step)
        )


def _converted(value: JsonValue, step: Convert) -> float:
    given, wanted = units.find_unit(step.given), units.find_unit(step.to)
    if given is None or wanted is None or not _is_number(value) or not math.isfinite(value):
        raise ValueError(f"not a number in {step.given}")
    return units.convert(value, given, wanted)


def _cast(value: JsonValue, step: Cast) -> JsonValue:
    match step.to:
        case "text":
            return _text(value)
        case "number":
            return _number(value)
        case "integer":
            number = value if isinstance(value, int) else _number(value)
            if number != int(number):
                raise ValueError("not a whole number")
            return int(number)
        case "boolean":
            return _boolean(value)
        case "time":
            return _time(value, step)


def _text(value: JsonValue) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) or _is_number(value):
        return str(value)
    raise ValueError("neither text, number nor boolean")


def _number(value: JsonValue) -> int | float:
    if _is_number(value):
        found: int | float = value
        return found
    if not isinstance(value, str):
        raise ValueError("not a number")
    text = value.strip()
    number = int(text) if re.fullmatch(r"[+-]?\d{1,4000}", text, re.ASCII) else _float(text)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("not a number") from None  # the reason is stored and must not contain the value


def _boolean(value: JsonValue) -> bool:
    text = str(value).strip().lower()
    if not isinstance(value, bool | int | str) or text not in _TRUE | _FALSE:
        raise ValueError("neither true nor false")
    return text in _TRUE


def _time(value: JsonValue, step: Cast) -> str:
    number = 0.0 if step.given == "iso" else float(_number(value))
    try:
        moment = _iso(value, step.zone) if step.given == "iso" else _since_epoch(number, step.given)
        text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    except (OverflowError, OSError):
        raise ValueError("a time out of range") from None
    return text.replace("+00:00", "Z")


def _since_epoch(number: float, given: str) -> datetime:
    try:
        return datetime.fromtimestamp(number / (1000 if given == "ms" else 1), UTC)
    except ValueError:
        raise ValueError("a time out of range") from None


def _iso(value: JsonValue, zone: str | None) -> datetime:
    try:
        moment = datetime.fromisoformat(value.strip() if isinstance(value, str) else "")
    except ValueError:
        raise ValueError("not an ISO-8601 time") from None
    if moment.tzinfo is None:
        if zone is None:
            raise ValueError("a time without an offset: set `zone` in the step")
        moment = datetime.fromisoformat(f"{moment.isoformat()}{zone}")
    return moment


def _get(document: Document, field: str) -> JsonValue:
    value: JsonValue = document
    for name in field.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return _ABSENT
        value = value[name]
    return value


def _put(document: dict[str, JsonValue], field: str, value: JsonValue) -> None:
    *path, last = field.split(".")
    inner: JsonValue = document
    for name in path:
        inner = inner.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ValueError(f"{name} is not an object")
    inner[last] = value


def _remove(document: dict[str, JsonValue], field: str) -> None:
    path, _, last = field.rpartition(".")
    inner = _get(document, path) if path else document
    del inner[last]
