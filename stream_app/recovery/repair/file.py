"""Reads repair files: conditions on a failed record, and steps that change its fields.

    name: no such wind
    when:
      - {field: $event, is: equals, value: air_quality}
      - {field: wind_direction, is: in, values: [XYZ, "-"]}
    steps:
      - {do: set, field: wind_direction, value: null}
      - {do: convert, field: temperature, from: °F, to: °C}

A field of a nested object is written with dots (`position.height`); `$event` is the name of the event type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from stream_app.errors import ConfigError, Problem
from stream_app.recovery.bounded import size_problem
from stream_app.recovery.repair import units

EVENT = "$event"
_HINT = "see the format of a repair in docs/redrive.md"
_MAX_VALUES, _MAX_DEPTH, _MAX_NAMES = 100_000, 64, 32


class _Step(msgspec.Struct, frozen=True, tag_field="do", forbid_unknown_fields=True, kw_only=True):
    field: str


class Set(_Step, frozen=True, tag="set", kw_only=True):
    """Set the field to a value; the field need not exist."""

    value: object


class Rename(_Step, frozen=True, tag="rename", kw_only=True):
    """Move the field's value to another name; no effect where the field is absent."""

    to: str


class Convert(_Step, frozen=True, tag="convert", rename={"given": "from"}, kw_only=True):
    """Convert the field's number to another unit; absent and null values are unchanged."""

    given: str
    to: str


class Drop(_Step, frozen=True, tag="drop", kw_only=True):
    """Remove the field."""


class Cast(_Step, frozen=True, tag="cast", rename={"given": "from"}, kw_only=True):
    """Convert the field's value to another type; absent and null values are unchanged.

    A time is written as ISO 8601 in UTC. `given` is its original form: ISO text, or seconds or milliseconds since
    the epoch; `zone` is the offset of ISO text without one, such as `+08:00`.
    """

    to: Literal["text", "number", "integer", "boolean", "time"]
    given: Literal["iso", "s", "ms"] = "iso"
    zone: str | None = None


class _Condition(msgspec.Struct, frozen=True, tag_field="is", forbid_unknown_fields=True, kw_only=True):
    field: str


class Absent(_Condition, frozen=True, tag="absent"):
    """The field does not exist."""


class Present(_Condition, frozen=True, tag="present"):
    """The field exists, null or not."""


class Null(_Condition, frozen=True, tag="null"):
    """The field exists and is null."""


class Equals(_Condition, frozen=True, tag="equals", kw_only=True):
    """The field has exactly this value."""

    value: object


class In(_Condition, frozen=True, tag="in", kw_only=True):
    """The field has one of these values."""

    values: tuple[object, ...]


class Below(_Condition, frozen=True, tag="below", kw_only=True):
    """The field is a number below this one."""

    value: float


class Above(_Condition, frozen=True, tag="above", kw_only=True):
    """The field is a number above this one."""

    value: float


class Matches(_Condition, frozen=True, tag="matches", kw_only=True):
    """The field is text, and the regular expression matches all of it."""

    pattern: str


class Type(_Condition, frozen=True, tag="type", kw_only=True):
    """The field has this JSON type."""

    type: Literal["text", "number", "boolean", "null", "list", "object"]


Condition = Absent | Present | Null | Equals | In | Below | Above | Matches | Type
Step = Set | Rename | Convert | Drop | Cast


class Repair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Conditions, all of which must be fulfilled, and steps, in order."""

    steps: tuple[Step, ...]
    when: tuple[Condition, ...] = ()
    name: str = ""


def read_repair(path: Path) -> Repair:
    """Read a repair from a JSON or YAML file. Raises ConfigError with all problems found."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            [Problem(f"cannot read {path}: {error}", "specify a JSON or YAML file in UTF-8")]
        ) from error
    parse = json.loads if path.suffix == ".json" else _yaml()
    try:
        document = parse(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError([Problem(f"{path} cannot be parsed: {error}", _HINT)]) from error
    return parse_repair(document, str(path))


def parse_repair(document: object, source: str = "the repair") -> Repair:
    """Return the repair that a document of built-in types describes. Raises ConfigError.

    The document may contain YAML's dates and times as well.
    """
    reason = size_problem(document, _MAX_VALUES, _MAX_DEPTH)
    if reason is not None:
        raise ConfigError([Problem(f"{source}: {reason}", _HINT)])
    try:
        found = msgspec.convert(msgspec.to_builtins(document), Repair)
        msgspec.json.encode(found)  # a plan contains it as JSON
    except UnicodeError as error:
        raise ConfigError([Problem(f"{source} contains text that is not valid Unicode", _HINT)]) from error
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError([Problem(f"{source}: {error}", _HINT)]) from error
    check_repair(found, source)
    return found


def check_repair(found: Repair, source: str) -> None:
    """Raise ConfigError, with all problems, where a valid repair document cannot be applied."""
    problems = [Problem(f"{source}: {problem}", hint) for problem, hint in _problems(found)]
    if problems:
        raise ConfigError(problems)


def _yaml() -> Callable[[str], object]:
    try:
        import yaml
    except ImportError as error:
        hint = "write it as JSON in a file that ends with .json, or install stream-app[local]"
        raise ConfigError([Problem("PyYAML, which reads YAML repairs, is not installed", hint)]) from error

    def parse(text: str) -> object:
        try:
            return yaml.safe_load(text)
        except Exception as error:  # PyYAML raises many types for invalid scalars
            raise ValueError(str(error)) from error

    return parse


def _problems(repair: Repair) -> Iterator[tuple[str, str]]:
    if not repair.steps:
        yield "it has no steps", "omit --repair to send records unchanged"
    for number, item in enumerate((*repair.when, *repair.steps), start=1 - len(repair.when)):
        where = f"step {number}" if number > 0 else f"condition {number + len(repair.when)}"
        fields = (item.field, item.to) if isinstance(item, Rename) else (item.field,)
        if not all(all(field.split(".")) for field in fields):
            yield f"{where}: a field name is empty", "use a name, or names joined by dots"
        if any(field.count(".") >= _MAX_NAMES for field in fields):
            yield f"{where}: a field is nested too deeply", f"use at most {_MAX_NAMES} names joined by dots"
        for problem, hint in _problems_of(item):
            yield f"{where}: {problem}", hint


def _problems_of(item: Condition | Step) -> Iterator[tuple[str, str]]:
    match item:
        case Convert():
            yield from _unit_problems(item)
        case Matches():
            try:
                re.compile(item.pattern)
            except (re.error, OverflowError, RecursionError) as error:
                yield (
                    f"{item.pattern!r} is not a regular expression: {error}",
                    "use the syntax of Python's re module",
                )
        case Cast() if item.zone is not None and not re.fullmatch(r"Z|[+-]\d\d:[0-5]\d", item.zone):
            yield f"{item.zone!r} is not an offset from UTC", "use +08:00, or Z"
        case Rename() if f"{item.to}.".startswith(f"{item.field}."):
            yield f"{item.field} cannot be moved into itself", "use another name"
        case _:
            return


def _unit_problems(step: Convert) -> Iterator[tuple[str, str]]:
    given, wanted = units.find_unit(step.given), units.find_unit(step.to)
    for name, found in ((step.given, given), (step.to, wanted)):
        if found is None:
            yield f"unknown unit {name!r}", f"use one of {', '.join(units.unit_names())}"
    if given is not None and wanted is not None and given.quantity != wanted.quantity:
        yield f"{step.given} cannot be converted to {step.to}", f"one is a {given.quantity}, the other is not"
