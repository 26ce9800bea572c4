"""A repair is data: conditions that a failed record must meet, then steps that change its fields.

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
from typing import Any, Literal

import msgspec

from stream_app.errors import ConfigError, Problem
from stream_app.recovery.bounded import size_problem
from stream_app.recovery.repair import units

EVENT = "$event"
_HINT = "docs/redrive.md has the form of a repair"
_MOST_VALUES, _DEEPEST, _MOST_NAMES = 100_000, 64, 32


class _Step(msgspec.Struct, frozen=True, tag_field="do", forbid_unknown_fields=True, kw_only=True):
    field: str


class Set(_Step, frozen=True, tag="set", kw_only=True):
    """Give the field a value, whatever it was; it need not have been there."""

    value: Any


class Rename(_Step, frozen=True, tag="rename", kw_only=True):
    """Move the field's value to another name; nothing happens where it is absent."""

    to: str


class Convert(_Step, frozen=True, tag="convert", rename={"given": "from"}, kw_only=True):
    """Convert the field's number from one unit to another; absent and null stay as they are."""

    given: str
    to: str


class Drop(_Step, frozen=True, tag="drop", kw_only=True):
    """Remove the field."""


class Cast(_Step, frozen=True, tag="cast", rename={"given": "from"}, kw_only=True):
    """Make the field's value another type; absent and null stay as they are.

    A time is written as ISO-8601 in UTC. `given` says what it was: ISO text, or seconds or milliseconds since the
    epoch; `zone` is the offset of ISO text that names none, such as `+08:00`.
    """

    to: Literal["text", "number", "integer", "boolean", "time"]
    given: Literal["iso", "s", "ms"] = "iso"
    zone: str | None = None


class _Condition(msgspec.Struct, frozen=True, tag_field="is", forbid_unknown_fields=True, kw_only=True):
    field: str


class Absent(_Condition, frozen=True, tag="absent"):
    """The field is not there."""


class Present(_Condition, frozen=True, tag="present"):
    """The field is there, null or not."""


class Null(_Condition, frozen=True, tag="null"):
    """The field is there and null."""


class Equals(_Condition, frozen=True, tag="equals", kw_only=True):
    """The field has this very value."""

    value: Any


class In(_Condition, frozen=True, tag="in", kw_only=True):
    """The field has one of these values."""

    values: tuple[Any, ...]


class Below(_Condition, frozen=True, tag="below", kw_only=True):
    """The field is a number below this one."""

    value: float


class Above(_Condition, frozen=True, tag="above", kw_only=True):
    """The field is a number above this one."""

    value: float


class Matches(_Condition, frozen=True, tag="matches", kw_only=True):
    """The field is text that this regular expression describes as a whole."""

    pattern: str


class Type(_Condition, frozen=True, tag="type", kw_only=True):
    """The field is of this type of JSON."""

    type: Literal["text", "number", "boolean", "null", "list", "object"]


Condition = Absent | Present | Null | Equals | In | Below | Above | Matches | Type
Step = Set | Rename | Convert | Drop | Cast


class Repair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Conditions, all of which must hold, and steps, in order."""

    steps: tuple[Step, ...]
    when: tuple[Condition, ...] = ()
    name: str = ""


def read_repair(path: Path) -> Repair:
    """The repair in a JSON or YAML file. Raises ConfigError, with every problem that can be told."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            [Problem(f"cannot read {path}: {error}", "name a JSON or YAML file of UTF-8 text")]
        ) from error
    parse = json.loads if path.suffix == ".json" else _yaml()
    try:
        document = parse(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError([Problem(f"{path} cannot be parsed: {error}", _HINT)]) from error
    return parse_repair(document, str(path))


def parse_repair(document: Any, source: str = "the repair") -> Repair:
    """The repair that a document of built-in types (and the times that YAML knows) describes. Raises ConfigError."""
    wrong = size_problem(document, _MOST_VALUES, _DEEPEST)
    if wrong is not None:
        raise ConfigError([Problem(f"{source}: {wrong}", _HINT)])
    try:
        found = msgspec.convert(msgspec.to_builtins(document), Repair)
        msgspec.json.encode(found)  # it travels in the plan
    except UnicodeError as error:
        raise ConfigError([Problem(f"{source} holds what is no Unicode text", _HINT)]) from error
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError([Problem(f"{source}: {error}", _HINT)]) from error
    check_repair(found, source)
    return found


def check_repair(found: Repair, source: str) -> None:
    """Raise ConfigError, with every problem, where a repair of the right form cannot be done."""
    problems = [Problem(f"{source}: {what}", hint) for what, hint in _problems(found)]
    if problems:
        raise ConfigError(problems)


def _yaml() -> Callable[[str], Any]:
    try:
        import yaml
    except ImportError as error:
        hint = "write it as JSON in a file that ends with .json, or install stream-app[local]"
        raise ConfigError([Problem("PyYAML, which reads repairs in YAML, is not installed", hint)]) from error

    def parse(text: str) -> Any:
        try:
            return yaml.safe_load(text)
        except Exception as error:  # of a wrong scalar PyYAML raises many kinds
            raise ValueError(str(error)) from error

    return parse


def _problems(repair: Repair) -> Iterator[tuple[str, str]]:
    if not repair.steps:
        yield "it has no steps", "to send records as they are, leave --repair out"
    for number, part in enumerate((*repair.when, *repair.steps), start=1 - len(repair.when)):
        where = f"step {number}" if number > 0 else f"condition {number + len(repair.when)}"
        fields = (part.field, part.to) if isinstance(part, Rename) else (part.field,)
        if not all(all(field.split(".")) for field in fields):
            yield f"{where}: a field has no name", "write a name, or names joined by dots"
        if any(field.count(".") >= _MOST_NAMES for field in fields):
            yield f"{where}: a field lies too deep", f"write at most {_MOST_NAMES} names joined by dots"
        for what, hint in _problems_of(part):
            yield f"{where}: {what}", hint


def _problems_of(part: Condition | Step) -> Iterator[tuple[str, str]]:
    match part:
        case Convert():
            yield from _unit_problems(part)
        case Matches():
            try:
                re.compile(part.pattern)
            except (re.error, OverflowError, RecursionError) as error:
                yield (
                    f"{part.pattern!r} is no regular expression: {error}",
                    "write it as Python's re takes it",
                )
        case Cast() if part.zone is not None and not re.fullmatch(r"Z|[+-]\d\d:[0-5]\d", part.zone):
            yield f"{part.zone!r} is no offset from UTC", "write +08:00, or Z"
        case Rename() if f"{part.to}.".startswith(f"{part.field}."):
            yield f"{part.field} cannot be moved into itself", "give another name"
        case _:
            return


def _unit_problems(step: Convert) -> Iterator[tuple[str, str]]:
    given, wanted = units.find_unit(step.given), units.find_unit(step.to)
    for name, found in ((step.given, given), (step.to, wanted)):
        if found is None:
            yield f"{name!r} is no known unit", f"known are {', '.join(units.unit_names())}"
    if given is not None and wanted is not None and given.quantity != wanted.quantity:
        yield f"{step.given} cannot be converted to {step.to}", f"one is a {given.quantity}, the other is not"
