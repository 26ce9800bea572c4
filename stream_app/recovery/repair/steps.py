"""What a repair does to the fields of one record: a function of values, which are never changed in place."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
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

Document = Mapping[str, Any]
_ABSENT: Final = object()
_TRUE, _FALSE = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})


class Unrepaired(NamedTuple):
    """A step cannot be done to this record: says which and why, and never the payload."""

    why: str


def matches(document: Document, repair: Repair) -> bool:
    """Whether all conditions of the repair hold for a record's fields."""
    return all(_holds(condition, _get(document, condition.field)) for condition in repair.when)


def repaired(document: Document, repair: Repair) -> dict[str, Any] | Unrepaired:
    """A copy of the fields after every step, or why one cannot be done."""
    result = copy.deepcopy(dict(document))
    for number, step in enumerate(repair.steps, start=1):
        try:
            _do(step, result)
        except RecursionError:
            return Unrepaired(f"step {number}, field {step.field}: it is nested too deep")
        except (ValueError, OverflowError) as error:
            return Unrepaired(f"step {number}, field {step.field}: {error}")
    return result


def _holds(condition: Condition, value: Any) -> bool:
    match condition:
        case Absent():
            return value is _ABSENT
        case Present():
            return value is not _ABSENT
        case Null():
            return value is None
        case Equals():
            return _same(value, condition.value)
        case In():
            return any(_same(value, one) for one in condition.values)
        case Below():
            return _is_number(value) and value < condition.value
        case Above():
            return _is_number(value) and value > condition.value
        case Matches():
            return isinstance(value, str) and re.fullmatch(condition.pattern, value) is not None
        case Type():
            return _type(value) == condition.type


def _same(one: Any, other: Any) -> bool:
    """In JSON true is not 1, which Python would have it be."""
    return _type(one) == _type(other) and one == other


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds: tuple[tuple[Any, str], ...] = (
        (str, "text"),
        (int | float, "number"),
        (list, "list"),
        (dict, "object"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "null" if value is None else "")


def _is_number(value: Any) -> bool:
    return _type(value) == "number"


def _do(step: Step, document: dict[str, Any]) -> None:
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


def _converted(value: Any, step: Convert) -> float:
    given, wanted = units.find_unit(step.given), units.find_unit(step.to)
    if given is None or wanted is None or not _is_number(value) or not math.isfinite(value):
        raise ValueError(f"not a number in {step.given}")
    return units.convert(value, given, wanted)


def _cast(value: Any, step: Cast) -> Any:
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


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) or _is_number(value):
        return str(value)
    raise ValueError("neither text, number nor boolean")


def _number(value: Any) -> int | float:
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
        raise ValueError("not a number") from None  # the reason is kept, and shall not hold the value


def _boolean(value: Any) -> bool:
    text = str(value).strip().lower()
    if not isinstance(value, bool | int | str) or text not in _TRUE | _FALSE:
        raise ValueError("neither true nor false")
    return text in _TRUE


def _time(value: Any, step: Cast) -> str:
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


def _iso(value: Any, zone: str | None) -> datetime:
    try:
        moment = datetime.fromisoformat(value.strip() if isinstance(value, str) else "")
    except ValueError:
        raise ValueError("not an ISO-8601 time") from None
    if moment.tzinfo is None:
        if zone is None:
            raise ValueError("a time without a zone: give the step its `zone`")
        moment = datetime.fromisoformat(f"{moment.isoformat()}{zone}")
    return moment


def _get(document: Document, field: str) -> Any:
    value: Any = document
    for name in field.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return _ABSENT
        value = value[name]
    return value


def _put(document: dict[str, Any], field: str, value: Any) -> None:
    *path, last = field.split(".")
    inner: Any = document
    for name in path:
        inner = inner.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ValueError(f"{name} is no object")
    inner[last] = value


def _remove(document: dict[str, Any], field: str) -> None:
    path, _, last = field.rpartition(".")
    inner = _get(document, path) if path else document
    del inner[last]
