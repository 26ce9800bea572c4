"""JSON paths, filters and input templates as documented for EventBridge Pipes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from stream_app.local.deployers.intrinsics import template_error

if TYPE_CHECKING:
    from moto.events.utils import EventMessageType

Steps = tuple[str | int, ...]
Record = Mapping[str, object]
Filter = Callable[[Record], bool]
# Arguments: the record as received from the source, and the record with its body parsed.
Transform = Callable[[Record, Record], bytes]
RawBody = Callable[[Record], bytes]
Reserved = Mapping[str, Callable[[], str]]

MISSING = object()
_ALL = "*"
_PATH = re.compile(r"\$((?:\.[\w\-/]+|\.\*|\[\d+\]|\[\*\])*)")
_STEP = re.compile(r"\.([\w\-/]+|\*)|\[(\d+|\*)\]")
_PLACEHOLDER = re.compile(r"<(\$[^<>]*|aws\.pipes\.[\w.\-]+)>")


def compile_path(path: str) -> Steps:
    """Compile a JSON path of names, array indexes and wildcards. Raises ConfigError for any other syntax."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise template_error(f"unsupported JSON path {path!r}", "use dots, [n] and * only")
    return tuple(name or (index if index == _ALL else int(index)) for name, index in _STEP.findall(match[1]))


def value_at(value: object, steps: Steps) -> object:
    """Return the value at a path, or MISSING. A wildcard returns the list of all matches."""
    for number, step in enumerate(steps):
        if step == _ALL:
            items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
            found = [value_at(item, steps[number + 1 :]) for item in items]
            return [item for item in found if item is not MISSING]
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else MISSING
        else:
            value = value[step] if isinstance(value, Mapping) and step in value else MISSING
        if value is MISSING:
            return MISSING
    return value


def parse_body(text: str | bytes) -> object:
    """Parse a record's body for filters and paths. A body that is not a JSON object or array is returned as text."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        value = None
    if isinstance(value, dict | list):
        return value
    return text if isinstance(text, str) else text.decode("utf-8", "replace")


def compile_filters(patterns: Sequence[str]) -> Filter:
    """Compile event patterns (JSON text) to a predicate that is true if any pattern matches or the list is empty.

    Raises ConfigError for an invalid pattern.
    """
    # Imported here because moto is slow to import and needed only if a pipe runs.
    from moto.events.exceptions import InvalidEventPatternException
    from moto.events.models import EventPattern

    try:
        loaded = [EventPattern.load(pattern) for pattern in patterns]
    except (InvalidEventPatternException, ValueError) as error:
        raise template_error(f"invalid event pattern in a pipe: {error}", "correct FilterCriteria") from error

    def matches(pattern: EventPattern, record: Record) -> bool:
        # moto copies its argument, and a record is much larger than the part that a pattern refers to.
        return pattern.matches_event(cast("EventMessageType", referenced_part(record, pattern.get_pattern())))

    return lambda record: not loaded or any(matches(pattern, record) for pattern in loaded)


def referenced_part(value: object, pattern: object) -> object:
    """Return the part of a record that a pattern refers to. It matches if and only if the whole record matches."""
    if not isinstance(value, Mapping) or not isinstance(pattern, Mapping) or "$or" in pattern:
        return value
    return {name: referenced_part(value[name], part) for name, part in pattern.items() if name in value}


def compile_value(value: str) -> Callable[[Record], object]:
    """Compile a target parameter: a JSON path into the record, or a literal."""
    if not value.startswith("$"):
        return lambda record: value
    steps = compile_path(value)
    return lambda record: value_at(record, steps)


def compile_template(template: str | None, payload: str, raw_body: RawBody, reserved: Reserved) -> Transform:
    """Compile an input template to a function that returns the target's input as bytes.

    `payload` names the field with the record's body ("body" for SQS, "data" for Kinesis); `raw_body` returns its
    unparsed bytes, to which the template `<$.body>` resolves. Without a template the input is the whole record.
    In a JSON template a placeholder is replaced with JSON, or with text if it is inside quotes. In a text template
    a string value is inserted without quotes. A path without a match is replaced with nothing.
    Raises ConfigError for an invalid path and an unknown variable.
    """
    if template is None:
        return lambda raw, parsed: msgspec.json.encode(raw)
    if template.strip() == f"<$.{payload}>":
        return lambda raw, parsed: raw_body(raw)
    pieces = _PLACEHOLDER.split(template)
    is_json = template.lstrip()[:1] in ("{", "[", '"')
    parts: list[Callable[[Record, Record], str]] = []
    for number, piece in enumerate(pieces):
        # re.split returns text and placeholders alternately.
        if number % 2 == 0:
            parts.append(_constant(piece))
            continue
        quoted = len(re.findall(r'(?<!\\)"', "".join(pieces[:number:2]))) % 2 == 1
        parts.append(_variable(piece, reserved, quoted=quoted, is_json=is_json))
    return lambda raw, parsed: "".join(part(raw, parsed) for part in parts).encode()


def _constant(piece: str) -> Callable[[Record, Record], str]:
    return lambda raw, parsed: piece


def _variable(
    name: str, reserved: Reserved, *, quoted: bool, is_json: bool
) -> Callable[[Record, Record], str]:
    if name.startswith("$"):
        steps = compile_path(name)
        return lambda raw, parsed: _render(value_at(parsed, steps), quoted, is_json)
    if name == "aws.pipes.event":
        return lambda raw, parsed: _render(msgspec.json.encode(raw).decode(), quoted, is_json)
    if name == "aws.pipes.event.json":
        return lambda raw, parsed: _render(parsed, quoted, is_json)
    if name not in reserved:
        raise template_error(f"unknown pipe variable <{name}>", f"use one of {', '.join(sorted(reserved))}")
    value = reserved[name]
    return lambda raw, parsed: _render(value(), quoted, is_json)


def _render(value: object, quoted: bool, is_json: bool) -> str:
    if value is MISSING:
        return ""
    if isinstance(value, str) and not quoted and not is_json:
        return value
    if quoted:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        return msgspec.json.encode(text).decode()[1:-1]
    return msgspec.json.encode(value).decode()
